//! Compresses a raw shard to its transport form.
//!
//! The caller lends its threads; this module starts none.

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use memmap2::Mmap;
use zstd::zstd_safe::{CCtx, CParameter, compress_bound};

use super::seek::{self, FrameEntry};
use super::{MAX_FRAME, ReadAt, parts, resize, zstd_error};
use crate::header::Layout;
use crate::outline::zeros;
use crate::publish::AtomicFile;
use crate::{Error, PAGE, Part, Result, Shard};

/// Pixels that are compressed between two writes, in bytes: enough to keep every core busy, and small
/// compared with any set.
const GROUP: u64 = 32 << 20;

/// A compression level of zstd, from 1 (fast) to 22 (small). Expanding is about as fast for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(i32);

impl Level {
    /// Returns the level `level`.
    ///
    /// # Errors
    /// [`Error::Level`] if there is no such level.
    pub fn new(level: i32) -> Result<Self> {
        if (1..=22).contains(&level) {
            return Ok(Self(level));
        }
        Err(Error::Level { got: level })
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}

/// The default of zstd itself: 3.
impl Default for Level {
    fn default() -> Self {
        Self(3)
    }
}

/// A part of a shard, compressed.
#[derive(Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    entry: FrameEntry,
}

/// A compressor and the buffer for its input, reused for one block after the other.
struct Compressor {
    zstd: CCtx<'static>,
    raw: Vec<u8>,
}

/// Writes the transport form of the shard in `raw` to a file that appears at `to` whole or not at
/// all, and returns its length in bytes.
///
/// Every byte of the shard is checked before it is compressed. `map` lends the caller's threads: it
/// returns the frame that the job makes of each block of a range, in order, as
/// `blocks.map(job).collect()` does. The output depends only on the shard, the level and the release
/// of zstd. Memory: the frames of 32 MiB of pixels, and for each thread one block and the tables of
/// zstd (for blocks of 16 images of 64 x 64 pixels under 2 MB at level 3, about 6 MB at level 19).
///
/// # Errors
/// Damage to the shard, a part of it longer than [`MAX_FRAME`], or an error of the operating system.
pub fn compress<R: ReadAt + Sync>(
    raw: &R,
    to: &Path,
    level: Level,
    map: impl Fn(Range<u64>, &(dyn Fn(u64) -> Result<Frame> + Sync)) -> Result<Vec<Frame>>,
) -> Result<u64> {
    let shard = columns(raw)?;
    let idle = Mutex::new(Vec::new());
    let block = |block: u64| {
        let mut one = take(&idle, || Compressor::new(level))?;
        let range = shard.range(Part::Block(block));
        resize(&mut one.raw, range.len())?;
        raw.read_exact_at(&mut one.raw, range.start as u64)?;
        shard.check_block(block, &one.raw)?;
        let frame = frame(&mut one.zstd, Part::Block(block), &one.raw);
        give_back(&idle, one);
        frame
    };
    let mut zstd = Compressor::new(level)?.zstd;
    let at = |error: std::io::Error| Error::from(error).at(to);
    let file = AtomicFile::create(to).map_err(at)?;
    let (mut entries, mut len) = (Vec::new(), 0);
    let mut write = |frame: Frame| {
        entries.push(frame.entry);
        len += frame.bytes.len() as u64;
        file.file().write_all(&frame.bytes).map_err(at)
    };
    write(frame(&mut zstd, Part::Header, shard.part(Part::Header))?)?;
    let block_len = shard.range(Part::Block(0)).len() as u64;
    let group = GROUP.checked_div(block_len).unwrap_or(1).max(1);
    let mut next = 0;
    while next < shard.blocks() {
        let last = shard.blocks().min(next + group);
        let frames = map(next..last, &block)?;
        if frames.len() as u64 != last - next {
            return Err(Error::Mismatch {
                what: "blocks compressed",
                got: frames.len() as u64,
                expected: last - next,
            });
        }
        frames.into_iter().try_for_each(&mut write)?;
        next = last;
    }
    write(frame(&mut zstd, Part::Tail, shard.part(Part::Tail))?)?;
    let table = seek::table(&entries).ok_or(Error::Mismatch {
        what: "frames of a transport shard",
        got: entries.len() as u64,
        expected: u32::MAX.into(),
    })?;
    file.file().write_all(&table).map_err(at)?;
    file.publish().map_err(at)?;
    Ok(len + table.len() as u64)
}

/// Opens the shard in `raw` without its pixels, and checks everything else.
fn columns<R: ReadAt>(raw: &R) -> Result<Shard<Mmap>> {
    let len = raw.len()?;
    let mut page = [0; PAGE];
    let start = usize::try_from(len.min(PAGE as u64)).expect("at most a page");
    raw.read_exact_at(&mut page[..start], 0)?;
    let layout = Layout::of(&page[..start], len)?;
    for part in parts(&layout) {
        let got = layout.range(part).len() as u64;
        if got > MAX_FRAME {
            return Err(Error::FrameLimit {
                part,
                got,
                max: MAX_FRAME,
            });
        }
    }
    let mut bytes = zeros(len, &page)?;
    let tail = layout.range(Part::Tail);
    raw.read_exact_at(&mut bytes[tail.clone()], tail.start as u64)?;
    let shard = Shard::new(bytes.make_read_only()?)?;
    shard.verify_columns()?;
    Ok(shard)
}

impl Compressor {
    fn new(level: Level) -> Result<Self> {
        let mut zstd = CCtx::try_create().ok_or(Error::Memory)?;
        for parameter in [
            CParameter::CompressionLevel(level.0),
            // Lets `zstd --test` find damage, too.
            CParameter::ChecksumFlag(true),
        ] {
            let set = zstd.set_parameter(parameter);
            set.map_err(|code| zstd_error(Part::Header, code))?;
        }
        Ok(Self {
            zstd,
            raw: Vec::new(),
        })
    }
}

fn frame(zstd: &mut CCtx<'_>, part: Part, raw: &[u8]) -> Result<Frame> {
    let mut bytes = Vec::new();
    resize(&mut bytes, compress_bound(raw.len()))?;
    let compressed = zstd.compress2(&mut bytes[..], raw);
    let len = compressed.map_err(|code| zstd_error(part, code))?;
    bytes.truncate(len);
    bytes.shrink_to_fit();
    let entry = FrameEntry::new(bytes.len(), raw.len());
    let entry = entry.expect("MAX_FRAME and its compressed form are far below 32 bits");
    Ok(Frame { bytes, entry })
}

/// Takes one of the idle workers, or makes a new one if there is none.
pub(super) fn take<T>(idle: &Mutex<Vec<T>>, new: impl FnOnce() -> Result<T>) -> Result<T> {
    let one = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
    one.map_or_else(new, Ok)
}

/// Adds a worker to the idle ones.
pub(super) fn give_back<T>(idle: &Mutex<Vec<T>>, one: T) {
    idle.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(one);
}
