use std::ops::{Deref, Range};
use std::path::Path;

use crate::header::{Layout, index, zero};
use crate::{
    BLOCK_IMAGES, Digest, Error, Le32, LeI32, LeI64, Map, Metadata, PAGE, Part, Result, Shape,
};

/// The sections of a shard over any bytes: a map of its file, or a copy in memory.
///
/// Only the header page has been checked: it suffices to tell a shard by its [digest](Self::digest),
/// and for no read to be out of bounds. Each section is to be checked before it is used.
///
/// `bytes` must not change while this lives, and `as_ref` must always give the same slice.
#[derive(Debug)]
pub struct Sections<B> {
    bytes: B,
    layout: Layout,
}

/// A shard over any bytes, whose header and metadata have been checked.
#[derive(Debug)]
pub struct Shard<B> {
    sections: Sections<B>,
    metadata: Metadata,
}

impl<B: AsRef<[u8]>> Sections<B> {
    /// Checks the header page and the extent of every section, and looks at nothing else: costs a
    /// few microseconds.
    ///
    /// # Errors
    /// The first thing in the header that is not as `SPEC.md` says.
    pub fn new(bytes: B) -> Result<Self> {
        let layout = Layout::parse(bytes.as_ref())?;
        Ok(Self { bytes, layout })
    }

    /// How many images there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layout.count
    }

    /// Whether there are no images.
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

    /// The SHA-256 of the header page. As the header holds the checksum of every other byte (of
    /// the images, through the checksum of their checksums), it stands for the whole file.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes()[..PAGE])
    }

    /// The bytes of a section; of the images where it is a block of them.
    #[must_use]
    pub fn part(&self, part: Part) -> &[u8] {
        &self.bytes()[self.range(part)]
    }

    pub(crate) fn range(&self, part: Part) -> Range<usize> {
        self.layout.range(part)
    }

    /// What holds the bytes.
    #[must_use]
    pub fn inner(&self) -> &B {
        &self.bytes
    }

    /// All pixels, `u8 [count, channels, height, width]`. Not checked against their checksums.
    #[must_use]
    pub fn images(&self) -> &[u8] {
        self.part(Part::Images)
    }

    /// The pixels of one image, `u8 [channels, height, width]`. Not checked against their checksum.
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

    /// What the source called an image, or `None` past the last.
    ///
    /// # Errors
    /// The offsets do not lie in the names section, or the name is not UTF-8.
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

    /// How many blocks the images are checked in.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.layout.blocks()
    }

    /// Checks the pixels of one block against their checksum.
    ///
    /// # Errors
    /// They differ, or there is no such block.
    pub fn verify_block(&self, block: u64) -> Result<()> {
        self.check_block(block, self.part(Part::Block(block)))
    }

    /// Checks `pixels`, which were read elsewhere, against the checksum of a block.
    ///
    /// # Errors
    /// They differ, or there is no such block.
    pub fn check_block(&self, block: u64, pixels: &[u8]) -> Result<()> {
        let crcs: &[Le32] = bytemuck::cast_slice(self.part(Part::BlockCrcs));
        let crc = usize::try_from(block)
            .ok()
            .and_then(|block| crcs.get(block));
        let Some(expected) = crc.map(|crc| crc.get()) else {
            return Err(Error::Mismatch {
                what: "block of images",
                got: block,
                expected: self.blocks(),
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

    /// Checks the bytes of one section and the zero bytes before it; of labels, boxes and names also
    /// that each is one that the format allows, where labels are below `classes`. The images have no
    /// checksum but those of their blocks.
    ///
    /// # Errors
    /// The first thing that is wrong.
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

    /// Where there is no name, no name's place tells whether the only offset is right.
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
    /// Costs microseconds however many images there are: it looks at no image and at no column.
    /// [`verify`](Self::verify) does.
    ///
    /// # Errors
    /// The first thing that is not as `SPEC.md` says.
    pub fn new(bytes: B) -> Result<Self> {
        Self::from_sections(Sections::new(bytes)?)
    }

    /// Checks what [`new`](Self::new) does, the header apart.
    ///
    /// # Errors
    /// The first thing that is not as `SPEC.md` says.
    pub fn from_sections(sections: Sections<B>) -> Result<Self> {
        for pair in sections.layout.ranges.windows(2) {
            let padding = pair[0].end..pair[1].start;
            zero(padding.start, &sections.bytes()[padding])?;
        }
        sections.verify_section(Part::Metadata, 0)?;
        let metadata = Metadata::parse(sections.part(Part::Metadata), sections.len())?;
        Ok(Self { sections, metadata })
    }

    /// The same shard, with its bytes held by what `into` makes of their holder: it must give the
    /// same bytes.
    pub fn map_inner<C: AsRef<[u8]>>(self, into: impl FnOnce(B) -> C) -> Shard<C> {
        Shard {
            sections: Sections {
                bytes: into(self.sections.bytes),
                layout: self.sections.layout,
            },
            metadata: self.metadata,
        }
    }

    /// What the shard says of itself.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The block that an image is in.
    #[must_use]
    pub fn block_of(image: usize) -> u64 {
        (image / BLOCK_IMAGES) as u64
    }

    /// Checks every byte that is not a pixel: the checksum of each column and of the blocks'
    /// checksums, and that every label, box and name is one that the format allows.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify_columns(&self) -> Result<()> {
        (Part::SECTIONS.iter())
            .try_for_each(|&part| self.verify_section(part, self.metadata.classes.len()))
    }

    /// Checks everything: a read of the whole file.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(&self) -> Result<()> {
        self.verify_columns()?;
        (0..self.blocks()).try_for_each(|block| self.verify_block(block))
    }
}

impl<B> Deref for Shard<B> {
    type Target = Sections<B>;

    fn deref(&self) -> &Sections<B> {
        &self.sections
    }
}

/// Maps the shard at `path` and opens it.
///
/// # Errors
/// As for [`Shard::new`], with the path.
///
/// # Safety
/// As for [`map_sections`].
#[expect(unsafe_code, reason = "only the caller can keep others off the file")]
pub unsafe fn map(path: &Path) -> Result<Shard<Map>> {
    // SAFETY: the caller keeps our promise.
    let sections = unsafe { map_sections(path)? };
    Shard::from_sections(sections).map_err(|error| error.at(path))
}

/// Maps the shard at `path` and checks its header.
///
/// # Errors
/// As for [`Sections::new`], with the path.
///
/// # Safety
/// Nobody may write to or truncate the file while the shard lives. [`Writer`](crate::Writer) never
/// does: it renames a finished file into place. Copying another file over a shard in use breaks this.
#[expect(unsafe_code, reason = "only the caller can keep others off the file")]
pub unsafe fn map_sections(path: &Path) -> Result<Sections<Map>> {
    // SAFETY: the caller keeps our promise to `Map::open`.
    let open = || Sections::new(unsafe { Map::open(path)? });
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
