//! One view of a directory, a zip and a tar: folders to list and files to read. Knows nothing about
//! layouts.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use super::dir::Dir;
use super::folder::{Folder, join};
use super::read_ahead::ReadAhead;
use super::spool::Compression;
use super::tar::Tar;
use super::zip::Zip;
use super::{Error, Problems, ReadError, Stamp, TreeProblem};

/// A tree of named files in a directory, a zip or a tar.
#[derive(Debug)]
pub(super) enum Tree {
    Dir(Dir),
    Zip(Zip),
    Tar(Tar),
}

/// Memory that a thread reads files to, one after the other.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
    read_ahead: ReadAhead,
    /// A file from a directory, or the decompressed file from a zip.
    pub(super) bytes: Vec<u8>,
    /// Stamp of the file that was read last from a directory.
    stamp: Option<Stamp>,
}

/// The first bytes of compressed files that are not read here, each with the program that decompresses them.
const COMPRESSED: &[(&[u8], &str)] = &[(b"BZh", "bunzip2"), (b"\xfd7zXZ\0", "unxz")];

/// Maximum number of folders two levels down in a directory that are searched for a data set.
const MAX_SEARCHED: usize = 4096;
/// Maximum number of levels that are searched where each folder holds only one.
const MAX_CHAIN: usize = 8;

impl Tree {
    pub fn open(path: &Path, problems: &mut Problems<TreeProblem>) -> Result<Self, Error> {
        let open = |reason| Error::Open {
            path: path.to_owned(),
            reason,
        };
        if fs::metadata(path).map_err(open)?.is_dir() {
            // Fails here, with the right error, if the directory may not be read.
            fs::read_dir(path).map_err(open)?;
            return Ok(Self::Dir(Dir::new(path)));
        }
        // The content decides, since names can be wrong.
        let mut head = Vec::new();
        let file = File::open(path).map_err(open)?;
        file.take(512).read_to_end(&mut head).map_err(open)?;
        if let Some((_, unpack)) = COMPRESSED.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Err(Error::Compressed {
                path: path.to_owned(),
                unpack,
            });
        }
        #[cfg(not(feature = "parquet"))]
        if head.starts_with(b"PAR1") {
            return Err(Error::Table {
                path: path.to_owned(),
                reason: "a Parquet file, and this tinyres was built without the feature `parquet`; build it with --features parquet".to_owned(),
            });
        }
        if let Some(compression) = Compression::of(&head) {
            return Tar::open_compressed(path, compression, problems).map(Self::Tar);
        }
        // Tars of before POSIX have no mark.
        let is_named_tar = path.extension().is_some_and(|it| it == "tar");
        if Tar::is_tar(&head) || (is_named_tar && !head.starts_with(b"PK\x03\x04")) {
            Tar::open(path, problems).map(Self::Tar)
        } else {
            Zip::open(path, problems).map(Self::Zip)
        }
    }

    /// The names in `folder`, or `None` if there is no such folder.
    pub fn list(&self, folder: &str) -> Result<Option<Folder>, ReadError> {
        match self {
            Self::Dir(dir) => dir.list(folder),
            Self::Zip(zip) => Ok(zip.index.list(folder)),
            Self::Tar(tar) => Ok(tar.index.list(folder)),
        }
    }

    /// The first folder of a directory that the system failed to list, and the error.
    pub fn failure(&self) -> Option<(&str, io::Error)> {
        match self {
            Self::Dir(dir) => dir.failure(),
            Self::Zip(_) | Self::Tar(_) => None,
        }
    }

    /// The index of the entry of `file` in an archive, for [`read_entry`](Self::read_entry); 0 in a
    /// directory, which needs only the name. Fails if the archive's directory already shows that the
    /// file cannot be read.
    pub fn find_entry(&self, file: &str) -> Result<usize, ReadError> {
        let missing = ReadError::Missing;
        match self {
            Self::Dir(_) => Ok(0),
            Self::Zip(zip) => {
                let entry = zip.index.find(file).ok_or(missing)?;
                zip.readable_entry(entry).map(|_| entry)
            }
            Self::Tar(tar) => {
                let entry = tar.index.find(file).ok_or(missing)?;
                tar.readable_entry(entry).map(|_| entry)
            }
        }
    }

    /// The bytes of `file`.
    pub fn read(&self, file: &str) -> Result<Vec<u8>, ReadError> {
        let mut buffer = ReadBuffer::default();
        let bytes = self.read_entry(file, self.find_entry(file)?, &mut buffer)?;
        Ok(bytes.to_owned())
    }

    /// The bytes of `file`, whose entry [`find_entry`](Self::find_entry) has found.
    pub fn read_entry<'a>(
        &self,
        file: &str,
        entry: usize,
        buffer: &'a mut ReadBuffer,
    ) -> Result<&'a [u8], ReadError> {
        let ReadBuffer {
            read_ahead,
            bytes,
            stamp,
        } = buffer;
        match self {
            Self::Dir(dir) => {
                *stamp = Some(dir.read(file, bytes)?);
                Ok(bytes)
            }
            Self::Zip(zip) => zip.read(entry, read_ahead, bytes),
            Self::Tar(tar) => tar.read(entry, read_ahead),
        }
    }

    /// An open file and the place in it of the content of `file`, which may have any length. Deflated data of a
    /// zip goes to a temporary file.
    pub fn extent(&self, file: &str) -> Result<(File, Range<u64>), ReadError> {
        match self {
            Self::Dir(dir) => {
                let file = File::open(dir.path(file)).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => ReadError::Missing,
                    _ => ReadError::Io(error),
                })?;
                let len = file.metadata().map_err(ReadError::Io)?.len();
                Ok((file, 0..len))
            }
            Self::Zip(zip) => zip.extent(zip.index.find(file).ok_or(ReadError::Missing)?),
            Self::Tar(tar) => tar.extent(tar.index.find(file).ok_or(ReadError::Missing)?),
        }
    }

    /// Reads ahead the files of `entries` to `buffer` if that is faster than to read each separately.
    pub fn load(&self, entries: impl Iterator<Item = usize>, buffer: &mut ReadBuffer) {
        match self {
            Self::Dir(_) => {}
            Self::Zip(zip) => zip.load(entries, &mut buffer.read_ahead),
            Self::Tar(tar) => tar.load(entries, &mut buffer.read_ahead),
        }
    }

    /// Stamp of the file that was last read to `buffer`, from before it was read.
    pub fn stamp_of_read(&self, buffer: &ReadBuffer) -> Option<Stamp> {
        match self {
            Self::Dir(_) => buffer.stamp,
            Self::Zip(zip) => Some(zip.stamp),
            Self::Tar(tar) => Some(tar.stamp),
        }
    }

    /// Stamp of `file` now, or of the archive as it was opened.
    pub fn stamp(&self, file: &str) -> io::Result<Stamp> {
        match self {
            Self::Dir(dir) => Ok(Stamp::of(&fs::metadata(dir.path(file))?)),
            Self::Zip(zip) => Ok(zip.stamp),
            Self::Tar(tar) => Ok(tar.stamp),
        }
    }

    /// The path of `file` as messages show it.
    pub fn display_path(&self, file: &str) -> String {
        let (path, inside) = match self {
            Self::Dir(dir) => return dir.path(file).display().to_string(),
            Self::Zip(zip) => (&zip.path, zip.index.path(file)),
            Self::Tar(tar) => (&tar.path, tar.index.path(file)),
        };
        match inside.as_str() {
            "" => path.display().to_string(),
            inside => format!("{}: {inside}", path.display()),
        }
    }

    /// The folders for which `is_root` is true, by path and content, at the smallest depth that has
    /// any. Searches all of an archive. A directory may be a whole disk: it is searched two levels down, and
    /// further where each folder holds only one.
    pub fn find_roots(&self, is_root: impl Fn(&str, &Folder) -> bool) -> Vec<String> {
        let mut level = vec![String::new()];
        let is_dir = matches!(self, Self::Dir(_));
        let mut depth = 0;
        loop {
            let only = level.len() == 1;
            // A folder that cannot be listed is not a root.
            let listed = level.into_iter().filter_map(|path| {
                let folder = self.list(&path).ok()??;
                Some((path, folder))
            });
            let (roots, others): (Vec<_>, Vec<_>) =
                listed.partition(|(path, folder)| is_root(path, folder));
            if !roots.is_empty() {
                return roots.into_iter().map(|(path, _)| path).collect();
            }
            let inside = |(path, folder): (String, Folder)| {
                folder
                    .folders
                    .into_iter()
                    .map(move |name| join(&path, &name))
            };
            level = others.into_iter().flat_map(inside).collect();
            depth += 1;
            let is_far = match depth {
                0..=1 => false,
                2 => level.len() > MAX_SEARCHED,
                _ => !only || level.len() > 1 || depth > MAX_CHAIN,
            };
            if level.is_empty() || (is_dir && is_far) {
                return Vec::new();
            }
        }
    }

    /// Makes `folder` the root.
    pub fn enter(&mut self, folder: &str) {
        match self {
            Self::Dir(dir) => dir.enter(folder),
            Self::Zip(zip) => zip.index.enter(folder),
            Self::Tar(tar) => tar.index.enter(folder),
        }
    }

    /// True if `folder` is a symbolic link in a directory.
    pub fn is_link(&self, folder: &str) -> bool {
        matches!(self, Self::Dir(dir) if dir.is_link(folder))
    }

    /// True if `folder` of a directory is the same as a folder above it, so that links form a loop.
    pub fn leads_back(&self, folder: &str) -> bool {
        let Self::Dir(dir) = self else {
            return false;
        };
        let Some(own) = dir.identity(folder) else {
            return false;
        };
        let above = folder.match_indices('/').map(|(at, _)| &folder[..at]);
        above
            .chain([""])
            .any(|above| dir.identity(above) == Some(own))
    }

    /// The folders that [`find_roots`](Self::find_roots) searches, in words for a message.
    pub fn search_range(&self) -> &'static str {
        match self {
            Self::Dir(_) => "in the directory or two levels down",
            Self::Zip(_) => "anywhere in the zip",
            Self::Tar(_) => "anywhere in the tar",
        }
    }
}
