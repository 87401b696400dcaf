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
use super::window::Window;
use super::{Error, Fault, MAX_FILE, Problem, Problems, Stamp};

/// A zip whose directory has been read once. Entries are read by position, so that threads share
/// the file without a lock.
#[derive(Debug)]
pub(super) struct Zip {
    pub path: PathBuf,
    pub index: Index<Entry>,
    pub stamp: Stamp,
    file: File,
    len: u64,
}

/// Where a file's bytes lie and how to check them, as the zip's directory says.
#[derive(Debug)]
pub(super) struct Entry {
    header: u64,
    packed: u64,
    size: u64,
    crc: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Stored,
    Deflated,
    Encrypted,
    Link,
    Other(CompressionMethod),
}

/// Bytes of a local header before its name.
const LOCAL_HEADER: usize = 30;
/// Bytes of name and extra fields that one read leaves room for, enough for the paths of such a
/// tree and what Info-ZIP adds. A longer header costs a second read.
const LOCAL_NAME: u64 = 128;
/// Bytes of an entry in the zip's directory before its name.
const CENTRAL_HEADER: usize = 46;
const CENTRAL_MAGIC: [u8; 4] = *b"PK\x01\x02";

impl Zip {
    pub fn open(path: &Path, problems: &mut Problems<Problem>) -> Result<Self, Error> {
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
                // As Windows PowerShell writes them.
                name = name.replace('\\', "/").into();
            }
            index.insert(&name, Entry::new(&entry), problems);
        }
        let counted = archive.len();
        let repeats = archive.has_duplicate_names();
        let start = archive.central_directory_start();
        // The reader stands where the last counted entry of the directory ends.
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

    pub fn read<'a>(
        &self,
        place: usize,
        window: &'a mut Window,
        plain: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], Fault> {
        let entry = self.entry(place)?;
        let mut bytes = self.packed(entry, window)?;
        if let Kind::Deflated = entry.kind {
            plain.clear();
            // One byte more than stated tells a longer file; the checksum tells any other.
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
            got => Err(Fault::Checksum {
                got,
                expected: entry.crc,
            }),
        }
    }

    /// Reads the files at `places` at once, where that pays.
    pub fn load(&self, places: impl Iterator<Item = usize>, window: &mut Window) {
        let entries = places.filter_map(|place| self.entry(place).ok());
        window.load_all(&self.file, entries.map(|entry| self.extent(entry)));
    }

    /// Finds a file that can be read, with no more bytes than are worth reading.
    pub fn entry(&self, place: usize) -> Result<&Entry, Fault> {
        let entry = self.index.get(place).ok_or(Fault::Missing)?;
        match entry.kind {
            Kind::Encrypted => Err(Fault::Encrypted),
            Kind::Link => Err(Fault::Link),
            Kind::Other(method) => Err(Fault::Method {
                method: method.to_string(),
            }),
            Kind::Stored | Kind::Deflated => match entry.size.max(entry.packed) {
                size if size > MAX_FILE => Err(Fault::TooLarge { size }),
                _ => Ok(entry),
            },
        }
    }

    /// Where the entry's local header and data lie, unless that header is longer than usual.
    fn extent(&self, entry: &Entry) -> Range<u64> {
        let left = self.len.saturating_sub(entry.header);
        let guess = LOCAL_HEADER as u64 + LOCAL_NAME + entry.packed;
        entry.header..entry.header + guess.min(left)
    }

    /// The entry's data as it lies in the zip. The local header's length is known only once it has
    /// been read, so it is read along with the data.
    fn packed<'a>(&self, entry: &Entry, window: &'a mut Window) -> Result<&'a [u8], Fault> {
        let extent = self.extent(entry);
        let header = window.get(&self.file, extent).map_err(Fault::Io)?;
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
        let bytes = window.get(&self.file, entry.header..end);
        Ok(&bytes.map_err(Fault::Io)?[start..])
    }
}

impl Entry {
    fn new(entry: &ZipFileEntry<'_>) -> Self {
        let kind = match entry.compression() {
            _ if entry.encrypted() => Kind::Encrypted,
            _ if entry.is_symlink() => Kind::Link,
            CompressionMethod::Stored => Kind::Stored,
            CompressionMethod::Deflated => Kind::Deflated,
            other => Kind::Other(other),
        };
        Self {
            header: entry.header_start(),
            packed: entry.compressed_size(),
            size: entry.size(),
            crc: entry.crc32(),
            kind,
        }
    }

    fn damaged(&self, reason: &'static str) -> Fault {
        Fault::Entry {
            offset: self.header,
            reason,
        }
    }
}

/// Names the entries that share a name, of which `ZipArchive` keeps but the last.
fn find_repeated(file: &File, start: u64, problems: &mut Problems<Problem>) -> io::Result<()> {
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
            problems.push(Problem::RepeatedEntry { name: shown });
        }
    }
    Ok(())
}
