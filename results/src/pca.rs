//! The two directions in which features vary the most, for a map of the images.

use rayon::prelude::*;
use tinyres_load::pool;

use crate::Features;

/// Directions that are followed together: those after the first two make these converge faster.
const DIRECTIONS: usize = 6;
/// Rounds at most. Each brings the directions nearer by the ratio of the variances.
const ROUNDS: usize = 40;
/// Directions that turn less than this, by the sine, have converged: nobody sees it on a map.
const STILL: f32 = 1e-3;
/// Rows whose sums are added up on their own, so that the result does not depend on the number of threads.
const ROWS: usize = 512;

/// Features in two dimensions.
#[derive(Clone, Debug)]
pub struct Pca {
    /// Coordinates of each image on the two directions, the mean of all at 0. The largest weight of a direction is
    /// positive.
    pub places: Vec<[f32; 2]>,
    /// Fraction of the variance of the features that lies in the two directions.
    pub explained: f64,
}

impl Pca {
    /// The principal components of `features`, by subspace iteration (Golub and Van Loan, section 8.2.4).
    #[must_use]
    pub fn of(features: &Features) -> Self {
        let width = features.width().max(1);
        pool::install(|| {
            let centred = centred(features.values(), width);
            let mut basis = start(width);
            for _ in 0..ROUNDS {
                let mut next = covariance_times(&centred, &basis);
                orthonormalize(&mut next);
                let turned = turned(&basis, &next);
                basis = next;
                if turned < STILL {
                    break;
                }
            }
            basis.truncate(2);
            basis.iter_mut().for_each(|direction| upright(direction));
            let place = |row: &[f32]| {
                let side = |at: usize| basis.get(at).map_or(0.0, |direction| dot(row, direction));
                [side(0), side(1)]
            };
            let places: Vec<_> = centred.par_chunks_exact(width).map(place).collect();
            let square = |value: &f32| f64::from(*value).powi(2);
            let total: f64 = centred.iter().map(square).sum();
            let varied: f64 = places.iter().flatten().map(square).sum();
            Self {
                explained: if total > 0.0 { varied / total } else { 0.0 },
                places,
            }
        })
    }
}

/// Rows of so many features, less their mean.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a mean of f32 values, in their precision"
)]
pub(crate) fn centred(values: &[f32], width: usize) -> Vec<f32> {
    let mut mean = vec![0.0_f64; width];
    for row in values.chunks_exact(width) {
        mean.iter_mut()
            .zip(row)
            .for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let rows = (values.len() / width).max(1) as f64;
    let mut centred = values.to_vec();
    for row in centred.chunks_exact_mut(width) {
        row.iter_mut()
            .zip(&mean)
            .for_each(|(value, sum)| *value -= (sum / rows) as f32);
    }
    centred
}

/// Directions to start with, the same each time: `cos(pi (i + 1/2) (j + 1) / width)`, orthogonal to each other.
fn start(width: usize) -> Vec<Vec<f32>> {
    let wave = |j: usize| {
        let at =
            |i: usize| (i as f32 + 0.5) * (j as f32 + 1.0) * std::f32::consts::PI / width as f32;
        (0..width).map(|i| at(i).cos()).collect()
    };
    let mut basis: Vec<Vec<f32>> = (0..DIRECTIONS.min(width)).map(wave).collect();
    orthonormalize(&mut basis);
    basis
}

/// The covariance of the rows times each direction, but for a factor.
fn covariance_times(rows: &[f32], basis: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let width = basis.first().map_or(1, Vec::len);
    let zero = vec![vec![0.0; width]; basis.len()];
    let part = |rows: &[f32]| {
        let mut sums = zero.clone();
        for row in rows.chunks_exact(width) {
            for (sum, direction) in sums.iter_mut().zip(basis) {
                add(sum, row, dot(row, direction));
            }
        }
        sums
    };
    let parts: Vec<_> = rows.par_chunks(ROWS * width).map(part).collect();
    parts.iter().fold(zero.clone(), |mut all, part| {
        all.iter_mut()
            .zip(part)
            .for_each(|(sum, part)| add(sum, part, 1.0));
        all
    })
}

/// Makes each direction orthogonal to those before it and of length 1 (modified Gram-Schmidt). A direction that
/// vanishes becomes zero.
fn orthonormalize(basis: &mut [Vec<f32>]) {
    for at in 0..basis.len() {
        let (before, rest) = basis.split_at_mut(at);
        let own = &mut rest[0];
        let length = dot(own, own).sqrt();
        for other in before.iter() {
            let along = dot(own, other);
            add(own, other, -along);
        }
        let left = dot(own, own).sqrt();
        let scale = if left > 1e-5 * length {
            1.0 / left
        } else {
            0.0
        };
        own.iter_mut().for_each(|value| *value *= scale);
    }
}

/// The larger sine of the angles between the first two directions of two bases.
fn turned(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let sine = |(a, b): (&Vec<f32>, &Vec<f32>)| {
        let mut rest = b.clone();
        add(&mut rest, a, -dot(a, b));
        dot(&rest, &rest).sqrt()
    };
    a.iter().zip(b).take(2).map(sine).fold(0.0, f32::max)
}

/// Turns a direction so that its largest weight is positive.
fn upright(direction: &mut [f32]) {
    let larger = |a: f32, b: f32| if b.abs() > a.abs() { b } else { a };
    if direction.iter().copied().fold(0.0, larger) < 0.0 {
        direction.iter_mut().for_each(|value| *value = -*value);
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Several sums at once, or each addition waits for the one before it.
    let mut sums = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8
        .remainder()
        .iter()
        .zip(b8.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a8.zip(b8) {
        for at in 0..8 {
            sums[at] += a[at] * b[at];
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn add(to: &mut [f32], what: &[f32], times: f32) {
    to.iter_mut()
        .zip(what)
        .for_each(|(to, what)| *to += times * what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directions_of_a_stretched_cloud_are_found() {
        // Along (0.6, 0.8, 0, ...) ten times as wide as along the third feature, the rest is small.
        let width = 20;
        let wave =
            |image: usize, turns: usize| (image as f32 * turns as f32 * 0.618_034).fract() - 0.5;
        let mut values = vec![0.0; 400 * width];
        for (image, row) in values.chunks_exact_mut(width).enumerate() {
            row.iter_mut()
                .enumerate()
                .for_each(|(at, value)| *value = 0.01 * wave(image, at + 5));
            row[0] += 10.0 * 0.6 * wave(image, 1) + 3.0;
            row[1] += 10.0 * 0.8 * wave(image, 1) - 7.0;
            row[2] += wave(image, 2);
        }
        let pca = Pca::of(&Features::new(values, width));
        assert!(pca.explained > 0.999, "{}", pca.explained);
        let mean = (0..400).map(|image| wave(image, 1)).sum::<f32>() / 400.0;
        for (image, place) in pca.places.iter().enumerate() {
            let expected = 10.0 * (wave(image, 1) - mean);
            assert!(
                (place[0] - expected).abs() < 0.1,
                "{image}: {place:?} {expected}"
            );
        }
    }

    #[test]
    fn few_images_and_equal_ones_have_places_too() {
        assert_eq!(Pca::of(&Features::new(vec![1.0; 8], 8)).places, [[0.0; 2]]);
        let same = Pca::of(&Features::new(vec![1.0; 24], 8));
        assert_eq!((same.places.len(), same.explained), (3, 0.0));
        assert!(same.places.iter().flatten().all(|side| *side == 0.0));
    }
}
