//! A directory that appears whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::{Error, Result, at};

/// A directory under a temporary name beside its destination. Dropped before it is published, it
/// leaves nothing; a killed process leaves it, and the next draft of the same directory replaces it.
pub(super) struct Draft {
    temporary: PathBuf,
    destination: PathBuf,
    /// Holds the lock that keeps other processes out of the temporary directory.
    _lock: File,
}

impl Draft {
    /// Begins a directory that will appear at `destination`, which must be absent or empty.
    pub(super) fn create(destination: &Path) -> Result<Self> {
        // Gives `.` a name and a parent.
        let destination = std::path::absolute(destination).map_err(at(destination))?;
        let no_name =
            || io::Error::new(io::ErrorKind::InvalidInput, "names no directory to create");
        let (Some(parent), Some(name)) = (destination.parent(), destination.file_name()) else {
            return Err(at(&destination)(no_name()));
        };
        match fs::read_dir(&destination).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Ok(false) => return Err(Error::Exists(destination)),
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                return Err(Error::Exists(destination));
            }
            Err(e) => return Err(at(&destination)(e)),
        }
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(".tmp");
        let temporary = parent.join(hidden);

        fs::create_dir_all(&temporary).map_err(at(&temporary))?;
        let lock = File::open(&temporary).map_err(at(&temporary))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy(destination)),
            Err(TryLockError::Error(e)) => return Err(at(&temporary)(e)),
        }
        for entry in fs::read_dir(&temporary).map_err(at(&temporary))? {
            let entry = entry.map_err(at(&temporary))?;
            let path = entry.path();
            let removed = if entry.file_type().map_err(at(&path))?.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.map_err(at(&path))?;
        }
        Ok(Self {
            temporary,
            destination,
            _lock: lock,
        })
    }

    /// Where to write to.
    pub(super) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Makes the directory appear at its destination.
    pub(super) fn publish(self) -> Result<()> {
        fs::rename(&self.temporary, &self.destination).map_err(|e| match e.kind() {
            io::ErrorKind::DirectoryNotEmpty => Error::Exists(self.destination.clone()),
            _ => at(&self.destination)(e),
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone once published. Nothing can be done about a failure here, and the next draft of the
        // same directory begins by removing what is left.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}
