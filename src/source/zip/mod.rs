//! A zip as storage: reads the directory once, then every file by its position, and checks its CRC-32.

mod directory;
mod view;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ::zip::CompressionMethod;
use ::zip::read::ZipFileEntry;
use ::zip::result::ZipError;
use flate2::bufread::DeflateDecoder;

use self::directory::DirectoryError;
use self::view::View;
use super::index::Index;
use super::inflate::{damage, decoder};
use super::read_ahead::ReadAhead;
use super::spool::spool;
use super::{Error, MAX_FILE, Problems, ReadError, Stamp, TreeProblem};

/// An open zip whose directory has been read. Reads by position, so threads share the file without a
/// lock.
#[derive(Debug)]
pub(super) struct Zip {
    pub path: PathBuf,
    pub index: Index<ZipEntry>,
    pub stamp: Stamp,
    file: File,
    /// The place of the zip in the file: all of it, unless it lies in another archive.
    range: Range<u64>,
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

/// Bytes of a file of any length that are in memory at one time.
const BUFFER: usize = 1 << 18;
/// Length of a local header without its name, in bytes.
const LOCAL_HEADER: usize = 30;
const LOCAL_MAGIC: &[u8] = b"PK\x03\x04";
/// Length, in bytes, that a read assumes for the name and the extra fields of a local header. Enough for
/// the paths of such trees and for the fields that Info-ZIP adds. A longer header costs a second read.
const LOCAL_NAME: u64 = 128;
/// The most times its length that deflated data can grow to. Source: zlib's `algorithm.txt`.
const MAX_INFLATION: u64 = 1032;

impl Zip {
    pub fn open(path: &Path, problems: &mut Problems<TreeProblem>) -> Result<Self, Error> {
        let open = |reason| Error::Open {
            path: path.to_owned(),
            reason,
        };
        let file = File::open(path).map_err(open)?;
        let metadata = file.metadata().map_err(open)?;
        let range = 0..metadata.len();
        Self::within(path.to_owned(), file, range, Stamp::of(&metadata), problems)
    }

    /// Opens the zip in `range` of `file`, which messages call `path`.
    pub fn within(
        path: PathBuf,
        file: File,
        range: Range<u64>,
        stamp: Stamp,
        problems: &mut Problems<TreeProblem>,
    ) -> Result<Self, Error> {
        let view = View::new(&file, range.clone());
        let index = match directory::read(&view, problems) {
            Ok(index) => index,
            Err(DirectoryError::Zip(ZipError::Io(reason))) => {
                return Err(Error::Open { path, reason });
            }
            Err(DirectoryError::Zip(reason)) => return Err(Error::Zip { path, reason }),
            Err(DirectoryError::Count { counted, listed }) => {
                return Err(Error::ZipCount {
                    path,
                    counted,
                    listed,
                });
            }
        };
        Ok(Self {
            path,
            index,
            stamp,
            file,
            range,
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
            let inflater = decoder(|| DeflateDecoder::new(bytes)).map_err(ReadError::Io)?;
            (inflater.take(entry.size + 1).read_to_end(plain))
                .map_err(|error| entry.not_inflated(error, "its data does not inflate"))?;
            bytes = plain;
        }
        entry.check(bytes.len() as u64, crc32fast::hash(bytes))?;
        Ok(bytes)
    }

    /// Reads the files of `entries` ahead if that is faster.
    pub fn load(&self, entries: impl Iterator<Item = usize>, read_ahead: &mut ReadAhead) {
        let entries = entries.filter_map(|entry| self.readable_entry(entry).ok());
        read_ahead.load_all(&self.file, entries.map(|entry| self.around(entry)));
    }

    /// An open file and the place in it of the content of the file with this entry, which may have any length.
    /// Deflated data goes to a temporary file. Reads all of it, to check its CRC-32.
    pub fn extent(&self, entry: usize) -> Result<(File, Range<u64>), ReadError> {
        let entry = self.entry(entry)?;
        let data = self.data(entry)?;
        let mut checked = Checked {
            crc: crc32fast::Hasher::new(),
            len: 0,
            plain: self.plain(entry, data.clone())?,
        };
        let spooled = match entry.kind {
            ZipEntryKind::Deflated => {
                let damaged = |error| {
                    let what = "its data does not inflate, or has another length than stated";
                    entry.not_inflated(error, what)
                };
                let limited = (&mut checked).take(entry.size.saturating_add(1));
                Some(spool(limited, entry.packed, damaged)?)
            }
            _ => {
                let mut whole = BufReader::with_capacity(BUFFER, &mut checked);
                io::copy(&mut whole, &mut io::sink()).map_err(ReadError::Io)?;
                None
            }
        };
        let (len, got) = (checked.len, checked.crc.finalize());
        entry.check(len, got)?;
        match spooled {
            Some(file) => Ok((file, 0..len)),
            None => Ok((self.file.try_clone().map_err(ReadError::Io)?, data)),
        }
    }

    /// The first bytes of the file with this entry, at most `limit`, and its length. They are not checked.
    pub fn head(&self, entry: usize, limit: u64) -> Result<(Vec<u8>, u64), ReadError> {
        let entry = self.entry(entry)?;
        let mut head = Vec::new();
        self.plain(entry, self.data(entry)?)?
            .take(limit)
            .read_to_end(&mut head)
            .map_err(|error| entry.not_inflated(error, "its data does not inflate"))?;
        Ok((head, entry.size))
    }

    /// A reader of the entry's content, which lies in `data`.
    fn plain(&self, entry: &ZipEntry, data: Range<u64>) -> Result<Box<dyn Read + '_>, ReadError> {
        let packed = View::new(&self.file, data);
        match entry.kind {
            ZipEntryKind::Deflated => {
                let packed = BufReader::with_capacity(BUFFER, packed);
                let inflater = decoder(|| DeflateDecoder::new(packed)).map_err(ReadError::Io)?;
                Ok(Box::new(inflater))
            }
            _ => Ok(Box::new(packed)),
        }
    }

    /// The entry with this index, if its file can be read and is at most [`MAX_FILE`] long.
    pub fn readable_entry(&self, entry: usize) -> Result<&ZipEntry, ReadError> {
        let entry = self.entry(entry)?;
        match entry.size.max(entry.packed) {
            size if size > MAX_FILE => Err(ReadError::TooLarge { size }),
            _ => Ok(entry),
        }
    }

    /// The entry with this index, if its file can be read.
    fn entry(&self, entry: usize) -> Result<&ZipEntry, ReadError> {
        let entry = self.index.get(entry).ok_or(ReadError::Missing)?;
        match entry.kind {
            ZipEntryKind::Encrypted => Err(ReadError::Encrypted),
            ZipEntryKind::Link => Err(ReadError::Link),
            ZipEntryKind::Other(method) => Err(ReadError::Method {
                method: method.to_string(),
            }),
            ZipEntryKind::Stored | ZipEntryKind::Deflated => Ok(entry),
        }
    }

    /// The bytes of the entry's local header and data, if that header has the usual length.
    fn around(&self, entry: &ZipEntry) -> Range<u64> {
        let start = self.range.start.saturating_add(entry.header);
        let guess = LOCAL_HEADER as u64 + LOCAL_NAME + entry.packed;
        start..start + guess.min(self.range.end.saturating_sub(start))
    }

    /// The entry's data as stored in the zip. Reads the local header together with the data, because
    /// only the header says how long it is.
    fn packed<'a>(
        &self,
        entry: &ZipEntry,
        read_ahead: &'a mut ReadAhead,
    ) -> Result<&'a [u8], ReadError> {
        let around = self.around(entry);
        let begin = around.start;
        let header = read_ahead.get(&self.file, around).map_err(ReadError::Io)?;
        let start = entry.data_start(header)?;
        let end = begin + start as u64 + entry.packed;
        if end > self.range.end {
            return Err(entry.damaged("its data goes on past the end of the file"));
        }
        let bytes = read_ahead.get(&self.file, begin..end);
        Ok(&bytes.map_err(ReadError::Io)?[start..])
    }

    /// The place of the entry's data in the file.
    fn data(&self, entry: &ZipEntry) -> Result<Range<u64>, ReadError> {
        if entry.size / MAX_INFLATION > entry.packed {
            return Err(entry.damaged("its data is too short for the length that is stated"));
        }
        let begin = self.range.start.saturating_add(entry.header);
        let mut header = [0; LOCAL_HEADER];
        // Past the end there is no header either.
        let _ = self.file.read_exact_at(&mut header, begin);
        let start = begin.saturating_add(entry.data_start(&header)? as u64);
        match start.checked_add(entry.packed) {
            Some(end) if end <= self.range.end => Ok(start..end),
            _ => Err(entry.damaged("its data goes on past the end of the file")),
        }
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

    /// Length of the local header that begins `header`.
    fn data_start(&self, header: &[u8]) -> Result<usize, ReadError> {
        let header = header
            .first_chunk::<LOCAL_HEADER>()
            .filter(|header| header.starts_with(LOCAL_MAGIC));
        let header = header.ok_or_else(|| self.damaged("no entry begins there"))?;
        let [.., n0, n1, x0, x1] = *header;
        Ok(LOCAL_HEADER
            + usize::from(u16::from_le_bytes([n0, n1]))
            + usize::from(u16::from_le_bytes([x0, x1])))
    }

    /// Compares the length and the CRC-32 of its content with those that the directory states.
    fn check(&self, len: u64, crc: u32) -> Result<(), ReadError> {
        if len != self.size {
            return Err(self.damaged("its data has another length than stated"));
        }
        match crc == self.crc {
            true => Ok(()),
            false => Err(ReadError::Checksum {
                got: crc,
                expected: self.crc,
            }),
        }
    }

    /// The `error` of reading its inflated data: damage in the words of `what`, unless it is of the system.
    fn not_inflated(&self, error: io::Error, what: &'static str) -> ReadError {
        damage(error).map_or_else(ReadError::Io, |_| self.damaged(what))
    }

    fn damaged(&self, reason: &'static str) -> ReadError {
        ReadError::Entry {
            offset: self.header,
            reason,
        }
    }
}

/// Counts and hashes what it reads.
struct Checked<R> {
    crc: crc32fast::Hasher,
    len: u64,
    plain: R,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.plain.read(bytes)?;
        self.crc.update(&bytes[..read]);
        self.len += read as u64;
        Ok(read)
    }
}
