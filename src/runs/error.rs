//! The errors of reading runs.

use std::io;
use std::path::{Path, PathBuf};

/// Why a run cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory holds no run.
    #[error("{}: holds no run, since it has no config.toml: give the directory that tinyres train wrote", dir.display())]
    NoRun {
        /// The directory.
        dir: PathBuf,
    },
    /// The configuration of a run is damaged.
    #[error("{}, line {line}: {what}", path.display())]
    Config {
        /// Its `config.toml`.
        path: PathBuf,
        /// The line of the fault, from 1.
        line: usize,
        /// The fault.
        what: String,
    },
    /// The operating system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Its error.
        source: io::Error,
    },
}

/// The result of reading runs.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}
