//! The nearest neighbours of each image by its features, all of them exact: distances are products of matrices.

use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;
use tinyres_load::pool;

/// Rows whose distances from all others are computed together.
const ROWS: usize = 128;
/// Columns of a product: with [`ROWS`], 2 MiB of distances at once on each thread.
const COLUMNS: usize = 4096;

/// Another row, and its Euclidean distance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Neighbour {
    pub row: u32,
    pub distance: f32,
}

/// The `count` nearest other rows of each row of `values`, `[N, width]`, the nearest first, one list after the other: fewer
/// if there are not as many rows. Of rows at the same distance the first counts as nearer. `progress` is told of the
/// fraction that is done.
pub(crate) fn nearest(
    values: &[f32],
    width: usize,
    count: usize,
    progress: &(dyn Fn(f64) + Sync),
) -> Vec<Neighbour> {
    let rows = values.len() / width.max(1);
    let count = count.min(rows.saturating_sub(1));
    let shape = (rows, width.max(1));
    let (Ok(matrix), 1..) = (ArrayView2::from_shape(shape, values), count) else {
        return Vec::new();
    };
    let squares: Vec<f32> = (matrix.outer_iter()).map(|row| row.dot(&row)).collect();
    let done = AtomicUsize::new(0);
    let block = |first: usize| {
        let last = rows.min(first + ROWS);
        let mut best: Vec<Vec<(f32, u32)>> = vec![Vec::with_capacity(count + 1); last - first];
        for start in (0..rows).step_by(COLUMNS) {
            let end = rows.min(start + COLUMNS);
            let mut products = Array2::zeros((last - first, end - start));
            let (own, others) = (
                matrix.slice(s![first..last, ..]),
                matrix.slice(s![start..end, ..]),
            );
            general_mat_mul(-2.0, &own, &others.t(), 0.0, &mut products);
            for ((row, products), best) in (first..).zip(products.outer_iter()).zip(&mut best) {
                for ((other, product), square) in (start..).zip(products).zip(&squares[start..end])
                {
                    let distance = product + square;
                    let full = best.len() == count;
                    if other == row || (full && distance >= best[count - 1].0) {
                        continue;
                    }
                    let at = best.partition_point(|(nearer, _)| *nearer <= distance);
                    best.insert(at, (distance, u32::try_from(other).unwrap_or(u32::MAX)));
                    best.truncate(count);
                }
            }
        }
        let done = done.fetch_add(last - first, Ordering::Relaxed) + last - first;
        progress(done as f64 / rows as f64);
        let mut found = Vec::with_capacity(best.len() * count);
        for (list, own) in best.into_iter().zip(&squares[first..last]) {
            let distance = |square: f32| (square + own).max(0.0).sqrt();
            found.extend(list.into_iter().map(|(square, row)| Neighbour {
                row,
                distance: distance(square),
            }));
        }
        found
    };
    let firsts: Vec<usize> = (0..rows).step_by(ROWS).collect();
    let lists: Vec<_> = pool::install(|| firsts.into_par_iter().map(block).collect());
    lists.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_rows_are_those_of_a_search_by_hand() {
        let (rows, width) = (300, 7);
        let value = |at: usize| ((at as f32) * 0.618_034).fract() * 4.0;
        let mut values: Vec<f32> = (0..rows * width).map(value).collect();
        // Two rows are the same.
        values.copy_within(5 * width..6 * width, 290 * width);
        let found = nearest(&values, width, 9, &|_| ());
        assert_eq!(found.len(), rows * 9);
        for row in 0..rows {
            let distance = |other: usize| {
                let sides = (values[row * width..][..width].iter()).zip(&values[other * width..]);
                sides.map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
            };
            let mut expected: Vec<f32> = (0..rows)
                .filter(|&other| other != row)
                .map(distance)
                .collect();
            expected.sort_by(f32::total_cmp);
            for (neighbour, expected) in found[row * 9..][..9].iter().zip(expected) {
                assert!(
                    (neighbour.distance - expected).abs() < 2e-3,
                    "{row}: {neighbour:?} {expected}"
                );
                assert!((distance(neighbour.row as usize) - expected).abs() < 2e-3);
            }
        }
        assert_eq!((found[5 * 9].row, found[290 * 9].row), (290, 5));
    }

    #[test]
    fn few_rows_have_as_many_neighbours_as_there_are() {
        assert_eq!(nearest(&[1.0, 2.0], 2, 5, &|_| ()), []);
        let rows = nearest(&[0.0, 3.0], 1, 5, &|_| ());
        assert_eq!(
            rows,
            [
                Neighbour {
                    row: 1,
                    distance: 3.0
                },
                Neighbour {
                    row: 0,
                    distance: 3.0
                }
            ]
        );
    }
}
