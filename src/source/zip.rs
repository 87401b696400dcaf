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
/// Length of the record at the end of a zip without its comment, in bytes.
const END_RECORD: usize = 22;
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
        let mut index = list(&archive, problems).map_err(damaged)?;
        let counted = archive.len();
        let mut repeats = archive.has_duplicate_names();
        let (mut start, mut offset) = (archive.central_directory_start(), archive.offset());
        // The reader is at the end of the last entry that the archive counts.
        let mut end = archive.into_inner().stream_position().map_err(open)?;
        if counted == 0
            && let Some(found) = find_directory(&file, len).map_err(open)?
        {
            // The archive does not look for a directory of no entry, and 65,536 are counted as none.
            [start, offset] = found;
            end = start;
        }
        let mut next = [0; CENTRAL_MAGIC.len()];
        if file.read_exact_at(&mut next, end).is_ok() && next == CENTRAL_MAGIC {
            let (listed, end) = count_listed(&file, start).map_err(open)?;
            let mut record = [0; END_RECORD];
            let record = (file.read_exact_at(&mut record, end).map(|()| record))
                .ok()
                .filter(|record| record.starts_with(b"PK\x05\x06"))
                // The count has 16 bits.
                .filter(|it| u64::from(u16::from_le_bytes([it[10], it[11]])) == listed % (1 << 16));
            if record.is_none() {
                return Err(Error::ZipCount {
                    path: path.to_owned(),
                    counted,
                    listed: usize::try_from(listed).unwrap_or(usize::MAX),
                });
            }
            let recounted = Recounted::new(
                &file,
                start.saturating_sub(offset),
                end,
                end.saturating_sub(offset),
                listed,
            );
            let archive = ZipArchive::new(BufReader::new(recounted)).map_err(damaged)?;
            *problems = Problems::default();
            index = list(&archive, problems).map_err(damaged)?;
            repeats = archive.has_duplicate_names();
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

/// The entries of `archive` by folder.
fn list<R: Read + Seek>(
    archive: &ZipArchive<R>,
    problems: &mut Problems<TreeProblem>,
) -> Result<Index<ZipEntry>, ZipError> {
    let mut index = Index::new();
    for at in 0..archive.len() {
        let entry = archive.by_index_data(at)?;
        let mut name = entry.name()?;
        if name.contains('\\') {
            // Windows PowerShell separates folders by backslashes.
            name = name.replace('\\', "/").into();
        }
        index.insert(&name, ZipEntry::new(&entry), problems);
    }
    Ok(index)
}

/// Calls `see` with the name of each entry in the zip's directory, which begins at `start`, up to the first
/// bytes that are not an entry. Returns where they are.
fn scan(file: &File, start: u64, mut see: impl FnMut(Vec<u8>)) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(start))?;
    let mut end = start;
    let mut header = [0; CENTRAL_HEADER];
    while reader.read_exact(&mut header).is_ok() && header.starts_with(&CENTRAL_MAGIC) {
        let length = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let mut name = vec![0; length(28).into()];
        reader.read_exact(&mut name)?;
        let rest = i64::from(length(30)) + i64::from(length(32));
        reader.seek_relative(rest)?;
        end += CENTRAL_HEADER as u64 + name.len() as u64 + rest.unsigned_abs();
        see(name);
    }
    Ok(end)
}

/// Where the zip's directory begins in a file of `len` bytes, by the last end record, and how many bytes come
/// before the zip.
fn find_directory(file: &File, len: u64) -> io::Result<Option<[u64; 2]>> {
    let first = len.saturating_sub(END_RECORD as u64 + u64::from(u16::MAX));
    let mut tail = Vec::new();
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(first))?;
    reader.read_to_end(&mut tail)?;
    let mut records = tail.windows(END_RECORD);
    let Some(at) = records.rposition(|record| record.starts_with(b"PK\x05\x06")) else {
        return Ok(None);
    };
    let field = |from: usize| {
        let bytes = &tail[at + from..at + from + 4];
        bytes
            .iter()
            .rev()
            .fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let start = (first + at as u64).checked_sub(field(12));
    let offset = start.and_then(|start| start.checked_sub(field(16)));
    Ok(start.zip(offset).map(|(start, offset)| [start, offset]))
}

/// The number of entries in the zip's directory, and where it ends.
fn count_listed(file: &File, start: u64) -> io::Result<(u64, u64)> {
    let mut count = 0;
    let end = scan(file, start, |_| count += 1)?;
    Ok((count, end))
}

/// Reports files with the same name, of which `ZipArchive` keeps only the last. A folder may be listed twice.
fn find_repeated(file: &File, start: u64, problems: &mut Problems<TreeProblem>) -> io::Result<()> {
    let mut seen = HashSet::new();
    scan(file, start, |name| {
        let is_folder = name.ends_with(b"/") || name.ends_with(b"\\");
        let shown = String::from_utf8_lossy(&name).into_owned();
        if !is_folder && !seen.insert(name) && !shown.split('/').any(is_junk) {
            problems.push(TreeProblem::RepeatedEntry { name: shown });
        }
    })?;
    Ok(())
}

/// A zip whose directory lists more files than the 16 bits of its end record can count, as macOS makes them,
/// with an end record that counts all of them: the zip64 records of APPNOTE.TXT, sections 4.3.14 to 4.3.16.
struct Recounted<'a> {
    file: &'a File,
    /// Where the directory ends in the file. `records` follow.
    end: u64,
    records: Vec<u8>,
    at: u64,
}

impl<'a> Recounted<'a> {
    /// Ends `file` at byte `end`. The directory of `count` entries is from `start` to `stop`, from where the zip
    /// begins in the file.
    fn new(file: &'a File, start: u64, end: u64, stop: u64, count: u64) -> Self {
        let mut records = Vec::new();
        let mut put = |bytes: &[u8]| records.extend_from_slice(bytes);
        put(b"PK\x06\x06");
        put(&44_u64.to_le_bytes()); // Length of the rest of this record.
        put(&[45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // Versions, disks.
        for field in [count, count, stop.saturating_sub(start), start] {
            put(&field.to_le_bytes());
        }
        put(b"PK\x06\x07\0\0\0\0");
        put(&stop.to_le_bytes());
        put(&1_u32.to_le_bytes());
        put(b"PK\x05\x06\0\0\0\0");
        put(&[0xff; 12]); // The real values are in the first record.
        put(&[0, 0]);
        Self {
            file,
            end,
            records,
            at: 0,
        }
    }
}

impl Read for Recounted<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = match self.end.checked_sub(self.at) {
            Some(left @ 1..) => {
                let len = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.file.read_at(&mut bytes[..len], self.at)?
            }
            _ => {
                let at = usize::try_from(self.at - self.end).unwrap_or(usize::MAX);
                let mut rest = self.records.get(at..).unwrap_or_default();
                rest.read(bytes)?
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Recounted<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => (self.end + self.records.len() as u64).checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
