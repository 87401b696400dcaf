//! The runs of `tinyres train` as data: what decided each, and how far it came. Reads `config.toml` and
//! `metrics.jsonl`, which `tinyres-torch` writes; weights are not opened.

mod compare;
mod error;
mod metrics;
mod table;

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

pub use compare::{Comparison, compare, flatten};
pub use error::{Error, Result};
pub use metrics::{EpochFigures, Metrics, StepFigures};

const CONFIG: &str = "config.toml";
const METRICS: &str = "metrics.jsonl";
const FINAL: &str = "final.safetensors";

/// Depth of folders below the directories that [`list`] is given.
const DEPTH: usize = 6;

/// The runs below some directories, those that were trained last at the end.
#[derive(Clone, Debug, Serialize)]
pub struct Runs {
    /// The runs.
    pub runs: Vec<RunSummary>,
    /// Runs that cannot be read, with the reason.
    pub unreadable: Vec<String>,
}

/// A run, in short.
#[derive(Clone, Debug, Serialize)]
pub struct RunSummary {
    /// Its directory.
    #[serde(serialize_with = "crate::text::path")]
    pub dir: PathBuf,
    /// True if it is at its end.
    pub complete: bool,
    /// The recipe that it follows.
    pub recipe: String,
    /// The shards or the source that it is trained on.
    pub data: String,
    /// Epochs that are done.
    pub epochs: u64,
    /// Steps that are done.
    pub steps: u64,
    /// Seconds that training took, without evaluation and saving.
    pub seconds: f64,
    /// Images per second, over all epochs.
    pub images_per_second: Option<f64>,
    /// Side of the images of the last epoch, in pixels.
    pub size: Option<u64>,
    /// Mean training loss of the last epoch.
    pub train_loss: Option<f64>,
    /// Scores of the last evaluation.
    pub last: Option<Scores>,
    /// Those of the evaluation with the best top-1.
    pub best: Option<Scores>,
    #[serde(skip)]
    changed: Option<SystemTime>,
}

/// The scores of an epoch on the validation split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// The step after which it was evaluated.
    pub step: u64,
    /// Fraction of the images whose label is the likeliest class.
    pub top1: f64,
    /// Fraction of the images whose label is among the five likeliest classes.
    pub top5: f64,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Mean overlap of the predicted boxes with the images', if the network predicts any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_iou: Option<f64>,
}

/// Finds the runs in `dirs` and in the folders below them.
///
/// # Errors
/// A directory of `dirs` cannot be read.
pub fn list(dirs: &[PathBuf]) -> Result<Runs> {
    let mut found = Vec::new();
    for dir in dirs {
        fs::read_dir(dir).map_err(Error::io(dir))?;
        find(dir, DEPTH, &mut found);
    }
    let mut runs = Runs {
        runs: Vec::new(),
        unreadable: Vec::new(),
    };
    let mut seen = HashSet::new();
    for dir in found {
        // One directory may lie in another.
        if !seen.insert(dir.canonicalize().unwrap_or_else(|_| dir.clone())) {
            continue;
        }
        match RunSummary::read(&dir) {
            Ok(run) => runs.runs.push(run),
            Err(error) => runs.unreadable.push(error.to_string()),
        }
    }
    runs.runs
        .sort_by(|a, b| (a.changed, &a.dir).cmp(&(b.changed, &b.dir)));
    Ok(runs)
}

/// Adds the runs in `dir` and below. Folders that cannot be read hold none, and links are not followed.
fn find(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if is_run(dir) {
        found.push(dir.to_owned());
        return;
    }
    if depth == 0 {
        return;
    }
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find(&entry.path(), depth - 1, found);
        }
    }
}

/// True for the directory of a run: its `config.toml` has the table `run`, unlike those of other programs.
fn is_run(dir: &Path) -> bool {
    fs::read_to_string(dir.join(CONFIG))
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "[run]"))
}

impl RunSummary {
    /// Reads the run in `dir`. Lines of the metrics that are damaged are left out.
    ///
    /// # Errors
    /// [`Error::NoRun`] if `dir` holds none; [`Error::Config`] if its `config.toml` is damaged.
    pub fn read(dir: &Path) -> Result<Self> {
        let config = config(dir)?;
        let text = |table: Option<&toml::Value>, key: &str| {
            let value = table.and_then(|table| table.get(key)?.as_str());
            value.unwrap_or_default().to_owned()
        };
        let metrics = Metrics::read(dir)?;
        let mut run = Self {
            dir: dir.to_owned(),
            complete: dir.join(FINAL).exists(),
            recipe: text(Some(&config), "recipe"),
            data: text(config.get("run"), "data"),
            epochs: 0,
            steps: 0,
            seconds: 0.0,
            images_per_second: None,
            size: None,
            train_loss: None,
            last: None,
            best: None,
            changed: fs::metadata(dir.join(METRICS))
                .and_then(|file| file.modified())
                .ok(),
        };
        if let Some(last) = metrics.steps.last() {
            run.steps = last.step;
        }
        let mut images = 0.0;
        for epoch in &metrics.epochs {
            images += epoch.images_per_second * epoch.took;
            run.add(epoch);
        }
        run.images_per_second = (run.seconds > 0.0).then(|| images / run.seconds);
        Ok(run)
    }

    fn add(&mut self, epoch: &EpochFigures) {
        self.epochs = epoch.epoch + 1;
        self.steps = self.steps.max(epoch.step);
        self.seconds += epoch.took;
        self.size = Some(epoch.size);
        self.train_loss = Some(epoch.train_loss);
        if let Some(scores) = epoch.scores {
            self.last = Some(scores);
            if self.best.is_none_or(|best| scores.top1 > best.top1) {
                self.best = Some(scores);
            }
        }
    }
}

/// The configuration of the run in `dir`: what decided it, and its origin as the table `run`.
///
/// # Errors
/// [`Error::NoRun`] if `dir` holds none; [`Error::Config`] if its `config.toml` is damaged.
pub fn config(dir: &Path) -> Result<toml::Value> {
    let path = dir.join(CONFIG);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::NoRun {
                dir: dir.to_owned(),
            });
        }
        text => text.map_err(Error::io(&path))?,
    };
    toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        Error::Config {
            path,
            line: 1 + text
                .bytes()
                .take(start)
                .filter(|byte| *byte == b'\n')
                .count(),
            what: error.message().to_owned(),
        }
    })
}
