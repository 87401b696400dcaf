//! The short way through an epoch: one thread ahead, memory of its own. [`Prefetch`] does the work.

use std::sync::Arc;

use memmap2::MmapMut;

use super::{Batch, Batches, Dataset, Error, Prefetch, Result, alloc_slot};

/// Slots of an epoch: one with the caller, one ready, one being filled.
const SLOTS: usize = 3;

/// An epoch of shuffled batches, made by [`Dataset::epoch`].
#[derive(Debug)]
pub struct Epoch {
    prefetch: Prefetch<MmapMut>,
    image_len: usize,
    /// The batch that the caller sees.
    current: Option<Batch<MmapMut>>,
}

impl Epoch {
    pub(super) fn start(data: &Arc<Dataset>, batches: Batches) -> Result<Self> {
        let image_len = data.shape().image_len();
        let bytes = (batches.max_len() * image_len).max(1);
        let slots = (0..SLOTS).map(|_| alloc_slot(bytes));
        let slots = slots.collect::<std::io::Result<Vec<_>>>();
        Ok(Self {
            prefetch: Prefetch::start(
                Arc::clone(data),
                Arc::new(batches),
                0,
                slots.map_err(Error::Memory)?,
                1,
            )?,
            image_len,
            current: None,
        })
    }

    /// The next batch: the numbers of its images, and their pixels, `u8 [n, C, H, W]`. `None` after the
    /// last.
    ///
    /// # Errors
    /// A block of the shard fails its checksum, which ends the epoch.
    pub fn next_batch(&mut self) -> Option<Result<(&[u32], &[u8])>> {
        if let Some(seen) = self.current.take() {
            self.prefetch.give_back(seen.slot);
        }
        let batch = match self.prefetch.next_batch()? {
            Ok(batch) => self.current.insert(batch),
            Err(error) => return Some(Err(error)),
        };
        let bytes = batch.images.len() * self.image_len;
        Some(Ok((&batch.images, &batch.slot[..bytes])))
    }
}
