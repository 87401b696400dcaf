//! A run's directory: what decided it, what it measured, and where it stands.

pub mod checkpoint;
pub mod tensorboard;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::Tensor;
use tinyres::event::Event;
use tinyres_format::{Digest, publish};

use crate::config::Config;
use crate::net::ResNet18;
use crate::run::checkpoint::{About, Checkpoint};
use crate::{Error, Result};

const CONFIG: &str = "config.toml";
const METRICS: &str = "metrics.jsonl";
/// All that the run needs to go on.
const LAST: &str = "last.safetensors";
/// The weights that scored best on the validation split.
const BEST: &str = "best.safetensors";
/// The weights at the end of the run.
const FINAL: &str = "final.safetensors";

/// A run's directory, open for one training.
#[derive(Debug)]
pub struct Run {
    dir: PathBuf,
    record: Record,
    metrics: File,
    /// Bytes of the metrics.
    measured: u64,
}

/// A run's `config.toml`.
#[derive(Clone, Debug, Serialize)]
struct Record {
    #[serde(flatten)]
    config: Config,
    run: Made,
}

/// What a run was made of, beside its configuration: the table `run` of its `config.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The version of tinyres.
    pub version: String,
    /// The directory of the shards.
    pub data: PathBuf,
    /// What is in it.
    pub fingerprint: Digest,
}

impl Run {
    /// Begins a run in `dir`, which is created if missing.
    ///
    /// # Errors
    /// [`Error::RunExists`] where a run is there already; or the directory cannot be written.
    pub fn create(dir: &Path, config: Config, data: &Path, fingerprint: Digest) -> Result<Self> {
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let path = dir.join(CONFIG);
        if path.exists() {
            return Err(Error::RunExists {
                dir: dir.to_path_buf(),
            });
        }
        let data = data.canonicalize().map_err(Error::io(data))?;
        let run = Made {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data,
            fingerprint,
        };
        let record = Record { config, run };
        let values = toml::to_string(&record).map_err(|error| Error::Config(error.to_string()))?;
        let text = format!("# What decided this run. `--config` takes this file.\n\n{values}");
        publish::write(&path, text.as_bytes()).map_err(Error::io(&path))?;
        Ok(Self {
            metrics: metrics_up_to(&dir.join(METRICS), 0, 0)?,
            measured: 0,
            dir: dir.to_path_buf(),
            record,
        })
    }

    /// Opens the run in `dir` to go on from its last checkpoint: what it measured after that is
    /// forgotten. A run that was not saved yet begins anew.
    ///
    /// # Errors
    /// No run is there, or what is wrong with its files.
    pub fn resume(dir: &Path) -> Result<(Self, Option<Checkpoint>)> {
        let record = Record::read(dir)?;
        let last = dir.join(LAST);
        let checkpoint = match last.exists() {
            true => Some(Checkpoint::load(&last)?),
            false => None,
        };
        if let Some(checkpoint) = &checkpoint {
            let bad = |what: &str| Error::Checkpoint {
                path: last.clone(),
                what: format!(
                    "is of a run with another {what} than {CONFIG} beside it says: put back the file \
                     that belongs to it, or take the checkpoint away to begin the run anew"
                ),
            };
            if let Some(key) = checkpoint.about.config.differs(&record.config) {
                return Err(bad(&key));
            }
            if checkpoint.about.fingerprint != record.run.fingerprint {
                return Err(bad("data set"));
            }
        }
        let position = checkpoint.as_ref().map(|last| &last.about.position);
        let (step, epoch) = position.map_or((0, 0), |at| (at.step, at.epoch));
        let metrics = metrics_up_to(&dir.join(METRICS), step, epoch)?;
        let run = Self {
            measured: metrics.metadata().map_err(Error::io(dir))?.len(),
            metrics,
            dir: dir.to_path_buf(),
            record,
        };
        Ok((run, checkpoint))
    }

    /// What the run in `dir` was made of.
    ///
    /// # Errors
    /// No run is there.
    pub fn made(dir: &Path) -> Result<Made> {
        Ok(Record::read(dir)?.run)
    }

    /// The weights to use of `path`: a file of weights, or a run's final ones, or those of its last
    /// checkpoint while it has not ended.
    ///
    /// # Errors
    /// A run that has none yet.
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

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.record.config
    }

    /// Of the data set that it is trained on.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        self.record.run.fingerprint
    }

    /// Its last checkpoint, if there is one.
    pub(crate) fn last(&self) -> Option<PathBuf> {
        Some(self.dir.join(LAST)).filter(|path| path.exists())
    }

    /// Adds what `event` measured to the metrics.
    pub(crate) fn note(&mut self, event: &Event) -> Result<()> {
        let (kind, figures) = match event {
            Event::Step(step) => ("step", json!(step)),
            Event::Epoch(epoch) => ("epoch", json!(epoch)),
            _ => return Ok(()),
        };
        let mut line = json!({ "kind": kind });
        if let (Some(line), Value::Object(figures)) = (line.as_object_mut(), figures) {
            line.extend(figures);
        }
        self.append(&line)
    }

    /// Adds to the metrics which images a step was taken on that went wrong.
    pub(crate) fn note_not_finite(
        &mut self,
        step: u64,
        what: &str,
        images: &[String],
    ) -> Result<()> {
        self.append(&json!({ "kind": "not_finite", "step": step, "what": what, "images": images }))
    }

    fn append(&mut self, line: &Value) -> Result<()> {
        // In one write, so that whoever reads along meets whole lines.
        let text = format!("{line}\n");
        let written = self.metrics.write_all(text.as_bytes());
        if written.is_ok() {
            self.measured += text.len() as u64;
        } else {
            // A full disk may have taken part of the line. Where even this fails, the next resume
            // drops what is no line.
            let _ = self.metrics.set_len(self.measured);
        }
        written.map_err(Error::io(&self.dir.join(METRICS)))
    }

    /// Saves the network and `rest`, all that the run needs to go on.
    pub(crate) fn save_last(
        &self,
        about: &About,
        net: &ResNet18,
        rest: Vec<(String, Tensor)>,
    ) -> Result<()> {
        checkpoint::save(&self.dir.join(LAST), about, net, rest)
    }

    pub(crate) fn save_best(&self, about: &About, net: &ResNet18) -> Result<()> {
        checkpoint::save(&self.dir.join(BEST), about, net, Vec::new())
    }

    /// What is to be done about `error`, which kept the end of a training from being saved.
    pub(crate) fn unsaved(&self, error: Error) -> Error {
        match error {
            Error::Io { .. } => Error::Unsaved {
                error: Box::new(error),
                dir: self.dir.clone(),
            },
            other => other,
        }
    }

    /// Saves the weights at the end, and returns where.
    pub(crate) fn save_final(&self, about: &About, net: &ResNet18) -> Result<PathBuf> {
        let path = self.dir.join(FINAL);
        checkpoint::save(&path, about, net, Vec::new())?;
        Ok(path)
    }
}

impl Record {
    fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG);
        if !path.exists() {
            return Err(Error::NoRun {
                dir: dir.to_path_buf(),
                missing: CONFIG,
            });
        }
        /// The part of the file that [`Config`] passes over.
        #[derive(Deserialize)]
        struct Part {
            run: Made,
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

/// Drops from the metrics at `path` what came after `steps` steps, or of an epoch that is not through
/// after them, and opens them to go on.
fn metrics_up_to(path: &Path, steps: u64, epochs: u32) -> Result<File> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(Error::io(path))?,
    };
    let mut kept = String::new();
    for line in text.lines() {
        // A line cut short by a crash is no JSON, and is dropped too.
        let value = serde_json::from_str::<Value>(line).unwrap_or_default();
        let of = |key: &str| value[key].as_u64();
        let valid = of("step").is_some_and(|step| step <= steps)
            && (value["kind"] != "epoch" || of("epoch").is_some_and(|at| at < epochs.into()));
        if valid {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    publish::write(path, kept.as_bytes()).map_err(Error::io(path))?;
    File::options()
        .append(true)
        .open(path)
        .map_err(Error::io(path))
}
