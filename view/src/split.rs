//! A split of a set in memory, but for its pixels, which are read from the files when they are asked for. Reads cannot
//! fail the program, as a map of a shard could that is cut while it is shown.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Bytes;
use bytemuck::cast_slice;
use tinyres_format::{BLOCK_IMAGES, Class, Error as FormatError, Le32, Manifest, Part};
use tinyres_format::{Shape, Shard, SplitEntry};
use tinyres_results::duplicates::Images;

use crate::error::{Error, Result};
use crate::table::Table;

/// Bytes of pixels in an answer at most.
pub const MAX_BYTES: usize = 32 << 20;

/// A split.
pub struct Split {
    pub shape: Shape,
    pub classes: Vec<Class>,
    /// Class of each image, or -1.
    pub labels: Vec<i32>,
    /// Box of each image in inclusive pixels (x0, y0, x1, y1), or four times -1.
    pub boxes: Vec<[i32; 4]>,
    /// The offset in `names` at which the name of each image ends.
    pub name_ends: Vec<u32>,
    pub names: Vec<u8>,
    shards: Vec<Pixels>,
    columns: OnceLock<Bytes>,
    name_column: OnceLock<Bytes>,
}

/// The pixels of a shard.
struct Pixels {
    path: PathBuf,
    file: File,
    /// Numbers of its images in the split.
    images: Range<u32>,
    /// Where they begin in the file.
    offset: u64,
    /// Checksum of each block.
    crcs: Vec<u32>,
    /// True for each block that has passed its check.
    checked: Vec<AtomicBool>,
}

impl Split {
    /// Opens the split of `entry` of the set in `dir`. Checks everything in the shards but the pixels.
    pub fn open(dir: &Path, manifest: &Manifest, entry: &SplitEntry) -> Result<Self> {
        let mut split = Self {
            shape: manifest.shape,
            classes: Vec::new(),
            labels: Vec::new(),
            boxes: Vec::new(),
            name_ends: Vec::new(),
            names: Vec::new(),
            shards: Vec::new(),
            columns: OnceLock::new(),
            name_column: OnceLock::new(),
        };
        for (index, listed) in entry.shards.iter().enumerate() {
            let path = dir.join(&listed.file);
            split.add(&path, |shard| {
                manifest.check(entry, index, shard)?;
                shard.verify_columns()
            })?;
        }
        Ok(split)
    }

    fn add(
        &mut self,
        path: &Path,
        check: impl FnOnce(&Shard<tinyres_format::Map>) -> tinyres_format::Result<()>,
    ) -> Result<()> {
        let file = File::open(path).map_err(Error::io(path))?;
        #[expect(unsafe_code, reason = "the command's help states the rule of the map")]
        // SAFETY: nothing in tinyres writes to or truncates a shard in place, and the help of the command tells the user
        // that no other program may. The map ends with this function.
        let shard = unsafe { tinyres_format::map(path)? };
        check(&shard).map_err(|error| error.at(path))?;
        let first = self.len();
        let pixels = shard.images().as_ptr().addr() - shard.bytes().as_ptr().addr();
        if self.shards.is_empty() {
            self.classes.clone_from(&shard.metadata().classes);
        }
        // Checked: a label is below the number of classes, or -1.
        let label = |label: &tinyres_format::LeI64| i32::try_from(label.get()).unwrap_or(-1);
        self.labels.extend(shard.labels().iter().map(label));
        let sides = |sides: &[tinyres_format::LeI32; 4]| sides.map(|side| side.get());
        self.boxes.extend(shard.boxes().iter().map(sides));
        for image in 0..shard.len() {
            let name = shard.name(image).transpose();
            let name = name.map_err(|error| error.at(path))?.unwrap_or_default();
            self.names.extend_from_slice(name.as_bytes());
            let end = u32::try_from(self.names.len());
            let end = end.map_err(|_| Error::Bad("names of more than 4 GiB".to_owned()))?;
            self.name_ends.push(end);
        }
        let crcs: &[Le32] = cast_slice(shard.part(Part::BlockCrcs));
        self.shards.push(Pixels {
            path: path.to_owned(),
            file,
            images: first..self.len(),
            offset: pixels as u64,
            crcs: crcs.iter().map(|crc| crc.get()).collect(),
            checked: crcs.iter().map(|_| AtomicBool::new(false)).collect(),
        });
        Ok(())
    }

    /// Labels and boxes, as columns. Kept: each page asks for them.
    pub fn columns(&self) -> Bytes {
        let encode = || {
            let mut table = Table::new(self.labels.len());
            table.numbers("label", 1, &self.labels);
            table.numbers("box", 4, self.boxes.as_flattened());
            table.encode().into()
        };
        self.columns.get_or_init(encode).clone()
    }

    /// Names, as a column. Kept, as well: they are most of what a page takes, and few need them.
    pub fn name_column(&self) -> Bytes {
        let encode = || {
            let mut table = Table::new(self.labels.len());
            table.texts(["name.ends", "name"], &self.name_ends, &self.names);
            table.encode().into()
        };
        self.name_column.get_or_init(encode).clone()
    }

    /// Number of images.
    pub fn len(&self) -> u32 {
        u32::try_from(self.labels.len()).unwrap_or(u32::MAX)
    }

    /// Reads the pixels of `images`, `u8 [n, 3, H, W]`. Blocks that are read for the first time are checked.
    pub fn pixels(&self, images: &[u32]) -> Result<Vec<u8>> {
        let len = self.shape.image_len();
        if images.len().saturating_mul(len) > MAX_BYTES {
            let most = (MAX_BYTES / len).max(1);
            return Err(Error::Bad(format!("ask for at most {most} images at once")));
        }
        if let Some(image) = images.iter().find(|&&image| image >= self.len()) {
            let len = self.len();
            return Err(Error::NotFound(format!(
                "image {image} asked for, but the split has {len}, counted from 0"
            )));
        }
        let mut pixels = vec![0; images.len() * len];
        self.fill(images, &mut pixels)?;
        Ok(pixels)
    }

    /// Fills `out` with the pixels of `images`, which are there.
    fn fill(&self, images: &[u32], mut rest: &mut [u8]) -> Result<()> {
        let len = self.shape.image_len();
        // Runs of images that lie side by side are read at once.
        let mut at = 0;
        while at < images.len() {
            let first = images[at];
            let after = (self.shards).partition_point(|shard| shard.images.start <= first);
            let shard = &self.shards[after - 1];
            let run = (images[at..].iter().zip(first..shard.images.end))
                .take_while(|(image, next)| *image == next)
                .count();
            let (own, others) = rest.split_at_mut(run * len);
            shard.read((first - shard.images.start) as usize, len, own)?;
            rest = others;
            at += run;
        }
        Ok(())
    }

    /// Tells of each image if it is grey: red, green and blue are the same everywhere.
    pub fn grey(&self) -> Result<Vec<u8>> {
        let len = self.shape.image_len();
        let step = u32::try_from((MAX_BYTES / 8 / len).max(1)).unwrap_or(1);
        let mut grey = Vec::with_capacity(self.labels.len());
        for first in (0..self.len()).step_by(step as usize) {
            let images: Vec<u32> = (first..self.len().min(first.saturating_add(step))).collect();
            let pixels = self.pixels(&images)?;
            grey.extend(pixels.chunks_exact(len).map(|image| {
                let (red, others) = image.split_at(len / 3);
                u8::from(others.chunks_exact(len / 3).all(|plane| plane == red))
            }));
        }
        Ok(grey)
    }
}

impl Images for Split {
    type Error = Error;

    fn shape(&self) -> Shape {
        self.shape
    }

    fn count(&self) -> u32 {
        self.len()
    }

    fn copy(&self, images: &[u32], out: &mut [u8]) -> Result<()> {
        self.fill(images, out)
    }
}

impl Pixels {
    /// Fills `out` with images of `len` bytes from image `first` of the shard on.
    fn read(&self, first: usize, len: usize, out: &mut [u8]) -> Result<()> {
        let end = first + out.len() / len;
        for block in first / BLOCK_IMAGES..end.div_ceil(BLOCK_IMAGES) {
            if !self.checked[block].load(Ordering::Relaxed) {
                self.check(block, len)?;
            }
        }
        self.read_at(first * len, out)
    }

    fn check(&self, block: usize, len: usize) -> Result<()> {
        let images = self.images.len();
        let (first, end) = (block * BLOCK_IMAGES, images.min((block + 1) * BLOCK_IMAGES));
        let mut pixels = vec![0; (end - first) * len];
        self.read_at(first * len, &mut pixels)?;
        let (got, expected) = (crc32fast::hash(&pixels), self.crcs[block]);
        if got != expected {
            let part = Part::Block(block as u64);
            let wrong = FormatError::Checksum {
                part,
                got,
                expected,
            };
            return Err(wrong.at(&self.path).into());
        }
        self.checked[block].store(true, Ordering::Relaxed);
        Ok(())
    }

    fn read_at(&self, offset: usize, out: &mut [u8]) -> Result<()> {
        (self.file.read_exact_at(out, self.offset + offset as u64)).map_err(|source| Error::Lost {
            path: self.path.clone(),
            source,
        })
    }
}
