//! What the network takes: pixels as the shards hold them, resized, augmented and normalised.

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::config::Normalize;
use crate::input::augment::{Augment, Normalizer};
use crate::input::feed::Batch;
use crate::libtorch::device;
use crate::num::to_f32;

/// Turns batches of pixels into what the network takes.
#[derive(Debug)]
pub struct Inputs {
    resize: Option<Resize>,
    augment: Option<Augment>,
    normalizer: Normalizer,
}

impl Inputs {
    /// For images of `from` rows and columns, scaled so that the shorter side has `size` pixels, on
    /// `device`.
    ///
    /// # Errors
    /// Only where libtorch fails.
    pub fn new(from: (u32, u32), size: u32, normalize: Normalize, device: Device) -> Result<Self> {
        let to = scaled(from, size);
        Ok(Self {
            resize: match to == from {
                true => None,
                false => Some(Resize::new(from, to, device)?),
            },
            augment: None,
            normalizer: Normalizer::new(normalize, device)?,
        })
    }

    /// The same, augmented. The augmentation is that of resized images.
    #[must_use]
    pub fn augmented(self, augment: Option<Augment>) -> Self {
        Self { augment, ..self }
    }

    /// `f32 [B, 3, S, S]`, channels last, of the `u8` pixels of `batch`.
    ///
    /// # Errors
    /// Only where libtorch fails.
    pub fn apply(&self, batch: &Batch<'_>) -> Result<Tensor> {
        let mut pixels = batch.pixels.shallow_clone();
        if let Some(resize) = &self.resize {
            pixels = resize.apply(&pixels)?;
        }
        if let Some(augment) = &self.augment {
            pixels = augment.apply(&pixels, &batch.at)?;
        }
        self.normalizer.apply(&pixels)
    }

    /// The boxes of `batch`, where it has any, moved with its images.
    ///
    /// # Errors
    /// Only where libtorch fails.
    pub fn boxes(&self, batch: &Batch<'_>) -> Result<Option<Tensor>> {
        match (&batch.boxes, &self.augment) {
            (Some(boxes), Some(augment)) => Ok(Some(augment.move_boxes(boxes, &batch.at)?)),
            (boxes, _) => Ok(boxes.as_ref().map(Tensor::shallow_clone)),
        }
    }
}

/// Rows and columns of images of `from`, scaled so that the shorter side has `size` pixels.
#[must_use]
pub fn scaled((height, width): (u32, u32), size: u32) -> (u32, u32) {
    let shorter = u64::from(height.min(width).max(1));
    let scale = |side: u32| (u64::from(side) * u64::from(size) + shorter / 2) / shorter;
    let side = |side| u32::try_from(scale(side)).unwrap_or(u32::MAX);
    (side(height), side(width))
}

/// Makes images smaller: each pixel of the result is the mean of the area that it covers.
#[derive(Debug)]
struct Resize {
    /// `[h, H]` and `[W, w]`: the shares of the source's rows and columns.
    rows: Tensor,
    columns: Tensor,
}

impl Resize {
    fn new(from: (u32, u32), to: (u32, u32), device: Device) -> Result<Self> {
        let shares = |from: u32, to: u32| -> Result<Tensor> {
            let shares = Tensor::f_from_slice(&area(from, to))?;
            device::upload(&shares.f_view([i64::from(to), i64::from(from)])?, device)
        };
        Ok(Self {
            rows: shares(from.0, to.0)?,
            columns: shares(from.1, to.1)?.f_transpose(0, 1)?,
        })
    }

    /// `f32 [B, 3, h, w]` of `[B, 3, H, W]`.
    fn apply(&self, pixels: &Tensor) -> Result<Tensor> {
        let wide = pixels.f_to_kind(Kind::Float)?.f_matmul(&self.columns)?;
        Ok(self.rows.f_matmul(&wide)?)
    }
}

/// For each of `to` pixels in a line the share that each of `from` pixels has in it.
fn area(from: u32, to: u32) -> Vec<f32> {
    let (from, to) = (f64::from(from), f64::from(to));
    let mut shares = Vec::new();
    let mut at = 0.0;
    while at < to {
        let (first, last) = (at * from / to, (at + 1.0) * from / to);
        let mut pixel = 0.0;
        while pixel < from {
            let covered = (last.min(pixel + 1.0) - first.max(pixel)).max(0.0);
            shares.push(to_f32(covered * to / from));
            pixel += 1.0;
        }
        at += 1.0;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_side_is_the_mean_of_two_by_two() {
        let pixels: Vec<u8> = (0..2 * 3 * 8 * 6).map(|i| (i * 37 % 251) as u8).collect();
        let tensor = Tensor::from_slice(&pixels).view([2, 3, 8, 6]);
        let resize = Resize::new((8, 6), (4, 3), Device::Cpu).unwrap();
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
    fn the_shorter_side_counts() {
        assert_eq!(scaled((64, 64), 48), (48, 48));
        assert_eq!(scaled((64, 96), 32), (32, 48));
    }
}
