//! A directory that appears whole or not at all.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::syncfs;
use tinyres_format::publish;

use crate::scratch::{OutputError, Scratch, output_error};

/// Result with [`AtomicDirError`].
type Result<T> = std::result::Result<T, AtomicDirError>;

/// Why a directory cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AtomicDirError {
    /// The output exists. Nothing is ever overwritten.
    #[error("{}: exists and is not an empty directory: name another, or remove it first", .0.display())]
    Exists(PathBuf),
    /// Another process writes to the same directory.
    #[error("{}: another tinyres is writing here: wait for it, or name another directory", .0.display())]
    Busy(PathBuf),
    /// The output could not be written.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// A directory under a temporary name next to its destination. If it is dropped before it is published,
/// nothing remains. A killed process leaves it, and the next process that writes the same directory
/// replaces it.
pub(crate) struct AtomicDir {
    temporary: Scratch,
    destination: PathBuf,
}

impl AtomicDir {
    /// Begins a directory that will appear at `destination`, which must be missing or empty.
    pub(crate) fn create(destination: &Path) -> Result<Self> {
        // Also gives `.` a name and a parent.
        let destination = std::path::absolute(destination).map_err(output_error(destination))?;
        let no_name =
            || io::Error::new(io::ErrorKind::InvalidInput, "names no directory to create");
        let (Some(parent), Some(name)) = (destination.parent(), destination.file_name()) else {
            return Err(output_error(&destination)(no_name()).into());
        };
        match fs::read_dir(&destination).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Ok(false) => return Err(AtomicDirError::Exists(destination)),
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                return Err(AtomicDirError::Exists(destination));
            }
            Err(e) => return Err(output_error(&destination)(e).into()),
        }
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(".tmp");
        let temporary = parent.join(hidden);

        match Scratch::create(temporary.clone()).map_err(output_error(&temporary))? {
            Some(scratch) => {
                scratch.clear(None).map_err(output_error(&temporary))?;
                Ok(Self {
                    temporary: scratch,
                    destination,
                })
            }
            None => Err(AtomicDirError::Busy(destination)),
        }
    }

    /// The temporary path to write to.
    pub(crate) fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Makes the directory appear at its destination, once all that is in it is on the disk.
    pub(crate) fn publish(self) -> Result<()> {
        let temporary = self.temporary.path();
        // One call for the whole file system: to sync thousands of small files one by one takes longer.
        match fs::File::open(temporary).map(syncfs) {
            // Some file systems in user space, and sandboxes, have no such call.
            Ok(Ok(()) | Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP)) => {}
            Ok(Err(error)) => return Err(output_error(temporary)(error.into()).into()),
            Err(error) => return Err(output_error(temporary)(error).into()),
        }
        fs::rename(temporary, &self.destination).map_err(|e| match e.kind() {
            io::ErrorKind::DirectoryNotEmpty => AtomicDirError::Exists(self.destination.clone()),
            _ => output_error(&self.destination)(e).into(),
        })?;
        publish::sync_parent(&self.destination).map_err(output_error(&self.destination))?;
        Ok(())
    }
}
