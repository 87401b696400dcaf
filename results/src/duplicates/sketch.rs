//! An image as 64 numbers whose distances are those of 8x8 grey values.

use std::sync::LazyLock;

use tinyres_format::Shape;

use crate::num::narrow;

/// Side of the shrunk image.
const SIDE: usize = 8;

/// The frequencies of the cosine transform (DCT-II, orthonormal), the low ones first.
///
/// Those that are even along a row do not change if the image is mirrored, and those that are odd change their sign.
#[derive(Clone, Debug)]
pub(super) struct Sketch {
    even: [f32; SIDE * SIDE / 2],
    odd: [f32; SIDE * SIDE / 2],
}

/// Value `x` of cosine `u`.
static COSINES: LazyLock<[[f32; SIDE]; SIDE]> = LazyLock::new(|| {
    let mut cosines = [[0.0; SIDE]; SIDE];
    for (u, row) in cosines.iter_mut().enumerate() {
        let norm = if u == 0 { 1.0 } else { 2.0 } / SIDE as f64;
        for (x, value) in row.iter_mut().enumerate() {
            let angle = std::f64::consts::PI * (x as f64 + 0.5) * u as f64 / SIDE as f64;
            *value = narrow(norm.sqrt() * angle.cos());
        }
    }
    cosines
});

/// Down and across, the frequencies in order of their sum, those even across first.
static ORDER: LazyLock<Vec<[usize; 2]>> = LazyLock::new(|| {
    let mut order: Vec<_> = (0..SIDE * SIDE).map(|at| [at / SIDE, at % SIDE]).collect();
    order.sort_by_key(|&[v, u]| (u % 2, u + v, v));
    order
});

impl Sketch {
    /// The sketch of an image, `u8 [3, H, W]`.
    pub fn of(shape: Shape, pixels: &[u8]) -> Self {
        let shrunk = shrink(shape, pixels);
        let mut rows = [[0.0_f32; SIDE]; SIDE]; // [y][u]
        for (row, grey) in rows.iter_mut().zip(&shrunk) {
            for (value, cosine) in row.iter_mut().zip(COSINES.iter()) {
                *value = grey
                    .iter()
                    .zip(cosine)
                    .map(|(grey, cosine)| grey * cosine)
                    .sum();
            }
        }
        let frequency = |[v, u]: [usize; 2]| -> f32 {
            rows.iter()
                .zip(&COSINES[v])
                .map(|(row, cosine)| row[u] * cosine)
                .sum()
        };
        let (mut even, mut odd) = ([0.0; SIDE * SIDE / 2], [0.0; SIDE * SIDE / 2]);
        for (value, &at) in even.iter_mut().chain(&mut odd).zip(ORDER.iter()) {
            *value = frequency(at);
        }
        Self { even, odd }
    }

    /// The distance of two sketches whose shrunk images differ by `rms` at the root mean square.
    pub fn distance_of(rms: f32) -> f32 {
        rms * SIDE as f32
    }

    /// The lowest frequencies that mirroring does not change: the distance of these is at most that of all.
    pub fn head(&self) -> [f32; 8] {
        let head = self.even.first_chunk();
        *head.unwrap_or(&[0.0; 8])
    }

    /// The mean grey value, 8-fold: no two sketches are nearer than these numbers.
    pub fn mean(&self) -> f32 {
        self.even[0]
    }

    /// `None` if the other one is farther away than `within`; else whether it is nearer if it is mirrored.
    pub fn is_near(&self, other: &Self, within: f32) -> Option<bool> {
        let limit = within * within;
        let pairs = self.even.iter().zip(&other.even);
        let even: f32 = pairs.map(|(a, b)| (a - b) * (a - b)).sum();
        let odd = |sign: f32| -> f32 {
            let pairs = self.odd.iter().zip(&other.odd);
            pairs.map(|(a, b)| (a - sign * b) * (a - sign * b)).sum()
        };
        let (same, mirrored) = (odd(1.0), odd(-1.0));
        (even + same.min(mirrored) <= limit).then_some(mirrored < same)
    }
}

/// The mean grey values of 8x8 parts of an image.
fn shrink(shape: Shape, pixels: &[u8]) -> [[f32; SIDE]; SIDE] {
    let (height, width) = (shape.height as usize, shape.width as usize);
    // Sides that are not multiples of 8 have parts that differ by a pixel; parts of small images overlap.
    let part = |at: usize, side: usize| {
        let from = at * side / SIDE;
        from..((at + 1) * side / SIDE).max(from + 1)
    };
    let mut sums = [[0_u32; SIDE]; SIDE];
    let weights = [77, 150, 29]; // of ITU-R BT.601, in 256ths
    for (plane, weight) in pixels.chunks_exact((height * width).max(1)).zip(weights) {
        for (y, sums) in sums.iter_mut().enumerate() {
            for row in part(y, height) {
                let row = &plane[row * width..][..width];
                for (x, sum) in sums.iter_mut().enumerate() {
                    let grey: u32 = row[part(x, width)]
                        .iter()
                        .map(|&value| u32::from(value))
                        .sum();
                    *sum += weight * grey;
                }
            }
        }
    }
    let mut shrunk = [[0.0; SIDE]; SIDE];
    for (y, row) in shrunk.iter_mut().enumerate() {
        for (x, grey) in row.iter_mut().enumerate() {
            let count = 256 * part(y, height).len() * part(x, width).len();
            *grey = sums[y][x] as f32 / count as f32;
        }
    }
    shrunk
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Grey values of a picture, the same in all colours.
    fn pixels(shape: Shape, grey: impl Fn(usize, usize) -> u8) -> Vec<u8> {
        let (height, width) = (shape.height as usize, shape.width as usize);
        let at = |at: usize| grey(at / width % height, at % width);
        (0..3 * height * width).map(at).collect()
    }

    #[test]
    fn distances_are_those_of_the_shrunk_images() {
        let shape = Shape {
            channels: 3,
            height: 24,
            width: 40,
        };
        let noise = |seed: usize| {
            move |y: usize, x: usize| {
                u8::try_from((y * 31 + x * 17 + seed) * 2_654_435_761 / 128 % 251).unwrap()
            }
        };
        let [a, b] = [1, 9].map(|seed| pixels(shape, noise(seed)));
        let (one, other) = (shrink(shape, &a), shrink(shape, &b));
        let pairs = one.as_flattened().iter().zip(other.as_flattened());
        let rms = (pairs.map(|(a, b)| (a - b).powi(2)).sum::<f32>() / 64.0).sqrt();
        let (one, other) = (Sketch::of(shape, &a), Sketch::of(shape, &b));
        assert!(
            one.is_near(&other, 0.999 * Sketch::distance_of(rms))
                .is_none_or(|mirrored| mirrored)
        );
        assert!(
            one.is_near(&other, 1.001 * Sketch::distance_of(rms))
                .is_some()
        );
        assert!((one.mean() - other.mean()).abs() <= Sketch::distance_of(rms));
    }

    #[test]
    fn a_mirrored_image_is_near_as_such() {
        let shape = Shape {
            channels: 3,
            height: 32,
            width: 32,
        };
        let slope = |x: usize, y: usize| u8::try_from(4 * x + 3 * y).unwrap();
        let plain = Sketch::of(shape, &pixels(shape, |y, x| slope(x, y)));
        let mirrored = Sketch::of(shape, &pixels(shape, |y, x| slope(31 - x, y)));
        assert_eq!(plain.is_near(&plain, 1.0), Some(false));
        assert_eq!(plain.is_near(&mirrored, 1.0), Some(true));
    }
}
