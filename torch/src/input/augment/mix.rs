//! Mixup and CutMix: every image of a batch mixed with another one of it.

use tch::Tensor;
use tinyres_format::Draws;

use crate::Result;

/// How the batches of one epoch are mixed: an image's partner is the one before it in its batch, and
/// the last one's for the first.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Parameter of mixup's Beta distribution (Zhang et al. 2017), 0 for no mixup.
    pub mixup: f64,
    /// The same of CutMix (Yun et al. 2019).
    pub cutmix: f64,
    /// Share of the batches that are mixed. Where both are on, each takes half of these.
    pub probability: f64,
    /// The epoch's draws for mixing.
    pub draws: Draws,
}

/// A batch as [`Mix::apply`] leaves it.
#[derive(Debug)]
pub struct Mixed {
    /// The images, of the shape they had.
    pub images: Tensor,
    /// How much of each image is its own, and so how much its own label counts; the rest is its
    /// partner's. `None` for a batch that is not mixed.
    pub own: Option<f64>,
}

impl Mix {
    /// Mixes `images`, `f32 [B, 3, H, W]`, as the draws of batch number `batch` of the epoch say: draw 0
    /// whether, draw 1 how, draws 2 and 3 where CutMix cuts, and those from 4 on how much is whose.
    ///
    /// # Errors
    /// Only where libtorch fails.
    pub fn apply(&self, images: Tensor, batch: u64) -> Result<Mixed> {
        let draws = self.draws.of(batch);
        let off = self.mixup == 0.0 && self.cutmix == 0.0;
        if off || draws.unit(0) >= self.probability {
            return Ok(Mixed { images, own: None });
        }
        let cut = match (self.mixup > 0.0, self.cutmix > 0.0) {
            (true, true) => draws.below(1, 2) == 1,
            (_, cut) => cut,
        };
        if cut {
            self.cut(images, draws)
        } else {
            let own = symmetric_beta(self.mixup, draws, 4);
            let images = images.f_lerp(&partners(&images)?, 1.0 - own)?;
            Ok(Mixed {
                images,
                own: Some(own),
            })
        }
    }

    /// Replaces one rectangle in all images by the partners': of the drawn share of the area, around a
    /// place that is drawn evenly, and cut at the image's edges, so the share is counted afterwards.
    fn cut(&self, images: Tensor, draws: Draws) -> Result<Mixed> {
        let (_, _, height, width) = images.size4()?;
        let side = (1.0 - symmetric_beta(self.cutmix, draws, 4)).sqrt();
        let span = |draw: u64, all: i64| {
            let half = (side * real(all) / 2.0).floor();
            let middle = (draws.unit(draw) * real(all)).floor();
            let (from, to) = ((middle - half).max(0.0), (middle + half).min(real(all)));
            (whole(from), whole(to - from))
        };
        let ((top, rows), (left, columns)) = (span(2, height), span(3, width));
        let mut patch = images.f_narrow(2, top, rows)?.f_narrow(3, left, columns)?;
        if patch.numel() > 0 {
            patch.f_copy_(&partners(&patch)?)?;
        }
        let own = 1.0 - real(rows * columns) / real(height * width);
        Ok(Mixed {
            images,
            own: Some(own),
        })
    }
}

/// For each row of `batch`, `[B, ...]`, that of its partner.
///
/// # Errors
/// Only where libtorch fails.
pub fn partners(batch: &Tensor) -> Result<Tensor> {
    Ok(batch.f_roll([1], [0])?)
}

/// A number from 0 to 1 of the distribution Beta(alpha, alpha), by Jöhnk's method (1964) from the
/// draws from `first` on: `X / (X + Y)`, with X and Y the first pair of `u^(1/alpha)` of even numbers
/// u whose sum is at most 1. In logarithms, as for a small alpha both powers are below all floats.
fn symmetric_beta(alpha: f64, draws: Draws, first: u64) -> f64 {
    (0..)
        .map(|pair| {
            [0, 1].map(|place| {
                let u = draws.unit(first + 2 * pair + place);
                // Never the logarithm of 0.
                (1.0 - u).ln() / alpha
            })
        })
        .find(|[x, y]| x.exp() + y.exp() <= 1.0)
        .map_or(0.5, |[x, y]| 1.0 / (1.0 + (y - x).exp()))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "pixels of an image are far below 2^53"
)]
fn real(pixels: i64) -> f64 {
    pixels as f64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a whole number between 0 and the side of an image"
)]
fn whole(pixels: f64) -> i64 {
    pixels as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};
    use tinyres_format::Stream;

    fn mix(mixup: f64, cutmix: f64, probability: f64) -> Mix {
        Mix {
            mixup,
            cutmix,
            probability,
            draws: Draws::new(9, Stream::Mix, 1),
        }
    }

    /// Five images of 6x8 pixels, all values different.
    fn images() -> (Vec<f32>, Tensor) {
        let values: Vec<f32> = (0..5 * 3 * 48_u16).map(f32::from).collect();
        let tensor = Tensor::from_slice(&values).view([5, 3, 6, 8]);
        (
            values,
            crate::libtorch::ffi::channels_last(&tensor).unwrap(),
        )
    }

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.contiguous().view([-1])).unwrap()
    }

    #[test]
    fn mixup_is_the_weighted_mean_with_the_image_before() {
        let (values, tensor) = images();
        for batch in 0..20 {
            let mixed = mix(0.4, 0.0, 1.0).apply(tensor.copy(), batch).unwrap();
            let own = mixed.own.unwrap();
            assert!((0.0..=1.0).contains(&own));
            assert_eq!(mixed.images.stride()[1], 1);
            let got = numbers(&mixed.images);
            for (at, &got) in got.iter().enumerate() {
                let partner = (at + 4 * 144) % values.len();
                let (a, b) = (f64::from(values[at]), f64::from(values[partner]));
                let expected = own * a + (1.0 - own) * b;
                assert!((f64::from(got) - expected).abs() < 1e-3, "{got} {expected}");
            }
        }
    }

    #[test]
    fn cutmix_takes_one_rectangle_of_the_image_before() {
        let (values, tensor) = images();
        let mut shares = Vec::new();
        for batch in 0..200 {
            let mixed = mix(0.0, 1.0, 1.0).apply(tensor.copy(), batch).unwrap();
            assert_eq!(mixed.images.stride()[1], 1);
            let got = numbers(&mixed.images);
            let foreign: Vec<_> = (0..values.len())
                .filter(|&at| got[at] != values[at])
                .collect();
            for &at in &foreign {
                assert_eq!(got[at], values[(at + 4 * 144) % values.len()]);
            }
            // The same places in every plane, and as many as a rectangle around them has.
            let places: Vec<_> = foreign.iter().filter(|&&at| at < 48).collect();
            assert_eq!(foreign.len(), 15 * places.len());
            let span = |of: &dyn Fn(usize) -> usize| {
                let all = || places.iter().map(|&&at| of(at));
                all()
                    .max()
                    .map_or(0, |max| max + 1 - all().min().unwrap_or(0))
            };
            assert_eq!(places.len(), span(&|at| at / 8) * span(&|at| at % 8));
            let taken = f64::from(u32::try_from(places.len()).unwrap()) / 48.0;
            assert!((mixed.own.unwrap() - (1.0 - taken)).abs() < 1e-12);
            shares.push(taken);
        }
        let mean = shares.iter().sum::<f64>() / 200.0;
        assert!((0.2..0.5).contains(&mean), "{mean}");
    }

    #[test]
    fn as_many_batches_are_mixed_as_asked_for_and_in_both_ways() {
        let (values, tensor) = images();
        let (mut plain, mut cut) = (0, 0);
        for batch in 0..400 {
            let mixed = mix(0.4, 1.0, 0.5).apply(tensor.copy(), batch).unwrap();
            let got = numbers(&mixed.images);
            match mixed.own {
                None => {
                    assert_eq!(got, values);
                    plain += 1;
                }
                // A cut leaves whole numbers.
                Some(_) => cut += u32::from(got.iter().all(|value| value.fract() == 0.0)),
            }
        }
        assert!((160..240).contains(&plain), "{plain}");
        assert!((60..140).contains(&cut), "{cut}");
        for off in [mix(0.0, 0.0, 1.0), mix(0.4, 1.0, 0.0)] {
            assert!(off.apply(tensor.copy(), 3).unwrap().own.is_none());
        }
        let labels = partners(&Tensor::from_slice(&[4_i64, 5, 6])).unwrap();
        assert_eq!(labels, Tensor::from_slice(&[6_i64, 4, 5]));
        assert_eq!(labels.kind(), Kind::Int64);
        assert_eq!(labels.device(), Device::Cpu);
    }

    /// Mean 1/2, and the variance 1 / (4 (2 alpha + 1)) of Beta(alpha, alpha).
    #[test]
    fn shares_have_the_moments_of_their_distribution() {
        for alpha in [0.05, 0.2, 1.0, 4.0] {
            let draws = Draws::new(1, Stream::Mix, 0);
            let all: Vec<_> = (0..20_000)
                .map(|n| symmetric_beta(alpha, draws.of(n), 4))
                .collect();
            let mean = all.iter().sum::<f64>() / 20_000.0;
            let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((mean - 0.5).abs() < 0.015, "{alpha}: {mean}");
            assert!(
                (variance / expected - 1.0).abs() < 0.04,
                "{alpha}: {variance}"
            );
        }
    }
}
