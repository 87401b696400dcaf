//! Reads from an archive by position. Files that are adjacent in it can be read at once, which saves a
//! system call for each of them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// The longest range, in bytes, that is read ahead.
const MAX_READ_AHEAD: u64 = 1 << 20;

/// One range of an archive in memory.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    start: u64,
    bytes: Vec<u8>,
}

impl ReadAhead {
    /// Reads the range from the first to the last of `ranges` if they fill at least half of it and it
    /// is at most [`MAX_READ_AHEAD`] long. Ignores read errors: [`get`](Self::get) meets them again.
    pub fn load_all(&mut self, file: &File, ranges: impl Iterator<Item = Range<u64>>) {
        let (mut start, mut end, mut sum) = (u64::MAX, 0, 0_u64);
        for range in ranges {
            start = start.min(range.start);
            end = end.max(range.end);
            sum = sum.saturating_add(range.end.saturating_sub(range.start));
        }
        if start < end && end - start <= MAX_READ_AHEAD.min(sum.saturating_mul(2)) {
            let _ = self.load(file, start..end);
        }
    }

    /// The bytes of `range`, which are read if they are not in memory.
    pub fn get(&mut self, file: &File, range: Range<u64>) -> io::Result<&[u8]> {
        if range.start < self.start || range.end > self.start + self.bytes.len() as u64 {
            self.load(file, range.clone())?;
        }
        let [start, end] = [range.start, range.end].map(|at| to_usize(at - self.start));
        Ok(&self.bytes[start..end])
    }

    fn load(&mut self, file: &File, range: Range<u64>) -> io::Result<()> {
        self.start = range.start;
        self.bytes.resize(to_usize(range.end - range.start), 0);
        let read = file.read_exact_at(&mut self.bytes, range.start);
        read.inspect_err(|_| self.bytes.clear())
    }
}

/// A length in memory. Saturates, which no length that is read reaches: see [`MAX_FILE`](super::MAX_FILE).
fn to_usize(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}
