//! The one list of steps from the pixels of a batch to what the network takes and learns from. What each
//! step does is in its own file; this one decides their order and which of them there are.

use std::ops::Range;

use tch::{Device, Tensor};
use tinyres_format::{Draws, Shape, Stream};

use super::erasing::Erasing;
use super::feed::Batch;
use super::flip_shift::FlipShift;
use super::mix::{Mix, Mixed, rolled};
use super::normalize::Normalizer;
use super::resize::{Resize, scaled};
use crate::Result;
use crate::config::{Config, Normalize};

/// A batch as the network takes it.
#[derive(Debug)]
pub struct Examples {
    /// Images, `f32 [B, 3, S, S]`, normalised, channels last.
    pub images: Tensor,
    /// Labels, `i64 [B]`.
    pub labels: Tensor,
    /// Edges of the boxes, `f32 [B, 4]`, as fractions of the sides, moved with the images; `None` if the feed has no boxes. Zeros in
    /// a mixed batch: two images have no one box to learn.
    pub boxes: Option<Tensor>,
    /// The labels that a mixed batch is mixed with.
    pub mixed: Option<MixedWith>,
}

/// The other labels of a mixed batch.
#[derive(Debug)]
pub struct MixedWith {
    /// Label of the image that each image is mixed with, `i64 [B]`.
    pub labels: Tensor,
    /// Weight of each image's own label; the other one has the rest.
    pub lambda: f64,
}

impl Examples {
    /// The examples of the images in the range `at`. Views, without a copy.
    pub(crate) fn part(&self, at: &Range<i64>) -> Result<Self> {
        let part = |all: &Tensor| all.f_narrow(0, at.start, at.end - at.start);
        Ok(Self {
            images: part(&self.images)?,
            labels: part(&self.labels)?,
            boxes: self.boxes.as_ref().map(part).transpose()?,
            mixed: match &self.mixed {
                Some(mixed) => Some(MixedWith {
                    labels: part(&mixed.labels)?,
                    lambda: mixed.lambda,
                }),
                None => None,
            },
        })
    }
}

/// Steps from pixels to [`Examples`], in this order:
///
/// 1. resize: `u8 [B, 3, H, W]` to `f32 [B, 3, S, S]`, unless the sides are equal;
/// 2. flip and shift, images and boxes alike;
/// 3. normalise, which makes every batch `f32`, channels last;
/// 4. erase a rectangle of some images;
/// 5. mix pairs of images.
///
/// Only training has the steps 2, 4 and 5. For images that are not square, `S, S` stands for the two sides,
/// of which the shorter one is S.
#[derive(Debug)]
pub struct Pipeline {
    resize: Option<Resize>,
    flip_shift: Option<FlipShift>,
    normalizer: Normalizer,
    erasing: Option<Erasing>,
    mix: Option<Mix>,
}

impl Pipeline {
    /// Steps for evaluation and prediction: images of `shape`, resized so that the shorter side has `size`
    /// pixels, and normalised.
    pub fn evaluation(
        shape: Shape,
        size: u32,
        normalize: Normalize,
        device: Device,
    ) -> Result<Self> {
        let from = (shape.height, shape.width);
        Ok(Self {
            resize: Resize::new(from, scaled(from, size), device)?,
            flip_shift: None,
            normalizer: Normalizer::new(normalize, device)?,
            erasing: None,
            mix: None,
        })
    }

    /// Steps for training on `images` of `shape` at `size` pixels: those of an epoch in its order, or
    /// those that are left of it. All that is random follows from `config.seed`, `epoch` and the image
    /// (flip and shift from its draws 0 to 2, erasing from those after), or the number of the batch (mixing).
    pub(crate) fn training(
        config: &Config,
        shape: Shape,
        size: u32,
        epoch: u32,
        images: &[u32],
        device: Device,
    ) -> Result<Self> {
        let sides = (shape.height, shape.width);
        let draws = |stream| Draws::new(config.seed, stream, u64::from(epoch));
        let augment = draws(Stream::Augment);
        // `config.augment.shift` counts pixels of the images as they are in the shards.
        let shift = config.augment.shift * size / sides.0.min(sides.1);
        let to = scaled(sides, size);
        Ok(Self {
            flip_shift: FlipShift::new(config.augment.flip, shift, augment, images, to, device)?,
            erasing: Erasing::new(config.augment.erasing, augment, images, sides, device)?,
            mix: Some(Mix {
                mixup: config.augment.mixup,
                cutmix: config.augment.cutmix,
                probability: config.augment.mix_probability,
                draws: draws(Stream::Mix),
            }),
            ..Self::evaluation(shape, size, config.normalize, device)?
        })
    }

    /// True if batch number `batch` of the epoch is mixed. Then what becomes of an image depends on another one.
    pub(crate) fn mixes(&self, batch: u64) -> bool {
        self.mix.is_some_and(|mix| mix.mixes(batch))
    }

    /// The steps for the images in the range `part` of `batch`, for another thread. Not for a batch that is mixed.
    pub(crate) fn part(&self, batch: &Batch<'_>, part: &Range<i64>) -> Result<PipelinePart> {
        let own = |all: &Tensor| all.f_narrow(0, part.start, part.end - part.start);
        Ok(PipelinePart {
            pipeline: Self {
                resize: self.resize.as_ref().map(Resize::share),
                flip_shift: self.flip_shift.as_ref().map(FlipShift::share),
                normalizer: self.normalizer.share(),
                erasing: self.erasing.as_ref().map(Erasing::share),
                mix: None,
            },
            pixels: own(batch.pixels)?,
            labels: own(&batch.labels)?,
            boxes: batch.boxes.as_ref().map(own).transpose()?,
            at: batch.at.start + part.start..batch.at.start + part.end,
            number: batch.number,
        })
    }

    /// Runs the steps on `batch`. In training, it is one of the batches of the images given to the
    /// constructor.
    pub fn apply(&self, batch: &Batch<'_>) -> Result<Examples> {
        let mut images = batch.pixels.shallow_clone();
        let mut boxes = batch.boxes.as_ref().map(Tensor::shallow_clone);
        let mut lambda = None;
        if let Some(resize) = &self.resize {
            images = resize.apply(&images)?;
        }
        if let Some(moves) = &self.flip_shift {
            images = moves.apply(&images, &batch.at)?;
            boxes = (boxes.map(|boxes| moves.move_boxes(&boxes, &batch.at))).transpose()?;
        }
        images = self.normalizer.apply(&images)?;
        if let Some(erasing) = &self.erasing {
            images = erasing.apply(images, &batch.at)?;
        }
        if let Some(mix) = &self.mix {
            Mixed { images, lambda } = mix.apply(images, batch.number)?;
        }
        if lambda.is_some() {
            boxes = boxes.map(|boxes| boxes.f_zeros_like()).transpose()?;
        }
        let mixed = match lambda {
            Some(lambda) => Some(MixedWith {
                labels: rolled(&batch.labels)?,
                lambda,
            }),
            None => None,
        };
        Ok(Examples {
            images,
            labels: batch.labels.shallow_clone(),
            boxes,
            mixed,
        })
    }
}

/// A part of a batch and the steps for it, by handles that another thread may have.
#[derive(Debug)]
pub(crate) struct PipelinePart {
    pipeline: Pipeline,
    pixels: Tensor,
    labels: Tensor,
    boxes: Option<Tensor>,
    at: Range<i64>,
    number: u64,
}

impl PipelinePart {
    /// Runs the steps.
    pub(crate) fn apply(self) -> Result<Examples> {
        self.pipeline.apply(&Batch {
            pixels: &self.pixels,
            labels: self.labels,
            boxes: self.boxes,
            at: self.at,
            number: self.number,
        })
    }
}
