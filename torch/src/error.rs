//! Why training, scoring or a checkpoint failed.

use std::io;
use std::path::{Path, PathBuf};

/// Why training, scoring or a checkpoint failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch refused: out of memory, or a fault of this crate.
    #[error("libtorch: {0}")]
    Torch(String),
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
