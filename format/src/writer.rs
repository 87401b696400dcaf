use std::io::{Seek, SeekFrom, Write};
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

/// Writes one shard: images in order, then the columns and the metadata.
///
/// The shard appears at its path when [`finish`](Self::finish) returns, and not before; a writer
/// that is dropped leaves nothing. Memory: four bytes for each block of images.
#[derive(Debug)]
pub struct Writer {
    draft: Draft,
    shape: Shape,
    images: u64,
    offset: u64,
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
        let mut draft = Draft::create(path).map_err(at)?;
        draft
            .file()
            .seek(SeekFrom::Start(PAGE as u64))
            .map_err(at)?;
        Ok(Self {
            draft,
            shape,
            images: 0,
            offset: PAGE as u64,
            block: crc32fast::Hasher::new(),
            block_crcs: Vec::new(),
        })
    }

    /// Images written so far.
    #[must_use]
    pub fn images(&self) -> u64 {
        self.images
    }

    /// Writes whole images, `pixels` being `u8 [n, channels, height, width]`.
    ///
    /// # Errors
    /// A length that is no whole number of images, or an error of the operating system, after which
    /// the writer is of no more use.
    pub fn append(&mut self, pixels: &[u8]) -> Result<()> {
        let image_len = self.shape.image_len();
        if !pixels.len().is_multiple_of(image_len) {
            return Err(Error::Mismatch {
                what: "bytes after the last whole image",
                got: (pixels.len() % image_len) as u64,
                expected: 0,
            });
        }
        self.write(pixels)?;
        for image in pixels.chunks_exact(image_len) {
            self.block.update(image);
            self.images += 1;
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
    pub fn finish(mut self, columns: &Columns, metadata: &Metadata) -> Result<Published> {
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
        header.sections[0].offset = (PAGE as u64).into();
        header.sections[0].len = (self.offset - PAGE as u64).into();
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
            *section = self.section(bytes)?;
        }
        header.magic = MAGIC;
        header.version = VERSION.into();
        header.file_len = self.offset.into();
        header.count = self.images.into();
        header.channels = self.shape.channels.into();
        header.height = self.shape.height.into();
        header.width = self.shape.width.into();
        header.block_images = 64.into();
        header.section_count = 7.into();
        const { assert!(BLOCK_IMAGES == 64 && Part::SECTIONS.len() == 7) };
        let crc = crc32fast::hash(&bytemuck::bytes_of(&header)[..PAGE - 4]);
        header.header_crc = crc.into();

        let published = Published {
            images: self.images,
            bytes: self.offset,
            digest: Digest::of(bytemuck::bytes_of(&header)),
        };
        let path = self.draft.path().to_owned();
        let at = |error: std::io::Error| Error::from(error).at(&path);
        self.draft.file().rewind().map_err(at)?;
        self.write(bytemuck::bytes_of(&header))?;
        self.draft.publish().map_err(at)?;
        Ok(published)
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

    /// Writes a section where the one before it ends, at the next aligned offset.
    fn section(&mut self, bytes: &[u8]) -> Result<Section> {
        let start = align(self.offset).ok_or(Error::Mismatch {
            what: "bytes of a shard",
            got: self.offset,
            expected: u64::MAX - ALIGN,
        })?;
        let padding = [0; PAGE];
        let gap = usize::try_from(start - self.offset).unwrap_or_default();
        self.write(&padding[..gap])?;
        self.write(bytes)?;
        Ok(Section {
            offset: start.into(),
            len: (bytes.len() as u64).into(),
            crc: crc32fast::hash(bytes).into(),
            reserved: 0.into(),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.draft.file().write_all(bytes);
        written.map_err(|error| Error::from(error).at(self.draft.path()))?;
        self.offset += bytes.len() as u64;
        Ok(())
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
