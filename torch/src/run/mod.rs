//! A run's directory: what decided the run, what it measured, and where it stands.
//!
//! | file | content |
//! |---|---|
//! | `config.toml` | the [`Config`], and the [`Provenance`] as its table `run` |
//! | `metrics.jsonl` | a JSON object a line: each report of steps, each epoch |
//! | `last.safetensors` | the last checkpoint: weights and all that a resume needs |
//! | `best.safetensors` | the weights with the best top-1 on the validation split |
//! | `final.safetensors` | the weights at the end |
//! | `eval/` | their predictions for each validation image, and those of `tinyres eval` |
//! | `margins/epoch-N.npy` | with `--track`, the margin of each training image in that epoch |
//! | `events.out.tfevents.*` | the metrics for TensorBoard, a file for each start |
//!
//! Each file of weights is replaced as a whole. This room writes what it is given; when to save, and what
//! to do when that fails, is the trainer's.

pub mod checkpoint;
mod dir;
pub(crate) mod save;
pub(crate) mod tensorboard;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tinyres::remote::is_address;
use tinyres_format::{Digest, publish};

use crate::config::Config;
use crate::net::ResNet18;
use crate::run::checkpoint::{About, Checkpoint};
use crate::run::dir::RunDir;
use crate::{Error, Result};

const CONFIG: &str = "config.toml";
const METRICS: &str = "metrics.jsonl";
/// The last checkpoint.
const LAST: &str = "last.safetensors";
/// The weights with the best top-1 on the validation split.
const BEST: &str = "best.safetensors";
/// The weights at the end of the run.
const FINAL: &str = "final.safetensors";
/// The directory of predictions.
const PREDICTIONS: &str = "eval";
/// The directory of margins.
const MARGINS: &str = "margins";

/// A run's directory, opened to train.
#[derive(Debug)]
pub struct Run {
    dir: RunDir,
    record: Record,
    /// Shared with saves that force it to the disk; `None` if another process writes the run.
    metrics: Option<Arc<File>>,
    /// Bytes of whole lines in the metrics.
    metrics_len: u64,
}

/// The content of a run's `config.toml`.
#[derive(Clone, Debug, Serialize)]
struct Record {
    #[serde(flatten)]
    config: Config,
    run: Provenance,
}

/// The origin of a run: the table `run` of its `config.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The version of tinyres that began it.
    pub version: String,
    /// The directory of shards, or the source or its address, that it is trained on.
    pub data: PathBuf,
    /// The data set there.
    #[serde(flatten)]
    pub set: SetId,
}

/// What tells a data set from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetId {
    /// The fingerprint: of names, labels and boxes.
    pub fingerprint: Digest,
    /// Digest over the digests of the shards, pixels and all; `None` in runs of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<Digest>,
}

impl From<Digest> for SetId {
    /// A set known by its fingerprint alone.
    fn from(fingerprint: Digest) -> Self {
        Self {
            fingerprint,
            shards: None,
        }
    }
}

impl SetId {
    /// True if `other` can be the same set: it has the same fingerprint, and the same shards if both are known.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        let shards = self.shards.zip(other.shards);
        self.fingerprint == other.fingerprint && shards.is_none_or(|(own, other)| own == other)
    }
}

impl Run {
    /// Begins a run in `dir`, which is created if missing.
    ///
    /// # Errors
    /// [`Error::RunExists`] if `dir` holds a run already; [`Error::RunBusy`] if another process trains there;
    /// [`Error::Io`] if it cannot be written.
    pub fn create(dir: &Path, config: Config, data: &Path, set: impl Into<SetId>) -> Result<Self> {
        expect_no_run(dir)?;
        Self::begin(RunDir::create(dir)?, config, data, set.into())
    }

    /// Begins a run in the first of `runs/RECIPE-1`, `runs/RECIPE-2` and so on that is not there.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn create_next(config: Config, data: &Path, set: impl Into<SetId>) -> Result<Self> {
        let dir = RunDir::create_next(&config.recipe)?;
        Self::begin(dir, config, data, set.into())
    }

    fn begin(mut dir: RunDir, config: Config, data: &Path, set: SetId) -> Result<Self> {
        // Another process may have begun one before this one had the lock.
        expect_no_run(&dir.path)?;
        let data = match is_address(data) {
            true => Ok(data.to_owned()),
            false => data.canonicalize().map_err(Error::io(data)),
        };
        let begun = data.and_then(|data| {
            let run = Provenance {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                data,
                set,
            };
            let record = Record { config, run };
            let (path, metrics) = (dir.path.join(CONFIG), dir.path.join(METRICS));
            for path in [&path, &metrics] {
                dir.note_made(path);
            }
            record.write(&path)?;
            Ok((record, metrics_up_to(&metrics, 0, 0)?))
        });
        match begun {
            Ok((record, metrics)) => Ok(Self {
                metrics: Some(Arc::new(metrics)),
                metrics_len: 0,
                dir,
                record,
            }),
            Err(error) => {
                dir.remove_made();
                Err(error)
            }
        }
    }

    /// The run in `dir` as a process sees it that trains it together with the one that writes it: nothing is read there
    /// or written.
    #[must_use]
    pub fn follower(dir: &Path, config: Config, data: &Path, set: SetId) -> Self {
        Self {
            dir: RunDir::elsewhere(dir),
            record: Record {
                config,
                run: Provenance {
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    data: data.to_path_buf(),
                    set,
                },
            },
            metrics: None,
            metrics_len: 0,
        }
    }

    /// True if this process writes the run.
    pub(crate) fn is_written(&self) -> bool {
        self.metrics.is_some()
    }

    /// Removes a run that this process has begun and of which nothing was trained: it has neither figures nor a
    /// checkpoint. Any other run stays.
    pub fn abandon(self) {
        if self.metrics_len == 0 && self.last().is_none() {
            self.dir.remove_made();
        }
    }

    /// True if no other process can train in the run's directory; false if its file system has no locks.
    pub(crate) fn is_locked(&self) -> bool {
        self.dir.is_locked() || !self.is_written()
    }

    /// Takes note of a file in the run's directory that another room has created, for [`abandon`](Self::abandon).
    pub(crate) fn note_made(&mut self, file: &Path) {
        self.dir.note_made(file);
    }

    /// True if `dir` holds a run.
    #[must_use]
    pub fn is_at(dir: &Path) -> bool {
        dir.join(CONFIG).exists()
    }

    /// Opens the run in `dir`, and returns it with its last checkpoint. Metrics of later steps are
    /// dropped. A run without a checkpoint starts again from its first step.
    ///
    /// # Errors
    /// [`Error::NoRun`] if `dir` holds no run; [`Error::RunBusy`] if another process trains there;
    /// [`Error::Checkpoint`] if the checkpoint is damaged or belongs to another run.
    pub fn resume(dir: &Path) -> Result<(Self, Option<Checkpoint>)> {
        expect_run(dir)?;
        let dir = RunDir::open(dir)?;
        let record = Record::read(&dir.path)?;
        let last = dir.path.join(LAST);
        let checkpoint = match last.exists() {
            true => Some(Checkpoint::load(&last)?),
            false => None,
        };
        if let Some(checkpoint) = &checkpoint {
            let bad = |what: &str| Error::Checkpoint {
                path: last.clone(),
                what: format!(
                    "belongs to a run with another {what} than the {CONFIG} next to it: put back the \
                     file that belongs there, or move the checkpoint away to start the run again"
                ),
            };
            if let Some(key) = checkpoint.about.config.differs(&record.config) {
                return Err(bad(&key));
            }
            let set = SetId {
                fingerprint: checkpoint.about.fingerprint,
                shards: checkpoint.about.shards,
            };
            if !set.agrees(&record.run.set) {
                return Err(bad("data set"));
            }
        }
        let position = checkpoint.as_ref().map(|last| &last.about.position);
        let (step, epoch) = position.map_or((0, 0), |at| (at.step, at.epoch));
        let metrics = metrics_up_to(&dir.path.join(METRICS), step, epoch)?;
        let run = Self {
            metrics_len: metrics.metadata().map_err(Error::io(&dir.path))?.len(),
            metrics: Some(Arc::new(metrics)),
            dir,
            record,
        };
        Ok((run, checkpoint))
    }

    /// The origin of the run in `dir`.
    ///
    /// # Errors
    /// [`Error::NoRun`] if `dir` holds no run.
    pub fn provenance(dir: &Path) -> Result<Provenance> {
        Ok(Record::read(dir)?.run)
    }

    /// The file of weights that `path` stands for: itself, or for the directory of a run its final
    /// weights, or its last checkpoint while the run has not ended.
    ///
    /// # Errors
    /// [`Error::NoRun`] if a directory has neither.
    pub fn weights(path: &Path) -> Result<PathBuf> {
        if !path.is_dir() {
            return Ok(path.to_path_buf());
        }
        [FINAL, LAST]
            .map(|name| path.join(name))
            .into_iter()
            .find(|path| path.exists())
            .ok_or_else(|| Error::NoRun {
                dir: path.to_path_buf(),
                missing: LAST,
            })
    }

    /// The directory of the predictions of the run at `path`; `None` for a file of weights.
    pub fn predictions(path: &Path) -> Option<PathBuf> {
        path.is_dir().then(|| path.join(PREDICTIONS))
    }

    /// The file of the margins of `epoch`, counted from 0, of the run at `path`.
    pub(crate) fn margins(path: &Path, epoch: u32) -> PathBuf {
        path.join(MARGINS)
            .join(format!("epoch-{:04}.npy", epoch + 1))
    }

    /// The run's directory.
    pub fn dir(&self) -> &Path {
        &self.dir.path
    }

    /// The run's configuration.
    pub fn config(&self) -> &Config {
        &self.record.config
    }

    /// The data set that the run is trained on.
    pub fn set(&self) -> SetId {
        self.record.run.set
    }

    /// The error of a checkpoint at a position that the run does not come to.
    pub(crate) fn no_such_position(&self) -> Error {
        Error::Checkpoint {
            path: self.dir.path.join(LAST),
            what: "is at a step that this run does not come to: it belongs to another run; move it away to start this \
                   one again"
                .to_owned(),
        }
    }

    /// The file of the last checkpoint, if there is one.
    pub(crate) fn last(&self) -> Option<PathBuf> {
        Some(self.dir.path.join(LAST)).filter(|path| path.exists())
    }

    /// Appends `figures`, a struct, to the metrics as a line of this `kind`.
    pub(crate) fn note(&mut self, kind: &str, figures: &impl Serialize) -> Result<()> {
        let mut line = json!({ "kind": kind });
        if let (Some(line), Value::Object(figures)) = (line.as_object_mut(), json!(figures)) {
            line.extend(figures);
        }
        self.append(&line)
    }

    /// Appends to the metrics the names of the images of a step whose result is not finite.
    pub(crate) fn note_not_finite(
        &mut self,
        step: u64,
        what: &str,
        images: &[String],
    ) -> Result<()> {
        self.append(&json!({ "kind": "not_finite", "step": step, "what": what, "images": images }))
    }

    fn append(&mut self, line: &Value) -> Result<()> {
        let Some(metrics) = self.metrics.as_deref() else {
            return Ok(());
        };
        // One write, so that a program that follows the file sees whole lines.
        let text = format!("{line}\n");
        let written = { metrics }.write_all(text.as_bytes());
        if written.is_ok() {
            self.metrics_len += text.len() as u64;
        } else {
            // Removes the part of the line that a full disk took. If that fails too, the next resume
            // drops the part.
            let _ = metrics.set_len(self.metrics_len);
        }
        written.map_err(Error::io(&self.dir.path.join(METRICS)))
    }

    /// Adds to `error`, met when saving the end of a training, how to continue.
    pub(crate) fn unsaved(&self, error: Error) -> Error {
        match error {
            Error::Io { .. } => Error::Unsaved {
                error: Box::new(error),
                dir: self.dir.path.clone(),
            },
            other => other,
        }
    }

    /// Writes the final weights, and returns their file.
    pub(crate) fn save_final(&self, about: &About, net: &ResNet18) -> Result<PathBuf> {
        let path = self.dir.path.join(FINAL);
        if !self.is_written() {
            return Ok(path);
        }
        checkpoint::save(&path, about, net, Vec::new())?;
        Ok(path)
    }
}

impl Record {
    fn write(&self, path: &Path) -> Result<()> {
        let values = toml::to_string(self).map_err(|error| Error::Config(error.to_string()))?;
        let text = format!("# What decided this run. `--config` takes this file.\n\n{values}");
        publish::write(path, text.as_bytes()).map_err(Error::io(path))
    }

    fn read(dir: &Path) -> Result<Self> {
        expect_run(dir)?;
        let path = dir.join(CONFIG);
        /// The part of the file that [`Config`] skips.
        #[derive(Deserialize)]
        struct Part {
            run: Provenance,
        }
        let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
        let part: Part = toml::from_str(&text)
            .map_err(|error| Error::config(&error))
            .map_err(|error| error.in_file(&path))?;
        Ok(Self {
            config: Config::from_run(&path)?,
            run: part.run,
        })
    }
}

/// Fails if `dir` holds no run.
fn expect_run(dir: &Path) -> Result<()> {
    match dir.join(CONFIG).exists() {
        true => Ok(()),
        false => Err(Error::NoRun {
            dir: dir.to_path_buf(),
            missing: CONFIG,
        }),
    }
}

/// Fails if `dir` holds a run.
fn expect_no_run(dir: &Path) -> Result<()> {
    match dir.join(CONFIG).exists() {
        true => Err(Error::RunExists {
            dir: dir.to_path_buf(),
        }),
        false => Ok(()),
    }
}

/// Opens the metrics at `path` to append to them, after dropping the lines of later steps than `steps`,
/// and of epochs that were not finished then: all but the first `epochs`.
fn metrics_up_to(path: &Path, steps: u64, epochs: u32) -> Result<File> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(Error::io(path))?,
    };
    let mut kept = Vec::new();
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        // A line that a crash cut short or garbled does not parse, and is dropped too.
        let value = serde_json::from_slice::<Value>(line).unwrap_or_default();
        let of = |key: &str| value[key].as_u64();
        let valid = of("step").is_some_and(|step| step <= steps)
            && (value["kind"] != "epoch" || of("epoch").is_some_and(|at| at < epochs.into()));
        if valid {
            kept.extend_from_slice(line.trim_ascii_end());
            kept.push(b'\n');
        }
    }
    publish::write(path, &kept).map_err(Error::io(path))?;
    File::options()
        .append(true)
        .open(path)
        .map_err(Error::io(path))
}
