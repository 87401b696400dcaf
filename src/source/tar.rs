use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ::tar::{Archive, EntryType};

use super::index::Index;
use super::window::Window;
use super::{Error, Fault, MAX_FILE, Problem, Problems, Stamp};

/// A tar whose headers have been read once, past the data. Files are read by position, so that
/// threads share the tar without a lock. A tar has checksums of its headers, but none of its data.
#[derive(Debug)]
pub(super) struct Tar {
    pub path: PathBuf,
    pub index: Index<Entry>,
    pub stamp: Stamp,
    file: File,
}

/// Where a file's bytes lie.
#[derive(Debug)]
pub(super) struct Entry {
    data: u64,
    size: u64,
    kind: Kind,
}

impl Entry {
    fn extent(&self) -> Range<u64> {
        self.data..self.data.saturating_add(self.size)
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    File,
    Folder,
    Link,
    Sparse,
}

/// Bytes of headers between the data of two files, at most: room for the longest path many times
/// over. The names in them are held in memory before their length is looked at.
const MAX_HEADER: u64 = 1 << 20;

impl Tar {
    /// Whether a file that begins with `head` is a tar: POSIX and GNU write `ustar` there.
    pub fn is_one(head: &[u8]) -> bool {
        head.get(257..262) == Some(b"ustar")
    }

    pub fn open(path: &Path, problems: &mut Problems<Problem>) -> Result<Self, Error> {
        let open = |reason| Error::Open {
            path: path.to_owned(),
            reason,
        };
        let file = File::open(path).map_err(open)?;
        let stamp = Stamp::of(&file.metadata().map_err(open)?);
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
            // The crate takes the end of the file for the end of the tar.
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
            }),
            Err(reason) => Err(Error::Tar {
                path: path.to_owned(),
                offset: headers.at,
                reason,
            }),
        }
    }

    pub fn read<'a>(&self, place: usize, window: &'a mut Window) -> Result<&'a [u8], Fault> {
        let entry = self.entry(place)?;
        let bytes = window.get(&self.file, entry.extent());
        bytes.map_err(Fault::Io)
    }

    /// Reads the files at `places` at once, where that pays.
    pub fn load(&self, places: impl Iterator<Item = usize>, window: &mut Window) {
        let entries = places.filter_map(|place| self.entry(place).ok());
        window.load_all(&self.file, entries.map(Entry::extent));
    }

    /// Finds a file that can be read, with no more bytes than are worth reading.
    pub fn entry(&self, place: usize) -> Result<&Entry, Fault> {
        let entry = self.index.get(place).ok_or(Fault::Missing)?;
        match entry.kind {
            Kind::Link => Err(Fault::Link),
            Kind::Sparse => Err(Fault::Sparse),
            Kind::File | Kind::Folder if entry.size > MAX_FILE => {
                Err(Fault::TooLarge { size: entry.size })
            }
            Kind::File | Kind::Folder => Ok(entry),
        }
    }
}

/// Files what the headers tell of.
fn scan(
    archive: &mut Archive<Headers>,
    index: &mut Index<Entry>,
    problems: &mut Problems<Problem>,
) -> io::Result<()> {
    for entry in archive.entries_with_seek()? {
        let mut entry = entry?;
        let mut kind = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Folder,
            EntryType::Link | EntryType::Symlink => Kind::Link,
            EntryType::GNUSparse => Kind::Sparse,
            // Devices and pipes, and headers that describe the whole archive.
            _ => continue,
        };
        let mut name = entry.path_bytes().into_owned();
        // POSIX tars mark a sparse file, and keep its real name, beside the header.
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            if extension.key_bytes().starts_with(b"GNU.sparse.") {
                kind = Kind::Sparse;
            }
            if extension.key_bytes() == b"GNU.sparse.name" {
                name = extension.value_bytes().to_owned();
            }
        }
        if matches!(kind, Kind::Folder) && !name.ends_with(b"/") {
            name.push(b'/');
        }
        let place = Entry {
            data: entry.raw_file_position(),
            size: entry.size(),
            kind,
        };
        match String::from_utf8(name) {
            Ok(name) => index.insert(&name, place, problems),
            Err(name) => problems.push(Problem::EntryName {
                name: String::from_utf8_lossy(name.as_bytes()).into_owned(),
            }),
        }
    }
    Ok(())
}

/// Reads headers, and seeks past data without losing what is buffered.
struct Headers<'a> {
    reader: BufReader<&'a File>,
    at: u64,
    /// Bytes that may still be read before the next seek: a forged length must not fill the memory.
    left: u64,
    /// Whether the end of the file has been met.
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
