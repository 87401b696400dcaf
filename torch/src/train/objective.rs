//! What training minimises.

use tch::{Reduction, Tensor};

use super::examples::Examples;
use crate::Result;
use crate::config::Config;
use crate::input::augment::rolled;
use crate::net::Outputs;
use crate::net::boxes;

/// The cross-entropy of the class, and the loss of the box where the network predicts one.
pub(super) struct Objective {
    label_smoothing: f64,
    boxes: boxes::Weights,
}

impl Objective {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            label_smoothing: config.label_smoothing,
            boxes: boxes::Weights {
                smooth_l1: config.box_smooth_l1,
                giou: config.box_giou,
            },
        }
    }

    /// The loss of what the network made of `examples`.
    pub(super) fn loss(&self, outputs: &Outputs, examples: &Examples) -> Result<Tensor> {
        let cross_entropy = |labels: &Tensor| {
            let (none, smoothing) = (None::<&Tensor>, self.label_smoothing);
            let logits = &outputs.logits;
            logits.f_cross_entropy_loss(labels, none, Reduction::Mean, -100, smoothing)
        };
        let mut loss = cross_entropy(&examples.labels)?;
        if let Some(lambda) = examples.lambda {
            let other = cross_entropy(&rolled(&examples.labels)?)?;
            loss = loss.f_lerp(&other, 1.0 - lambda)?;
        }
        if let (Some(predicted), Some(truth)) = (&outputs.boxes, &examples.boxes) {
            loss = loss.f_add(&boxes::loss(predicted, truth, self.boxes)?)?;
        }
        Ok(loss)
    }
}
