use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Bytes that are read at once, at most, for files that may lie in them.
const MOST: u64 = 1 << 20;

/// A stretch of an archive in memory: files that lie side by side in it cost one read together.
#[derive(Debug, Default)]
pub(super) struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Reads the stretch that `ranges` lie in, if they fill half of it or more and it is not too long
    /// to keep. Where it cannot be read, [`get`](Self::get) will say why.
    pub fn load_all(&mut self, file: &File, ranges: impl Iterator<Item = Range<u64>>) {
        let (mut start, mut end, mut sum) = (u64::MAX, 0, 0_u64);
        for range in ranges {
            start = start.min(range.start);
            end = end.max(range.end);
            sum = sum.saturating_add(range.end.saturating_sub(range.start));
        }
        if start < end && end - start <= MOST.min(sum.saturating_mul(2)) {
            let _ = self.load(file, start..end);
        }
    }

    /// The bytes of `range`.
    pub fn get(&mut self, file: &File, range: Range<u64>) -> io::Result<&[u8]> {
        if range.start < self.start || range.end > self.start + self.bytes.len() as u64 {
            self.load(file, range.clone())?;
        }
        let [start, end] = [range.start, range.end].map(|at| in_memory(at - self.start));
        Ok(&self.bytes[start..end])
    }

    fn load(&mut self, file: &File, range: Range<u64>) -> io::Result<()> {
        self.start = range.start;
        self.bytes.resize(in_memory(range.end - range.start), 0);
        let read = file.read_exact_at(&mut self.bytes, range.start);
        read.inspect_err(|_| self.bytes.clear())
    }
}

/// A length in memory. What is longer than memory can be is longer than any file that is read.
pub(super) fn in_memory(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}
