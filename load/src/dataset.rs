use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::Advice;
use rayon::prelude::*;
use tinyres_format::{
    BLOCK_IMAGES, Class, Digest, Manifest, Map, Part, Sections, Shape, Shard, Split, SplitEntry,
};

use super::normalize::PAST_CACHES;
use super::{Error, Normalization, Result};

/// Pixels that the kernel is asked to read before they are checked for a batch, in bytes: all that one
/// of 512 in random order needs. Measured from a cold disk: its first batch comes in half the time.
const AHEAD: usize = 128 << 20;

/// When pixels are checked against their checksums. Labels, boxes and names are checked when they are
/// first used, whatever this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Never.
    Off,
    /// Each block of 16 images when it is first touched.
    #[default]
    Lazy,
    /// All of them, and everything else in the files, when the set is opened.
    Full,
}

/// One split of a set of shards, as one list of images.
#[derive(Debug)]
pub struct Dataset {
    shards: Vec<Member>,
    len: usize,
    split: Split,
    shape: Shape,
    fingerprint: Digest,
    classes: Vec<Class>,
}

/// A shard of a split.
#[derive(Debug)]
struct Member {
    shard: Sections<Map>,
    path: PathBuf,
    /// The split's number of the shard's first image.
    start: usize,
    /// One bit for each section that need not be checked any more.
    sections: AtomicU32,
    /// One bit for each block whose pixels need not be checked any more.
    blocks: Vec<AtomicU64>,
}

impl Dataset {
    /// Maps the shards of `split` in `dir` and checks by their headers that they are the very ones
    /// that `dataset.json` was written for, of the length they had then.
    ///
    /// Reads one page of each shard: under ten milliseconds for 1,700 of them. What lies behind it
    /// is checked when it is first used, or now if `verify` is [`Verify::Full`].
    ///
    /// # Errors
    /// No finished set, no such split, or what is wrong with which shard.
    ///
    /// # Safety
    /// As for [`tinyres_format::map`]: nobody may write to or truncate the shards while this lives.
    #[expect(unsafe_code, reason = "only the caller can keep others off the files")]
    pub unsafe fn open(dir: &Path, split: Split, verify: Verify) -> Result<Self> {
        let manifest = Manifest::load(dir)?;
        // SAFETY: the caller keeps our promise to `map_sections`.
        let map = |path: &Path| unsafe { tinyres_format::map_sections(path) };
        Self::new(dir, &manifest, split, verify, map)
    }

    fn new(
        dir: &Path,
        manifest: &Manifest,
        split: Split,
        verify: Verify,
        map: impl Fn(&Path) -> tinyres_format::Result<Sections<Map>> + Sync,
    ) -> Result<Self> {
        let entry = manifest.split(split).ok_or_else(|| Error::NoSplit {
            dir: dir.to_owned(),
            split,
            present: manifest.splits.iter().map(|entry| entry.split).collect(),
        })?;
        let too_many = |_| Error::TooMany {
            dir: dir.to_owned(),
            split,
            images: entry.images,
        };
        u32::try_from(entry.images).map_err(too_many)?;
        let open = |index: usize| -> tinyres_format::Result<Sections<Map>> {
            let path = dir.join(&entry.shards[index].file);
            let shard = map(&path)?;
            match manifest.check_header(entry, index, &shard) {
                Ok(()) => Ok(shard),
                Err(error) => Err(error.at(&path)),
            }
        };
        let opened: Vec<_> = (0..entry.shards.len()).into_par_iter().map(open).collect();
        let mut set = Self {
            shards: Vec::with_capacity(opened.len()),
            len: 0,
            split,
            shape: manifest.shape,
            fingerprint: manifest.fingerprint,
            classes: Vec::new(),
        };
        for (listed, shard) in entry.shards.iter().zip(opened) {
            let shard = shard?;
            let words = shard.len().div_ceil(BLOCK_IMAGES).div_ceil(64);
            let mark = if verify == Verify::Off { u64::MAX } else { 0 };
            let start = set.len;
            set.len += shard.len();
            set.shards.push(Member {
                shard,
                path: dir.join(&listed.file),
                start,
                sections: AtomicU32::new(0),
                blocks: (0..words).map(|_| AtomicU64::new(mark)).collect(),
            });
        }
        if let Some(first) = set.shards.first() {
            set.classes = first.open()?.metadata().classes.clone();
        }
        if verify == Verify::Full {
            set.verify(manifest, entry)?;
        }
        Ok(set)
    }

    /// Checks every byte of every shard.
    fn verify(&self, manifest: &Manifest, entry: &SplitEntry) -> Result<()> {
        (self.shards.par_iter().enumerate()).try_for_each(|(index, member)| {
            let shard = member.open()?;
            (manifest
                .check(entry, index, &shard)
                .and_then(|()| shard.verify_columns()))
            .map_err(|error| error.at(&member.path))?;
            if shard.metadata().classes != self.classes {
                let path = member.path.clone();
                return Err(Error::Classes { path });
            }
            member.sections.store(u32::MAX, Ordering::Relaxed);
            Ok(())
        })?;
        let images = (self.shards.iter()).map(|member| (member, 0..member.shard.len()));
        verify_all(&unverified(images))
    }

    /// How many images the split has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
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

    /// The class of an image, or -1.
    ///
    /// # Errors
    /// There is no such image, or its shard's labels are not as they were written.
    pub fn label(&self, image: usize) -> Result<i64> {
        let (member, at) = self.locate(image)?;
        member.verify_column(Part::Labels, self.classes.len())?;
        Ok(member.shard.labels()[at].get())
    }

    /// The class of every image, or -1: eight bytes each, copied by all threads.
    ///
    /// # Errors
    /// The labels of a shard are not as they were written.
    pub fn labels(&self) -> Result<Vec<i64>> {
        let mut labels = vec![0; self.len];
        let mut rest = &mut labels[..];
        let mut parts = Vec::with_capacity(self.shards.len());
        for member in &self.shards {
            let (own, others) = rest.split_at_mut(member.shard.len());
            parts.push((member, own));
            rest = others;
        }
        parts.into_par_iter().try_for_each(|(member, own)| {
            member.verify_column(Part::Labels, self.classes.len())?;
            for (to, label) in own.iter_mut().zip(member.shard.labels()) {
                *to = label.get();
            }
            Ok::<_, Error>(())
        })?;
        Ok(labels)
    }

    /// The box of an image in inclusive pixels (x0, y0, x1, y1), or four times -1.
    ///
    /// # Errors
    /// There is no such image, or its shard's boxes are not as they were written.
    pub fn bbox(&self, image: usize) -> Result<[i32; 4]> {
        let (member, at) = self.locate(image)?;
        member.verify_column(Part::Boxes, self.classes.len())?;
        Ok(member.shard.boxes()[at].map(|side| side.get()))
    }

    /// What the source called an image.
    ///
    /// # Errors
    /// There is no such image, or its shard's names are not as they were written.
    pub fn name(&self, image: usize) -> Result<&str> {
        let (member, at) = self.locate(image)?;
        member.verify_column(Part::NameOffsets, self.classes.len())?;
        member.verify_column(Part::Names, self.classes.len())?;
        match member.shard.name(at) {
            Some(name) => Ok(name.map_err(|error| error.at(&member.path))?),
            None => Err(self.no_image(image)),
        }
    }

    /// Copies the pixels of `images` one after the other to `out`, `u8 [n, C, H, W]`: one copy from
    /// the page cache, and the only one that a batch in random order takes.
    ///
    /// # Errors
    /// An image past the last, an `out` of another size, or a block that fails its checksum.
    pub fn gather(&self, images: &[u32], out: &mut [u8]) -> Result<()> {
        self.gather_with(images, out, <[u8]>::copy_from_slice)
    }

    /// As [`gather`](Self::gather), but converts what it copies: the pixels of `images` to `f32`
    /// by `normalization`, channels last, `f32 [n, H, W, C]`. From 16 MiB on they are written past the
    /// caches, those of an image whose place in `out` lies on 16 bytes.
    ///
    /// # Errors
    /// As for [`gather`](Self::gather); `out` is to have as many numbers as the images have bytes.
    pub fn gather_f32(
        &self,
        images: &[u32],
        normalization: &Normalization,
        out: &mut [f32],
    ) -> Result<()> {
        let past_caches = size_of_val(out) >= PAST_CACHES;
        let take = |out: &mut [f32], pixels: &[u8]| normalization.apply(pixels, out, past_caches);
        self.gather_with(images, out, take)
    }

    fn gather_with<T>(
        &self,
        images: &[u32],
        out: &mut [T],
        take: impl Fn(&mut [T], &[u8]),
    ) -> Result<()> {
        let len = self.shape.image_len();
        let expected = images.len() * len;
        if out.len() != expected {
            let got = size_of_val(out);
            let expected = expected * size_of::<T>();
            return Err(Error::Slot { got, expected });
        }
        let places = images.iter().map(|&image| self.locate(image as usize));
        let places = places.collect::<Result<Vec<_>>>()?;
        // In a first epoch a batch touches about as many blocks as it has images, some 200 kB each and
        // all over the disk: too much for one thread, and to read one after the other.
        let blocks = unverified(places.iter().map(|&(member, at)| (member, at..at + 1)));
        for (member, block) in blocks.iter().take(AHEAD / (BLOCK_IMAGES * len)) {
            member.read_ahead(*block);
        }
        verify_all(&blocks)?;
        for ((member, at), out) in places.into_iter().zip(out.chunks_exact_mut(len)) {
            take(out, member.pixels(at..at + 1));
        }
        Ok(())
    }

    /// The split in file order, `u8 [n, C, H, W]` at a time: views of the map, nothing is copied. A
    /// batch ends where its shard ends, so some have fewer than `batch` images.
    pub fn sequential(&self, batch: usize) -> impl Iterator<Item = (Range<usize>, Result<&[u8]>)> {
        let batch = batch.max(1);
        self.shards.iter().flat_map(move |member| {
            (0..member.shard.len()).step_by(batch).map(move |first| {
                let own = first..member.shard.len().min(first.saturating_add(batch));
                let checked = verify_all(&unverified([(member, own.clone())]));
                let images = member.start + own.start..member.start + own.end;
                (images, checked.map(|()| member.pixels(own)))
            })
        })
    }

    fn locate(&self, image: usize) -> Result<(&Member, usize)> {
        if image >= self.len {
            return Err(self.no_image(image));
        }
        let after = self.shards.partition_point(|member| member.start <= image);
        let member = &self.shards[after - 1];
        Ok((member, image - member.start))
    }

    fn no_image(&self, image: usize) -> Error {
        let len = self.len;
        Error::NoImage { image, len }
    }
}

/// The blocks of the shards' images that were not checked before, in the order of the files.
fn unverified<'a>(
    images: impl IntoIterator<Item = (&'a Member, Range<usize>)>,
) -> Vec<(&'a Member, usize)> {
    let mut blocks: Vec<(&Member, usize)> = (images.into_iter())
        .flat_map(|(member, images)| {
            let blocks = member.unverified(images);
            blocks.into_iter().map(move |block| (member, block))
        })
        .collect();
    blocks.sort_unstable_by_key(|(member, block)| (member.start, *block));
    blocks.dedup_by_key(|(member, block)| (member.start, *block));
    blocks
}

/// Checks blocks, on all threads. Of several that are damaged the first is reported.
fn verify_all(blocks: &[(&Member, usize)]) -> Result<()> {
    if blocks.is_empty() {
        return Ok(());
    }
    let wrong = (blocks.par_iter()).find_map_first(|(member, block)| member.verify(*block).err());
    wrong.map_or(Ok(()), Err)
}

impl Member {
    fn pixels(&self, images: Range<usize>) -> &[u8] {
        let len = self.shard.shape().image_len();
        &self.shard.images()[images.start * len..images.end * len]
    }

    /// The shard with its metadata.
    fn open(&self) -> Result<Shard<&[u8]>> {
        Ok(Shard::new(self.shard.bytes()).map_err(|error| error.at(&self.path))?)
    }

    /// Checks a section, unless that was done before.
    fn verify_column(&self, part: Part, classes: usize) -> Result<()> {
        let bit = 1
            << Part::SECTIONS
                .iter()
                .take_while(|&&other| other != part)
                .count();
        // Relaxed, here and for blocks: a bit guards no other memory, and to check twice does no harm.
        if self.sections.load(Ordering::Relaxed) & bit == 0 {
            (self.shard.verify_section(part, classes)).map_err(|error| error.at(&self.path))?;
            self.sections.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The blocks of `images` that were not checked before.
    fn unverified(&self, images: Range<usize>) -> impl IntoIterator<Item = usize> + use<'_> {
        (images.start / BLOCK_IMAGES..images.end.div_ceil(BLOCK_IMAGES)).filter(|block| {
            self.blocks[block / 64].load(Ordering::Relaxed) & (1 << (block % 64)) == 0
        })
    }

    /// Has the kernel begin to read a block, unless it is in memory.
    fn read_ahead(&self, block: usize) {
        let pixels = self.shard.part(Part::Block(block as u64));
        let offset = pixels.as_ptr().addr() - self.shard.bytes().as_ptr().addr();
        // Mere advice: a page that is not there when it is touched is read then.
        let _ = (self.shard.inner()).advise_range(Advice::WillNeed, offset, pixels.len());
    }

    /// Checks the pixels of a block.
    fn verify(&self, block: usize) -> Result<()> {
        self.verify_column(Part::BlockCrcs, 0)?;
        (self.shard.verify_block(block as u64)).map_err(|error| error.at(&self.path))?;
        self.blocks[block / 64].fetch_or(1 << (block % 64), Ordering::Relaxed);
        Ok(())
    }
}
