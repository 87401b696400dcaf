//! Test-time augmentation: what a network makes of an image in several views.

use std::fmt;
use std::str::FromStr;

use tch::Tensor;

use crate::Result;
use crate::libtorch::ffi;
use crate::net::{Outputs, ResNet18};

/// The views of an image whose predictions are averaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tta {
    /// The image alone.
    #[default]
    None,
    /// The image and its mirror image.
    Flip,
}

impl Tta {
    /// The mean, over the views, of the logits and boxes that `network` gives for `images`, as
    /// [`ResNet18::forward`] takes them. Boxes are those of the image as it is.
    ///
    /// # Errors
    /// As [`ResNet18::forward`].
    pub fn outputs(self, network: &ResNet18, images: &Tensor) -> Result<Outputs> {
        let plain = network.outputs(images, false)?;
        match self {
            Self::None => Ok(plain),
            Self::Flip => {
                let mirrored = ffi::channels_last(&images.f_flip([3])?)?;
                let mirrored = network.outputs(&mirrored, false)?;
                let mean = |a: &Tensor, b: &Tensor| a.f_lerp(b, 0.5);
                let boxes = match (&plain.boxes, &mirrored.boxes) {
                    (Some(plain), Some(mirrored)) => {
                        // Of centre, width and height a mirror moves the centre alone: x to 1 - x.
                        let sign = Tensor::f_from_slice(&[-1.0_f32, 1.0, 1.0, 1.0])?;
                        let from = Tensor::f_from_slice(&[1.0_f32, 0.0, 0.0, 0.0])?;
                        let device = mirrored.device();
                        let back = mirrored
                            .f_mul(&sign.f_to_device(device)?)?
                            .f_add(&from.f_to_device(device)?)?;
                        Some(mean(plain, &back)?)
                    }
                    _ => None,
                };
                Ok(Outputs {
                    logits: mean(&plain.logits, &mirrored.logits)?,
                    boxes,
                })
            }
        }
    }
}

impl FromStr for Tta {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        [Self::None, Self::Flip]
            .into_iter()
            .find(|tta| tta.to_string() == text)
            .ok_or_else(|| format!("no test-time augmentation {text:?}: expected none or flip"))
    }
}

impl fmt::Display for Tta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Flip => "flip",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Spec, Stem};
    use tch::{Device, Kind};

    #[test]
    fn a_mirrored_view_is_averaged_in_and_its_box_turned_back() {
        let spec = Spec {
            stem: Stem::Imagenet,
            classes: 5,
            boxes: true,
        };
        let network = ResNet18::new(spec, 1, Device::Cpu).unwrap();
        tch::manual_seed(2);
        let x = Tensor::randn([3, 3, 32, 32], (Kind::Float, Device::Cpu));
        let x = ffi::channels_last(&x).unwrap();
        // Column by column, by hand.
        let columns: Vec<_> = (0..32).map(|at| x.narrow(3, 31 - at, 1)).collect();
        let mirror = ffi::channels_last(&Tensor::cat(&columns, 3)).unwrap();
        let (one, other, both) = tch::no_grad(|| {
            let plain = |x: &Tensor| Tta::None.outputs(&network, x).unwrap();
            (
                plain(&x),
                plain(&mirror),
                Tta::Flip.outputs(&network, &x).unwrap(),
            )
        });
        let values = |t: &Tensor| Vec::<f32>::try_from(t.contiguous().view([-1])).unwrap();
        let pairs = values(&one.logits).into_iter().zip(values(&other.logits));
        for ((a, b), got) in pairs.zip(values(&both.logits)) {
            assert!((got - f32::midpoint(a, b)).abs() < 1e-6);
        }
        let (one, other) = (values(&one.boxes.unwrap()), values(&other.boxes.unwrap()));
        for (at, got) in values(&both.boxes.unwrap()).into_iter().enumerate() {
            let turned = if at % 4 == 0 {
                1.0 - other[at]
            } else {
                other[at]
            };
            assert!((got - f32::midpoint(one[at], turned)).abs() < 1e-6);
        }
    }
}
