//! Progress of `tinyres train`, and the summary at its end.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use tinyres::event::{Event, Observer};
use tinyres::text::shell_word;
use tinyres::ui::Ui;
use tinyres_torch::infer::evaluate::Score;
use tinyres_torch::train::{Epoch, Step, TrainingObserver};

use super::sparkline::Sparkline;

/// The terminal, and what it was warned of.
pub(super) struct Watch<'a> {
    pub ui: &'a mut Ui,
    pub warnings: Vec<String>,
    /// The loss since the start.
    pub curve: Sparkline,
    /// True if this process reports: rank 0 for several.
    pub is_first: bool,
}

impl Observer for Watch<'_> {
    fn on(&mut self, event: &Event) {
        if let Event::Warning(text) = event {
            self.warnings.push(text.clone());
        }
        if self.is_first {
            self.ui.on(event);
        }
    }
}

impl TrainingObserver for Watch<'_> {
    fn on_step(&mut self, step: &Step) {
        if !self.is_first {
            return;
        }
        self.curve.push(step.loss);
        // Short enough to stand after a progress bar in 80 columns.
        let Step { loss, lr, .. } = step;
        let status = format!("loss {loss:.3} {}  lr {lr:.2e}", self.curve);
        self.ui.on(&Event::Status(status));
    }

    fn on_epoch(&mut self, epoch: &Epoch) {
        // If the reader of stdout has gone away, this is reported when the result is written.
        if self.is_first {
            let _ = self.ui.result(epoch);
        }
    }
}

/// How the run ended.
#[derive(Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub(super) enum Summary {
    Complete {
        #[serde(serialize_with = "tinyres::text::path")]
        run: PathBuf,
        #[serde(serialize_with = "tinyres::text::path")]
        weights: PathBuf,
        #[serde(flatten)]
        score: Option<Score>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    },
    Stopped {
        #[serde(serialize_with = "tinyres::text::path")]
        run: PathBuf,
        step: u64,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    },
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete { weights, score, .. } => {
                if let Some(score) = score {
                    let (top1, top5) = (100.0 * score.top1, 100.0 * score.top5);
                    write!(f, "top-1 {top1:.2}%, top-5 {top5:.2}%")?;
                    if let Some(boxes) = score.boxes {
                        write!(f, ", mean IoU {:.3}", boxes.mean_iou)?;
                    }
                    write!(f, ": ")?;
                }
                write!(f, "{}", weights.display())
            }
            Self::Stopped { run, step, .. } => write!(
                f,
                "stopped after step {step}: continue with `tinyres train --resume {}`",
                shell_word(run)
            ),
        }
    }
}
