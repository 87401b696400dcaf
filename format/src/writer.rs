//! Writes one shard: images first, then columns, metadata and the header page.
//!
//! The writer takes decoded pixels of one shape and computes all checksums. It knows nothing of the
//! other shards of a set; see `SetWriter` for those.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytemuck::Zeroable;

use crate::header::{ALIGN, Header, Section, align};
use crate::publish::AtomicFile;
use crate::{
    BLOCK_IMAGES, Digest, Error, MAGIC, Metadata, PAGE, Part, Result, Shape, ShardEntry, VERSION,
};

/// The columns of a shard: what it holds of each image apart from the pixels, in the order of the
/// images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The class of each image, or -1.
    pub labels: Vec<i64>,
    /// The box of each image in inclusive pixels (x0, y0, x1, y1), or four times -1.
    pub boxes: Vec<[i32; 4]>,
    /// The name of each image in the source.
    pub names: Vec<String>,
}

/// A complete shard that has not been forced to the disk and is not at its path yet. Dropped, it
/// leaves nothing.
#[derive(Debug)]
#[must_use = "the shard does not appear until it is published"]
pub struct Sealed {
    file: AtomicFile,
    entry: ShardEntry,
}

impl Sealed {
    /// The path at which it will appear.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The temporary file that holds it.
    #[must_use]
    pub fn file(&self) -> &File {
        self.file.file()
    }

    /// The entry that [`publish`](Self::publish) will return.
    #[must_use]
    pub fn entry(&self) -> &ShardEntry {
        &self.entry
    }

    /// Makes the shard appear at its path.
    ///
    /// # Errors
    /// Those of the operating system. The shard does not appear then.
    pub fn publish(self) -> Result<ShardEntry> {
        let path = self.file.path().to_owned();
        let appeared = self.file.publish();
        appeared.map_err(|error| Error::from(error).at(&path))?;
        Ok(self.entry)
    }
}

/// Images that [`Writer::write_at`] has written to their place in the file, with the checksums that the
/// shard needs of them.
#[derive(Debug)]
#[must_use = "the images are not part of the shard until they are pushed"]
pub struct WrittenImages {
    first: u64,
    /// For each block that they are a part of: how many of them, and the checksum of their pixels.
    parts: Vec<(u64, crc32fast::Hasher)>,
}

/// Writes one shard: its images, then the columns and the metadata.
///
/// One thread can [`append`](Self::append) image after image. Or many threads write images to their
/// places at the same time with [`write_at`](Self::write_at), and one thread [`push`](Self::push)es
/// them in order.
///
/// The shard appears at its path when [`finish`](Self::finish) returns, and not before; a writer
/// that is dropped leaves nothing. Memory: four bytes for each block of images. To write a whole set,
/// use [`SetWriter`](crate::SetWriter).
#[derive(Debug)]
pub struct Writer {
    file: AtomicFile,
    shape: Shape,
    images: u64,
    block: crc32fast::Hasher,
    block_crcs: Vec<u8>,
}

impl Writer {
    /// Begins the shard that will appear at `path`.
    ///
    /// # Errors
    /// A shape that the format does not allow, or an error of the operating system.
    pub fn create(path: &Path, shape: Shape) -> Result<Self> {
        shape.check()?;
        let at = |error: std::io::Error| Error::from(error).at(path);
        Ok(Self {
            file: AtomicFile::create(path).map_err(at)?,
            shape,
            images: 0,
            block: crc32fast::Hasher::new(),
            block_crcs: Vec::new(),
        })
    }

    /// The number of images in the shard so far.
    #[must_use]
    pub fn images(&self) -> u64 {
        self.images
    }

    /// Writes the next images, `u8 [n, channels, height, width]`.
    ///
    /// # Errors
    /// A length that is not a whole number of images, or an error of the operating system.
    pub fn append(&mut self, pixels: &[u8]) -> Result<()> {
        let written = self.write_at(self.images, pixels)?;
        self.push(written)
    }

    /// Writes images, `u8 [n, channels, height, width]`, to the places of the shard's image `first`
    /// and those after it, and computes their checksums while they are in the cache. Several threads
    /// may call it at the same time, each for images of its own. Images that are never pushed must be
    /// written again.
    ///
    /// # Errors
    /// A length that is not a whole number of images, or an error of the operating system.
    pub fn write_at(&self, first: u64, pixels: &[u8]) -> Result<WrittenImages> {
        let image_len = self.shape.image_len();
        if !pixels.len().is_multiple_of(image_len) {
            return Err(Error::Mismatch {
                what: "bytes after the last whole image",
                got: (pixels.len() % image_len) as u64,
                expected: 0,
            });
        }
        self.write(self.offset_of(first)?, pixels)?;
        let mut parts = Vec::new();
        let (mut image, mut rest) = (first, pixels);
        while !rest.is_empty() {
            let room = BLOCK_IMAGES as u64 - image % BLOCK_IMAGES as u64;
            let images = room.min((rest.len() / image_len) as u64);
            let bytes = usize::try_from(images).map_or(rest.len(), |images| images * image_len);
            let (part, after) = rest.split_at(bytes);
            let mut crc = crc32fast::Hasher::new();
            crc.update(part);
            parts.push((images, crc));
            (image, rest) = (image + images, after);
        }
        Ok(WrittenImages { first, parts })
    }

    /// Makes `written` the next images of the shard.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if their place is not the end of the images so far.
    pub fn push(&mut self, written: WrittenImages) -> Result<()> {
        if written.first != self.images {
            return Err(Error::Mismatch {
                what: "first of the images that were pushed",
                got: written.first,
                expected: self.images,
            });
        }
        for (images, crc) in written.parts {
            self.block.combine(&crc);
            self.images += images;
            if self.images.is_multiple_of(BLOCK_IMAGES as u64) {
                self.end_block();
            }
        }
        Ok(())
    }

    /// Writes the columns, the metadata and the header, and publishes the shard.
    ///
    /// # Errors
    /// Columns that do not fit the images, metadata that is too large, or an error of the operating
    /// system. The shard does not appear then.
    pub fn finish(self, columns: &Columns, metadata: &Metadata) -> Result<ShardEntry> {
        self.seal(columns, metadata)?.publish()
    }

    /// Writes everything that [`finish`](Self::finish) writes, but leaves it to the caller to publish
    /// the shard. A shard that is only compressed and then dropped need not be forced to the disk.
    ///
    /// # Errors
    /// As for [`finish`](Self::finish).
    pub fn seal(mut self, columns: &Columns, metadata: &Metadata) -> Result<Sealed> {
        self.check(columns, metadata)?;
        if !self.images.is_multiple_of(BLOCK_IMAGES as u64) {
            self.end_block();
        }
        let labels: Vec<u8> = columns
            .labels
            .iter()
            .flat_map(|label| label.to_le_bytes())
            .collect();
        let boxes: Vec<u8> = columns
            .boxes
            .iter()
            .flatten()
            .flat_map(|side| side.to_le_bytes())
            .collect();
        let (name_offsets, names) = join(&columns.names)?;
        let metadata = metadata.to_json()?;

        let mut header = Header::zeroed();
        let mut end = self.offset_of(self.images)?;
        header.sections[0].offset = (PAGE as u64).into();
        header.sections[0].len = (end - PAGE as u64).into();
        let block_crcs = std::mem::take(&mut self.block_crcs);
        let parts = [
            &block_crcs,
            &labels,
            &boxes,
            &name_offsets,
            &names,
            &metadata,
        ];
        for (section, bytes) in header.sections[1..].iter_mut().zip(parts) {
            *section = self.section(end, bytes)?;
            end = section.offset.get() + section.len.get();
        }
        header.magic = MAGIC;
        header.version = VERSION.into();
        header.file_len = end.into();
        header.count = self.images.into();
        header.channels = self.shape.channels.into();
        header.height = self.shape.height.into();
        header.width = self.shape.width.into();
        header.block_images = 16.into();
        header.section_count = 7.into();
        const { assert!(BLOCK_IMAGES == 16 && Part::SECTIONS.len() == 7) };
        header.seal();

        let name = self.file.path().file_name().unwrap_or_default();
        let entry = ShardEntry {
            file: name.to_string_lossy().into_owned(),
            images: self.images,
            bytes: end,
            digest: Digest::of(bytemuck::bytes_of(&header)),
        };
        self.write(0, bytemuck::bytes_of(&header))?;
        // Images that were written and never pushed may lie after the end.
        let cut = self.file.file().set_len(end);
        cut.map_err(|error| Error::from(error).at(self.file.path()))?;
        Ok(Sealed {
            file: self.file,
            entry,
        })
    }

    /// Checks what [`Shard::verify`](crate::Shard::verify) checks, so that no written shard fails it.
    fn check(&self, columns: &Columns, metadata: &Metadata) -> Result<()> {
        for (what, got) in [
            ("labels", columns.labels.len()),
            ("boxes", columns.boxes.len()),
            ("names", columns.names.len()),
        ] {
            if got as u64 != self.images {
                return Err(Error::Mismatch {
                    what,
                    got: got as u64,
                    expected: self.images,
                });
            }
        }
        for (image, &label) in columns.labels.iter().enumerate() {
            crate::shard::check_label(image, label, metadata.classes.len())?;
        }
        for (image, &sides) in columns.boxes.iter().enumerate() {
            crate::shard::check_box(image, sides, self.shape)?;
        }
        Ok(())
    }

    fn end_block(&mut self) {
        let block = std::mem::replace(&mut self.block, crc32fast::Hasher::new());
        self.block_crcs.extend(block.finalize().to_le_bytes());
    }

    /// Writes a section at the first aligned offset from `end` on, the end of the previous section,
    /// and zeros between the two.
    fn section(&self, end: u64, bytes: &[u8]) -> Result<Section> {
        let offset = align(end).ok_or(Error::Mismatch {
            what: "bytes of a shard",
            got: end,
            expected: u64::MAX - ALIGN,
        })?;
        let gap = usize::try_from(offset - end).unwrap_or_default();
        self.write(end, &[0; PAGE][..gap])?;
        self.write(offset, bytes)?;
        Ok(Section {
            offset: offset.into(),
            len: (bytes.len() as u64).into(),
            crc: crc32fast::hash(bytes).into(),
            reserved: 0.into(),
        })
    }

    /// The offset in the file of the shard's image `index`.
    fn offset_of(&self, index: u64) -> Result<u64> {
        let images = index.checked_mul(self.shape.image_len() as u64);
        images
            .and_then(|bytes| bytes.checked_add(PAGE as u64))
            .ok_or(Error::Mismatch {
                what: "images of a shard",
                got: index,
                expected: u64::MAX / self.shape.image_len() as u64,
            })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = self.file.file().write_all_at(bytes, offset);
        written.map_err(|error| Error::from(error).at(self.file.path()))
    }
}

/// Returns the columns `name_offsets` and `names`: the offset at which each name begins, with one
/// more for the end of the last, and the names one after the other.
fn join(names: &[String]) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut joined = Vec::new();
    let mut offsets = 0u32.to_le_bytes().to_vec();
    for name in names {
        joined.extend_from_slice(name.as_bytes());
        let end = u32::try_from(joined.len()).map_err(|_| Error::TooLarge {
            what: "the column of names",
            got: joined.len() as u64,
            max: u32::MAX.into(),
            remedy: "put fewer images into each shard",
        })?;
        offsets.extend(end.to_le_bytes());
    }
    Ok((offsets, joined))
}
