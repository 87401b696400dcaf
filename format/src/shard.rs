//! Readers of a shard over any bytes, at two levels of trust: [`RawShard`] and [`Shard`].
//!
//! Both return slices of the bytes that they were given, and copy nothing.

use std::ops::{Deref, Range};
use std::path::Path;

use crate::header::{Layout, index, zero};
use crate::{
    BLOCK_IMAGES, Digest, Error, Le32, LeI32, LeI64, Map, Metadata, PAGE, Part, Result, Shape,
};

/// A shard whose header page alone has been checked, over any bytes: a map of its file, or a copy in
/// memory.
///
/// A checked header is enough to identify the shard by its [digest](Self::digest), and to keep every
/// read in bounds. Check a section with [`verify_section`](Self::verify_section), and a block of
/// pixels with [`verify_block`](Self::verify_block), before you use it.
///
/// The bytes must not change while this lives, and `as_ref` must always return the same slice.
#[derive(Debug)]
pub struct RawShard<B> {
    bytes: B,
    layout: Layout,
}

/// A shard whose header and metadata have been checked, over any bytes.
///
/// It dereferences to [`RawShard`], which has the methods that return pixels and columns. These are
/// not checked on opening; [`verify`](Self::verify) and the methods of `RawShard` check them.
#[derive(Debug)]
pub struct Shard<B> {
    raw: RawShard<B>,
    metadata: Metadata,
}

impl<B: AsRef<[u8]>> RawShard<B> {
    /// Checks the header page and the extent of every section, and reads nothing else. Takes a few
    /// microseconds.
    ///
    /// # Errors
    /// The first violation of `SPEC.md` in the header.
    pub fn new(bytes: B) -> Result<Self> {
        let layout = Layout::parse(bytes.as_ref())?;
        Ok(Self { bytes, layout })
    }

    /// The number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layout.count
    }

    /// Returns true if there are no images.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape of one image.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.layout.shape
    }

    /// The whole file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// The SHA-256 of the header page. The header holds the checksum of every section, and the section
    /// of block checksums covers the images, so the digest stands for the whole file.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes()[..PAGE])
    }

    /// The bytes of a part; empty for a block that the shard does not have.
    #[must_use]
    pub fn part(&self, part: Part) -> &[u8] {
        &self.bytes()[self.range(part)]
    }

    /// The place of a part in the file, in bytes; empty for a block that the shard does not have.
    #[must_use]
    pub fn range(&self, part: Part) -> Range<usize> {
        self.layout.range(part)
    }

    /// The holder of the bytes.
    #[must_use]
    pub fn inner(&self) -> &B {
        &self.bytes
    }

    /// All pixels, `u8 [count, channels, height, width]`. Not checked against their checksums.
    #[must_use]
    pub fn images(&self) -> &[u8] {
        self.part(Part::Images)
    }

    /// The pixels of one image, `u8 [channels, height, width]`, or `None` if there is no such image. Not
    /// checked against their checksum.
    #[must_use]
    pub fn image(&self, image: usize) -> Option<&[u8]> {
        self.images()
            .chunks_exact(self.shape().image_len())
            .nth(image)
    }

    /// The class of each image, or -1.
    #[must_use]
    pub fn labels(&self) -> &[LeI64] {
        bytemuck::cast_slice(self.part(Part::Labels))
    }

    /// The box of each image in inclusive pixels (x0, y0, x1, y1), or four times -1.
    #[must_use]
    pub fn boxes(&self) -> &[[LeI32; 4]] {
        bytemuck::cast_slice(self.part(Part::Boxes))
    }

    /// The name of an image in the source, or `None` if there is no such image.
    ///
    /// # Errors
    /// [`Error::Name`]: the offsets do not lie in the names section, or the name is not UTF-8.
    pub fn name(&self, image: usize) -> Option<Result<&str>> {
        let offsets: &[Le32] = bytemuck::cast_slice(self.part(Part::NameOffsets));
        let pair = offsets.get(image..image.checked_add(2)?)?;
        let (start, end) = (pair[0].get(), pair[1].get());
        let names = self.part(Part::Names);
        let name = names
            .get(start as usize..end as usize)
            .and_then(|name| std::str::from_utf8(name).ok());
        let wrong = Error::Name {
            image: image as u64,
            start,
            end,
            len: names.len() as u64,
        };
        Some(name.ok_or(wrong))
    }

    /// The number of blocks of images. Each block has a checksum.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.layout.blocks()
    }

    /// Checks the pixels of one block against their checksum.
    ///
    /// # Errors
    /// [`Error::Checksum`] if they differ, [`Error::NoBlock`] if there is no such block.
    pub fn verify_block(&self, block: u64) -> Result<()> {
        self.check_block(block, self.part(Part::Block(block)))
    }

    /// Checks `pixels`, which were read elsewhere, against the checksum of a block.
    ///
    /// # Errors
    /// [`Error::Checksum`] if they differ, [`Error::NoBlock`] if there is no such block.
    pub fn check_block(&self, block: u64, pixels: &[u8]) -> Result<()> {
        let crcs: &[Le32] = bytemuck::cast_slice(self.part(Part::BlockCrcs));
        let crc = usize::try_from(block)
            .ok()
            .and_then(|block| crcs.get(block));
        let Some(expected) = crc.map(|crc| crc.get()) else {
            return Err(Error::NoBlock {
                block,
                blocks: self.blocks(),
            });
        };
        let got = crc32fast::hash(pixels);
        if got == expected {
            Ok(())
        } else {
            Err(Error::Checksum {
                part: Part::Block(block),
                got,
                expected,
            })
        }
    }

    /// Checks the bytes of one section against their checksum, and that the bytes before it are zero.
    /// Checks also that every label, box and name is one that the format allows; labels must be below
    /// `classes`. The images have checksums of blocks only, so of them only the bytes before are
    /// checked.
    ///
    /// # Errors
    /// The first violation.
    pub fn verify_section(&self, part: Part, classes: usize) -> Result<()> {
        let Some(at) = index(part) else { return Ok(()) };
        let ranges = &self.layout.ranges;
        let padding = at.checked_sub(1).map_or(PAGE, |before| ranges[before].end)..ranges[at].start;
        zero(padding.start, &self.bytes()[padding])?;
        if part == Part::Images {
            return Ok(());
        }
        let (got, expected) = (crc32fast::hash(self.part(part)), self.layout.crcs[at]);
        if got != expected {
            return Err(Error::Checksum {
                part,
                got,
                expected,
            });
        }
        match part {
            Part::Labels => (self.labels().iter().enumerate())
                .try_for_each(|(image, label)| check_label(image, label.get(), classes)),
            Part::Boxes => (self.boxes().iter().enumerate()).try_for_each(|(image, sides)| {
                check_box(image, sides.map(LeI32::get), self.shape())
            }),
            Part::NameOffsets => self.check_first_name(),
            Part::Names => self.check_names(),
            _ => Ok(()),
        }
    }

    /// Checks the first name offset: [`check_names`](Self::check_names) does not see it in a shard
    /// without images.
    fn check_first_name(&self) -> Result<()> {
        let offsets: &[Le32] = bytemuck::cast_slice(self.part(Part::NameOffsets));
        match offsets.first().map(|first| first.get()) {
            None | Some(0) => Ok(()),
            Some(first) => Err(Error::Mismatch {
                what: "first name offset",
                got: first.into(),
                expected: 0,
            }),
        }
    }

    fn check_names(&self) -> Result<()> {
        let mut end = 0;
        for image in 0..self.len() {
            end += self.name(image).transpose()?.map_or(0, str::len);
        }
        let names = self.part(Part::Names).len();
        if end == names {
            Ok(())
        } else {
            Err(Error::Mismatch {
                what: "bytes of names",
                got: end as u64,
                expected: names as u64,
            })
        }
    }
}

impl<B: AsRef<[u8]>> Shard<B> {
    /// Checks header, metadata and the extent of every section, so that no later read can be out
    /// of bounds.
    ///
    /// Takes microseconds for any number of images: it reads no pixel and no column.
    /// [`verify`](Self::verify) does.
    ///
    /// # Errors
    /// The first violation of `SPEC.md`.
    pub fn new(bytes: B) -> Result<Self> {
        Self::from_raw(RawShard::new(bytes)?)
    }

    /// Checks everything that [`new`](Self::new) checks after the header, which `raw` has checked.
    ///
    /// # Errors
    /// The first violation of `SPEC.md`.
    pub fn from_raw(raw: RawShard<B>) -> Result<Self> {
        for pair in raw.layout.ranges.windows(2) {
            let padding = pair[0].end..pair[1].start;
            zero(padding.start, &raw.bytes()[padding])?;
        }
        raw.verify_section(Part::Metadata, 0)?;
        let metadata = Metadata::parse(raw.part(Part::Metadata), raw.len())?;
        Ok(Self { raw, metadata })
    }

    /// Replaces the holder of the bytes by `into(holder)`, which must return the same bytes.
    pub fn map_inner<C: AsRef<[u8]>>(self, into: impl FnOnce(B) -> C) -> Shard<C> {
        Shard {
            raw: RawShard {
                bytes: into(self.raw.bytes),
                layout: self.raw.layout,
            },
            metadata: self.metadata,
        }
    }

    /// The metadata of the shard.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The index of the block that holds an image.
    #[must_use]
    pub fn block_of(image: usize) -> u64 {
        (image / BLOCK_IMAGES) as u64
    }

    /// Checks every byte that is not a pixel: the checksum of each section, and that every label, box
    /// and name is one that the format allows.
    ///
    /// # Errors
    /// The first violation.
    pub fn verify_columns(&self) -> Result<()> {
        (Part::SECTIONS.iter())
            .try_for_each(|&part| self.verify_section(part, self.metadata.classes.len()))
    }

    /// Checks everything, which reads the whole file.
    ///
    /// # Errors
    /// The first violation.
    pub fn verify(&self) -> Result<()> {
        self.verify_columns()?;
        (0..self.blocks()).try_for_each(|block| self.verify_block(block))
    }
}

impl<B> Deref for Shard<B> {
    type Target = RawShard<B>;

    fn deref(&self) -> &RawShard<B> {
        &self.raw
    }
}

/// Maps the shard at `path` and opens it.
///
/// # Errors
/// As for [`Shard::new`], with the path.
///
/// # Safety
/// Those of [`map_raw`].
#[expect(unsafe_code, reason = "only the caller can keep others off the file")]
pub unsafe fn map(path: &Path) -> Result<Shard<Map>> {
    // SAFETY: the caller keeps our promise.
    let raw = unsafe { map_raw(path)? };
    Shard::from_raw(raw).map_err(|error| error.at(path))
}

/// Maps the shard at `path` and checks its header.
///
/// # Errors
/// Those of [`RawShard::new`], with the path.
///
/// # Safety
/// Nobody may write to or truncate the file while the shard lives. [`Writer`](crate::Writer) never
/// does: it renames a finished file into place. Copying another file over a shard in use breaks this.
#[expect(unsafe_code, reason = "only the caller can keep others off the file")]
pub unsafe fn map_raw(path: &Path) -> Result<RawShard<Map>> {
    // SAFETY: the caller keeps our promise to `Map::open`.
    let open = || RawShard::new(unsafe { Map::open(path)? });
    open().map_err(|error| error.at(path))
}

pub(crate) fn check_label(image: usize, label: i64, classes: usize) -> Result<()> {
    if label == -1 || usize::try_from(label).is_ok_and(|label| label < classes) {
        return Ok(());
    }
    Err(Error::Label {
        image: image as u64,
        got: label,
        classes,
    })
}

pub(crate) fn check_box(image: usize, sides: [i32; 4], shape: Shape) -> Result<()> {
    let [x0, y0, x1, y1] = sides.map(i64::from);
    let inside = |low: i64, high: i64, size: u32| 0 <= low && low <= high && high < size.into();
    if sides == [-1; 4] || inside(x0, x1, shape.width) && inside(y0, y1, shape.height) {
        return Ok(());
    }
    Err(Error::Box {
        image: image as u64,
        got: sides,
        width: shape.width,
        height: shape.height,
    })
}
