//! What packing and training report while they run: plain data, for whoever watches.

use std::fmt;
use std::time::Duration;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Work of a known size begins.
    Begin {
        /// What is done, as a person would say it: `packing train`.
        task: String,
        /// What is counted: `img`, `blocks`.
        unit: &'static str,
        /// How many of them there are.
        total: u64,
    },
    /// So many units of the work begun last are done.
    Advance {
        /// Units done since its beginning.
        done: u64,
    },
    /// The work begun last is over.
    End,
    /// One optimizer step was taken. Sent where a figure is due, not for every step.
    Step(Step),
    /// An epoch was trained and, where due, scored on the validation split.
    Epoch(Epoch),
    /// Something a person should know.
    Notice(String),
    /// Something that went wrong, and that the work goes on in spite of.
    Warning(String),
}

/// Figures of one optimizer step.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Step {
    /// Steps taken since the run began.
    pub step: u64,
    /// Epoch that the step belongs to, from 0.
    pub epoch: u32,
    /// Images of this epoch that were trained on.
    pub images: u64,
    /// Mean training loss of the step's batch.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Images per second since the last such event.
    pub images_per_second: f64,
}

/// Figures of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Epoch {
    /// Epoch, from 0.
    pub epoch: u32,
    /// Steps taken since the run began.
    pub step: u64,
    /// Side of the images of its last step, in pixels; its scores are of images of that side.
    pub size: u32,
    /// Mean training loss over the epoch.
    pub train_loss: f64,
    /// Learning rate of the epoch's last step.
    pub lr: f64,
    /// Images trained on per second, evaluation left out.
    pub images_per_second: f64,
    /// Share of the training time spent waiting for data, 0 to 1.
    pub wait_share: f64,
    /// Time the epoch took, evaluation left out.
    #[serde(serialize_with = "seconds")]
    pub took: Duration,
    /// Scores on the validation split, where they were due.
    #[serde(flatten)]
    pub val: Option<Score>,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Counted from 1, as the bar above it does, and short enough for 80 columns.
        write!(
            f,
            "epoch {:>2}  loss {:.3}",
            self.epoch + 1,
            self.train_loss
        )?;
        if let Some(val) = self.val {
            let (top1, top5) = (100.0 * val.top1, 100.0 * val.top5);
            write!(
                f,
                "  val {:.3}  top-1 {top1:5.2}%  top-5 {top5:5.2}%",
                val.val_loss
            )?;
        }
        let wait = 100.0 * self.wait_share;
        write!(f, "  {:.0} img/s  wait {wait:.1}%", self.images_per_second)
    }
}

/// How a model does on a split.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Score {
    /// Mean cross-entropy, without label smoothing.
    pub val_loss: f64,
    /// Share of images whose label is the likeliest class, 0 to 1.
    pub top1: f64,
    /// Share of images whose label is among the five likeliest classes, 0 to 1.
    pub top5: f64,
}

fn seconds<S: serde::Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_secs_f64())
}

/// Whoever watches: a terminal, a log of JSON lines, a test.
pub trait Observer {
    /// Takes note of `event`. Must be quick: the work waits for it.
    fn on(&mut self, event: &Event);
}

/// Nobody watches.
impl Observer for () {
    fn on(&mut self, _: &Event) {}
}
