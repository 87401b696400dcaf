//! The errors of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// Why results cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There are no predictions.
    #[error("{}: no predictions here: make them with `tinyres eval RUN SHARDS`", path.display())]
    NoPredictions {
        /// The file that is missing.
        path: PathBuf,
    },
    /// A file of predictions, logits or features is damaged, or is another program's.
    #[error("{}: {what}: make the predictions again with `tinyres eval RUN SHARDS`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The fault.
        what: String,
    },
    /// A defect of tinyres: a picture could not be drawn.
    #[error("cannot draw {name}: {what}")]
    Drawing {
        /// The picture.
        name: String,
        /// The text of the panic.
        what: String,
    },
    /// The set cannot be read.
    #[error(transparent)]
    Load(#[from] tinyres_load::Error),
    /// A run cannot be read.
    #[error(transparent)]
    Run(#[from] tinyres::runs::Error),
    /// The operating system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its error.
        source: io::Error,
    },
}

/// The result of reading results.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn damaged(path: &Path) -> impl Fn(String) -> Self {
        let path = path.to_owned();
        move |what| Self::Damaged {
            path: path.clone(),
            what,
        }
    }
}
