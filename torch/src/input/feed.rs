//! Batches of a split on the device, from wherever its pixels are kept: mapped files, page-locked memory or the
//! device's own. Batches are the same for each. Pixels stay as they are; `pipeline` changes them.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use memmap2::MmapMut;
use tch::{Device, Tensor};
use tinyres_load::{Batches, Dataset, Prefetch, Rank, alloc_slot};

use crate::libtorch::device::{self, Placement};
use crate::libtorch::ffi::{self, InFlight, Pinned};
use crate::net::boxes;
use crate::{Error, Result};

/// Batches that are gathered ahead. Of pinned ones, some are being copied to the device.
const SLOTS: usize = 4;

/// Targets of a split: its labels, and its boxes if they are wanted. Read once, for all who need them.
#[derive(Clone, Debug)]
pub struct Targets {
    /// Label of each image.
    pub labels: Vec<i64>,
    /// Edges of each image's box, or four zeros for an image without one.
    pub boxes: Option<Vec<[f32; 4]>>,
}

impl Targets {
    /// Reads the labels of `data`, and its boxes if `with_boxes`.
    ///
    /// # Errors
    /// [`Error::Unlabelled`] names an image without a label; or a shard's labels or boxes are damaged.
    pub fn read(data: &Dataset, with_boxes: bool) -> Result<Self> {
        let labels = data.labels()?;
        if let Some((image, _)) = (0..).zip(&labels).find(|(_, label)| **label < 0) {
            return Err(Error::Unlabelled {
                split: data.split(),
                image,
                name: data.name(image)?.to_owned(),
            });
        }
        let boxes = with_boxes.then(|| boxes::of(data)).transpose()?;
        Ok(Self { labels, boxes })
    }

    /// Mean centre, width and height of the boxes; `None` without any.
    #[must_use]
    pub fn mean_box(&self) -> Option<[f64; 4]> {
        boxes::mean(self.boxes.as_ref()?)
    }
}

/// One split, placed for a device, that gives batches.
#[derive(Debug)]
pub struct Feed {
    data: Arc<Dataset>,
    targets: Targets,
    device: Device,
    placement: Placement,
    /// Labels of all images, `i64 [N]`, on the device.
    labels: Tensor,
    /// Edges of all boxes, `f32 [N, 4]`, on the device.
    boxes: Option<Tensor>,
    /// All pixels, `u8 [N, C, H, W]`, if they are resident.
    resident: Option<Tensor>,
}

/// A batch on the device.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Pixels, `u8 [B, C, H, W]`.
    pub pixels: &'a Tensor,
    /// Labels, `i64 [B]`.
    pub labels: Tensor,
    /// Edges of the boxes, `f32 [B, 4]`, four zeros for an image without one; `None` if the feed has none.
    pub boxes: Option<Tensor>,
    /// Positions of its images in [`Pass::images`].
    pub at: Range<i64>,
    /// Number of the batch in its epoch, from 0.
    pub number: u64,
}

impl Feed {
    /// Places the pixels of `data`, whose labels and boxes are `targets`, for `device`.
    ///
    /// # Errors
    /// The device does not have the placement, or no memory for it; or pixels are damaged.
    pub fn new(
        data: Arc<Dataset>,
        targets: Targets,
        device: Device,
        placement: Placement,
    ) -> Result<Self> {
        let bytes = data.len() as usize * data.shape().image_len();
        let placement = device::place(placement, device, bytes)?;
        let labels = device::upload(&Tensor::f_from_slice(&targets.labels)?, device)?;
        let edges = |edges: &Vec<[f32; 4]>| -> Result<Tensor> {
            let edges = Tensor::f_from_slice(edges.as_flattened())?.f_view([-1, 4])?;
            device::upload(&edges, device)
        };
        let boxes = targets.boxes.as_ref().map(edges).transpose()?;
        let resident = match placement {
            Placement::Resident => Some(all_pixels(&data, device)?),
            _ => None,
        };
        Ok(Self {
            data,
            targets,
            device,
            placement,
            labels,
            boxes,
            resident,
        })
    }

    /// Labels and boxes of the split.
    #[must_use]
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Place of the pixels; never [`Placement::Auto`].
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// The split.
    #[must_use]
    pub fn data(&self) -> &Dataset {
        &self.data
    }

    /// Begins a pass over the images of `order`, `batch` at a time, with batch number `first`. Leaves out a
    /// last, smaller batch if `drop_last`.
    ///
    /// # Errors
    /// There is no memory or no thread for it.
    pub fn pass(
        &self,
        order: Vec<u32>,
        batch: NonZeroUsize,
        drop_last: bool,
        first: usize,
    ) -> Result<Pass<'_>> {
        let batches = Arc::new(Batches::new(order, batch, drop_last, Rank::ONLY));
        let images: Vec<u32> = (first..batches.len())
            .filter_map(|index| batches.get(index))
            .flatten()
            .copied()
            .collect();
        let ids: Vec<i64> = images.iter().map(|&image| image.into()).collect();
        let slot_len = batches.max_len() * self.data.shape().image_len();
        let source = match (self.placement, &self.resident) {
            (_, Some(pixels)) => PixelSource::Resident(pixels),
            (Placement::Pinned, None) => {
                let slots = (0..SLOTS).map(|_| Pinned::new(slot_len));
                let slots = slots.collect::<Result<Vec<_>>>()?;
                PixelSource::Pinned(self.prefetch(&batches, first, slots)?, VecDeque::new())
            }
            _ => {
                let slots = (0..SLOTS).map(|_| alloc_slot(slot_len.max(1)));
                let slots = slots.collect::<std::io::Result<Vec<_>>>();
                let slots = slots.map_err(|error| Error::Memory(error.to_string()))?;
                PixelSource::Mapped(self.prefetch(&batches, first, slots)?)
            }
        };
        Ok(Pass {
            feed: self,
            next: first,
            at: 0,
            order: device::upload(&Tensor::f_from_slice(&ids)?, self.device)?,
            images,
            batches,
            source,
        })
    }

    fn prefetch<S: AsMut<[u8]> + Send + 'static>(
        &self,
        batches: &Arc<Batches>,
        first: usize,
        slots: Vec<S>,
    ) -> Result<Prefetch<S>> {
        let threads = device::gather_threads(self.device);
        let (data, batches) = (Arc::clone(&self.data), Arc::clone(batches));
        Ok(Prefetch::start(data, batches, first, slots, threads)?)
    }

    /// Calls `work` with the whole split in file order, at most `batch` images at a time. If the pixels are
    /// mapped, batches are views of the map, and end where a shard ends.
    ///
    /// # Errors
    /// Pixels are damaged, or `work` fails.
    pub fn in_order(
        &self,
        batch: NonZeroUsize,
        mut work: impl FnMut(Batch<'_>) -> Result<()>,
    ) -> Result<()> {
        if self.placement != Placement::Mapped {
            let order = (0..self.data.len()).collect();
            let mut pass = self.pass(order, batch, false, 0)?;
            while let Some(done) = pass.next_batch(&mut work) {
                done?;
            }
            return Ok(());
        }
        for (number, (images, bytes)) in (0..).zip(self.data.sequential(batch.get())) {
            let start = i64::from(images.start);
            let count = i64::from(images.end - images.start);
            let labels = self.labels.f_narrow(0, start, count)?;
            let boxes = self.boxes.as_ref();
            let boxes = boxes.map(|all| all.f_narrow(0, start, count)).transpose()?;
            ffi::lend(bytes?, &self.dims(count), |pixels| {
                work(Batch {
                    pixels,
                    labels,
                    boxes,
                    at: start..start + count,
                    number,
                })
            })?;
        }
        Ok(())
    }

    /// Shape of the pixels of `count` images.
    fn dims(&self, count: i64) -> [i64; 4] {
        let shape = self.data.shape();
        [
            count,
            shape.channels.into(),
            shape.height.into(),
            shape.width.into(),
        ]
    }
}

/// A pass over images in a given order, begun by [`Feed::pass`].
#[derive(Debug)]
pub struct Pass<'a> {
    feed: &'a Feed,
    batches: Arc<Batches>,
    images: Vec<u32>,
    /// `images` on the device.
    order: Tensor,
    /// Number of the next batch.
    next: usize,
    /// Position of its first image in `images`.
    at: i64,
    source: PixelSource<'a>,
}

#[derive(Debug)]
enum PixelSource<'a> {
    Mapped(Prefetch<MmapMut>),
    Pinned(Prefetch<Pinned>, VecDeque<InFlight>),
    Resident(&'a Tensor),
}

impl Pass<'_> {
    /// Images of all batches from the first one of this pass on, in order.
    #[must_use]
    pub fn images(&self) -> &[u32] {
        &self.images
    }

    /// Calls `work` with the next batch; `None` after the last.
    pub fn next_batch<T>(
        &mut self,
        work: impl FnOnce(Batch<'_>) -> Result<T>,
    ) -> Option<Result<T>> {
        let count = index(self.batches.get(self.next)?.len());
        let at = self.at..self.at + count;
        let number = self.next as u64;
        self.next += 1;
        self.at = at.end;
        Some(self.give(number, at, work))
    }

    fn give<T>(
        &mut self,
        number: u64,
        at: Range<i64>,
        work: impl FnOnce(Batch<'_>) -> Result<T>,
    ) -> Result<T> {
        let count = at.end - at.start;
        let ids = self.order.f_narrow(0, at.start, count)?;
        let labels = self.feed.labels.f_index_select(0, &ids)?;
        let boxes = self.feed.boxes.as_ref();
        let boxes = boxes.map(|all| all.f_index_select(0, &ids)).transpose()?;
        let dims = self.feed.dims(count);
        let bytes = usize::try_from(dims.iter().product::<i64>()).unwrap_or(usize::MAX);
        match &mut self.source {
            PixelSource::Mapped(prefetch) => {
                let Some(batch) = prefetch.next_batch() else {
                    return Err(Error::Exhausted);
                };
                let slot = batch?.slot;
                let done = ffi::lend(&slot[..bytes], &dims, |pixels| {
                    work(Batch {
                        pixels,
                        labels,
                        boxes,
                        at,
                        number,
                    })
                });
                prefetch.give_back(slot);
                done
            }
            PixelSource::Pinned(prefetch, flying) => {
                // Leave the threads at least one slot to fill.
                while let Some(oldest) = flying.front()
                    && (flying.len() >= SLOTS - 1 || oldest.landed()?)
                {
                    if let Some(oldest) = flying.pop_front() {
                        prefetch.give_back(oldest.reclaim()?);
                    }
                }
                let Some(batch) = prefetch.next_batch() else {
                    return Err(Error::Exhausted);
                };
                let (pixels, landing) = batch?.slot.upload(&dims, self.feed.device)?;
                flying.push_back(landing);
                work(Batch {
                    pixels: &pixels,
                    labels,
                    boxes,
                    at,
                    number,
                })
            }
            PixelSource::Resident(pixels) => work(Batch {
                pixels: &pixels.f_index_select(0, &ids)?,
                labels,
                boxes,
                at,
                number,
            }),
        }
    }

    /// Time spent waiting for pixels.
    #[must_use]
    pub fn waited(&self) -> Duration {
        match &self.source {
            PixelSource::Mapped(prefetch) => prefetch.waited(),
            PixelSource::Pinned(prefetch, _) => prefetch.waited(),
            PixelSource::Resident(_) => Duration::ZERO,
        }
    }
}

/// All pixels of `data` on `device`, `u8 [N, C, H, W]`.
fn all_pixels(data: &Dataset, device: Device) -> Result<Tensor> {
    /// Images of one copy, to bound the memory in use.
    const CHUNK: usize = 8192;
    let shape = data.shape();
    let (c, h, w) = (
        shape.channels.into(),
        shape.height.into(),
        shape.width.into(),
    );
    let all = Tensor::f_empty([data.len().into(), c, h, w], (tch::Kind::Uint8, device))?;
    for (images, bytes) in data.sequential(CHUNK) {
        let (start, count) = (
            i64::from(images.start),
            i64::from(images.end - images.start),
        );
        let mut into = all.f_narrow(0, start, count)?;
        ffi::lend(
            bytes?,
            &[count, c, h, w],
            |pixels| Ok(into.f_copy_(pixels)?),
        )?;
    }
    Ok(all)
}

/// An index or a count as libtorch takes it.
fn index(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}
