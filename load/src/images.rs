//! All images of a split as one slice of memory.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use memmap2::{Mmap, MmapMut};
use tinyres_format::{Piece, Region};

use super::{Dataset, Result};

/// The pixels of a split, `u8 [N, C, H, W]`, mapped in one piece over all shards. Nothing is copied. Made by
/// [`Dataset::images`].
pub struct Images<M = Mmap> {
    region: Region<M>,
    /// Its caller keeps others off the files for as long as it lives.
    _data: Arc<Dataset>,
}

impl Dataset {
    /// Maps the pixels of all shards side by side. They are not checked: [`verify_images`](Self::verify_images) does
    /// that.
    ///
    /// Works if the images of each shard but the last are whole pages of memory, which they are for any shape in
    /// shards of 8,192 images, as `tinyres pack` writes them.
    ///
    /// # Errors
    /// They are not, a shard was replaced since the split was opened, or the system has no such memory.
    #[expect(unsafe_code, reason = "maps the shards, as `open` does")]
    pub fn images(self: &Arc<Self>) -> Result<Images> {
        let pieces: Vec<Piece<'_>> = self.pieces().collect();
        // SAFETY: the caller of `open` keeps others off the shards while the data set lives, and it lives as long as
        // the region does.
        let region = unsafe { Region::open(&pieces)? };
        let data = Arc::clone(self);
        Ok(Images {
            region,
            _data: data,
        })
    }

    /// Maps the pixels like [`images`](Self::images), but so that they can be written to: what is written is seen in
    /// this map alone, and never in the files.
    ///
    /// # Errors
    /// Those of [`images`](Self::images).
    #[expect(unsafe_code, reason = "maps the shards, as `open` does")]
    pub fn private_images(self: &Arc<Self>) -> Result<Images<MmapMut>> {
        let pieces: Vec<Piece<'_>> = self.pieces().collect();
        // SAFETY: as in `images`.
        let region = unsafe { Region::open_private(&pieces)? };
        let data = Arc::clone(self);
        Ok(Images {
            region,
            _data: data,
        })
    }
}

impl<M> Deref for Images<M>
where
    Region<M>: Deref<Target = [u8]>,
{
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.region
    }
}

impl DerefMut for Images<MmapMut> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.region
    }
}

impl<M> fmt::Debug for Images<M>
where
    Region<M>: Deref<Target = [u8]>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Images")
            .field(&self.region.as_ptr_range())
            .finish()
    }
}
