//! Mixup and CutMix: each image of a batch is mixed with another one of the same batch, and so are the labels,
//! in the loss. With the papers' lambda, for mixup:
//!
//! ```text
//! x = lambda * x[i] + (1 - lambda) * x[i - 1]
//! loss = lambda * loss(y[i]) + (1 - lambda) * loss(y[i - 1])
//! ```
//!
//! CutMix pastes a rectangle of x[i - 1] that covers 1 - lambda of the image. The loss is the caller's work.

use tch::Tensor;
use tinyres_format::Draws;

use crate::Result;
use crate::num::to_i64;

/// How the batches of one epoch are mixed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mix {
    /// Mixup (Zhang et al. 2017) draws lambda from Beta(`mixup`, `mixup`); 0 for no mixup.
    pub mixup: f64,
    /// CutMix (Yun et al. 2019) draws lambda from Beta(`cutmix`, `cutmix`); 0 for no CutMix.
    pub cutmix: f64,
    /// Fraction of the batches that are mixed, half by each if both are on.
    pub probability: f64,
    /// Random draws of the epoch, from the stream for mixing.
    pub draws: Draws,
}

/// A batch as [`Mix::apply`] leaves it.
#[derive(Debug)]
pub(super) struct Mixed {
    /// Images, in the shape that they had.
    pub images: Tensor,
    /// Weight of each image's own label; the label of [`rolled`] has the rest. `None` if the batch is
    /// not mixed.
    pub lambda: Option<f64>,
}

impl Mix {
    /// True if the draws of batch number `batch` say that it is mixed.
    pub(super) fn mixes(&self, batch: u64) -> bool {
        let off = self.mixup == 0.0 && self.cutmix == 0.0;
        !off && self.draws.of(batch).unit(0) < self.probability
    }

    /// Mixes `images`, `f32 [B, 3, H, W]`, by the draws of batch number `batch` of the epoch: draw 0 decides
    /// whether to mix, draw 1 by which method, draws 2 and 3 the centre of CutMix's rectangle, and the
    /// draws from 4 on lambda.
    pub(super) fn apply(&self, images: Tensor, batch: u64) -> Result<Mixed> {
        let draws = self.draws.of(batch);
        if !self.mixes(batch) {
            return Ok(Mixed {
                images,
                lambda: None,
            });
        }
        let cut = match (self.mixup > 0.0, self.cutmix > 0.0) {
            (true, true) => draws.below(1, 2) == 1,
            (_, cut) => cut,
        };
        if cut {
            self.cut(images, draws)
        } else {
            let lambda = symmetric_beta(self.mixup, draws, 4);
            let images = images.f_lerp(&rolled(&images)?, 1.0 - lambda)?;
            Ok(Mixed {
                images,
                lambda: Some(lambda),
            })
        }
    }

    /// Pastes one rectangle of the other image into each image. It has the sides times `sqrt(1 - lambda)`,
    /// a centre drawn uniformly, and is clipped at the image's edges. So the returned lambda is computed
    /// from the rectangle, as in the authors' code.
    fn cut(&self, images: Tensor, draws: Draws) -> Result<Mixed> {
        let (_, _, height, width) = images.size4()?;
        let side = (1.0 - symmetric_beta(self.cutmix, draws, 4)).sqrt();
        let span = |draw: u64, all: i64| {
            let half = (side * all as f64 / 2.0).floor();
            let middle = (draws.unit(draw) * all as f64).floor();
            let (from, to) = ((middle - half).max(0.0), (middle + half).min(all as f64));
            (to_i64(from), to_i64(to - from))
        };
        let ((top, rows), (left, columns)) = (span(2, height), span(3, width));
        let mut patch = images.f_narrow(2, top, rows)?.f_narrow(3, left, columns)?;
        if patch.numel() > 0 {
            patch.f_copy_(&rolled(&patch)?)?;
        }
        let lambda = 1.0 - (rows * columns) as f64 / (height * width) as f64;
        Ok(Mixed {
            images,
            lambda: Some(lambda),
        })
    }
}

/// `batch`, `[B, ...]`, rolled by one: row i holds what row i is mixed with, that is row i - 1, and row 0
/// holds the last one.
pub(super) fn rolled(batch: &Tensor) -> Result<Tensor> {
    Ok(batch.f_roll([1], [0])?)
}

/// A sample of Beta(alpha, alpha) by Jöhnk's method (1964), from the draws from `first` on: `X / (X + Y)`,
/// where X and Y are the first pair of `u^(1/alpha)` of uniform numbers u whose sum is at most 1. Uses
/// logarithms, since for a small alpha both powers underflow.
fn symmetric_beta(alpha: f64, draws: Draws, first: u64) -> f64 {
    (0..)
        .map(|pair| {
            [0, 1].map(|place| {
                let u = draws.unit(first + 2 * pair + place);
                // u may be 0, 1 - u may not.
                (1.0 - u).ln() / alpha
            })
        })
        .find(|[x, y]| x.exp() + y.exp() <= 1.0)
        .map_or(0.5, |[x, y]| 1.0 / (1.0 + (y - x).exp()))
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
            let lambda = mixed.lambda.unwrap();
            assert!((0.0..=1.0).contains(&lambda));
            assert_eq!(mixed.images.stride()[1], 1);
            let got = numbers(&mixed.images);
            for (at, &got) in got.iter().enumerate() {
                let other = (at + 4 * 144) % values.len();
                let (a, b) = (f64::from(values[at]), f64::from(values[other]));
                let expected = lambda * a + (1.0 - lambda) * b;
                assert!((f64::from(got) - expected).abs() < 1e-3, "{got} {expected}");
            }
        }
    }

    #[test]
    fn cutmix_takes_one_rectangle_of_the_image_before() {
        let (values, tensor) = images();
        let mut areas = Vec::new();
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
            assert!((mixed.lambda.unwrap() - (1.0 - taken)).abs() < 1e-12);
            areas.push(taken);
        }
        let mean = areas.iter().sum::<f64>() / 200.0;
        assert!((0.2..0.5).contains(&mean), "{mean}");
    }

    #[test]
    fn probability_is_the_fraction_of_mixed_batches_half_by_each_method() {
        let (values, tensor) = images();
        let (mut plain, mut cut) = (0, 0);
        for batch in 0..400 {
            let mixed = mix(0.4, 1.0, 0.5).apply(tensor.copy(), batch).unwrap();
            let got = numbers(&mixed.images);
            match mixed.lambda {
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
            assert!(off.apply(tensor.copy(), 3).unwrap().lambda.is_none());
        }
        let labels = rolled(&Tensor::from_slice(&[4_i64, 5, 6])).unwrap();
        assert_eq!(labels, Tensor::from_slice(&[6_i64, 4, 5]));
        assert_eq!(labels.kind(), Kind::Int64);
        assert_eq!(labels.device(), Device::Cpu);
    }

    /// Mean 1/2, and the variance 1 / (4 (2 alpha + 1)) of Beta(alpha, alpha).
    #[test]
    fn symmetric_beta_has_the_moments_of_its_distribution() {
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
