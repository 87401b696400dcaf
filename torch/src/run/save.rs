//! What a run saves at one of its steps. It is a copy, so another thread may write it while training goes on.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::checkpoint::{About, Snapshot};
use super::{BEST, LAST, METRICS, Run};
use crate::{Error, Result};

/// A checkpoint, and weights that are the best so far, to be written.
#[derive(Debug)]
pub(crate) struct Save {
    dir: PathBuf,
    metrics: Arc<File>,
    best: Option<Best>,
    /// Its position has the best top-1 before this save.
    about: About,
    state: Snapshot,
}

/// The best weights so far.
#[derive(Debug)]
pub(crate) struct Best {
    /// Their description.
    pub about: About,
    /// The weights.
    pub weights: Snapshot,
    /// Their top-1 on the validation split.
    pub top1: f64,
}

/// How a [`Save`] ended.
#[derive(Debug)]
pub(crate) struct Saved {
    /// Steps of the run that the checkpoint has.
    pub step: u64,
    /// The best top-1 of weights that were saved.
    pub top1: Option<f64>,
    /// Of the best weights, if there were some.
    pub best: Option<Result<()>>,
    /// Of the metrics, which are forced to the disk.
    pub metrics: Result<()>,
    /// Of the checkpoint.
    pub last: Result<()>,
}

impl Run {
    /// The save of the checkpoint `state` with the description `about`, and of `best`.
    pub(crate) fn save(&self, about: About, state: Snapshot, best: Option<Best>) -> Save {
        Save {
            dir: self.dir.path.clone(),
            metrics: Arc::clone(&self.metrics),
            best,
            about,
            state,
        }
    }
}

impl Save {
    /// Writes all of it. Each file is on the disk before the next one is begun, the checkpoint last: a crash leaves none
    /// without the best weights that it knows of, or without the figures of its past.
    pub(crate) fn write(mut self) -> Saved {
        let position = &mut self.about.position;
        let best = self.best.map(|best| {
            let saved = best.weights.save(&self.dir.join(BEST), &best.about);
            if saved.is_ok() {
                // Otherwise the next weights that beat the file that is there are saved, also if they are worse than these.
                position.best = Some(best.top1);
            }
            saved
        });
        let metrics = self.metrics.sync_data();
        Saved {
            step: self.about.position.step,
            top1: self.about.position.best,
            best,
            metrics: metrics.map_err(Error::io(&self.dir.join(METRICS))),
            last: self.state.save(&self.dir.join(LAST), &self.about),
        }
    }
}
