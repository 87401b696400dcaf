//! The one error of this crate. Its texts name what was found, what was expected and a remedy, for the
//! command line prints them as they are.

use std::io;
use std::path::{Path, PathBuf};

use tinyres::text::shell_word;
use tinyres_format::Split;

use crate::ranks::RankError;

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why training, evaluation, prediction, export or a file failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch failed: this crate has a defect, or the device fails.
    #[error("libtorch: {0}")]
    Torch(String),
    /// libtorch got no memory.
    #[error("not enough memory: {0}: try a smaller --batch, or end other programs")]
    NoMemory(String),
    /// A value of the configuration is not allowed.
    #[error("{key} is {got}, expected {expected}")]
    Value {
        /// The key in the file; the flag has `-` for `_`.
        key: &'static str,
        /// The value.
        got: String,
        /// The values allowed.
        expected: String,
    },
    /// The configuration cannot be parsed.
    #[error("{0}")]
    Config(String),
    /// The same in a file.
    #[error("{}: {error}", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// The error.
        error: Box<Self>,
    },
    /// The GPU asked for cannot be used.
    #[error("{device}: {why}. `tinyres doctor` says more; --device cpu needs no GPU")]
    NoCuda {
        /// The device asked for.
        device: String,
        /// Why it cannot be used.
        why: String,
    },
    /// The processes that train together cannot, or no longer can.
    #[error(transparent)]
    Ranks(#[from] RankError),
    /// The data set cannot be read.
    #[error(transparent)]
    Load(#[from] tinyres_load::Error),
    /// The system allows fewer threads than were asked for.
    #[error(
        "only {found} of {wanted} threads can be started: ask for fewer, end other programs, or raise the limit of processes (ulimit -u)"
    )]
    TooFewThreads {
        /// The threads that can be started, the first one included.
        found: usize,
        /// The threads that were asked for.
        wanted: usize,
    },
    /// The system allows no more threads.
    #[error(
        "no thread can be started: {0}: end other programs, or raise the limit of processes (ulimit -u)"
    )]
    Threads(io::Error),
    /// The system has no memory for the batches.
    #[error("no memory for batches: {0}")]
    Memory(String),
    /// The loader gave fewer batches than the epoch has: a defect of tinyres.
    #[error(
        "the loader gave fewer batches than the epoch has: this is a defect of tinyres, please report it"
    )]
    Exhausted,
    /// A thread that computes panicked: a defect of tinyres.
    #[error("a thread that computes panicked: {0}: this is a defect of tinyres, please report it")]
    Panicked(String),
    /// An image has no label, and training and evaluation need one.
    #[error(
        "{split}: image {image} ({name}) has no label: training and evaluation need one for each image"
    )]
    Unlabelled {
        /// The split.
        split: Split,
        /// The image's number in the split.
        image: u32,
        /// The image's name.
        name: String,
    },
    /// A training step gave a value that is not finite. It was not saved: the last checkpoint is older.
    #[error(
        "step {step}, in epoch {epoch}: {what}; its batch: {}. {}, with a lower --lr",
        first_few(images),
        restart(kept.as_deref())
    )]
    NotFinite {
        /// The value, and what it is.
        what: String,
        /// The step, counted from 1.
        step: u64,
        /// The epoch, counted from 1.
        epoch: u32,
        /// The names of the images in the step's batch.
        images: Vec<String>,
        /// The last checkpoint, if there is one.
        kept: Option<PathBuf>,
    },
    /// The data has other classes than the weights.
    #[error(
        "the classes of the weights are not those of the data{}{}: evaluate on a set of the same classes, or train on this one with --init",
        only("weights", weights),
        only("data", data)
    )]
    Classes {
        /// The classes that only the weights have, by id.
        weights: Vec<String>,
        /// The classes that only the data have, by id.
        data: Vec<String>,
    },
    /// A file of weights or a checkpoint cannot be used.
    #[error("{} {what}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The defect, which continues the sentence.
        what: String,
    },
    /// The directory for a new run holds one already.
    #[error("{} holds a run: continue it with --resume, or name another directory with --output", dir.display())]
    RunExists {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process trains in the directory.
    #[error("{}: another tinyres trains here: wait until it ends, or stop it", dir.display())]
    RunBusy {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory holds no run, or one without weights so far.
    #[error("{} holds no run with a {missing}: name the directory of a run, such as runs/default-1", dir.display())]
    NoRun {
        /// The directory.
        dir: PathBuf,
        /// The file that is missing.
        missing: &'static str,
    },
    /// The weights do not fit this network.
    #[error("weights: tensor {name} {what}")]
    Weights {
        /// The tensor's name.
        name: String,
        /// The defect, which continues the sentence.
        what: String,
    },
    /// A picture cannot be encoded.
    #[error("{0}")]
    Picture(String),
    /// The end of a training cannot be saved.
    #[error(
        "could not save the end of the run: {error}. Fix this, then continue from the last checkpoint with --resume {}",
        shell_word(dir)
    )]
    Unsaved {
        /// The reason.
        error: Box<Self>,
        /// The run's directory.
        dir: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

/// The part of a sentence that names the classes that only one side has.
fn only(side: &str, ids: &[String]) -> String {
    const SHOWN: usize = 5;
    if ids.is_empty() {
        return String::new();
    }
    let more = match ids.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let shown = ids[..ids.len().min(SHOWN)].join(", ");
    format!("; only in the {side}: {shown}{more}")
}

/// The first four of `names`, and how many more there are.
fn first_few(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        let more = names.len() - SHOWN;
        text += &format!(" and {more} more, all named in metrics.jsonl");
    }
    text
}

/// The advice where to start again after a value that is not finite.
fn restart(kept: Option<&Path>) -> String {
    match kept {
        Some(path) => format!(
            "{} is from before: start a run from it, with --init",
            path.display()
        ),
        None => "Nothing was saved before: start the run again".to_owned(),
    }
}

impl Error {
    /// The error of the TOML parser.
    pub(crate) fn config(error: &toml::de::Error) -> Self {
        Self::Config(error.to_string().trim_end().to_owned())
    }

    /// The error of libtorch that says `text`, without the C++ stack that libtorch appends.
    pub(crate) fn torch(text: &str) -> Self {
        let stack = ["\nException raised from ", "\nframe #"];
        let end = stack.iter().filter_map(|start| text.find(start)).min();
        let said = text[..end.unwrap_or(text.len())].trim_end();
        // By the CPU's allocator, C++ itself, and CUDA.
        let no_memory = ["can't allocate memory", "std::bad_alloc", "out of memory"];
        // All that oneDNN says: what it can compute and what not, it has said before, of a descriptor.
        let onednn = [
            "could not create a primitive",
            "could not create a memory object",
        ];
        match no_memory.iter().any(|what| said.contains(what)) || onednn.contains(&said) {
            // The CPU's allocator says first which check of its source failed.
            true => Self::NoMemory(said.rsplit("err == 0. ").next().unwrap_or(said).to_owned()),
            false => Self::Torch(said.to_owned()),
        }
    }

    /// Names the file that the error is in.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        Self::ConfigFile {
            path: path.to_path_buf(),
            error: Box::new(self),
        }
    }

    /// The error of the tensor `name`: `what` continues the sentence.
    pub(crate) fn weights(name: &str, what: impl Into<String>) -> Self {
        Self::Weights {
            name: name.to_owned(),
            what: what.into(),
        }
    }

    /// Makes the error of an operation on `path`, for `map_err`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }
}

impl From<safetensors::SafeTensorError> for Error {
    /// Only for tensors to be written. What is wrong with a file read is an [`Error::Checkpoint`].
    fn from(error: safetensors::SafeTensorError) -> Self {
        Self::Torch(format!("tensors that cannot be written: {error}"))
    }
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        match error {
            tch::TchError::Torch(text) => Self::torch(&text),
            other => Self::torch(&other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_is_told_from_other_failures_of_libtorch() {
        let alloc = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you \
            tried to allocate 64 bytes. Error code 12 (Cannot allocate memory)\nframe #0: c10::ThrowEnforceNotMet";
        for text in [alloc, "std::bad_alloc", "could not create a primitive"] {
            let error = Error::torch(text);
            assert!(matches!(error, Error::NoMemory(_)), "{error:?}");
            let told = error.to_string();
            assert!(
                told.contains("--batch") && !told.contains("frame #"),
                "{told}"
            );
        }
        for text in [
            "could not create a primitive descriptor for the matmul primitive. Run workload with",
            "mat1 and mat2 shapes cannot be multiplied",
        ] {
            assert!(matches!(Error::torch(text), Error::Torch(_)));
        }
    }
}
