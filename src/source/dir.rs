//! A directory on disk as storage. Follows symbolic links.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, PoisonError, RwLock};

use super::folder::{Folder, join};
use super::names::is_junk;
use super::{MAX_FILE, ReadError, Stamp};
use crate::text::escaped;

/// A tree of files in a directory.
#[derive(Debug)]
pub(super) struct Dir {
    root: PathBuf,
    /// The paths on disk of the files and folders whose names are not UTF-8, by the path with the escaped
    /// name. Filled when their folder is listed.
    escaped: RwLock<HashMap<String, PathBuf>>,
    /// The first folder that the system failed to list, and its error. A look ahead passes over such a folder, so
    /// what it concludes may be wrong.
    failure: OnceLock<(String, io::Error)>,
}

impl Dir {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            escaped: RwLock::default(),
            failure: OnceLock::new(),
        }
    }

    /// The first folder that the system failed to list, for another reason than that it may not be read, and
    /// the error.
    pub fn failure(&self) -> Option<(&str, io::Error)> {
        let (folder, error) = self.failure.get()?;
        let number = error.raw_os_error().map(io::Error::from_raw_os_error);
        Some((folder, number.unwrap_or_else(|| error.kind().into())))
    }

    pub fn enter(&mut self, folder: &str) {
        self.root = self.path(folder);
        self.escaped = RwLock::default();
    }

    /// The path on disk of `file`.
    pub fn path(&self, file: &str) -> PathBuf {
        if file.is_empty() {
            return self.root.clone();
        }
        if file.contains('%') {
            // The file itself, or a folder above it, may have an escaped name.
            let known = self.escaped.read().unwrap_or_else(PoisonError::into_inner);
            let ends = file.match_indices('/').map(|(at, _)| at);
            let ends: Vec<usize> = ends.chain([file.len()]).collect();
            for end in ends.into_iter().rev() {
                if let Some(path) = known.get(&file[..end]) {
                    return match file[end..].strip_prefix('/') {
                        Some(rest) => path.join(rest),
                        None => path.clone(),
                    };
                }
            }
        }
        self.root.join(file)
    }

    /// The names in `folder`, or `None` if there is no such folder. A name that is not UTF-8 is listed with
    /// `%E2` in place of the byte 0xe2.
    pub fn list(&self, folder: &str) -> Result<Option<Folder>, ReadError> {
        self.names(folder).map_err(|error| {
            let number = error.raw_os_error().map(io::Error::from_raw_os_error);
            if error.kind() != io::ErrorKind::PermissionDenied {
                let known = number.unwrap_or_else(|| error.kind().into());
                let _ = self.failure.set((folder.to_owned(), known));
            }
            ReadError::Io(error)
        })
    }

    fn names(&self, folder: &str) -> io::Result<Option<Folder>> {
        let path = self.path(folder);
        let entries = match fs::read_dir(&path) {
            Err(error) if is_absent(&error) => return Ok(None),
            entries => entries?,
        };
        let mut names = Folder::default();
        let mut odd = Vec::new();
        for entry in entries {
            let entry = entry?;
            // The listing includes the type, so only links need a system call.
            let kind = entry.file_type()?;
            match entry.file_name().into_string() {
                Ok(name) => sort_out(&mut names, name, kind, &entry.path()),
                Err(name) => odd.push((name, kind)),
            }
        }
        if !odd.is_empty() {
            odd.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            let mut taken: HashSet<String> =
                names.files.iter().chain(&names.folders).cloned().collect();
            let mut known = self.escaped.write().unwrap_or_else(PoisonError::into_inner);
            for (real, kind) in odd {
                let mut name = escape(&real);
                // A name that looks like the escaped one keeps it.
                while !taken.insert(name.clone()) {
                    name.insert(0, '%');
                }
                let real = path.join(real);
                known.insert(join(folder, &name), real.clone());
                sort_out(&mut names, name, kind, &real);
            }
        }
        names.sort();
        Ok(Some(names))
    }

    /// Device and inode of `folder`, by which one that links lead to again is recognized.
    pub fn identity(&self, folder: &str) -> Option<[u64; 2]> {
        let metadata = fs::metadata(self.path(folder)).ok()?;
        Some([metadata.dev(), metadata.ino()])
    }

    /// True if `folder` is a symbolic link.
    pub fn is_link(&self, folder: &str) -> bool {
        fs::symlink_metadata(self.path(folder)).is_ok_and(|it| it.is_symlink())
    }

    /// Replaces `bytes` with the content of `file`. Returns its stamp from before it was read.
    pub fn read(&self, file: &str, bytes: &mut Vec<u8>) -> Result<Stamp, ReadError> {
        read(&self.path(file), bytes)
    }
}

/// Replaces `bytes` with the content of the file at `path`. Returns its stamp from before it was read.
pub(super) fn read(path: &Path, bytes: &mut Vec<u8>) -> Result<Stamp, ReadError> {
    let read_error = |error| {
        if is_absent(&error) {
            ReadError::Missing
        } else {
            ReadError::Io(error)
        }
    };
    bytes.clear();
    let file = File::open(path).map_err(read_error)?;
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

/// Adds an entry of a folder to the names of its kind, which for a link is that of its target.
fn sort_out(names: &mut Folder, name: String, kind: fs::FileType, path: &Path) {
    if is_junk(&name) {
        return names.hidden.push(name);
    }
    let kind = match kind.is_symlink() {
        false => kind,
        true => match fs::metadata(path) {
            Ok(target) => target.file_type(),
            Err(_) => return names.dead_links.push(name),
        },
    };
    if kind.is_dir() {
        names.folders.push(name);
    } else if kind.is_file() {
        names.files.push(name);
    } else {
        names.special.push(name);
    }
}

fn escape(name: &OsStr) -> String {
    escaped(name.as_encoded_bytes())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
