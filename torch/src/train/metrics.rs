//! Figures of a training, and who is told them. The same figures go to `metrics.jsonl`, the event files and the
//! terminal; writing them there is the work of `report`, `run` and the binary.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tinyres::event::Observer;

use crate::infer::evaluate::Score;

/// Figures of one optimizer step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Steps taken since the run began.
    pub step: u64,
    /// Epoch that the step belongs to, from 0.
    pub epoch: u32,
    /// Images of this epoch trained on so far.
    pub images: u64,
    /// Mean training loss of the step's batch.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Images per second since the last reported step.
    pub images_per_second: f64,
}

/// Figures of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Epoch {
    /// Epoch, from 0.
    pub epoch: u32,
    /// Steps taken since the run began.
    pub step: u64,
    /// Shorter side of the images of its last step, in pixels. The scores are of images of this size.
    pub size: u32,
    /// Mean training loss over the epoch.
    pub train_loss: f64,
    /// Learning rate of the epoch's last step.
    pub lr: f64,
    /// Images trained on per second, evaluation left out.
    pub images_per_second: f64,
    /// Fraction of the training time spent waiting for data, 0 to 1.
    pub wait_share: f64,
    /// Time that the epoch took, evaluation left out; in seconds when serialized.
    #[serde(serialize_with = "seconds")]
    pub took: Duration,
    /// Scores on the validation split, if it was evaluated after this epoch.
    #[serde(flatten)]
    pub val: Option<Score>,
}

impl Step {
    /// Figures for an event file, by tag.
    pub(super) fn scalars(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("loss/step", self.loss),
            ("learning_rate", self.lr),
            ("images_per_second", self.images_per_second),
        ]
    }
}

impl Epoch {
    /// Figures for an event file, by tag.
    pub(super) fn scalars(&self) -> Vec<(&'static str, f64)> {
        let mut scalars = vec![
            ("loss/train", self.train_loss),
            ("wait_share", self.wait_share),
        ];
        if let Some(val) = self.val {
            scalars.extend([
                ("loss/val", val.val_loss),
                ("top1/val", val.top1),
                ("top5/val", val.top5),
            ]);
            if let Some(boxes) = val.boxes {
                scalars.extend([
                    ("boxes/mean_iou", boxes.mean_iou),
                    ("boxes/gt_known_loc", boxes.gt_known_loc),
                    ("boxes/top1_loc", boxes.top1_loc),
                ]);
            }
        }
        scalars
    }
}

/// One line of at most 80 columns, and another one for boxes.
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Counted from 1, like the epoch of the progress bar.
        let (epoch, loss) = (self.epoch + 1, self.train_loss);
        write!(f, "epoch {epoch:>2}  loss {loss:.3}")?;
        if let Some(val) = self.val {
            let (loss, top1, top5) = (val.val_loss, 100.0 * val.top1, 100.0 * val.top5);
            write!(f, "  val {loss:.3}  top-1 {top1:5.2}%  top-5 {top5:5.2}%")?;
        }
        let wait = 100.0 * self.wait_share;
        write!(f, "  {:.0} img/s  wait {wait:.1}%", self.images_per_second)?;
        match self.val.and_then(|val| val.boxes) {
            Some(boxes) => write!(f, "\n          {boxes}"),
            None => Ok(()),
        }
    }
}

fn seconds<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_secs_f64())
}

/// An observer that is also told the figures. Must be quick: training waits for it.
pub trait TrainingObserver: Observer {
    /// Takes note of a step. Not called for every step on a GPU, where reading a loss would make training wait.
    fn on_step(&mut self, step: &Step);

    /// Takes note of a finished epoch.
    fn on_epoch(&mut self, epoch: &Epoch);
}

/// Ignores the figures.
impl TrainingObserver for () {
    fn on_step(&mut self, _: &Step) {}

    fn on_epoch(&mut self, _: &Epoch) {}
}
