use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A directory that one process fills, under a lock that ends with the process, and that is gone
/// when this is dropped. A killed process leaves it; the next one that asks for it finds it empty.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Creates the directory at `path` with its parents, or empties the one that is there; `None`
    /// where another process fills it.
    pub(crate) fn create(path: PathBuf) -> io::Result<Option<Self>> {
        fs::create_dir_all(&path)?;
        let lock = File::open(&path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Some(Self { path, _lock: lock }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Gone already where it was renamed. Nothing can be done about a failure here, and the next
        // process begins by removing what is left.
        let _ = fs::remove_dir_all(&self.path);
    }
}
