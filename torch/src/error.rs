//! Why training, scoring or a checkpoint failed.

use std::io;
use std::path::{Path, PathBuf};

use tinyres_format::Split;

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why training, scoring or a checkpoint failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch refused: out of memory, or a fault of this crate.
    #[error("libtorch: {0}")]
    Torch(String),
    /// A value of the configuration is out of its bounds.
    #[error("{key} is {got}, expected {expected}")]
    Value {
        /// Its name, as in the file; the flag has `-` for `_`.
        key: &'static str,
        /// What it is.
        got: String,
        /// What it may be.
        expected: String,
    },
    /// The configuration cannot be understood.
    #[error("{0}")]
    Config(String),
    /// A file of the configuration is at fault.
    #[error("{}: {error}", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<Self>,
    },
    /// A GPU was asked for that cannot be used.
    #[error("{device}: {why}. `tinyres doctor` says more; --device cpu does without")]
    NoCuda {
        /// The device asked for.
        device: String,
        /// Why it cannot be used.
        why: String,
    },
    /// The data cannot be read.
    #[error(transparent)]
    Load(#[from] tinyres_load::Error),
    /// There is no memory for the batches.
    #[error("no memory for batches: {0}")]
    Memory(String),
    /// The loader ended before the epoch did: a defect of tinyres.
    #[error("the loader ended before the epoch: this is a defect of tinyres, please report it")]
    Exhausted,
    /// An image without a label cannot be trained on or scored.
    #[error("{split}: image {image} ({name}) has no label: training and scoring need one for each")]
    Unlabelled {
        /// The split.
        split: Split,
        /// Its place in the split.
        image: u32,
        /// What the source calls it.
        name: String,
    },
    /// The training has gone astray. The last checkpoint is from before.
    #[error(
        "step {step}, in epoch {epoch}: {what}; its batch: {}. {}, with a lower --lr",
        some(images),
        before(kept.as_deref())
    )]
    NotFinite {
        /// What is not finite.
        what: String,
        /// The step, counted from 1.
        step: u64,
        /// The epoch, counted from 1.
        epoch: u32,
        /// The names of the images of its batch.
        images: Vec<String>,
        /// The last checkpoint.
        kept: Option<PathBuf>,
    },
    /// The data's classes are not those that the weights were trained on, in the same order.
    #[error(
        "label {label} is {weights} for the weights, but {data} in the data: score on the set they were trained on"
    )]
    Classes {
        /// The first label that differs.
        label: usize,
        /// Its class for the weights.
        weights: String,
        /// Its class in the data.
        data: String,
    },
    /// A file of weights or a checkpoint is not as it must be.
    #[error("{} {what}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A run is there already.
    #[error("{} holds a run: continue it with --resume, or name another directory with --output", dir.display())]
    RunExists {
        /// The directory.
        dir: PathBuf,
    },
    /// No run, or none that has got so far.
    #[error("{} holds no run with a {missing}: name the directory that `tinyres train` printed", dir.display())]
    NoRun {
        /// The directory.
        dir: PathBuf,
        /// The file that is not there.
        missing: &'static str,
    },
    /// Weights that are not those of this network.
    #[error("weights: tensor {name} {what}")]
    Weights {
        /// The tensor's name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A picture could not be encoded.
    #[error("{0}")]
    Picture(String),
    /// The end of a training could not be saved.
    #[error("{error}: make it possible, then go on from the last checkpoint with --resume {}", dir.display())]
    Unsaved {
        /// Why not.
        error: Box<Self>,
        /// The run's directory.
        dir: PathBuf,
    },
    /// The file system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// The first of `names`, and how many more there are.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        let more = names.len() - SHOWN;
        text += &format!(" and {more} more, all named in metrics.jsonl");
    }
    text
}

/// Where to go on after a training that went astray.
fn before(kept: Option<&Path>) -> String {
    match kept {
        Some(path) => format!(
            "{} is from before: begin a run from it, with --init",
            path.display()
        ),
        None => "Nothing was saved before: begin anew".to_owned(),
    }
}

impl Error {
    /// What the TOML parser says.
    pub(crate) fn config(error: &toml::de::Error) -> Self {
        Self::Config(error.to_string().trim_end().to_owned())
    }

    pub(crate) fn in_file(self, path: &Path) -> Self {
        Self::ConfigFile {
            path: path.to_path_buf(),
            error: Box::new(self),
        }
    }

    pub(crate) fn weights(name: &str, what: impl Into<String>) -> Self {
        Self::Weights {
            name: name.to_owned(),
            what: what.into(),
        }
    }

    /// For `map_err` on an operation on `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }
}

impl From<safetensors::SafeTensorError> for Error {
    /// Of tensors that are to be written; what is wrong with a file is said with its name.
    fn from(error: safetensors::SafeTensorError) -> Self {
        Self::Torch(format!("tensors that cannot be written: {error}"))
    }
}

impl From<tch::TchError> for Error {
    /// Keeps what libtorch said and drops the C++ stack that it appends.
    fn from(error: tch::TchError) -> Self {
        let text = match error {
            tch::TchError::Torch(text) => text,
            other => other.to_string(),
        };
        let said = text.split("\nException raised from ").next();
        Self::Torch(said.unwrap_or_default().trim_end().to_owned())
    }
}
