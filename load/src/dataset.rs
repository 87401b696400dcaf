//! One split of a packed set as one list of images, mapped. Checks what it gives out: a shard's header
//! when the set is opened, a column or a block of pixels when it is first used. Decides no order.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rayon::prelude::*;
use tinyres_format::{
    BLOCK_IMAGES, Class, Digest, Manifest, Map, Part, Piece, RawShard, Shape, Split,
};

use super::fetch::fetch_pages;
use super::form::{Form, Layout, Mover, Stored};
use super::member::{Member, blocks, unverified, verify_all};
use super::stream::is_streamed;
use super::{Batches, Epoch, Error, Normalization, Rank, Result, pool, shuffled};

/// Bytes of pixels that the kernel is asked to read before a batch is checked: enough for 512 images in
/// random order. From a cold disk it halves the time to such a first batch.
const READ_AHEAD: usize = 128 << 20;

/// Images from which on a batch is checked in turn with others: the blocks of fewer do not keep all threads busy.
const IN_TURN: usize = 64;

/// When pixels are checked against their checksums. Labels, boxes and names are always checked, when
/// they are first used.
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

impl Verify {
    /// The names of the variants, as they are written and read.
    pub const NAMES: [&str; 3] = ["off", "lazy", "full"];
}

/// One split of a set of shards, as one list of images.
#[derive(Debug)]
pub struct Dataset {
    shards: Vec<Member>,
    len: u32,
    split: Split,
    shape: Shape,
    fingerprint: Digest,
    classes: Vec<Class>,
}

impl Dataset {
    /// Maps the shards of `split` in `dir`. Checks by their headers and lengths that they are the shards
    /// that `dataset.json` lists.
    ///
    /// Reads one page of each shard: under ten milliseconds for 1,700 of them. Everything else is
    /// checked when it is first used, or at once with [`Verify::Full`].
    ///
    /// # Errors
    /// `dir` holds no finished set or no such split, or a shard is damaged or of another set.
    ///
    /// # Safety
    /// Nobody may write to or truncate the shards while the data set lives, as for
    /// [`tinyres_format::map`].
    #[expect(unsafe_code, reason = "only the caller can keep others off the files")]
    pub unsafe fn open(dir: &Path, split: Split, verify: Verify) -> Result<Self> {
        let manifest = Manifest::load(dir)?;
        // SAFETY: the caller keeps others off the shards, which is what the map asks for.
        let map = |path: &Path| unsafe { tinyres_format::map_raw(path) };
        Self::new(dir, &manifest, split, verify, map)
    }

    fn new(
        dir: &Path,
        manifest: &Manifest,
        split: Split,
        verify: Verify,
        map: impl Fn(&Path) -> tinyres_format::Result<RawShard<Map>> + Sync,
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
        let len = u32::try_from(entry.images).map_err(too_many)?;
        let open = |index: usize| -> tinyres_format::Result<RawShard<Map>> {
            let path = dir.join(&entry.shards[index].file);
            let shard = map(&path)?;
            match manifest.check_header(entry, index, &shard) {
                Ok(()) => Ok(shard),
                Err(error) => Err(error.at(&path)),
            }
        };
        let all = (0..entry.shards.len()).into_par_iter().map(open);
        let opened: Vec<_> = pool::install(|| all.collect());
        let mut set = Self {
            shards: Vec::with_capacity(opened.len()),
            len,
            split,
            shape: manifest.shape,
            fingerprint: manifest.fingerprint,
            classes: Vec::new(),
        };
        let mut start = 0;
        for (listed, shard) in entry.shards.iter().zip(opened) {
            let shard = shard?;
            // Cannot overflow: the manifest's numbers of images add up to `len`, and agree with the shards.
            let images = u32::try_from(shard.len()).map_err(too_many)?;
            let path = dir.join(&listed.file);
            set.shards
                .push(Member::new(shard, path, start, images, verify));
            start += images;
        }
        if let Some(first) = set.shards.first() {
            set.classes = first.open()?.metadata().classes.clone();
        }
        if verify == Verify::Full {
            let check = |(index, member): (usize, &Member)| {
                let checked = manifest.check(entry, index, &member.open()?);
                checked.map_err(|error| Error::from(error.at(&member.path)))
            };
            pool::install(|| set.shards.par_iter().enumerate().try_for_each(check))?;
            set.verify_columns()?;
            set.verify_images(0..len, false)?;
        }
        Ok(set)
    }

    /// Checks everything in the shards that is not a pixel: labels, boxes, names and metadata. Those that have passed
    /// are checked again.
    ///
    /// # Errors
    /// A section is damaged, or the shards are not of one set.
    pub fn verify_columns(&self) -> Result<()> {
        let check = |member: &Member| {
            let shard = member.open()?;
            (shard.verify_columns()).map_err(|error| error.at(&member.path))?;
            if shard.metadata().classes != self.classes {
                let path = member.path.clone();
                return Err(Error::Classes { path });
            }
            member.sections.store(u32::MAX, Ordering::Relaxed);
            Ok(())
        };
        pool::install(|| self.shards.par_iter().try_for_each(check))
    }

    /// Checks the pixels of the blocks that hold `images`, on all threads: those that have not passed their check (none
    /// with [`Verify::Off`]), or with `again` all of them. This reads every byte, so a caller that must answer in
    /// between asks for a part at a time.
    ///
    /// # Errors
    /// A block fails its checksum. If several do, the error is that of the first.
    pub fn verify_images(&self, images: Range<u32>, again: bool) -> Result<()> {
        let parts = self.shards.iter().filter_map(|member| {
            let (first, last) = (
                images.start.max(member.start),
                images.end.min(member.start + member.len),
            );
            let own = first.saturating_sub(member.start)..last.saturating_sub(member.start);
            (!own.is_empty()).then_some((member, own.start as usize..own.end as usize))
        });
        let blocks = if again {
            let blocks =
                parts.flat_map(|(member, images)| blocks(images).map(move |block| (member, block)));
            blocks.collect()
        } else {
            unverified(parts)
        };
        verify_all(&blocks)
    }

    /// The images of a block of the shard at `path`, as an error names them, by their numbers in the split. `None` if
    /// there is no such block.
    #[must_use]
    pub fn images_of(&self, path: &Path, block: u64) -> Option<Range<u32>> {
        let member = self.shards.iter().find(|member| member.path == path)?;
        let images = u32::try_from(BLOCK_IMAGES).ok()?;
        let first = u32::try_from(block).ok()?.checked_mul(images)?;
        let last = first.saturating_add(images).min(member.len);
        (first < last).then(|| member.start + first..member.start + last)
    }

    /// Addresses at which the shards are mapped, for a program that handles faults in them.
    pub fn addresses(&self) -> impl Iterator<Item = Range<usize>> {
        self.shards.iter().map(|member| {
            let range = member.shard.bytes().as_ptr_range();
            range.start.addr()..range.end.addr()
        })
    }

    /// The pixels of each shard.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.shards.iter().map(Member::piece)
    }

    /// Number of images in the split. An image is named by its number below this.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// True if the split has no image.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The split.
    #[must_use]
    pub fn split(&self) -> Split {
        self.split
    }

    /// Shape of every image.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Fingerprint of the set that the split belongs to.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// Digest over the digests of the split's shards, which stand for all bytes in them.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let shards = self.shards.iter();
        let digests: String = shards
            .map(|member| member.shard.digest().to_string())
            .collect();
        Digest::of(digests.as_bytes())
    }

    /// The classes, in label order.
    #[must_use]
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Label of an image: its class's place in [`classes`](Self::classes), or -1.
    ///
    /// # Errors
    /// There is no such image, or its shard's labels are damaged.
    pub fn label(&self, image: u32) -> Result<i64> {
        let (member, at) = self.locate(image)?;
        member.verify_column(Part::Labels, self.classes.len())?;
        Ok(member.shard.labels()[at].get())
    }

    /// Labels of all images, `i64 [N]`, copied by all threads.
    ///
    /// # Errors
    /// A shard's labels are damaged.
    pub fn labels(&self) -> Result<Vec<i64>> {
        self.column(Part::Labels, |shard| shard.labels(), |label| label.get())
    }

    /// Boxes of all images, `i32 [N, 4]`, as [`bbox`](Self::bbox) gives them, copied by all threads.
    ///
    /// # Errors
    /// A shard's boxes are damaged.
    pub fn boxes(&self) -> Result<Vec<[i32; 4]>> {
        self.column(
            Part::Boxes,
            |shard| shard.boxes(),
            |sides| sides.map(|side| side.get()),
        )
    }

    fn column<S: Sync, T: Clone + Default + Send>(
        &self,
        part: Part,
        values: impl Fn(&RawShard<Map>) -> &[S] + Sync,
        native: impl Fn(&S) -> T + Sync,
    ) -> Result<Vec<T>> {
        let mut column = vec![T::default(); self.len as usize];
        let mut rest = &mut column[..];
        let mut parts = Vec::with_capacity(self.shards.len());
        for member in &self.shards {
            let (own, others) = rest.split_at_mut(member.len as usize);
            parts.push((member, own));
            rest = others;
        }
        let copy = |(member, own): (&Member, &mut [T])| {
            member.verify_column(part, self.classes.len())?;
            for (to, value) in own.iter_mut().zip(values(&member.shard)) {
                *to = native(value);
            }
            Ok::<_, Error>(())
        };
        pool::install(|| parts.into_par_iter().try_for_each(copy))?;
        Ok(column)
    }

    /// Box of an image in inclusive pixels (x0, y0, x1, y1), or four times -1.
    ///
    /// # Errors
    /// There is no such image, or its shard's boxes are damaged.
    pub fn bbox(&self, image: u32) -> Result<[i32; 4]> {
        let (member, at) = self.locate(image)?;
        member.verify_column(Part::Boxes, self.classes.len())?;
        Ok(member.shard.boxes()[at].map(|side| side.get()))
    }

    /// Path of the shard that an image lies in, and the image's number there.
    ///
    /// # Errors
    /// There is no such image.
    pub fn place(&self, image: u32) -> Result<(&Path, u32)> {
        let (member, _) = self.locate(image)?;
        Ok((&member.path, image - member.start))
    }

    /// Name of an image in the source that was packed.
    ///
    /// # Errors
    /// There is no such image, or its shard's names are damaged.
    pub fn name(&self, image: u32) -> Result<&str> {
        let (member, at) = self.locate(image)?;
        member.verify_column(Part::NameOffsets, self.classes.len())?;
        member.verify_column(Part::Names, self.classes.len())?;
        match member.shard.name(at) {
            Some(name) => Ok(name.map_err(|error| error.at(&member.path))?),
            None => Err(self.no_image(image)),
        }
    }

    /// Copies the pixels of `images` to `out`, `u8 [n, C, H, W]`. This copy from the page cache is the
    /// only one that a batch in random order takes.
    ///
    /// # Errors
    /// An image does not exist, `out` has another size, or a block fails its checksum.
    pub fn gather(&self, images: &[u32], out: &mut [u8]) -> Result<()> {
        self.gather_in(images, &Form::default(), out)
    }

    /// Copies the pixels of `images` to `out` in `form`: `u8 [n, C, H, W]` or `u8 [n, H, W, C]`. A batch that the caches do
    /// not keep is written by non-temporal stores, where an image's place in `out` begins and ends at a multiple of 32 bytes.
    ///
    /// # Errors
    /// Those of [`gather`](Self::gather); or a shift is not smaller than the images.
    pub fn gather_in(&self, images: &[u32], form: &Form, out: &mut [u8]) -> Result<()> {
        let mut mover = Mover::new(form, self.shape)?;
        let streaming = is_streamed(out.len());
        self.gather_with(images, out, |image, out| {
            mover.copy(image, form.layout, out, streaming);
        })
    }

    /// Converts the pixels of `images` to `f32` by `normalization`, channels last, `f32 [n, H, W, C]`.
    ///
    /// # Errors
    /// Those of [`gather_f32_in`](Self::gather_f32_in).
    pub fn gather_f32(
        &self,
        images: &[u32],
        normalization: &Normalization,
        out: &mut [f32],
    ) -> Result<()> {
        let form = Form {
            layout: Layout::ChannelsLast,
            moves: None,
        };
        self.gather_f32_in(images, &form, normalization, out)
    }

    /// Converts the pixels of `images` to `f32` by `normalization` in `form`: `f32 [n, C, H, W]` or
    /// `f32 [n, H, W, C]`. A batch that the caches do not keep is written by non-temporal stores, where an image's place in
    /// `out` is aligned to the width of a store, 64 bytes at most.
    ///
    /// # Errors
    /// An image does not exist, `out` has not as many numbers as the images have bytes, a block fails its
    /// checksum, or a shift is not smaller than the images.
    pub fn gather_f32_in(
        &self,
        images: &[u32],
        form: &Form,
        normalization: &Normalization,
        out: &mut [f32],
    ) -> Result<()> {
        let mut mover = Mover::new(form, self.shape)?;
        let streaming = is_streamed(size_of_val(out));
        self.gather_with(images, out, |image, out| {
            let moved = mover.moved(image);
            match form.layout {
                Layout::ChannelsFirst => normalization.apply_by_planes(moved, out, streaming),
                Layout::ChannelsLast => normalization.apply(moved, out, streaming),
            }
        })
    }

    fn gather_with<T>(
        &self,
        images: &[u32],
        out: &mut [T],
        mut take: impl FnMut(&Stored<'_>, &mut [T]),
    ) -> Result<()> {
        let len = self.shape.image_len();
        let expected = images.len() * len;
        if out.len() != expected {
            let got = size_of_val(out);
            let expected = expected * size_of::<T>();
            return Err(Error::Slot { got, expected });
        }
        let places = images.iter().map(|&image| self.locate(image));
        let places = places.collect::<Result<Vec<_>>>()?;
        let is_new = |&(member, at): &(&Member, usize)| {
            let mut blocks = member.unverified(at..at + 1).into_iter();
            blocks.next().is_some()
        };
        if places.iter().any(is_new) {
            // One batch after the other, so that the first does not come as late as the second.
            let _turn = (images.len() >= IN_TURN).then(pool::turn);
            let blocks = unverified(places.iter().map(|&(member, at)| (member, at..at + 1)));
            // In a first epoch, a batch touches about as many blocks as it has images: 200 kB each, all over the
            // disk. One thread that reads them in turn would be too slow.
            for (member, block) in blocks.iter().take(READ_AHEAD / (BLOCK_IMAGES * len)) {
                member.read_ahead(*block);
            }
            verify_all(&blocks)?;
        }
        let pixels: Vec<&[u8]> = (places.iter())
            .map(|&(member, at)| member.pixels(at..at + 1))
            .collect();
        for (at, (out, &number)) in out.chunks_exact_mut(len).zip(images).enumerate() {
            let next = pixels.get(at + 1).unwrap_or(&pixels[at]);
            fetch_pages(next);
            let image = Stored {
                number,
                pixels: pixels[at],
                next,
            };
            take(&image, out);
        }
        Ok(())
    }

    /// The split in file order: the numbers of up to `batch` images, and a view of their pixels in the
    /// map, `u8 [n, C, H, W]`. Nothing is copied. A batch ends where its shard ends, so some have fewer
    /// images.
    pub fn sequential(&self, batch: usize) -> impl Iterator<Item = (Range<u32>, Result<&[u8]>)> {
        let batch = u32::try_from(batch.max(1)).unwrap_or(u32::MAX);
        self.shards.iter().flat_map(move |member| {
            (0..member.len).step_by(batch as usize).map(move |first| {
                let last = member.len.min(first.saturating_add(batch));
                let own = first as usize..last as usize;
                let checked = verify_all(&unverified([(member, own.clone())]));
                let images = member.start + first..member.start + last;
                (images, checked.map(|()| member.pixels(own)))
            })
        })
    }

    /// An epoch of shuffled batches of `batch` images, gathered ahead by one thread. The last batch has
    /// what is left.
    ///
    /// This is the short way; [`Prefetch`](crate::Prefetch) also takes several ranks or threads, memory
    /// of the caller's, and a place to begin at.
    ///
    /// # Errors
    /// No memory or no thread for it.
    pub fn epoch(self: &Arc<Self>, seed: u64, epoch: u64, batch: NonZeroUsize) -> Result<Epoch> {
        let order = shuffled(self.len, seed, epoch);
        Epoch::start(self, Batches::new(order, batch, false, Rank::ONLY))
    }

    fn locate(&self, image: u32) -> Result<(&Member, usize)> {
        if image >= self.len {
            return Err(self.no_image(image));
        }
        let after = self.shards.partition_point(|member| member.start <= image);
        let member = &self.shards[after - 1];
        Ok((member, (image - member.start) as usize))
    }

    fn no_image(&self, image: u32) -> Error {
        let len = self.len;
        Error::NoImage { image, len }
    }
}
