//! The loss that training minimises.

use tch::{Reduction, Tensor};

use crate::Result;
use crate::config::Config;
use crate::input::Examples;
use crate::net::{self, Outputs, boxes};

/// Cross-entropy of the class, plus the box loss if the network predicts boxes.
pub(super) struct Objective {
    label_smoothing: f64,
    boxes: boxes::Weights,
    /// True if [`margins`](Self::margins) are wanted.
    track: bool,
}

impl Objective {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            label_smoothing: config.label_smoothing,
            boxes: boxes::Weights {
                smooth_l1: config.boxes.smooth_l1,
                giou: config.boxes.giou,
            },
            track: config.track,
        }
    }

    /// The margin of each of the `examples`, `f32 [B]`, if margins are tracked: see [`net::margins`]. `None` for
    /// mixed examples, which have two labels.
    pub(super) fn margins(&self, outputs: &Outputs, examples: &Examples) -> Result<Option<Tensor>> {
        let wanted = self.track && examples.mixed.is_none();
        let margins = || tch::no_grad(|| net::margins(&outputs.logits, &examples.labels));
        wanted.then(margins).transpose()
    }

    /// Mean loss of the network's `outputs` for `examples`, a scalar, weighted as that of a `part` of a batch. With
    /// lambda of a mixed batch it is `lambda * CE(own labels) + (1 - lambda) * CE(other labels)`.
    pub(super) fn loss(
        &self,
        outputs: &Outputs,
        examples: &Examples,
        part: Part,
    ) -> Result<Tensor> {
        let cross_entropy = |labels: &Tensor| {
            let (none, smoothing) = (None::<&Tensor>, self.label_smoothing);
            let logits = &outputs.logits;
            logits.f_cross_entropy_loss(labels, none, Reduction::Mean, -100, smoothing)
        };
        let mut loss = cross_entropy(&examples.labels)?;
        if let Some(mixed) = &examples.mixed {
            let other = cross_entropy(&mixed.labels)?;
            loss = loss.f_lerp(&other, 1.0 - mixed.lambda)?;
        }
        loss = weighted(loss, part.of_images)?;
        if let (Some(predicted), Some(truth)) = (&outputs.boxes, &examples.boxes) {
            let boxes = boxes::loss(predicted, truth, self.boxes)?;
            loss = loss.f_add(&weighted(boxes, part.of_boxes)?)?;
        }
        Ok(loss)
    }
}

/// Weights of a part of a batch, with which the losses of all parts add up to the mean loss of the batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// The fraction of the batch's images that are in it.
    pub of_images: f64,
    /// The fraction of the batch's boxes.
    pub of_boxes: f64,
}

impl Part {
    /// The whole batch.
    pub(super) const WHOLE: Self = Self {
        of_images: 1.0,
        of_boxes: 1.0,
    };
}

fn weighted(loss: Tensor, weight: f64) -> Result<Tensor> {
    match weight {
        1.0 => Ok(loss),
        _ => Ok(loss.f_mul_scalar(weight)?),
    }
}
