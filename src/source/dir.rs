//! A directory on disk as storage. Follows symbolic links.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::names::is_junk;
use super::{MAX_FILE, ReadError, Stamp};

/// A tree of files in a directory.
#[derive(Debug)]
pub(super) struct Dir {
    root: PathBuf,
}

impl Dir {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub fn enter(&mut self, folder: &str) {
        self.root = self.path(folder);
    }

    pub fn path(&self, file: &str) -> PathBuf {
        if file.is_empty() {
            self.root.clone()
        } else {
            self.root.join(file)
        }
    }

    /// The names in `folder`, or `None` if there is no such folder.
    pub fn list(&self, folder: &str) -> Result<Option<Folder>, ReadError> {
        let entries = match fs::read_dir(self.path(folder)) {
            Err(error) if is_absent(&error) => return Ok(None),
            entries => entries.map_err(ReadError::Io)?,
        };
        let mut names = Folder::default();
        for entry in entries {
            let entry = entry.map_err(ReadError::Io)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_junk(&name) {
                continue;
            }
            // The listing includes the type, so only links need a system call.
            let mut kind = entry.file_type().map_err(ReadError::Io)?;
            if kind.is_symlink() {
                match fs::metadata(entry.path()) {
                    Ok(target) => kind = target.file_type(),
                    Err(error) if is_absent(&error) => continue,
                    Err(error) => return Err(ReadError::Io(error)),
                }
            }
            if kind.is_dir() {
                names.folders.push(name);
            } else if kind.is_file() {
                names.files.push(name);
            }
        }
        names.folders.sort_unstable();
        names.files.sort_unstable();
        Ok(Some(names))
    }

    /// Replaces `bytes` with the content of `file`. Returns its stamp from before it was read.
    pub fn read(&self, file: &str, bytes: &mut Vec<u8>) -> Result<Stamp, ReadError> {
        let read_error = |error| {
            if is_absent(&error) {
                ReadError::Missing
            } else {
                ReadError::Io(error)
            }
        };
        bytes.clear();
        let file = File::open(self.path(file)).map_err(read_error)?;
        let metadata = file.metadata().map_err(read_error)?;
        // A file of known length needs no read that only finds its end. Pipes have length 0.
        let limit = match metadata.len() {
            0 => MAX_FILE + 1,
            len => len.min(MAX_FILE + 1),
        };
        let size = file.take(limit).read_to_end(bytes).map_err(read_error)? as u64;
        if size > MAX_FILE {
            Err(ReadError::TooLarge { size })
        } else {
            Ok(Stamp::of(&metadata))
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
