//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A file that is not there until it is whole.
///
/// It is written under a temporary name in the directory of its destination. [`publish`](Self::publish)
/// forces it to the disk, renames it and forces the directory; a draft dropped before that leaves nothing.
/// A killed process leaves the temporary file, whose name no reader looks for and which the next
/// draft of the same file replaces.
#[derive(Debug)]
pub struct Draft {
    file: File,
    path: PathBuf,
    temporary: PathBuf,
    published: bool,
}

impl Draft {
    /// Begins a file that will appear at `path`, whose directory must exist.
    ///
    /// # Errors
    /// Those of the operating system; a path without a file name is invalid input.
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

    /// Where the file will appear.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file appear at its path, whole and on the disk, in place of one that was there.
    ///
    /// # Errors
    /// Those of the operating system. The file does not appear then, unless only the last step,
    /// forcing the directory to the disk, has failed.
    pub fn publish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.published = true;
        sync_parent(&self.path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            // Nothing can be done about a failure here, and no reader looks at the leftover.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes `bytes` to a file that appears at `path` whole or not at all.
///
/// # Errors
/// As for [`Draft`].
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = Draft::create(path)?;
    io::Write::write_all(&mut draft.file(), bytes)?;
    draft.publish()
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
