//! The loss that training minimises.

use tch::{Reduction, Tensor};

use crate::Result;
use crate::config::Config;
use crate::input::{Examples, rolled};
use crate::net::Outputs;
use crate::net::boxes;

/// Cross-entropy of the class, plus the box loss if the network predicts boxes.
pub(super) struct Objective {
    label_smoothing: f64,
    boxes: boxes::Weights,
}

impl Objective {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            label_smoothing: config.label_smoothing,
            boxes: boxes::Weights {
                smooth_l1: config.boxes.smooth_l1,
                giou: config.boxes.giou,
            },
        }
    }

    /// Mean loss of the network's `outputs` for `examples`, a scalar. With lambda of a mixed batch, whose row i
    /// is mixed with row i - 1, it is `lambda * CE(y[i]) + (1 - lambda) * CE(y[i - 1])`.
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
