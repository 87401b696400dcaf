//! A locked directory for unfinished files, inside the directory that they are meant for.
//! Also the error for an output that cannot be written.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// An output file or directory that could not be created, written or moved to its destination.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct OutputError {
    /// The file or directory.
    pub path: PathBuf,
    /// The error of the operating system.
    pub reason: io::Error,
}

/// Adds `path` to an error of the operating system, for `map_err`.
pub(crate) fn output_error(path: &Path) -> impl Fn(io::Error) -> OutputError {
    let path = path.to_owned();
    move |reason| OutputError {
        path: path.clone(),
        reason,
    }
}

/// Name of the directory that holds the shards of a set, inside the set's directory, until all of
/// them are finished.
pub(crate) const STAGING: &str = ".packing";

/// A directory that one process writes to. Its lock ends with the process. Dropping this removes the
/// directory; a killed process leaves it, and the files in it, to the next one.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Creates the directory at `path` with its parents, or takes over one that is there. `None` if
    /// another process holds its lock.
    pub(crate) fn create(path: PathBuf) -> io::Result<Option<Self>> {
        loop {
            fs::create_dir_all(&path)?;
            let lock = File::open(&path)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // The previous holder may have removed the directory between our open and our lock.
            match fs::metadata(&path) {
                Ok(there) if there.ino() == lock.metadata()?.ino() => {
                    return Ok(Some(Self { path, _lock: lock }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes everything that a killed process left in it.
    pub(crate) fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A failure is ignored: the next process takes over the directory.
        let _ = fs::remove_dir_all(&self.path);
    }
}
