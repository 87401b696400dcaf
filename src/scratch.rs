use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where the shards of a set wait, inside its directory, until all of them are there.
pub(crate) const STAGING: &str = ".packing";

/// A directory that one process fills, under a lock that ends with the process, and that is gone
/// when this is dropped. A killed process leaves it, and what was in it, to the next one.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Creates the directory at `path` with its parents, or takes over the one that is there;
    /// `None` where another process fills it.
    pub(crate) fn create(path: PathBuf) -> io::Result<Option<Self>> {
        loop {
            fs::create_dir_all(&path)?;
            let lock = File::open(&path)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Whoever held the lock may have removed the directory between our open and our lock.
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

    /// Removes what a killed process left in it.
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
        // Gone already where it was renamed. Nothing can be done about a failure here, and the next
        // process begins with what is left.
        let _ = fs::remove_dir_all(&self.path);
    }
}
