//! Files that appear whole or not at all, and the differences between file systems that matter to them.
//!
//! Every file that this project publishes is written through this module. A file in a directory of ours
//! (a set, a run) is an [`AtomicFile`]: it takes the place of whatever has its name. A file that the user
//! named is written by [`write_output`], which leaves devices and symbolic links what they are.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that does not appear at its path until it is complete.
///
/// It is written under a temporary name in the same directory. [`publish`](Self::publish) forces it
/// to the disk, renames it and forces the directory to the disk. Dropped before that, it removes the
/// temporary file. A killed process leaves the temporary file: no reader looks for its name, and the
/// next `AtomicFile` for the same path replaces it.
///
/// The file has the permissions of the file that it replaces. Neither the path nor the temporary name
/// is followed where it is a symbolic link: the link is replaced, and its target is not touched.
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
        let file = create_new(&temporary)?;
        if let Ok(there) = fs::symlink_metadata(path)
            && there.is_file()
        {
            keep_mode(&there, &file);
        }
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
        sync_parent(&self.path)?;
        Ok(())
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
    file.file().write_all(bytes)?;
    file.publish()
}

/// Writes `bytes` to the output at `path`, which a user named.
///
/// A file appears whole or not at all. If `path` is a symbolic link, the link stays and the file that
/// it leads to is replaced. A device or a FIFO gets the bytes.
///
/// # Errors
/// Those of the operating system.
pub fn write_output(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(there) if !there.is_file() && !there.is_dir() => {
            File::options().write(true).open(path)?.write_all(bytes)
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => write(&followed(path), bytes),
    }
}

/// The path that `path` leads to through symbolic links, whether something is there or not.
#[must_use]
pub fn followed(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    // Linux follows no more.
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&path) else {
            break;
        };
        // An absolute target replaces the whole path.
        path = parent(&path).join(target);
    }
    path
}

/// Creates a file at `path` to be read and written, in place of a file or symbolic link that is there.
///
/// # Errors
/// Those of the operating system.
pub fn create_new(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        created => created,
    }
}

/// Gives `file` the permissions of the file that it is to replace, as far as its file system has them.
fn keep_mode(there: &Metadata, file: &File) {
    // Some file systems refuse. The file then has the permissions of any new one.
    let _ = file.set_permissions(there.permissions());
}

/// Forces the directory entry of `path` to the disk. Returns false on a file system that cannot force
/// directories to the disk: after a loss of power, the entry may be missing there.
///
/// # Errors
/// Those of the operating system.
pub fn sync_parent(path: &Path) -> io::Result<bool> {
    match File::open(parent(path))?.sync_all() {
        Ok(()) => Ok(true),
        Err(error) if is_unsupported(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Outcome of [`lock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// The file is locked until all its handles are closed.
    Held,
    /// Another process holds the lock.
    Busy,
    /// The file system has no locks.
    Unsupported,
}

/// Locks `file`, which may be a directory, against other processes that lock it. Does not wait.
///
/// # Errors
/// Those of the operating system, unless they mean that the file system has no locks.
pub fn lock(file: &File) -> io::Result<Lock> {
    match file.try_lock() {
        Ok(()) => Ok(Lock::Held),
        Err(TryLockError::WouldBlock) => Ok(Lock::Busy),
        // NFS without its lock service; NFS where the file was opened for reading.
        Err(TryLockError::Error(error))
            if is_unsupported(&error)
                || matches!(error.raw_os_error(), Some(libc::ENOLCK | libc::EBADF)) =>
        {
            Ok(Lock::Unsupported)
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// True for the errors by which file systems say that they have no such operation.
fn is_unsupported(error: &io::Error) -> bool {
    let unsupported = [libc::EINVAL, libc::ENOSYS, libc::EOPNOTSUPP];
    error
        .raw_os_error()
        .is_some_and(|error| unsupported.contains(&error))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
