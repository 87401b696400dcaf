//! A locked directory for unfinished files, inside the directory that they are meant for, and moves out of it
//! that can be undone. Also the error for an output that cannot be written, and the check of free space.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::statvfs::statvfs;
use tinyres_format::publish::{Lock, lock};

use crate::event::Event;
use crate::text::Bytes;

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
pub fn output_error(path: &Path) -> impl Fn(io::Error) -> OutputError {
    let path = path.to_owned();
    move |reason| OutputError {
        path: path.clone(),
        reason,
    }
}

/// Name of the directory that holds the shards of a set, inside the set's directory, until all of
/// them are finished.
pub(crate) const STAGING: &str = ".packing";

/// How often [`lock_directory`] begins again because another process removed the directory. Where inode
/// numbers are not stable, it looks as if that always happened.
const ATTEMPTS: usize = 100;

/// The lock of a directory, until it is dropped; no lock where the file system has none.
#[derive(Debug)]
pub(crate) struct DirectoryLock(Option<File>);

impl Drop for DirectoryLock {
    /// Unlocks, and does not only close: a child that another thread is starting has the open file, too, until it runs.
    fn drop(&mut self) {
        if let Some(dir) = &self.0 {
            let _: io::Result<()> = dir.unlock();
        }
    }
}

/// Creates the directory at `path` with its parents, unless it is there, and locks it. `None` if another
/// process holds its lock. A symbolic link is refused.
pub(crate) fn lock_directory(path: &Path) -> io::Result<Option<DirectoryLock>> {
    for _ in 0..ATTEMPTS {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
                continue;
            }
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut options = File::options();
        options.read(true);
        let opened = options
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(path);
        let dir = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(no_directory(path).unwrap_or(error)),
            Ok(dir) => dir,
        };
        match lock(&dir)? {
            Lock::Busy => return Ok(None),
            Lock::Unsupported => return Ok(Some(DirectoryLock(None))),
            Lock::Held => {}
        }
        // The previous holder may have removed the directory between our open and our lock.
        match fs::symlink_metadata(path) {
            Ok(there) if is_same(&there, &dir.metadata()?) => {
                return Ok(Some(DirectoryLock(Some(dir))));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(DirectoryLock(None)))
}

/// A directory that one process writes to. Its lock ends with the process. Dropping this removes the
/// directory; a killed process leaves it, and the files in it, to the next one.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    lock: DirectoryLock,
    kept: bool,
}

impl Scratch {
    /// Creates the directory at `path` with its parents, or takes over one that is there. `None` if
    /// another process holds its lock.
    ///
    /// The entry at `path` may come from others, with a set that was copied: a symbolic link is refused, so
    /// that nothing is removed or written behind it.
    pub(crate) fn create(path: PathBuf) -> io::Result<Option<Self>> {
        let lock = lock_directory(&path)?;
        Ok(lock.map(|lock| Self {
            path,
            lock,
            kept: false,
        }))
    }

    /// Warning for the user if the file system of `output`, for which this works, has no locks.
    pub(crate) fn warning(&self, output: &Path) -> Option<String> {
        let warning = || {
            format!(
                "{}: its file system has no locks: start no other tinyres here before this one has ended",
                output.display()
            )
        };
        self.lock.0.is_none().then(warning)
    }

    /// Removes everything that a killed process left in it, except the entry `spared`.
    pub(crate) fn clear(&self, spared: Option<&str>) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if spared.is_some_and(|spared| entry.file_name() == spared) {
                continue;
            }
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

    /// Leaves the directory, as a killed process does.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.kept {
            // A failure is ignored: the next process takes over the directory.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn is_same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Notice for the user that the file system of `output`, to which a set was published, cannot force directories to
/// the disk.
pub(crate) fn unforced(output: &Path) -> Event {
    Event::Notice(format!(
        "{}: its file system cannot force directories to the disk: after a loss of power, check that the set is there",
        output.display()
    ))
}

/// The error for a `path` that is there and not a directory.
fn no_directory(path: &Path) -> Option<io::Error> {
    let there = fs::symlink_metadata(path).ok()?;
    let text = "is not a directory, but a file or a symbolic link: tinyres makes a directory of this name for \
                unfinished files; remove it";
    (!there.is_dir()).then(|| io::Error::new(io::ErrorKind::NotADirectory, text))
}

/// Renames that are undone together if one of them fails.
#[derive(Debug, Default)]
pub(crate) struct Moves(Vec<[PathBuf; 2]>);

impl Moves {
    /// Renames `from` to `to`.
    pub(crate) fn rename(&mut self, from: PathBuf, to: PathBuf) -> Result<(), OutputError> {
        fs::rename(&from, &to).map_err(output_error(&to))?;
        self.0.push([from, to]);
        Ok(())
    }

    /// The number of renames that can be undone.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Undoes the last rename. Returns false if none is left.
    pub(crate) fn undo_last(&mut self) -> Result<bool, OutputError> {
        let Some([from, to]) = self.0.pop() else {
            return Ok(false);
        };
        fs::rename(&to, &from).map_err(output_error(&from))?;
        Ok(true)
    }
}

/// Checks that the file system of the directory `dir` has room for `needed` bytes.
///
/// # Errors
/// [`OutputError`] with what is needed and what is free. None if the file system does not say.
pub fn check_room(dir: &Path, needed: u64) -> Result<(), OutputError> {
    let Ok(room) = statvfs(dir) else {
        return Ok(());
    };
    let free = room.blocks_available().saturating_mul(room.fragment_size());
    // Some network file systems say that they have no blocks at all.
    if room.blocks() == 0 || needed <= free {
        return Ok(());
    }
    let reason = format!(
        "{} are needed here, but only {} are free: make room, or choose a directory on another disk",
        Bytes(needed),
        Bytes(free)
    );
    Err(output_error(dir)(io::Error::new(
        io::ErrorKind::StorageFull,
        reason,
    )))
}
