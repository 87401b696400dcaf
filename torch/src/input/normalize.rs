//! Normalisation: pixels of 0..255 to the floating-point values that the network takes, by channel.

use tch::{Device, Kind, Tensor};
use tinyres_load::Normalization;

use crate::Result;
use crate::config::Normalize;
use crate::libtorch::ffi;

/// ImageNet's mean and standard deviation of each channel, which torchvision's models expect.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];

impl Normalize {
    /// Mean and standard deviation of each channel, for pixels in 0..1.
    pub(crate) fn statistics(self) -> ([f64; 3], [f64; 3]) {
        match self {
            Self::Imagenet => (MEAN, STD),
            Self::None => ([0.0; 3], [1.0; 3]),
        }
    }
}

/// Normalisation of pixels by channel: `x = pixel * scale + offset`, which is `(pixel / 255 - mean) / std`.
#[derive(Debug)]
pub struct Normalizer {
    /// `f32 [1, 3, 1, 1]`, and so is `offset`.
    scale: Tensor,
    offset: Tensor,
}

impl Normalizer {
    /// For tensors on `device`.
    pub fn new(normalize: Normalize, device: Device) -> Result<Self> {
        let (mean, std) = normalize.statistics();
        let affine = Normalization::new(mean, std);
        let constant = |values: [f32; 3]| -> Result<Tensor> {
            let values = Tensor::f_from_slice(&values)?;
            Ok(values.f_view([1, 3, 1, 1])?.f_to_device(device)?)
        };
        Ok(Self {
            scale: constant(affine.scale)?,
            offset: constant(affine.offset)?,
        })
    }

    /// The same by handles, for another thread.
    pub(crate) fn share(&self) -> Self {
        Self {
            scale: self.scale.shallow_clone(),
            offset: self.offset.shallow_clone(),
        }
    }

    /// Normalises `pixels`, `[B, 3, H, W]`, to `f32`, channels last.
    pub fn apply(&self, pixels: &Tensor) -> Result<Tensor> {
        // Changes the layout before the type: bytes are a quarter of the traffic.
        let mut x = ffi::channels_last(pixels)?.f_to_kind(Kind::Float)?;
        Ok(x.f_mul_(&self.scale)?.f_add_(&self.offset)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalizer_subtracts_mean_and_divides_by_std() {
        let (h, w) = (6, 8_usize);
        let bytes: Vec<u8> = (0..2 * 3 * h * w)
            .map(|i| (i * 151 % 251).to_le_bytes()[0])
            .collect();
        let tensor = Tensor::from_slice(&bytes).view([2, 3, 6, 8]);
        for (normalize, mean, std) in [
            (Normalize::None, [0.0; 3], [1.0; 3]),
            (
                Normalize::Imagenet,
                [0.485, 0.456, 0.406],
                [0.229, 0.224, 0.225],
            ),
        ] {
            let affine = Normalization::new(mean, std);
            let x = Normalizer::new(normalize, Device::Cpu).unwrap();
            let x = x.apply(&tensor).unwrap();
            assert_eq!(x.stride()[1], 1);
            let got = Vec::<f32>::try_from(x.contiguous().view([-1])).unwrap();
            for (at, (&got, &byte)) in got.iter().zip(&bytes).enumerate() {
                let c = at / (h * w) % 3;
                // To the bit, as the loader does it.
                let product = f32::from(byte) * affine.scale[c];
                assert_eq!(got.to_bits(), (product + affine.offset[c]).to_bits());
                let expected = (f64::from(byte) / 255.0 - mean[c]) / std[c];
                assert!(
                    (f64::from(got) - expected).abs() < 1e-6,
                    "{got}, expected {expected}"
                );
            }
        }
    }
}
