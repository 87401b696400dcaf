use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::header::{Layout, index, zero};
use crate::{BLOCK_IMAGES, Digest, Error, Le32, LeI32, LeI64, Metadata, PAGE, Part, Result, Shape};

/// A shard over any bytes: a map of its file, or a copy in memory.
///
/// `bytes` must not change while the shard lives, and `as_ref` must always give the same slice.
#[derive(Debug)]
pub struct Shard<B> {
    bytes: B,
    layout: Layout,
    metadata: Metadata,
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
        let all = bytes.as_ref();
        let layout = Layout::parse(all)?;
        for pair in layout.ranges.windows(2) {
            let gap = pair[0].end..pair[1].start;
            zero(gap.start, &all[gap])?;
        }
        check_section(all, &layout, Part::Metadata)?;
        let metadata = Metadata::parse(&all[layout.range(Part::Metadata)], layout.count)?;
        Ok(Self {
            bytes,
            layout,
            metadata,
        })
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

    /// What the shard says of itself.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
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
        match part {
            Part::Header => &self.bytes()[..PAGE],
            Part::Block(block) => {
                let start = usize::try_from(block)
                    .ok()
                    .and_then(|block| block.checked_mul(BLOCK_IMAGES));
                let start = start.unwrap_or(self.len()).min(self.len());
                let end = (start + BLOCK_IMAGES).min(self.len());
                let image = self.shape().image_len();
                &self.images()[start * image..end * image]
            }
            section => &self.bytes()[self.layout.range(section)],
        }
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
        self.len().div_ceil(BLOCK_IMAGES) as u64
    }

    /// The block that an image is in.
    #[must_use]
    pub fn block_of(image: usize) -> u64 {
        (image / BLOCK_IMAGES) as u64
    }

    /// Checks the pixels of one block against their checksum.
    ///
    /// # Errors
    /// They differ, or there is no such block.
    pub fn verify_block(&self, block: u64) -> Result<()> {
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
        let got = crc32fast::hash(self.part(Part::Block(block)));
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

    /// Checks every byte that is not a pixel: the checksum of each column and of the blocks'
    /// checksums, and that every label, box and name is one that the format allows.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify_columns(&self) -> Result<()> {
        for &part in Part::SECTIONS.iter().filter(|&&part| part != Part::Images) {
            check_section(self.bytes(), &self.layout, part)?;
        }
        for (image, label) in self.labels().iter().enumerate() {
            check_label(image, label.get(), self.metadata.classes.len())?;
        }
        for (image, sides) in self.boxes().iter().enumerate() {
            check_box(image, sides.map(LeI32::get), self.shape())?;
        }
        // Where there is no name, no name's place tells whether the only offset is right.
        let offsets: &[Le32] = bytemuck::cast_slice(self.part(Part::NameOffsets));
        if let Some(first) = offsets.first().filter(|first| first.get() != 0) {
            return Err(Error::Mismatch {
                what: "first name offset",
                got: first.get().into(),
                expected: 0,
            });
        }
        let mut end = 0;
        for image in 0..self.len() {
            end += self.name(image).transpose()?.map_or(0, str::len);
        }
        let names = self.part(Part::Names).len();
        if end != names {
            return Err(Error::Mismatch {
                what: "bytes of names",
                got: end as u64,
                expected: names as u64,
            });
        }
        Ok(())
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

/// Maps the shard at `path` and opens it.
///
/// # Errors
/// As for [`Shard::new`], with the path.
///
/// # Safety
/// Nobody may write to or truncate the file while the shard lives. [`Writer`](crate::Writer) never
/// does: it renames a finished file into place. Copying another file over a shard in use breaks this.
#[expect(unsafe_code, reason = "only the caller can keep others off the file")]
pub unsafe fn map(path: &Path) -> Result<Shard<Mmap>> {
    let open = || {
        let file = File::open(path)?;
        // SAFETY: `Mmap::map` asks that the file not change under the map; our caller promises it.
        Shard::new(unsafe { Mmap::map(&file)? })
    };
    open().map_err(|error| error.at(path))
}

/// Checks the bytes of a section against the checksum that the header carries.
fn check_section(all: &[u8], layout: &Layout, part: Part) -> Result<()> {
    let Some(at) = index(part) else { return Ok(()) };
    let (got, expected) = (crc32fast::hash(&all[layout.range(part)]), layout.crcs[at]);
    if got == expected {
        Ok(())
    } else {
        Err(Error::Checksum {
            part,
            got,
            expected,
        })
    }
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
