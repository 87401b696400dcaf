//! Why training, scoring or a checkpoint failed.

use std::io;
use std::path::{Path, PathBuf};

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
    Load(#[from] tinyres::load::Error),
    /// Weights that are not those of this network.
    #[error("weights: tensor {name} {what}")]
    Weights {
        /// The tensor's name.
        name: String,
        /// What is wrong with it.
        what: String,
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
