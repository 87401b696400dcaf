//! A shard whose pixels are elsewhere: for programs that fetch it part by part, and check each part as it comes.

use std::ops::Range;

use memmap2::{Mmap, MmapMut, MmapOptions};

use crate::header::Layout;
use crate::{PAGE, Part, Result, Shard};

/// The bytes of a shard but for its pixels, **which are zero here**: header, columns and metadata. The pixels take no
/// memory.
#[derive(Debug)]
pub struct Outline(Mmap);

impl AsRef<[u8]> for Outline {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Outline {
    /// Checks the header page `page` of a shard of `len` bytes, and returns where its [tail](Part::Tail) lies in the
    /// file: everything after the images.
    ///
    /// # Errors
    /// The first violation of `SPEC.md` in the header.
    pub fn tail(page: &[u8; PAGE], len: u64) -> Result<Range<u64>> {
        let tail = Layout::of(page, len)?.range(Part::Tail);
        Ok(tail.start as u64..tail.end as u64)
    }
}

impl Shard<Outline> {
    /// The outline of a shard of `len` bytes, whose header page is `page`, and whose bytes after the images begin with
    /// `tail`. Every byte of it is checked. [`check_block`](crate::RawShard::check_block) then checks pixels that come
    /// from elsewhere.
    ///
    /// # Errors
    /// The first violation of `SPEC.md`; [`Error::Length`](crate::Error::Length) if `tail` is too short.
    pub fn outline(page: &[u8; PAGE], len: u64, tail: &[u8]) -> Result<Self> {
        let range = Layout::of(page, len)?.range(Part::Tail);
        let tail = tail.get(..range.len()).ok_or(crate::Error::Length {
            got: range.start as u64 + tail.len() as u64,
            expected: range.end as u64,
        })?;
        let mut outline = zeros(len, page)?;
        outline[range].copy_from_slice(tail);
        let shard = Self::new(Outline(outline.make_read_only()?))?;
        shard.verify_columns()?;
        Ok(shard)
    }
}

/// Returns memory for a whole shard of `len` bytes, with the header page filled in. The pages of the
/// pixels are never touched, so they take no memory.
pub(crate) fn zeros(len: u64, page: &[u8; PAGE]) -> Result<MmapMut> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let mut outline = MmapOptions::new().len(len).no_reserve_swap().map_anon()?;
    outline[..PAGE].copy_from_slice(page);
    Ok(outline)
}
