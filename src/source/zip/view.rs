//! Bytes of a file as a reader of their own, by position: threads share the file, and each has its place.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// A range of a file, followed by bytes from memory.
#[derive(Clone, Debug)]
pub(super) struct View<'a> {
    file: &'a File,
    range: Range<u64>,
    tail: Vec<u8>,
    /// The place from the start of the range.
    at: u64,
}

impl<'a> View<'a> {
    pub fn new(file: &'a File, range: Range<u64>) -> Self {
        Self {
            file,
            range,
            tail: Vec::new(),
            at: 0,
        }
    }

    /// Its first `len` bytes, followed by `tail`.
    pub fn replaced(&self, len: u64, tail: Vec<u8>) -> Self {
        let end = self.range.start.saturating_add(len).min(self.range.end);
        Self {
            tail,
            at: 0,
            ..Self::new(self.file, self.range.start..end)
        }
    }

    /// Length of the range in bytes.
    pub fn len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// Fills `bytes` from `at` of the range on.
    pub fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        if self.len().saturating_sub(at) < bytes.len() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(bytes, self.range.start + at)
    }
}

impl Read for View<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = match self.len().checked_sub(self.at) {
            Some(left @ 1..) => {
                let len = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.file
                    .read_at(&mut bytes[..len], self.range.start + self.at)?
            }
            _ => {
                let at = usize::try_from(self.at - self.len()).unwrap_or(usize::MAX);
                let mut rest = self.tail.get(at..).unwrap_or_default();
                rest.read(bytes)?
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for View<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => (self.len() + self.tail.len() as u64).checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
