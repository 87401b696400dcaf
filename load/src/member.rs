//! A shard of a split, mapped, with a note of which of its parts have passed their check.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::Advice;
use rayon::prelude::*;
use tinyres_format::{BLOCK_IMAGES, Map, Part, Piece, RawShard, Shard};

use super::{Result, Verify, pool};

/// A shard of a split.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) shard: RawShard<Map>,
    pub(super) path: PathBuf,
    /// Number of the shard's first image in the split.
    pub(super) start: u32,
    pub(super) len: u32,
    /// One bit for each section that has passed its check.
    pub(super) sections: AtomicU32,
    /// One bit for each block that has passed its check, or needs none.
    blocks: Vec<AtomicU64>,
}

impl Member {
    /// The shard at `path`, whose first image has number `start` in the split. `len` is its number of images.
    pub(super) fn new(
        shard: RawShard<Map>,
        path: PathBuf,
        start: u32,
        len: u32,
        verify: Verify,
    ) -> Self {
        let words = shard.len().div_ceil(BLOCK_IMAGES).div_ceil(64);
        let mark = if verify == Verify::Off { u64::MAX } else { 0 };
        Self {
            shard,
            path,
            start,
            len,
            sections: AtomicU32::new(0),
            blocks: (0..words).map(|_| AtomicU64::new(mark)).collect(),
        }
    }

    /// Place of the shard's pixels in its file.
    pub(super) fn piece(&self) -> Piece<'_> {
        let images = self.shard.images();
        let start = images.as_ptr().addr() - self.shard.bytes().as_ptr().addr();
        Piece {
            map: self.shard.inner(),
            path: &self.path,
            range: start..start + images.len(),
        }
    }

    pub(super) fn pixels(&self, images: Range<usize>) -> &[u8] {
        let len = self.shard.shape().image_len();
        &self.shard.images()[images.start * len..images.end * len]
    }

    /// Opens the shard with its metadata.
    pub(super) fn open(&self) -> Result<Shard<&[u8]>> {
        Ok(Shard::new(self.shard.bytes()).map_err(|error| error.at(&self.path))?)
    }

    /// Checks a section, unless it has passed before.
    pub(super) fn verify_column(&self, part: Part, classes: usize) -> Result<()> {
        let bit = 1
            << Part::SECTIONS
                .iter()
                .take_while(|&&other| other != part)
                .count();
        // Relaxed is enough, here and for blocks: a bit guards no other memory, and checking twice is harmless.
        if self.sections.load(Ordering::Relaxed) & bit == 0 {
            (self.shard.verify_section(part, classes)).map_err(|error| error.at(&self.path))?;
            self.sections.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Blocks of `images` that have not passed their check.
    pub(super) fn unverified(
        &self,
        images: Range<usize>,
    ) -> impl IntoIterator<Item = usize> + use<'_> {
        blocks(images).filter(|block| {
            self.blocks[block / 64].load(Ordering::Relaxed) & (1 << (block % 64)) == 0
        })
    }

    /// Asks the kernel to read a block into memory.
    pub(super) fn read_ahead(&self, block: usize) {
        let pixels = self.shard.part(Part::Block(block as u64));
        let offset = pixels.as_ptr().addr() - self.shard.bytes().as_ptr().addr();
        // Advice only: a page that is not in memory when it is touched is read then.
        let _ = (self.shard.inner()).advise_range(Advice::WillNeed, offset, pixels.len());
    }

    /// Checks the pixels of a block.
    pub(super) fn verify(&self, block: usize) -> Result<()> {
        self.verify_column(Part::BlockCrcs, 0)?;
        (self.shard.verify_block(block as u64)).map_err(|error| error.at(&self.path))?;
        self.blocks[block / 64].fetch_or(1 << (block % 64), Ordering::Relaxed);
        Ok(())
    }
}

/// Blocks that hold the given images of a shard.
pub(super) fn blocks(images: Range<usize>) -> Range<usize> {
    images.start / BLOCK_IMAGES..images.end.div_ceil(BLOCK_IMAGES)
}

/// Blocks of the given images that have not passed their check, each once, in file order.
pub(super) fn unverified<'a>(
    images: impl IntoIterator<Item = (&'a Member, Range<usize>)>,
) -> Vec<(&'a Member, usize)> {
    let mut blocks: Vec<(&Member, usize)> = (images.into_iter())
        .flat_map(|(member, images)| {
            let blocks = member.unverified(images);
            blocks.into_iter().map(move |block| (member, block))
        })
        .collect();
    blocks.sort_unstable_by_key(|(member, block)| (member.start, *block));
    blocks.dedup_by_key(|(member, block)| (member.start, *block));
    blocks
}

/// Checks blocks on all threads. If several are damaged, the error is that of the first.
pub(super) fn verify_all(blocks: &[(&Member, usize)]) -> Result<()> {
    if blocks.is_empty() {
        return Ok(());
    }
    let check = |&(member, block): &(&Member, usize)| member.verify(block).err();
    let wrong = pool::install(|| blocks.par_iter().find_map_first(check));
    wrong.map_or(Ok(()), Err)
}
