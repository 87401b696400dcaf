//! The seek table: the last frame of a transport file, which a decoder skips.

use bytemuck::{Pod, Zeroable};

use super::{MAX_FRAME, ReadAt};
use crate::le::Le32;
use crate::{Error, Result};

/// Magic number at the start of a skippable frame that holds a seek table.
const SKIPPABLE: u32 = 0x184D_2A5E;
/// Magic number at the end of the file.
const SEEKABLE: u32 = 0x8F92_EAB1;

/// The fields before the entries.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Head {
    magic: Le32,
    /// Bytes after this field.
    len: Le32,
}

/// The fields after the entries.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Foot {
    frames: Le32,
    /// 0: entries have no checksums, because the shard has its own.
    descriptor: u8,
    magic: Le32,
}

/// An entry: the sizes of one frame.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct FrameEntry {
    compressed: Le32,
    raw: Le32,
}

const HEAD: u64 = size_of::<Head>() as u64;
const FOOT: u64 = size_of::<Foot>() as u64;
const ENTRY: u64 = size_of::<FrameEntry>() as u64;

/// Place of a frame in the transport file, and its length when expanded, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub offset: u64,
    pub compressed: u32,
    pub raw: u32,
}

impl FrameEntry {
    /// Returns the entry for a frame of `compressed` bytes that expands to `raw` bytes; `None` if one
    /// of them needs more than 32 bits.
    pub fn new(compressed: usize, raw: usize) -> Option<Self> {
        Some(Self {
            compressed: u32::try_from(compressed).ok()?.into(),
            raw: u32::try_from(raw).ok()?.into(),
        })
    }
}

/// Returns the bytes of the table; `None` for more frames than 32 bits can count.
pub(super) fn table(entries: &[FrameEntry]) -> Option<Vec<u8>> {
    let body: &[u8] = bytemuck::cast_slice(entries);
    let foot = Foot {
        frames: u32::try_from(entries.len()).ok()?.into(),
        descriptor: 0,
        magic: SEEKABLE.into(),
    };
    let head = Head {
        magic: SKIPPABLE.into(),
        len: u32::try_from(body.len() as u64 + FOOT).ok()?.into(),
    };
    Some([bytemuck::bytes_of(&head), body, bytemuck::bytes_of(&foot)].concat())
}

/// Reads the table at the end of `source`. It checks that the frames follow one another from byte 0
/// without holes, that the table follows the last, and that none expands to more than [`MAX_FRAME`]
/// bytes. Takes at most three times as much memory as the file is long.
pub(super) fn read(source: &impl ReadAt) -> Result<Vec<Extent>> {
    let wrong = |what, got, expected| Error::SeekTable {
        what,
        got,
        expected,
    };
    let len = source.len()?;
    let Some(before_foot) = len.checked_sub(FOOT) else {
        return Err(Error::NotTransport);
    };
    let mut foot = Foot::zeroed();
    source.read_exact_at(bytemuck::bytes_of_mut(&mut foot), before_foot)?;
    if foot.magic.get() != SEEKABLE {
        return Err(Error::NotTransport);
    }
    if foot.descriptor != 0 {
        return Err(wrong("its descriptor", foot.descriptor.into(), 0));
    }
    let frames = u64::from(foot.frames.get());
    let table = HEAD + ENTRY * frames + FOOT;
    let Some(data) = len.checked_sub(table) else {
        let room = len.saturating_sub(HEAD + FOOT) / ENTRY;
        return Err(wrong("its number of frames", frames, room));
    };
    let mut head = Head::zeroed();
    source.read_exact_at(bytemuck::bytes_of_mut(&mut head), data)?;
    for (what, got, expected) in [
        ("its magic number", head.magic.get(), u64::from(SKIPPABLE)),
        ("its length", head.len.get(), table - HEAD),
    ] {
        if u64::from(got) != expected {
            return Err(wrong(what, got.into(), expected));
        }
    }
    // The file has room for that many entries, so a forged number cannot ask for more memory.
    let count = usize::try_from(frames).map_err(|_| wrong("its number of frames", frames, 0))?;
    let mut entries = Vec::new();
    let reserved = entries.try_reserve_exact(count);
    reserved.map_err(|_| Error::Memory)?;
    entries.resize(count, FrameEntry::zeroed());
    source.read_exact_at(bytemuck::cast_slice_mut(&mut entries), data + HEAD)?;
    let mut offset = 0;
    let mut extents = Vec::new();
    let reserved = extents.try_reserve_exact(count);
    reserved.map_err(|_| Error::Memory)?;
    for FrameEntry { compressed, raw } in entries {
        let (compressed, raw) = (compressed.get(), raw.get());
        if u64::from(raw) > MAX_FRAME {
            return Err(wrong("a frame's expanded size", raw.into(), MAX_FRAME));
        }
        extents.push(Extent {
            offset,
            compressed,
            raw,
        });
        // No overflow: fewer than 2^32 numbers below 2^32.
        offset += u64::from(compressed);
    }
    if offset != data {
        return Err(wrong("the sum of its compressed sizes", offset, data));
    }
    Ok(extents)
}
