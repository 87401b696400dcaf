//! What the network learns from: batches changed in all ways that the configuration asks for.

use tch::{Device, Tensor};
use tinyres_format::{Draws, Stream};

use crate::Result;
use crate::config::Config;
use crate::input::augment::{Erasing, Mix, Mixed};
use crate::input::feed::Batch;
use crate::input::inputs::Inputs;

/// A batch as the network takes it, and what it is to make of it.
pub(super) struct Examples {
    /// `f32 [B, 3, S, S]`, normalised, channels last.
    pub images: Tensor,
    /// `i64 [B]`.
    pub labels: Tensor,
    /// Edges `f32 [B, 4]`, where boxes are learnt.
    pub boxes: Option<Tensor>,
    /// Weight of each image's own label, where the batch is mixed.
    pub lambda: Option<f64>,
}

/// Makes the examples of one epoch, or of what is left of it.
pub(super) struct Changes {
    inputs: Inputs,
    erasing: Option<Erasing>,
    mix: Mix,
}

impl Changes {
    /// Changes `inputs`, which are those of `images` of `sides`, in the order of the epoch.
    pub(super) fn new(
        inputs: Inputs,
        config: &Config,
        epoch: u64,
        images: &[u32],
        sides: (u32, u32),
        device: Device,
    ) -> Result<Self> {
        let draws = |stream| Draws::new(config.seed, stream, epoch);
        let own = draws(Stream::Augment);
        Ok(Self {
            inputs,
            erasing: Erasing::new(config.erasing, own, images, sides, device)?,
            mix: Mix {
                mixup: config.mixup,
                cutmix: config.cutmix,
                probability: config.mix_probability,
                draws: draws(Stream::Mix),
            },
        })
    }

    /// The examples of `batch`, number `number` of the epoch. Where two images are mixed, there is no
    /// one box to learn.
    pub(super) fn apply(&self, batch: &Batch<'_>, number: usize) -> Result<Examples> {
        let mut images = self.inputs.apply(batch)?;
        if let Some(erasing) = &self.erasing {
            images = erasing.apply(images, &batch.at)?;
        }
        let Mixed { images, lambda } = self.mix.apply(images, number as u64)?;
        let boxes = match (self.inputs.boxes(batch)?, lambda) {
            (Some(boxes), Some(_)) => Some(boxes.f_zeros_like()?),
            (boxes, _) => boxes,
        };
        Ok(Examples {
            images,
            labels: batch.labels.shallow_clone(),
            boxes,
            lambda,
        })
    }
}
