//! The figures of a run, step by step and epoch by epoch, as `metrics.jsonl` has them.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;

use super::{Error, METRICS, Result, Scores};

/// The figures of a run.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Those of steps that were reported.
    pub steps: Vec<StepFigures>,
    /// Those of epochs.
    pub epochs: Vec<EpochFigures>,
}

/// The figures of one step.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct StepFigures {
    /// Steps that are done, this one too.
    pub step: u64,
    /// Its epoch, from 0.
    pub epoch: u64,
    /// Mean training loss of its batch.
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Images per second since the step reported before.
    pub images_per_second: f64,
}

/// The figures of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct EpochFigures {
    /// The epoch, from 0.
    pub epoch: u64,
    /// Steps that are done after it.
    pub step: u64,
    /// Side of the images of its last step, in pixels.
    pub size: u64,
    /// Mean training loss.
    pub train_loss: f64,
    /// Learning rate of its last step.
    pub lr: f64,
    /// Images per second, without evaluation.
    pub images_per_second: f64,
    /// Seconds that it took, without evaluation.
    pub took: f64,
    /// Scores on the validation split; `None` if it was not evaluated.
    #[serde(flatten, deserialize_with = "scores")]
    pub scores: Option<Scores>,
}

/// The scores among the figures of an epoch.
fn scores<'a, D: serde::Deserializer<'a>>(
    from: D,
) -> std::result::Result<Option<Scores>, D::Error> {
    #[derive(Deserialize)]
    struct Fields {
        val_loss: Option<f64>,
        top1: Option<f64>,
        top5: Option<f64>,
        mean_iou: Option<f64>,
    }
    let fields = Fields::deserialize(from)?;
    let all = (fields.top1, fields.top5, fields.val_loss);
    Ok(match all {
        (Some(top1), Some(top5), Some(loss)) => Some(Scores {
            step: 0,
            top1,
            top5,
            loss,
            mean_iou: fields.mean_iou,
        }),
        _ => None,
    })
}

impl Metrics {
    /// Reads the figures of the run in `dir`; there are none before its first step. Lines that are damaged are left
    /// out.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(METRICS);
        match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            lines => Ok(Self::parse(&lines.map_err(Error::io(&path))?)),
        }
    }

    /// The figures in `lines`.
    #[must_use]
    pub fn parse(lines: &[u8]) -> Self {
        let mut metrics = Self::default();
        for line in lines.split(|&byte| byte == b'\n') {
            // Each kind of line lacks fields of the other kinds.
            if let Ok(mut epoch) = serde_json::from_slice::<EpochFigures>(line) {
                if let Some(scores) = &mut epoch.scores {
                    scores.step = epoch.step;
                }
                metrics.epochs.push(epoch);
            } else if let Ok(step) = serde_json::from_slice::<StepFigures>(line) {
                metrics.steps.push(step);
            }
        }
        metrics
    }
}
