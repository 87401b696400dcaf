//! Resizing of a whole batch on its device, for training on smaller images first and enlarged ones last. Which size a
//! step has is decided in `config::sizes`.

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::libtorch::device;
use crate::num::to_f32;

/// The sides `(height, width)` scaled so that the shorter one has `size` pixels.
pub(super) fn scaled((height, width): (u32, u32), size: u32) -> (u32, u32) {
    let shorter = u64::from(height.min(width).max(1));
    let scale = |side: u32| (u64::from(side) * u64::from(size) + shorter / 2) / shorter;
    let side = |side| u32::try_from(scale(side)).unwrap_or(u32::MAX);
    (side(height), side(width))
}

/// Makes images smaller or larger. A pixel of a smaller image is the mean of the area that it covers; one of a larger image
/// is interpolated linearly between the centres of those around it, as by OpenCV's `INTER_LINEAR` and PyTorch's
/// `interpolate` without aligned corners.
#[derive(Debug)]
pub(crate) struct Resize {
    /// `f32 [h, H]`: the weight of each row of the source in each row of the result.
    rows: Tensor,
    /// `f32 [W, w]`: the same for the columns, transposed.
    columns: Tensor,
}

impl Resize {
    /// Resizes from the sides `from` to `to`, each `(height, width)`. `None` if they are equal.
    pub(crate) fn new(from: (u32, u32), to: (u32, u32), device: Device) -> Result<Option<Self>> {
        if from == to {
            return Ok(None);
        }
        let weights = |from: u32, to: u32| -> Result<Tensor> {
            let weights = if to < from { area } else { linear };
            let weights = Tensor::f_from_slice(&weights(from, to))?;
            device::upload(&weights.f_view([i64::from(to), i64::from(from)])?, device)
        };
        Ok(Some(Self {
            rows: weights(from.0, to.0)?,
            columns: weights(from.1, to.1)?.f_transpose(0, 1)?,
        }))
    }

    /// The same by handles, for another thread.
    pub(super) fn share(&self) -> Self {
        Self {
            rows: self.rows.shallow_clone(),
            columns: self.columns.shallow_clone(),
        }
    }

    /// Resizes `pixels`, `[B, 3, H, W]`, to `f32 [B, 3, h, w]`.
    pub(crate) fn apply(&self, pixels: &Tensor) -> Result<Tensor> {
        let wide = pixels.f_to_kind(Kind::Float)?.f_matmul(&self.columns)?;
        Ok(self.rows.f_matmul(&wide)?)
    }
}

/// The weights `[to, from]` of the `from` pixels of a line in the `to` pixels that it is resized to: the fraction
/// of a new pixel's extent that the old pixel covers.
fn area(from: u32, to: u32) -> Vec<f32> {
    let (from, to) = (f64::from(from), f64::from(to));
    let mut weights = Vec::new();
    let mut at = 0.0;
    while at < to {
        let (first, last) = (at * from / to, (at + 1.0) * from / to);
        let mut pixel = 0.0;
        while pixel < from {
            let covered = (last.min(pixel + 1.0) - first.max(pixel)).max(0.0);
            weights.push(to_f32(covered * to / from));
            pixel += 1.0;
        }
        at += 1.0;
    }
    weights
}

/// The weights `[to, from]` of the `from` pixels of a line in the `to` pixels that it is enlarged to. Beyond the centres of
/// the first and the last pixel, these go on.
fn linear(from: u32, to: u32) -> Vec<f32> {
    let scale = f64::from(from) / f64::from(to);
    let last = f64::from(from - 1);
    let weights = (0..to).flat_map(|at| {
        let centre = ((f64::from(at) + 0.5) * scale - 0.5).clamp(0.0, last);
        (0..from).map(move |pixel| to_f32((1.0 - (centre - f64::from(pixel)).abs()).max(0.0)))
    });
    weights.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_side_is_the_mean_of_two_by_two() {
        let pixels: Vec<u8> = (0..2 * 3 * 8 * 6).map(|i| (i * 37 % 251) as u8).collect();
        let tensor = Tensor::from_slice(&pixels).view([2, 3, 8, 6]);
        let resize = Resize::new((8, 6), (4, 3), Device::Cpu).unwrap().unwrap();
        let got = resize.apply(&tensor).unwrap();
        assert_eq!(got.size(), [2, 3, 4, 3]);
        let got = Vec::<f32>::try_from(got.contiguous().view([-1])).unwrap();
        for (i, got) in got.into_iter().enumerate() {
            let (plane, y, x) = (i / 12, i / 3 % 4, i % 3);
            let at = |dy: usize, dx: usize| {
                f32::from(pixels[plane * 48 + (2 * y + dy) * 6 + 2 * x + dx])
            };
            let mean = (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0;
            assert!((got - mean).abs() < 1e-4, "{i}: {got}, expected {mean}");
        }
    }

    #[test]
    fn three_quarters_of_the_side_weigh_by_area() {
        let expected = [
            [0.75, 0.25, 0.0, 0.0],
            [0.0, 0.5, 0.5, 0.0],
            [0.0, 0.0, 0.25, 0.75],
        ];
        for (got, want) in area(4, 3).into_iter().zip(expected.as_flattened()) {
            assert!((got - want).abs() < 1e-6);
        }
    }

    #[test]
    fn larger_images_are_those_of_pytorch() {
        let pixels: Vec<u8> = (0..2 * 3 * 8 * 6).map(|i| (i * 37 % 251) as u8).collect();
        let tensor = Tensor::from_slice(&pixels).view([2, 3, 8, 6]);
        for (height, width) in [(12, 9), (16, 12), (11, 8), (32, 24), (8, 7)] {
            let resize = Resize::new((8, 6), (height, width), Device::Cpu).unwrap();
            let got = resize.unwrap().apply(&tensor).unwrap();
            let sides = [height, width].map(i64::from);
            let want = (tensor.to_kind(Kind::Float)).upsample_bilinear2d(sides, false, None, None);
            assert_eq!(got.size(), want.size());
            let apart = (got - want).abs().max().double_value(&[]);
            assert!(apart < 1e-3, "{height} x {width}: {apart}");
        }
    }

    #[test]
    fn size_is_that_of_the_shorter_side() {
        assert_eq!(scaled((64, 64), 48), (48, 48));
        assert_eq!(scaled((64, 96), 32), (32, 48));
    }
}
