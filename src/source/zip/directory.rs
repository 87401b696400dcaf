//! The directory at the end of a zip, with what macOS leaves out of it: Archive Utility and `ditto` write no
//! zip64 records, so counts are modulo 65,536 and offsets modulo 4 GiB.
//!
//! Source: APPNOTE.TXT, sections 4.3.12 to 4.3.16.

use std::collections::HashSet;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use ::zip::ZipArchive;
use ::zip::result::ZipError;

use super::super::index::Index;
use super::super::names::is_junk;
use super::super::{Problems, TreeProblem};
use super::view::View;
use super::{LOCAL_HEADER, LOCAL_MAGIC, ZipEntry};

/// Length of an entry of the directory without its name, in bytes.
const CENTRAL_HEADER: usize = 46;
/// Length of the record at the end of a zip without its comment, in bytes.
const END_RECORD: usize = 22;
const CENTRAL_MAGIC: [u8; 4] = *b"PK\x01\x02";
const END_MAGIC: &[u8] = b"PK\x05\x06";
/// Offsets of 32 bits begin at 0 again after so many bytes.
const WRAP: u64 = 1 << 32;

/// How the entries of a directory state where they are.
#[derive(Clone, Copy, Debug)]
enum Offsets {
    Whole,
    /// Modulo 4 GiB.
    Wrapped,
}

/// Reason why a directory cannot be read.
#[derive(Debug)]
pub(super) enum DirectoryError {
    Zip(ZipError),
    /// The end record counts other entries than are listed.
    Count {
        counted: usize,
        listed: usize,
    },
}

impl From<ZipError> for DirectoryError {
    fn from(reason: ZipError) -> Self {
        Self::Zip(reason)
    }
}

impl From<io::Error> for DirectoryError {
    fn from(reason: io::Error) -> Self {
        Self::Zip(ZipError::Io(reason))
    }
}

/// The entries of the zip in `view` by folder. Their offsets are from where the view begins.
pub(super) fn read(
    view: &View<'_>,
    problems: &mut Problems<TreeProblem>,
) -> Result<Index<ZipEntry>, DirectoryError> {
    let found = find_directory(view)?;
    if let Some(found) = found
        && found.offset > 0
        && found.offset.is_multiple_of(WRAP)
    {
        // Nothing comes before a zip that is so long: its offsets are modulo 4 GiB.
        return recounted(
            view,
            [found.start, 0],
            Offsets::Wrapped,
            found.counted,
            problems,
        );
    }
    let reader = BufReader::with_capacity(1 << 16, view.clone());
    let archive = ZipArchive::new(reader)?;
    let counted = archive.len();
    let index = list(&archive, |header, _| header, problems)?;
    let repeats = archive.has_duplicate_names();
    let (mut start, mut offset) = (archive.central_directory_start(), archive.offset());
    // The reader is at the end of the last entry that the archive counts.
    let mut end = archive.into_inner().stream_position()?;
    if counted == 0
        && let Some(found) = found
    {
        // The archive does not look for a directory of no entry, and 65,536 are counted as none.
        (start, offset) = (found.start, found.offset);
        end = start;
    }
    let mut next = [0; CENTRAL_MAGIC.len()];
    if view.read_exact_at(&mut next, end).is_ok() && next == CENTRAL_MAGIC {
        *problems = Problems::default();
        return recounted(view, [start, offset], Offsets::Whole, counted, problems);
    }
    if repeats {
        find_repeated(view, start, problems)?;
    }
    Ok(index)
}

/// The entries of the directory at `start`, all that are listed there, of a zip that begins at `offset`. The end
/// record counts `counted` of them.
fn recounted(
    view: &View<'_>,
    [start, offset]: [u64; 2],
    offsets: Offsets,
    counted: usize,
    problems: &mut Problems<TreeProblem>,
) -> Result<Index<ZipEntry>, DirectoryError> {
    let mut listed = 0;
    let end = scan(view, start, |_| listed += 1)?;
    let mut record = [0; END_RECORD];
    let record = (view.read_exact_at(&mut record, end).map(|()| record))
        .ok()
        .filter(|record| record.starts_with(END_MAGIC))
        // The count has 16 bits.
        .filter(|it| u64::from(u16::from_le_bytes([it[10], it[11]])) == listed % (1 << 16));
    if record.is_none() {
        let listed = usize::try_from(listed).unwrap_or(usize::MAX);
        return Err(DirectoryError::Count { counted, listed });
    }
    let [from, to] = [start, end].map(|at| at.saturating_sub(offset));
    let view = view.replaced(end, zip64_records(from, to, listed));
    let mut last = 0;
    let locate = |header, name: &[u8]| match offsets {
        Offsets::Whole => header,
        Offsets::Wrapped => {
            last = unwrapped(&view, header, name, last);
            last
        }
    };
    let archive = ZipArchive::new(BufReader::with_capacity(1 << 16, view.clone()))?;
    let index = list(&archive, locate, problems)?;
    if archive.has_duplicate_names() {
        find_repeated(&view, start, problems)?;
    }
    Ok(index)
}

/// End records that count `count` entries of a directory from `start` to `end`, from where the zip begins.
fn zip64_records(start: u64, end: u64, count: u64) -> Vec<u8> {
    let mut records = Vec::new();
    let mut put = |bytes: &[u8]| records.extend_from_slice(bytes);
    put(b"PK\x06\x06");
    put(&44_u64.to_le_bytes()); // Length of the rest of this record.
    put(&[45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // Versions, disks.
    for field in [count, count, end.saturating_sub(start), start] {
        put(&field.to_le_bytes());
    }
    put(b"PK\x06\x07\0\0\0\0");
    put(&end.to_le_bytes());
    put(&1_u32.to_le_bytes());
    put(b"PK\x05\x06\0\0\0\0");
    put(&[0xff; 12]); // The real values are in the first record.
    put(&[0, 0]);
    records
}

/// The entries of `archive` by folder. `locate` gives the place of a local header by its stated offset and the
/// raw name.
fn list<R: Read + Seek>(
    archive: &ZipArchive<R>,
    mut locate: impl FnMut(u64, &[u8]) -> u64,
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
        let mut located = ZipEntry::new(&entry);
        located.header = locate(located.header, entry.name_raw());
        index.insert(&name, located, problems);
    }
    Ok(index)
}

/// The place of the local header of the file `name`, whose offset modulo 4 GiB is `offset`. Tries the places
/// after `last` first, which is that of the file listed before it.
fn unwrapped(view: &View<'_>, offset: u64, name: &[u8], last: u64) -> u64 {
    let begins = |at: &u64| {
        let mut header = vec![0; LOCAL_HEADER + name.len()];
        view.read_exact_at(&mut header, *at).is_ok()
            && header.starts_with(LOCAL_MAGIC)
            && header.ends_with(name)
    };
    let places = || {
        (0..)
            .map(|wraps| offset + wraps * WRAP)
            .take_while(|&at| at < view.len())
    };
    let found = places().filter(|&at| at >= last).find(begins);
    found.or_else(|| places().find(begins)).unwrap_or(offset)
}

/// Calls `see` with the name of each entry in the directory, which begins at `start`, up to the first
/// bytes that are not an entry. Returns where they are.
fn scan(view: &View<'_>, start: u64, mut see: impl FnMut(Vec<u8>)) -> io::Result<u64> {
    let mut reader = BufReader::new(view.clone());
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

/// The directory by the last end record, without zip64.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// Where it begins in the view.
    start: u64,
    /// The number of bytes before the zip, if its offsets are whole.
    offset: u64,
    /// The count of its entries, modulo 65,536.
    counted: usize,
}

fn find_directory(view: &View<'_>) -> io::Result<Option<Found>> {
    let len = view.len();
    let first = len.saturating_sub(END_RECORD as u64 + u64::from(u16::MAX));
    let mut tail = Vec::new();
    let mut reader = view.clone();
    reader.seek(SeekFrom::Start(first))?;
    reader.read_to_end(&mut tail)?;
    let mut records = tail.windows(END_RECORD);
    let Some(at) = records.rposition(|record| record.starts_with(END_MAGIC)) else {
        return Ok(None);
    };
    let field = |from: usize| {
        let bytes = [0, 1, 2, 3].map(|byte| tail[at + from + byte]);
        Some(u32::from_le_bytes(bytes))
            .filter(|&field| field != u32::MAX)
            .map(u64::from)
    };
    let found = || {
        let start = (first + at as u64).checked_sub(field(12)?)?;
        let offset = start.checked_sub(field(16)?)?;
        let counted = u16::from_le_bytes([tail[at + 10], tail[at + 11]]).into();
        Some(Found {
            start,
            offset,
            counted,
        })
    };
    Ok(found())
}

/// Reports files with the same name, of which `ZipArchive` keeps only the last. A folder may be listed twice.
fn find_repeated(
    view: &View<'_>,
    start: u64,
    problems: &mut Problems<TreeProblem>,
) -> io::Result<()> {
    let mut seen = HashSet::new();
    scan(view, start, |name| {
        let is_folder = name.ends_with(b"/") || name.ends_with(b"\\");
        let shown = String::from_utf8_lossy(&name).into_owned();
        if !is_folder && !seen.insert(name) && !shown.split('/').any(is_junk) {
            problems.push(TreeProblem::RepeatedEntry { name: shown });
        }
    })?;
    Ok(())
}
