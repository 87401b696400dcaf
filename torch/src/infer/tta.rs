//! Test-time augmentation: the mean prediction over several views of an image.

use strum::{Display, EnumString, VariantNames};
use tch::Tensor;

use crate::Result;
use crate::libtorch::ffi;
use crate::net::{Outputs, ResNet18};

/// The views of an image whose predictions are averaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Display, EnumString, VariantNames)]
#[strum(serialize_all = "lowercase")]
pub enum Tta {
    /// The image alone.
    #[default]
    None,
    /// The image and its mirror image.
    Flip,
}

impl Tta {
    /// The mean over the views of `network`'s logits, boxes and features for `images`, which are as for
    /// [`ResNet18::forward`]. Boxes are those of the unmirrored image.
    ///
    /// # Errors
    /// The same as those of [`ResNet18::forward`].
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
                        // Mirroring changes centre x to 1 - x, and nothing else.
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
                    features: mean(&plain.features, &mirrored.features)?,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Spec, Stem};
    use tch::{Device, Kind};

    #[test]
    fn flip_averages_logits_and_mirrors_boxes_back() {
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
