//! A directory that appears whole or not at all.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Error, Result, at};
use crate::scratch::Scratch;

/// A directory under a temporary name beside its destination. Dropped before it is published, it
/// leaves nothing; a killed process leaves it, and the next draft of the same directory replaces it.
pub(super) struct Draft {
    temporary: Scratch,
    destination: PathBuf,
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

        match Scratch::create(temporary.clone()).map_err(at(&temporary))? {
            Some(scratch) => {
                scratch.clear().map_err(at(&temporary))?;
                Ok(Self {
                    temporary: scratch,
                    destination,
                })
            }
            None => Err(Error::Busy(destination)),
        }
    }

    /// Where to write to.
    pub(super) fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Makes the directory appear at its destination.
    pub(super) fn publish(self) -> Result<()> {
        fs::rename(self.temporary.path(), &self.destination).map_err(|e| match e.kind() {
            io::ErrorKind::DirectoryNotEmpty => Error::Exists(self.destination.clone()),
            _ => at(&self.destination)(e),
        })
    }
}
