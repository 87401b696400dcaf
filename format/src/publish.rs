//! Files that appear whole or not at all.
//!
//! Every file that this project publishes is written through this module.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A file that does not appear at its path until it is complete.
///
/// It is written under a temporary name in the same directory. [`publish`](Self::publish) forces it
/// to the disk, renames it and forces the directory to the disk. Dropped before that, it removes the
/// temporary file. A killed process leaves the temporary file: no reader looks for its name, and the
/// next `AtomicFile` for the same path replaces it.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    path: PathBuf,
    temporary: PathBuf,
    published: bool,
}

impl AtomicFile {
    /// Begins a file that will appear at `path`, whose directory must exist.
    ///
    /// # Errors
    /// Those of the operating system; [`io::ErrorKind::InvalidInput`] for a path without a file name.
    pub fn create(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} names no file", path.display()),
            )
        })?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".tmp");
        let temporary = path.with_file_name(hidden);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            temporary,
            published: false,
        })
    }

    /// The file to write to.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The path at which the file will appear.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file appear at its path, complete and on the disk. It replaces a file that was there.
    ///
    /// # Errors
    /// Those of the operating system. The file does not appear then, unless only the last step failed:
    /// forcing the directory to the disk.
    pub fn publish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.published = true;
        sync_parent(&self.path)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.published {
            // A failure cannot be reported here, and no reader looks at the leftover.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes `bytes` to a file that appears at `path` whole or not at all.
///
/// # Errors
/// Those of [`AtomicFile`].
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = AtomicFile::create(path)?;
    io::Write::write_all(&mut file.file(), bytes)?;
    file.publish()
}

/// Forces the directory entry of `path` to the disk.
///
/// # Errors
/// Those of the operating system.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}
