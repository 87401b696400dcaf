use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use tinyres_format::{BLOCK_IMAGES, Class, Digest, Manifest, Map, Shape, Shard, Split};

use super::{Error, Result};

/// When the pixels are checked against their checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Never.
    Off,
    /// Each block of 64 images when it is first touched.
    #[default]
    Lazy,
    /// All of them when the set is opened.
    Full,
}

/// One split of a set of shards, as one list of images.
#[derive(Debug)]
pub struct Dataset {
    shards: Vec<Part>,
    split: Split,
    shape: Shape,
    fingerprint: Digest,
    classes: Vec<Class>,
    labels: Vec<i64>,
    boxes: Vec<[i32; 4]>,
}

/// A shard of a split.
#[derive(Debug)]
struct Part {
    shard: Shard<Map>,
    path: PathBuf,
    /// The split's number of the shard's first image.
    start: usize,
    /// One bit for each block whose pixels need not be checked any more.
    verified: Vec<AtomicU64>,
}

impl Dataset {
    /// Maps the shards of `split` in `dir` and checks that they are the ones, whole, that
    /// `dataset.json` was written for. No pixel is read unless `verify` is [`Verify::Full`].
    ///
    /// # Errors
    /// No finished set, no such split, or what is wrong with which shard.
    ///
    /// # Safety
    /// As for [`tinyres_format::map`]: nobody may write to or truncate the shards while this lives.
    #[expect(unsafe_code, reason = "only the caller can keep others off the files")]
    pub unsafe fn open(dir: &Path, split: Split, verify: Verify) -> Result<Self> {
        let manifest = Manifest::load(dir)?;
        // SAFETY: the caller keeps our promise to `map`.
        Self::new(dir, &manifest, split, verify, |path| unsafe {
            tinyres_format::map(path)
        })
    }

    fn new(
        dir: &Path,
        manifest: &Manifest,
        split: Split,
        verify: Verify,
        map: impl Fn(&Path) -> tinyres_format::Result<Shard<Map>>,
    ) -> Result<Self> {
        let entry = manifest.split(split).ok_or_else(|| Error::NoSplit {
            dir: dir.to_owned(),
            split,
            present: manifest.splits.iter().map(|entry| entry.split).collect(),
        })?;
        if u32::try_from(entry.images).is_err() {
            return Err(Error::TooMany {
                dir: dir.to_owned(),
                split,
                images: entry.images,
            });
        }
        let mut set = Self {
            shards: Vec::new(),
            split,
            shape: manifest.shape,
            fingerprint: manifest.fingerprint,
            classes: Vec::new(),
            labels: Vec::new(),
            boxes: Vec::new(),
        };
        for (index, listed) in entry.shards.iter().enumerate() {
            let path = dir.join(&listed.file);
            let shard = map(&path)?;
            manifest
                .check(entry, index, &shard)
                .and_then(|()| shard.verify_columns())
                .map_err(|error| error.at(&path))?;
            if index == 0 {
                set.classes.clone_from(&shard.metadata().classes);
            } else if set.classes != shard.metadata().classes {
                return Err(Error::Classes { path });
            }
            let start = set.labels.len();
            set.labels
                .extend(shard.labels().iter().map(|label| label.get()));
            set.boxes.extend(
                shard
                    .boxes()
                    .iter()
                    .map(|sides| sides.map(|side| side.get())),
            );
            let words = shard.len().div_ceil(BLOCK_IMAGES).div_ceil(64);
            let mark = if verify == Verify::Off { u64::MAX } else { 0 };
            let verified = (0..words).map(|_| AtomicU64::new(mark)).collect();
            set.shards.push(Part {
                shard,
                path,
                start,
                verified,
            });
        }
        if verify == Verify::Full {
            set.shards.par_iter().try_for_each(|part| {
                (0..part.shard.blocks())
                    .into_par_iter()
                    .try_for_each(|block| part.verify(block))
            })?;
        }
        Ok(set)
    }

    /// How many images the split has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Which split it is.
    #[must_use]
    pub fn split(&self) -> Split {
        self.split
    }

    /// The shape of each image.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Identifies the set that this is a split of.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// The classes, in label order.
    #[must_use]
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// The class of each image, or -1.
    #[must_use]
    pub fn labels(&self) -> &[i64] {
        &self.labels
    }

    /// The box of each image in inclusive pixels (x0, y0, x1, y1), or four times -1.
    #[must_use]
    pub fn boxes(&self) -> &[[i32; 4]] {
        &self.boxes
    }

    /// What the source called an image.
    ///
    /// # Errors
    /// There is no such image.
    pub fn name(&self, image: usize) -> Result<&str> {
        let (part, at) = self.locate(image)?;
        match part.shard.name(at) {
            Some(name) => Ok(name.map_err(|error| error.at(&part.path))?),
            None => Err(Error::NoImage {
                image,
                len: self.len(),
            }),
        }
    }

    /// Copies the pixels of `images` one after the other to `out`, `u8 [n, C, H, W]`: one copy from
    /// the page cache, and the only one that a batch in random order takes.
    ///
    /// # Errors
    /// An image past the last, an `out` of another size, or a block that fails its checksum.
    pub fn gather(&self, images: &[u32], out: &mut [u8]) -> Result<()> {
        let len = self.shape.image_len();
        let expected = images.len() * len;
        if out.len() != expected {
            return Err(Error::Slot {
                got: out.len(),
                expected,
            });
        }
        for (&image, slot) in images.iter().zip(out.chunks_exact_mut(len)) {
            let (part, at) = self.locate(image as usize)?;
            part.verify_once(at..at + 1)?;
            let pixels = part.shard.images();
            slot.copy_from_slice(&pixels[at * len..(at + 1) * len]);
        }
        Ok(())
    }

    /// The split in file order, `u8 [n, C, H, W]` at a time: views of the map, nothing is copied. A
    /// batch ends where its shard ends, so some have fewer than `batch` images.
    pub fn sequential(&self, batch: usize) -> impl Iterator<Item = (Range<usize>, Result<&[u8]>)> {
        let len = self.shape.image_len();
        self.shards.iter().flat_map(move |part| {
            (0..part.shard.len())
                .step_by(batch.max(1))
                .map(move |first| {
                    let last = part.shard.len().min(first + batch.max(1));
                    let pixels = &part.shard.images()[first * len..last * len];
                    let checked = part.verify_once(first..last).map(|()| pixels);
                    (part.start + first..part.start + last, checked)
                })
        })
    }

    fn locate(&self, image: usize) -> Result<(&Part, usize)> {
        if image >= self.len() {
            return Err(Error::NoImage {
                image,
                len: self.len(),
            });
        }
        let after = self.shards.partition_point(|part| part.start <= image);
        let part = &self.shards[after - 1];
        Ok((part, image - part.start))
    }
}

impl Part {
    /// Checks the blocks of `images` that were not checked before.
    fn verify_once(&self, images: Range<usize>) -> Result<()> {
        for block in images.start / BLOCK_IMAGES..images.end.div_ceil(BLOCK_IMAGES) {
            let (word, bit) = (&self.verified[block / 64], 1 << (block % 64));
            // Relaxed: the bit guards no other memory, and checking a block twice does no harm.
            if word.load(Ordering::Relaxed) & bit == 0 {
                self.verify(block as u64)?;
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn verify(&self, block: u64) -> Result<()> {
        Ok(self
            .shard
            .verify_block(block)
            .map_err(|error| error.at(&self.path))?)
    }
}
