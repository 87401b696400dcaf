use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytemuck::Zeroable;

use crate::header::{ALIGN, Header, Section, align};
use crate::publish::Draft;
use crate::{BLOCK_IMAGES, Digest, Error, MAGIC, Metadata, PAGE, Part, Result, Shape, VERSION};

/// What a shard holds of each image beside its pixels, in the order of the images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The class of each image, or -1.
    pub labels: Vec<i64>,
    /// The box of each image in inclusive pixels (x0, y0, x1, y1), or four times -1.
    pub boxes: Vec<[i32; 4]>,
    /// What the source calls each image.
    pub names: Vec<String>,
}

/// A shard as it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Images in it.
    pub images: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// The SHA-256 of its header page, which holds the checksum of everything else.
    pub digest: Digest,
}

/// A shard that is whole, but not on the disk yet, nor at its path. Dropped, it leaves nothing.
#[derive(Debug)]
#[must_use = "the shard does not appear until it is published"]
pub struct Sealed {
    draft: Draft,
    published: Published,
}

impl Sealed {
    /// Where it will appear.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.draft.path()
    }

    /// The file that holds it.
    #[must_use]
    pub fn file(&self) -> &File {
        self.draft.file()
    }

    /// What [`publish`](Self::publish) will return.
    #[must_use]
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// Makes the shard appear at its path.
    ///
    /// # Errors
    /// Those of the operating system. The shard does not appear then.
    pub fn publish(self) -> Result<Published> {
        let path = self.draft.path().to_owned();
        let appeared = self.draft.publish();
        appeared.map_err(|error| Error::from(error).at(&path))?;
        Ok(self.published)
    }
}

/// Images that lie at their place in the file, and the checksums that the shard needs of them.
#[derive(Debug)]
#[must_use = "the images are not part of the shard until the run is pushed"]
pub struct Run {
    first: u64,
    /// Images, and the checksum of their pixels, for each block that the run has a part of.
    parts: Vec<(u64, crc32fast::Hasher)>,
}

/// Writes one shard: its images, then the columns and the metadata.
///
/// One thread can [`append`](Self::append) image after image. Or many write runs of images at
/// their places at once ([`write_at`](Self::write_at)), which one thread pushes in order.
///
/// The shard appears at its path when [`finish`](Self::finish) returns, and not before; a writer
/// that is dropped leaves nothing. Memory: four bytes for each block of images.
#[derive(Debug)]
pub struct Writer {
    draft: Draft,
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
            draft: Draft::create(path).map_err(at)?,
            shape,
            images: 0,
            block: crc32fast::Hasher::new(),
            block_crcs: Vec::new(),
        })
    }

    /// Images of the shard so far.
    #[must_use]
    pub fn images(&self) -> u64 {
        self.images
    }

    /// Writes the next images, `u8 [n, channels, height, width]`.
    ///
    /// # Errors
    /// A length that is no whole number of images, or an error of the operating system.
    pub fn append(&mut self, pixels: &[u8]) -> Result<()> {
        let run = self.write_at(self.images, pixels)?;
        self.push(run)
    }

    /// Writes images, `u8 [n, channels, height, width]`, to where the shard's image `first` and
    /// those after it lie, and takes their checksums while they are in the cache. Threads may do so
    /// at once, each for its own images; those of a run that is not pushed must be written anew.
    ///
    /// # Errors
    /// A length that is no whole number of images, or an error of the operating system.
    pub fn write_at(&self, first: u64, pixels: &[u8]) -> Result<Run> {
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
        Ok(Run { first, parts })
    }

    /// Makes the images of `run` the shard's next.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if they do not lie where the images so far end.
    pub fn push(&mut self, run: Run) -> Result<()> {
        if run.first != self.images {
            return Err(Error::Mismatch {
                what: "first image of a run",
                got: run.first,
                expected: self.images,
            });
        }
        for (images, crc) in run.parts {
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
    /// Columns that do not fit the images, metadata past its cap, or an error of the operating
    /// system. The shard does not appear then.
    pub fn finish(self, columns: &Columns, metadata: &Metadata) -> Result<Published> {
        self.seal(columns, metadata)?.publish()
    }

    /// Writes what [`finish`](Self::finish) does, and leaves it to the caller to publish the shard:
    /// one that is only compressed and thrown away need not be forced to the disk.
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
        let crc = crc32fast::hash(&bytemuck::bytes_of(&header)[..PAGE - 4]);
        header.header_crc = crc.into();

        let published = Published {
            images: self.images,
            bytes: end,
            digest: Digest::of(bytemuck::bytes_of(&header)),
        };
        self.write(0, bytemuck::bytes_of(&header))?;
        // A run that was written and never pushed may lie further out.
        let cut = self.draft.file().set_len(end);
        cut.map_err(|error| Error::from(error).at(self.draft.path()))?;
        Ok(Sealed {
            draft: self.draft,
            published,
        })
    }

    /// Checks what [`Shard::verify`](crate::Shard::verify) will, so that no shard fails it.
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

    /// Writes a section at the first aligned offset that is not before `end`, where the one before
    /// it ends, and zeros between.
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

    /// Where the shard's image `index` lies.
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
        let written = self.draft.file().write_all_at(bytes, offset);
        written.map_err(|error| Error::from(error).at(self.draft.path()))
    }
}

/// Names one after the other, and where each begins, with one more offset for where the last ends.
fn join(names: &[String]) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut joined = Vec::new();
    let mut offsets = 0u32.to_le_bytes().to_vec();
    for name in names {
        joined.extend_from_slice(name.as_bytes());
        let end = u32::try_from(joined.len()).map_err(|_| Error::Mismatch {
            what: "bytes of names",
            got: joined.len() as u64,
            expected: u32::MAX.into(),
        })?;
        offsets.extend(end.to_le_bytes());
    }
    Ok((offsets, joined))
}
