//! A zip as storage: reads the directory once, then every file by its position, and checks its CRC-32.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ::zip::read::ZipFileEntry;
use ::zip::result::ZipError;
use ::zip::{CompressionMethod, ZipArchive};
use flate2::bufread::DeflateDecoder;

use super::index::Index;
use super::names::is_junk;
use super::read_ahead::ReadAhead;
use super::{Error, MAX_FILE, Problems, ReadError, Stamp, TreeProblem};

/// An open zip whose directory has been read. Reads by position, so threads share the file without a
/// lock.
#[derive(Debug)]
pub(super) struct Zip {
    pub path: PathBuf,
    pub index: Index<ZipEntry>,
    pub stamp: Stamp,
    file: File,
    len: u64,
}

/// The position of a file in the zip and its checksum, from the zip's directory. Offsets and lengths are
/// in bytes.
#[derive(Debug)]
pub(super) struct ZipEntry {
    /// Offset of the local header.
    header: u64,
    /// Length of the stored or compressed data.
    packed: u64,
    /// Length of the file.
    size: u64,
    crc: u32,
    kind: ZipEntryKind,
}

#[derive(Clone, Copy, Debug)]
enum ZipEntryKind {
    Stored,
    Deflated,
    Encrypted,
    Link,
    Other(CompressionMethod),
}

/// Length of a local header without its name, in bytes.
const LOCAL_HEADER: usize = 30;
/// Length, in bytes, that a read assumes for the name and the extra fields of a local header. Enough for
/// the paths of such trees and for the fields that Info-ZIP adds. A longer header costs a second read.
const LOCAL_NAME: u64 = 128;
/// Length of an entry of the zip's directory without its name, in bytes.
const CENTRAL_HEADER: usize = 46;
const CENTRAL_MAGIC: [u8; 4] = *b"PK\x01\x02";

impl Zip {
    pub fn open(path: &Path, problems: &mut Problems<TreeProblem>) -> Result<Self, Error> {
        let open = |reason| Error::Open {
            path: path.to_owned(),
            reason,
        };
        let damaged = |reason| match reason {
            ZipError::Io(reason) => open(reason),
            reason => Error::Zip {
                path: path.to_owned(),
                reason,
            },
        };
        let file = File::open(path).map_err(open)?;
        let metadata = file.metadata().map_err(open)?;
        let (stamp, len) = (Stamp::of(&metadata), metadata.len());
        let archive = ZipArchive::new(BufReader::with_capacity(1 << 16, &file)).map_err(damaged)?;

        let mut index = Index::new();
        for at in 0..archive.len() {
            let entry = archive.by_index_data(at).map_err(damaged)?;
            let mut name = entry.name().map_err(damaged)?;
            if name.contains('\\') {
                // Windows PowerShell separates folders by backslashes.
                name = name.replace('\\', "/").into();
            }
            index.insert(&name, ZipEntry::new(&entry), problems);
        }
        let counted = archive.len();
        let repeats = archive.has_duplicate_names();
        let start = archive.central_directory_start();
        // The reader is at the end of the last entry that the archive counts.
        let end = archive.into_inner().stream_position().map_err(open)?;
        let mut next = [0; CENTRAL_MAGIC.len()];
        if file.read_exact_at(&mut next, end).is_ok() && next == CENTRAL_MAGIC {
            return Err(Error::ZipCount {
                path: path.to_owned(),
                counted,
            });
        }
        if repeats {
            find_repeated(&file, start, problems).map_err(open)?;
        }
        Ok(Self {
            path: path.to_owned(),
            index,
            stamp,
            file,
            len,
        })
    }

    /// The content of the file with this entry, checked against its CRC-32.
    pub fn read<'a>(
        &self,
        entry: usize,
        read_ahead: &'a mut ReadAhead,
        plain: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], ReadError> {
        let entry = self.readable_entry(entry)?;
        let mut bytes = self.packed(entry, read_ahead)?;
        if let ZipEntryKind::Deflated = entry.kind {
            plain.clear();
            // One more byte than stated detects a longer file; the checksum detects any other damage.
            DeflateDecoder::new(bytes)
                .take(entry.size + 1)
                .read_to_end(plain)
                .map_err(|_| entry.damaged("its data does not inflate"))?;
            bytes = plain;
        }
        if bytes.len() as u64 != entry.size {
            return Err(entry.damaged("its data has another length than stated"));
        }
        match crc32fast::hash(bytes) {
            got if got == entry.crc => Ok(bytes),
            got => Err(ReadError::Checksum {
                got,
                expected: entry.crc,
            }),
        }
    }

    /// Reads the files of `entries` ahead if that is faster.
    pub fn load(&self, entries: impl Iterator<Item = usize>, read_ahead: &mut ReadAhead) {
        let entries = entries.filter_map(|entry| self.readable_entry(entry).ok());
        read_ahead.load_all(&self.file, entries.map(|entry| self.extent(entry)));
    }

    /// The entry with this index, if its file can be read and is at most [`MAX_FILE`] long.
    pub fn readable_entry(&self, entry: usize) -> Result<&ZipEntry, ReadError> {
        let entry = self.index.get(entry).ok_or(ReadError::Missing)?;
        match entry.kind {
            ZipEntryKind::Encrypted => Err(ReadError::Encrypted),
            ZipEntryKind::Link => Err(ReadError::Link),
            ZipEntryKind::Other(method) => Err(ReadError::Method {
                method: method.to_string(),
            }),
            ZipEntryKind::Stored | ZipEntryKind::Deflated => match entry.size.max(entry.packed) {
                size if size > MAX_FILE => Err(ReadError::TooLarge { size }),
                _ => Ok(entry),
            },
        }
    }

    /// The bytes of the entry's local header and data, if that header has the usual length.
    fn extent(&self, entry: &ZipEntry) -> Range<u64> {
        let left = self.len.saturating_sub(entry.header);
        let guess = LOCAL_HEADER as u64 + LOCAL_NAME + entry.packed;
        entry.header..entry.header + guess.min(left)
    }

    /// The entry's data as stored in the zip. Reads the local header together with the data, because
    /// only the header says how long it is.
    fn packed<'a>(
        &self,
        entry: &ZipEntry,
        read_ahead: &'a mut ReadAhead,
    ) -> Result<&'a [u8], ReadError> {
        let extent = self.extent(entry);
        let header = read_ahead.get(&self.file, extent).map_err(ReadError::Io)?;
        let header = header
            .first_chunk::<LOCAL_HEADER>()
            .filter(|header| header.starts_with(b"PK\x03\x04"));
        let header = header.ok_or_else(|| entry.damaged("no entry begins there"))?;
        let [.., n0, n1, x0, x1] = *header;
        let start = LOCAL_HEADER
            + usize::from(u16::from_le_bytes([n0, n1]))
            + usize::from(u16::from_le_bytes([x0, x1]));
        let end = entry.header + start as u64 + entry.packed;
        if end > self.len {
            return Err(entry.damaged("its data goes on past the end of the file"));
        }
        let bytes = read_ahead.get(&self.file, entry.header..end);
        Ok(&bytes.map_err(ReadError::Io)?[start..])
    }
}

impl ZipEntry {
    fn new(entry: &ZipFileEntry<'_>) -> Self {
        let kind = match entry.compression() {
            _ if entry.encrypted() => ZipEntryKind::Encrypted,
            _ if entry.is_symlink() => ZipEntryKind::Link,
            CompressionMethod::Stored => ZipEntryKind::Stored,
            CompressionMethod::Deflated => ZipEntryKind::Deflated,
            other => ZipEntryKind::Other(other),
        };
        Self {
            header: entry.header_start(),
            packed: entry.compressed_size(),
            size: entry.size(),
            crc: entry.crc32(),
            kind,
        }
    }

    fn damaged(&self, reason: &'static str) -> ReadError {
        ReadError::Entry {
            offset: self.header,
            reason,
        }
    }
}

/// Reports entries with the same name, of which `ZipArchive` keeps only the last.
fn find_repeated(file: &File, start: u64, problems: &mut Problems<TreeProblem>) -> io::Result<()> {
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(start))?;
    let mut seen = HashSet::new();
    let mut header = [0; CENTRAL_HEADER];
    while reader.read_exact(&mut header).is_ok() && header.starts_with(&CENTRAL_MAGIC) {
        let length = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let mut name = vec![0; length(28).into()];
        reader.read_exact(&mut name)?;
        reader.seek_relative(i64::from(length(30)) + i64::from(length(32)))?;
        let shown = String::from_utf8_lossy(&name).into_owned();
        if !seen.insert(name) && !shown.split('/').any(is_junk) {
            problems.push(TreeProblem::RepeatedEntry { name: shown });
        }
    }
    Ok(())
}
