//! A tar as storage: reads the headers once, then every file by its position. A tar has checksums of its
//! headers, but none of its data.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ::tar::{Archive, EntryType};

use super::index::Index;
use super::read_ahead::ReadAhead;
use super::spool::Compression;
use super::{Error, MAX_FILE, Problems, ReadError, Stamp, TreeProblem};
use crate::text::escaped;

/// An open tar whose headers have been read. Reads by position, so threads share the file without a
/// lock.
#[derive(Debug)]
pub(super) struct Tar {
    pub path: PathBuf,
    pub index: Index<TarEntry>,
    pub stamp: Stamp,
    file: File,
    /// True if `file` is a temporary one with the bytes of a compressed tar.
    pub is_decompressed: bool,
}

/// The position of a file in the tar, in bytes.
#[derive(Debug)]
pub(super) struct TarEntry {
    data: u64,
    size: u64,
    kind: TarEntryKind,
}

impl TarEntry {
    pub fn extent(&self) -> Range<u64> {
        self.data..self.data.saturating_add(self.size)
    }
}

#[derive(Clone, Copy, Debug)]
enum TarEntryKind {
    File,
    Folder,
    Link,
    Sparse,
}

/// The maximum length, in bytes, of the headers between the data of two files. No path comes near it. The
/// `tar` crate reads names into memory before anybody can check their length.
const MAX_HEADER: u64 = 1 << 20;

impl Tar {
    /// Returns whether a file that begins with `head` is a tar: POSIX and GNU write `ustar` at byte 257.
    pub fn is_tar(head: &[u8]) -> bool {
        head.get(257..262) == Some(b"ustar")
    }

    pub fn open(path: &Path, problems: &mut Problems<TreeProblem>) -> Result<Self, Error> {
        let open = |reason| Error::Open {
            path: path.to_owned(),
            reason,
        };
        let file = File::open(path).map_err(open)?;
        let stamp = Stamp::of(&file.metadata().map_err(open)?);
        Self::scan(path, file, stamp, problems)
    }

    /// Opens the tar in the compressed file at `path`. Costs one pass of decompression, and the disk
    /// space of the tar until the process ends.
    pub fn open_compressed(
        path: &Path,
        compression: Compression,
        problems: &mut Problems<TreeProblem>,
    ) -> Result<Self, Error> {
        let open = |reason| Error::Open {
            path: path.to_owned(),
            reason,
        };
        let file = File::open(path).map_err(open)?;
        let stamp = Stamp::of(&file.metadata().map_err(open)?);
        let mut plain = compression.expand(path, &file)?;
        plain.rewind().map_err(open)?;
        let tar = Self::scan(path, plain, stamp, problems)?;
        Ok(Self {
            is_decompressed: true,
            ..tar
        })
    }

    /// The open file with the bytes of the tar.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Reads the headers of the tar in `file`, which was opened from `path`.
    fn scan(
        path: &Path,
        file: File,
        stamp: Stamp,
        problems: &mut Problems<TreeProblem>,
    ) -> Result<Self, Error> {
        let mut index = Index::new();
        let mut archive = Archive::new(Headers {
            reader: BufReader::new(&file),
            at: 0,
            left: MAX_HEADER,
            ended: false,
        });
        let scanned = scan(&mut archive, &mut index, problems);
        let headers = archive.into_inner();
        let ended = match headers.ended {
            // The crate accepts the end of the file as the end of the tar.
            true => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file ends before the zeros that end a tar",
            )),
            false => Ok(()),
        };
        match scanned.and(ended) {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                index,
                stamp,
                file,
                is_decompressed: false,
            }),
            Err(reason) => Err(Error::Tar {
                path: path.to_owned(),
                offset: headers.at,
                reason,
            }),
        }
    }

    /// The content of the file with this entry.
    pub fn read<'a>(
        &self,
        entry: usize,
        read_ahead: &'a mut ReadAhead,
    ) -> Result<&'a [u8], ReadError> {
        let entry = self.readable_entry(entry)?;
        let bytes = read_ahead.get(&self.file, entry.extent());
        bytes.map_err(ReadError::Io)
    }

    /// Reads the files of `entries` ahead if that is faster.
    pub fn load(&self, entries: impl Iterator<Item = usize>, read_ahead: &mut ReadAhead) {
        let entries = entries.filter_map(|entry| self.readable_entry(entry).ok());
        read_ahead.load_all(&self.file, entries.map(TarEntry::extent));
    }

    /// The open tar and the place in it of the file with this entry, of any length.
    pub fn extent(&self, entry: usize) -> Result<(File, Range<u64>), ReadError> {
        let entry = self.index.get(entry).ok_or(ReadError::Missing)?;
        match entry.kind {
            TarEntryKind::Link => Err(ReadError::Link),
            TarEntryKind::Sparse => Err(ReadError::Sparse),
            TarEntryKind::File | TarEntryKind::Folder => {
                let file = self.file.try_clone().map_err(ReadError::Io)?;
                Ok((file, entry.extent()))
            }
        }
    }

    /// The entry with this index, if its file can be read and is at most [`MAX_FILE`] long.
    pub fn readable_entry(&self, entry: usize) -> Result<&TarEntry, ReadError> {
        let entry = self.index.get(entry).ok_or(ReadError::Missing)?;
        match entry.kind {
            TarEntryKind::Link => Err(ReadError::Link),
            TarEntryKind::Sparse => Err(ReadError::Sparse),
            TarEntryKind::File | TarEntryKind::Folder if entry.size > MAX_FILE => {
                Err(ReadError::TooLarge { size: entry.size })
            }
            TarEntryKind::File | TarEntryKind::Folder => Ok(entry),
        }
    }
}

/// Reads all headers and adds their files to `index`.
fn scan(
    archive: &mut Archive<Headers>,
    index: &mut Index<TarEntry>,
    problems: &mut Problems<TreeProblem>,
) -> io::Result<()> {
    for entry in archive.entries_with_seek()? {
        let mut entry = entry?;
        let mut kind = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => TarEntryKind::File,
            EntryType::Directory => TarEntryKind::Folder,
            EntryType::Link | EntryType::Symlink => TarEntryKind::Link,
            EntryType::GNUSparse => TarEntryKind::Sparse,
            // Skips devices, pipes, and headers that describe the whole archive.
            _ => continue,
        };
        let mut name = entry.path_bytes().into_owned();
        // POSIX tars mark a sparse file and store its real name in an extended header.
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            if extension.key_bytes().starts_with(b"GNU.sparse.") {
                kind = TarEntryKind::Sparse;
            }
            if extension.key_bytes() == b"GNU.sparse.name" {
                name = extension.value_bytes().to_owned();
            }
        }
        if matches!(kind, TarEntryKind::Folder) && !name.ends_with(b"/") {
            name.push(b'/');
        }
        let located = TarEntry {
            data: entry.raw_file_position(),
            size: entry.size(),
            kind,
        };
        index.insert(&escaped(&name), located, problems);
    }
    Ok(())
}

/// A reader of headers that seeks past data without dropping its buffer.
struct Headers<'a> {
    reader: BufReader<&'a File>,
    /// The current offset in the file.
    at: u64,
    /// Bytes that may still be read before the next seek, so that a forged length cannot fill the memory.
    left: u64,
    /// Set when a read has met the end of the file.
    ended: bool,
}

impl Read for Headers<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a header is longer than {MAX_HEADER} bytes"),
            ));
        }
        let len = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let read = self.reader.read(&mut bytes[..len])?;
        self.ended |= read == 0;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Seek for Headers<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.left = MAX_HEADER;
        if let SeekFrom::Current(by) = to {
            self.reader.seek_relative(by)?;
            self.at = self
                .at
                .checked_add_signed(by)
                .ok_or(io::ErrorKind::InvalidInput)?;
        } else {
            self.at = self.reader.seek(to)?;
        }
        Ok(self.at)
    }
}
