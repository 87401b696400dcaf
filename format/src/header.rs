//! The header page: its layout, and the checks that make every later read safe.
//!
//! [`Layout::parse`] turns the page into ranges that lie in the file and do not overlap. It reads no
//! byte behind the page.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::le::{Le32, Le64};
use crate::{Error, Part, Result};

/// The length of the header page, and where the images begin.
pub const PAGE: usize = 4096;
/// Images under one checksum.
pub const BLOCK_IMAGES: usize = 16;
/// The newest shard version that this build reads, and the one that it writes.
pub const VERSION: u32 = 1;
/// First bytes of every shard: a byte that is not ASCII, `TRS`, then the line ends that a text-mode
/// transfer changes and the byte that stops `type` on DOS, as in PNG.
pub const MAGIC: [u8; 8] = *b"\x89TRS\r\n\x1a\n";
/// First bytes of a zstd frame, and so of a shard in its transport form.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// Sections begin at multiples of this, so that every column is aligned for any vector width.
pub(crate) const ALIGN: u64 = 64;
/// The `dtype` of `u8` pixels.
const DTYPE_U8: u32 = 0;
/// The largest height and width: keeps every product of sizes far from overflow.
const MAX_SIDE: u32 = 65_535;
/// The longest metadata allowed, in bytes: 22,000 classes take under 2 MiB.
pub(crate) const MAX_METADATA: u64 = 16 << 20;

/// The shape of one image, planar: `[channels, height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "[u32; 3]", into = "[u32; 3]")]
pub struct Shape {
    /// Colour planes: 3, in the order red, green, blue.
    pub channels: u32,
    /// Rows of pixels.
    pub height: u32,
    /// Pixels in a row.
    pub width: u32,
}

impl Shape {
    /// RGB images of `side` x `side` pixels.
    #[must_use]
    pub const fn rgb(side: u32) -> Self {
        Self {
            channels: 3,
            height: side,
            width: side,
        }
    }

    /// Bytes of one image.
    #[must_use]
    pub const fn image_len(self) -> usize {
        self.channels as usize * self.height as usize * self.width as usize
    }

    /// Checks the limits that version 1 sets.
    pub(crate) fn check(self) -> Result<()> {
        let side = 1..=MAX_SIDE;
        for (field, got, allowed, expected) in [
            ("channels", self.channels, 3..=3, "3"),
            ("height", self.height, side.clone(), "1 to 65535"),
            ("width", self.width, side, "1 to 65535"),
        ] {
            if !allowed.contains(&got) {
                return Err(Error::Field {
                    field,
                    got: got.into(),
                    expected,
                });
            }
        }
        Ok(())
    }
}

impl From<[u32; 3]> for Shape {
    fn from([channels, height, width]: [u32; 3]) -> Self {
        Self {
            channels,
            height,
            width,
        }
    }
}

impl From<Shape> for [u32; 3] {
    fn from(shape: Shape) -> Self {
        [shape.channels, shape.height, shape.width]
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

/// An entry of the section table: where a section lies, and the checksum of its bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Section {
    /// Offset in the file.
    pub offset: Le64,
    /// Length in bytes.
    pub len: Le64,
    /// CRC-32 of the section; 0 for the images, whose blocks have one each.
    pub crc: Le32,
    /// Always 0.
    pub reserved: Le32,
}

/// The first page of a shard, field by field as in the byte table of section 2 of `SPEC.md`.
///
/// Most programs do not need it: [`Shard`](crate::Shard) checks it and
/// [`Writer`](crate::Writer) fills it in. It is for those that build or repair a file by hand: cast
/// the first page to it with `bytemuck`, and [`seal`](Self::seal) it after a change.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: Le32,
    /// Features that a reader must know: 0.
    pub flags: Le32,
    /// Length of the file in bytes.
    pub file_len: Le64,
    /// Images in the shard.
    pub count: Le64,
    /// Colour planes of an image: 3.
    pub channels: Le32,
    /// Rows of an image.
    pub height: Le32,
    /// Pixels in a row.
    pub width: Le32,
    /// Type of a pixel's value: 0 for `u8`.
    pub dtype: Le32,
    /// [`BLOCK_IMAGES`].
    pub block_images: Le32,
    /// Entries of the section table: 7.
    pub section_count: Le32,
    /// Always 0.
    pub reserved: [u8; 8],
    /// The section table, in the order of [`Part::SECTIONS`].
    pub sections: [Section; Part::SECTIONS.len()],
    /// Always 0.
    pub rest: [u8; 3860],
    /// CRC-32 of all bytes above.
    pub header_crc: Le32,
}

const _: () = assert!(size_of::<Header>() == PAGE && align_of::<Header>() == 1);

/// The checked content of a header: every range lies in the file, and none overlaps another.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub shape: Shape,
    pub count: usize,
    pub ranges: [Range<usize>; Part::SECTIONS.len()],
    pub crcs: [u32; Part::SECTIONS.len()],
}

impl Layout {
    /// The range of `part` in the file; empty for a block that the shard does not have.
    pub fn range(&self, part: Part) -> Range<usize> {
        let images = self.ranges[0].clone();
        match part {
            Part::Header => 0..PAGE,
            Part::Block(block) => {
                // No overflow: both numbers are at most `count`, whose images have a range.
                let first = usize::try_from(block)
                    .ok()
                    .and_then(|block| block.checked_mul(BLOCK_IMAGES));
                let first = first.map_or(self.count, |first| first.min(self.count));
                let last = self.count.min(first + BLOCK_IMAGES);
                let image = self.shape.image_len();
                images.start + first * image..images.start + last * image
            }
            Part::Tail => images.end..self.ranges[self.ranges.len() - 1].end,
            section => index(section).map_or(0..0, |at| self.ranges[at].clone()),
        }
    }

    /// The number of blocks of images.
    pub fn blocks(&self) -> u64 {
        self.count.div_ceil(BLOCK_IMAGES) as u64
    }

    /// Checks the header page at the start of `bytes`, which are the whole file, and the place of every
    /// section.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::of(bytes, bytes.len() as u64)
    }

    /// Checks a file of `len` bytes of which `bytes` are the beginning: at least the header page.
    pub fn of(bytes: &[u8], len: u64) -> Result<Self> {
        if bytes.starts_with(&ZSTD_MAGIC) {
            return Err(Error::Compressed);
        }
        let magic = bytes.first_chunk::<8>();
        if magic != Some(&MAGIC) {
            let mut got = [0; 8];
            let known = bytes.len().min(8);
            got[..known].copy_from_slice(&bytes[..known]);
            return Err(Error::Magic {
                got,
                expected: MAGIC,
            });
        }
        let Some(page) = bytes.get(..PAGE) else {
            return Err(Error::Length {
                got: len,
                expected: PAGE as u64,
            });
        };
        let header: &Header = bytemuck::from_bytes(page);
        if header.version.get() != VERSION {
            return Err(Error::Version {
                what: "shard",
                got: header.version.get(),
                max: VERSION,
            });
        }
        let (got, expected) = (crc32fast::hash(&page[..PAGE - 4]), header.header_crc.get());
        if got != expected {
            return Err(Error::Checksum {
                part: Part::Header,
                got,
                expected,
            });
        }
        header.check(len)
    }
}

/// The index in the section table of `part`; blocks of images and the header have none.
pub(crate) fn index(part: Part) -> Option<usize> {
    Part::SECTIONS.iter().position(|&section| section == part)
}

/// The first multiple of [`ALIGN`] from `offset` on.
pub(crate) fn align(offset: u64) -> Option<u64> {
    offset.checked_next_multiple_of(ALIGN)
}

impl Header {
    /// Sets `header_crc` to the checksum of the other fields.
    pub fn seal(&mut self) {
        self.header_crc = crc32fast::hash(&bytemuck::bytes_of(self)[..PAGE - 4]).into();
    }

    fn check(&self, len: u64) -> Result<Layout> {
        if self.flags.get() != 0 {
            return Err(Error::Flags {
                unknown: self.flags.get(),
            });
        }
        for (offset, reserved) in [
            (56, &self.reserved[..]),
            (PAGE - 4 - self.rest.len(), &self.rest),
        ] {
            zero(offset, reserved)?;
        }
        if self.file_len.get() != len {
            return Err(Error::Length {
                got: len,
                expected: self.file_len.get(),
            });
        }
        for (field, value, only, expected) in [
            ("dtype", self.dtype, DTYPE_U8, "0 (u8)"),
            ("block_images", self.block_images, 16, "16"),
            ("section_count", self.section_count, 7, "7"),
        ] {
            if value.get() != only {
                return Err(Error::Field {
                    field,
                    got: value.get().into(),
                    expected,
                });
            }
        }
        let shape = Shape {
            channels: self.channels.get(),
            height: self.height.get(),
            width: self.width.get(),
        };
        shape.check()?;
        let too_many = || Error::Field {
            field: "count",
            got: self.count.get(),
            expected: "a count whose images fit in memory",
        };
        let count = usize::try_from(self.count.get()).map_err(|_| too_many())?;
        let lens = section_lens(count, shape).ok_or_else(too_many)?;

        let mut ranges = [const { 0..0 }; Part::SECTIONS.len()];
        let mut end = PAGE as u64;
        for (at, &part) in Part::SECTIONS.iter().enumerate() {
            let section = &self.sections[at];
            let (offset, section_len) = (section.offset.get(), section.len.get());
            let extent = |what, got, expected| Error::Extent {
                part,
                what,
                got,
                expected,
            };
            let limit = |what, got, max| Error::ExtentLimit {
                part,
                what,
                got,
                max,
            };
            let start = align(end).ok_or_else(too_many)?;
            if offset != start {
                return Err(extent("begins at", offset, start));
            }
            match lens[at] {
                SectionLen::Exactly(expected) if section_len != expected => {
                    return Err(extent("has length", section_len, expected));
                }
                SectionLen::AtMost(max) if section_len > max => {
                    return Err(limit("has length", section_len, max));
                }
                _ => {}
            }
            // Saturated, the sum is still past the end of any file.
            end = offset.saturating_add(section_len);
            if end > len {
                return Err(limit("ends at", end, len));
            }
            if section.reserved.get() != 0 {
                return Err(extent(
                    "has reserved bits",
                    section.reserved.get().into(),
                    0,
                ));
            }
            let too_long = |_| Error::Length {
                got: len,
                expected: usize::MAX as u64,
            };
            ranges[at] = usize::try_from(offset).map_err(too_long)?
                ..usize::try_from(end).map_err(too_long)?;
        }
        if end != len {
            return Err(Error::Length {
                got: len,
                expected: end,
            });
        }
        let images_crc = self.sections[0].crc.get();
        if images_crc != 0 {
            return Err(Error::Field {
                field: "images crc",
                got: images_crc.into(),
                expected: "0",
            });
        }
        Ok(Layout {
            shape,
            count,
            ranges,
            crcs: self.sections.map(|section| section.crc.get()),
        })
    }
}

/// The length that a section must have.
#[derive(Clone, Copy)]
enum SectionLen {
    Exactly(u64),
    AtMost(u64),
}

/// The length of each section, or `None` if one overflows.
fn section_lens(count: usize, shape: Shape) -> Option<[SectionLen; Part::SECTIONS.len()]> {
    let count = count as u64;
    let each = |size: u64| count.checked_mul(size).map(SectionLen::Exactly);
    Some([
        each(shape.image_len() as u64)?,
        SectionLen::Exactly(count.div_ceil(BLOCK_IMAGES as u64).checked_mul(4)?),
        each(8)?,
        each(16)?,
        SectionLen::Exactly(count.checked_add(1)?.checked_mul(4)?),
        SectionLen::AtMost(u32::MAX.into()),
        SectionLen::AtMost(MAX_METADATA),
    ])
}

/// Checks that `bytes`, which begin at `offset` in the file, are zero.
pub(crate) fn zero(offset: usize, bytes: &[u8]) -> Result<()> {
    match bytes.iter().position(|&byte| byte != 0) {
        Some(at) => Err(Error::Reserved {
            offset: (offset + at) as u64,
            got: bytes[at],
        }),
        None => Ok(()),
    }
}
