//! Expands a shard in its transport form: block by block in memory, or the whole to a raw file.
//!
//! The caller lends its threads; this module starts none.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;
use zstd::zstd_safe::DCtx;

use super::compress::{give_back, take};
use super::seek::{self, Extent};
use super::{ReadAt, parts, resize, zstd_error};
use crate::header::Layout;
use crate::outline::zeros;
use crate::publish::AtomicFile;
use crate::{Error, PAGE, Part, Result, Shard};

/// A shard in its transport form. Header, columns and metadata are read as from any shard. **Its
/// pixels are zero here**: [`expand_block`](Shard::expand_block) returns those of a block.
pub type ZstdShard<R> = Shard<Zstd<R>>;

/// The holder of the bytes of a shard in its transport form: everything but the pixels is expanded,
/// and the pixels are found through the seek table.
#[derive(Debug)]
pub struct Zstd<R> {
    outline: Mmap,
    source: R,
    len: u64,
    frames: Vec<Extent>,
}

impl<R> Zstd<R> {
    /// The length of the transport file in bytes.
    #[must_use]
    pub fn compressed_len(&self) -> u64 {
        self.len
    }

    /// The source that the transport file is read from.
    #[must_use]
    pub fn source(&self) -> &R {
        &self.source
    }
}

impl<R: ReadAt> Zstd<R> {
    /// Like [`Shard::expand_block`], for callers that wrap this `Zstd` in a holder of their own and so
    /// pass the shard explicitly.
    ///
    /// # Errors
    /// [`Error::NoBlock`], or the damage of the block.
    pub fn expand_block<'a, B: AsRef<[u8]>>(
        &self,
        shard: &Shard<B>,
        block: u64,
        with: &'a mut Expander,
    ) -> Result<&'a [u8]> {
        let part = Part::Block(block);
        let mut raw = std::mem::take(&mut with.raw);
        resize(&mut raw, shard.range(part).len())?;
        if let Some(frame) = self.extent(shard, block) {
            with.frame(&self.source, frame, part, &mut raw)?;
        }
        shard.check_block(block, &raw)?;
        with.raw = raw;
        Ok(&with.raw)
    }
}

impl<R> Zstd<R> {
    /// The frame of a block of `shard`, if there is such a block.
    fn extent<B: AsRef<[u8]>>(&self, shard: &Shard<B>, block: u64) -> Option<&Extent> {
        usize::try_from(block)
            .ok()
            .and_then(|block| self.frames.get(block.checked_add(1)?))
            .filter(|_| block < shard.blocks())
    }
}

impl<R> AsRef<[u8]> for Zstd<R> {
    fn as_ref(&self) -> &[u8] {
        &self.outline
    }
}

/// A decompressor and its buffers, reused for one block after the other.
pub struct Expander {
    zstd: DCtx<'static>,
    compressed: Vec<u8>,
    raw: Vec<u8>,
}

impl Expander {
    /// Returns a new one, for any number of blocks of any shards.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn new() -> Result<Self> {
        Ok(Self {
            zstd: DCtx::try_create().ok_or(Error::Memory)?,
            compressed: Vec::new(),
            raw: Vec::new(),
        })
    }

    /// Expands the frame that holds `part` to `raw`, which has the length of the part.
    fn frame<R: ReadAt>(
        &mut self,
        source: &R,
        frame: &Extent,
        part: Part,
        raw: &mut [u8],
    ) -> Result<()> {
        let Extent {
            offset, compressed, ..
        } = *frame;
        let mut bytes = std::mem::take(&mut self.compressed);
        resize(&mut bytes, compressed as usize)?;
        source.read_exact_at(&mut bytes, offset)?;
        let expanded = self.unpack(&bytes, part, raw);
        self.compressed = bytes;
        expanded
    }

    /// Expands `compressed`, the frame that holds `part`, to `raw`, which has the length of the part.
    fn unpack(&mut self, compressed: &[u8], part: Part, raw: &mut [u8]) -> Result<()> {
        // Exactly one frame: zstd would expand any number of them.
        let content = zstd::zstd_safe::get_frame_content_size(compressed);
        let whole = zstd::zstd_safe::find_frame_compressed_size(compressed);
        for (what, got, expected) in [
            (
                "expands to",
                content.ok().flatten().unwrap_or_default(),
                raw.len(),
            ),
            ("has", whole.unwrap_or_default() as u64, compressed.len()),
        ] {
            if got != expected as u64 {
                return Err(Error::Frame {
                    part,
                    what,
                    got,
                    expected: expected as u64,
                });
            }
        }
        let got = self
            .zstd
            .decompress(raw, compressed)
            .map_err(|code| zstd_error(part, code))?;
        if got == raw.len() {
            Ok(())
        } else {
            Err(Error::Frame {
                part,
                what: "expands to",
                got: got as u64,
                expected: raw.len() as u64,
            })
        }
    }
}

impl std::fmt::Debug for Expander {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expander").finish_non_exhaustive()
    }
}

impl<R: ReadAt> Shard<Zstd<R>> {
    /// Opens the transport form in `source`: reads its seek table, and expands header, columns and
    /// metadata. Every size is checked before memory is taken for it. No pixel is expanded.
    ///
    /// # Errors
    /// The first violation of `SPEC.md`.
    pub fn open(source: R) -> Result<Self> {
        let frames = seek::read(&source)?;
        let mut expander = Expander::new()?;
        let raw_len = frames.iter().map(|frame| u64::from(frame.raw)).sum();
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
            return Err(count(0, 2));
        };
        let mut page = [0; PAGE];
        sized(first, Part::Header, PAGE)?;
        expander.frame(&source, first, Part::Header, &mut page)?;
        let layout = Layout::of(&page, raw_len)?;
        let expected = layout.blocks() + 2;
        if frames.len() as u64 != expected {
            return Err(count(frames.len() as u64, expected));
        }
        for (frame, part) in frames.iter().zip(parts(&layout)) {
            sized(frame, part, layout.range(part).len())?;
        }
        let mut outline = zeros(raw_len, &page)?;
        let tail = &mut outline[layout.range(Part::Tail)];
        expander.frame(&source, last, Part::Tail, tail)?;
        Self::new(Zstd {
            outline: outline.make_read_only()?,
            len: source.len()?,
            source,
            frames,
        })
    }

    /// Expands the pixels of a block, `u8 [n, channels, height, width]` with n at most 16, and checks
    /// them against their checksum.
    ///
    /// # Errors
    /// [`Error::NoBlock`], or the damage of the block.
    pub fn expand_block<'a>(&self, block: u64, with: &'a mut Expander) -> Result<&'a [u8]> {
        self.inner().expand_block(self, block, with)
    }

    /// The place in the transport file of the frame that holds a block, in bytes; `None` if there is no such block.
    #[must_use]
    pub fn frame(&self, block: u64) -> Option<Range<u64>> {
        let Extent {
            offset, compressed, ..
        } = *self.inner().extent(self, block)?;
        Some(offset..offset + u64::from(compressed))
    }

    /// Like [`expand_block`](Self::expand_block), of a frame whose bytes were read elsewhere.
    ///
    /// # Errors
    /// [`Error::NoBlock`], or the damage of the block.
    pub fn expand_frame<'a>(
        &self,
        block: u64,
        frame: &[u8],
        with: &'a mut Expander,
    ) -> Result<&'a [u8]> {
        let part = Part::Block(block);
        let mut raw = std::mem::take(&mut with.raw);
        resize(&mut raw, self.range(part).len())?;
        if block < self.blocks() {
            with.unpack(frame, part, &mut raw)?;
        }
        self.check_block(block, &raw)?;
        with.raw = raw;
        Ok(&with.raw)
    }

    /// Writes the raw shard to a file that will appear at `to`, and checks every byte against its
    /// checksum. [`AtomicFile::publish`] makes the file appear.
    ///
    /// `each` lends the caller's threads: it calls the job for each of that many blocks, in any
    /// order, as `(0..blocks).try_for_each(job)` does. Memory: two blocks for each thread.
    ///
    /// # Errors
    /// The first damage, or an error of the operating system.
    pub fn expand(
        &self,
        to: &Path,
        each: impl FnOnce(u64, &(dyn Fn(u64) -> Result<()> + Sync)) -> Result<()>,
    ) -> Result<AtomicFile>
    where
        R: Sync,
    {
        self.verify_columns()?;
        let at = |error: std::io::Error| Error::from(error).at(to);
        let output = AtomicFile::create(to).map_err(at)?;
        let file: &File = output.file();
        let put = |bytes: &[u8], part| {
            let offset = self.range(part).start as u64;
            file.write_all_at(bytes, offset).map_err(at)
        };
        let (idle, done) = (Mutex::new(Vec::new()), AtomicU64::new(0));
        put(self.part(Part::Header), Part::Header)?;
        each(self.blocks(), &|block| {
            let mut expander = take(&idle, Expander::new)?;
            put(self.expand_block(block, &mut expander)?, Part::Block(block))?;
            give_back(&idle, expander);
            // Relaxed is enough: `each` has joined its threads before the sum is read.
            done.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })?;
        let got = done.into_inner();
        if got != self.blocks() {
            return Err(Error::Mismatch {
                what: "blocks expanded",
                got,
                expected: self.blocks(),
            });
        }
        put(self.part(Part::Tail), Part::Tail)?;
        Ok(output)
    }
}

fn count(got: u64, expected: u64) -> Error {
    Error::SeekTable {
        what: "its number of frames",
        got,
        expected,
    }
}

/// Checks that the seek table states for `frame` the size that the header demands of `part`.
fn sized(frame: &Extent, part: Part, expected: usize) -> Result<()> {
    if u64::from(frame.raw) == expected as u64 {
        return Ok(());
    }
    Err(Error::Frame {
        part,
        what: "by the seek table expands to",
        got: frame.raw.into(),
        expected: expected as u64,
    })
}
