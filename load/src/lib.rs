//! From shards to batches: which images come when, and how their bytes get where they are needed.
//!
//! Nothing here knows of torch. Batches are gathered into memory that the caller owns (pinned, if
//! it likes) by threads that stay ahead of it; batches in file order are views of the map.
//!
//! An epoch of `f32` batches, normalised and channels last:
//!
//! ```no_run
//! use std::num::NonZeroUsize;
//! use std::path::Path;
//! use std::sync::Arc;
//! use tinyres_load::{Batches, Dataset, Normalization, Order, Prefetch, Rank, Verify};
//! use tinyres_format::Split;
//!
//! // SAFETY: nobody writes to or truncates the shards while they are mapped.
//! let data = unsafe { Dataset::open(Path::new("shards"), Split::Train, Verify::Lazy) }?;
//! let order = Order::shuffled(u32::try_from(data.len())?, 42, 0); // seed 42, epoch 0
//! let batch = NonZeroUsize::new(512).expect("not zero");
//! let batches = Arc::new(Batches::new(order, batch, true, Rank::ONLY));
//! let slots = vec![vec![0_f32; batches.most() * data.shape().image_len()]; 3];
//!
//! let data = Arc::new(data);
//! let pixels = Arc::clone(&data);
//! let imagenet = Normalization::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
//! let fill = move |images: &[u32], slot: &mut Vec<f32>| pixels.gather_f32(images, &imagenet, slot);
//! let mut epoch = Prefetch::with(fill, batches, 0, slots, 2)?; // from batch 0, two threads
//! while let Some(batch) = epoch.next_batch() {
//!     let batch = batch?;
//!     for (&image, floats) in batch.images.iter().zip(batch.slot.chunks_exact(3 * 64 * 64)) {
//!         println!("{}: {floats:?}", data.label(image as usize)?);
//!     }
//!     epoch.give_back(batch.slot);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod dataset;
mod normalize;
mod order;
mod prefetch;

pub use dataset::{Dataset, Verify};
pub use normalize::Normalization;
pub use order::{Batches, Order, Rank};
pub use prefetch::{Batch, Prefetch, slot};

use std::path::PathBuf;

use tinyres_format::Split;

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a data set could not be opened, or a batch not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shard or the manifest is not as it must be.
    #[error(transparent)]
    Format(#[from] tinyres_format::Error),
    /// The set has no such split.
    #[error("{}: no {split} split here, only {}: pack a source that has one", dir.display(), names(present))]
    NoSplit {
        /// The directory of the set.
        dir: PathBuf,
        /// The split asked for.
        split: Split,
        /// The splits that there are.
        present: Vec<Split>,
    },
    /// Two shards of a split name different classes.
    #[error("{}: its classes are not those of the split's first shard: pack the set again", path.display())]
    Classes {
        /// The shard whose classes differ.
        path: PathBuf,
    },
    /// The split has more images than an order of 32-bit numbers can hold.
    #[error("{}: {split} has {images} images, more than {}", dir.display(), u32::MAX)]
    TooMany {
        /// The directory of the set.
        dir: PathBuf,
        /// The split.
        split: Split,
        /// Its images.
        images: u64,
    },
    /// An image that was asked for is past the last.
    #[error("image {image} asked for, but the split has {len}")]
    NoImage {
        /// The image asked for.
        image: usize,
        /// How many there are.
        len: usize,
    },
    /// The memory for a batch does not have the size of its images.
    #[error("a batch of {expected} bytes does not fit into memory of {got} bytes")]
    Slot {
        /// Bytes given.
        got: usize,
        /// Bytes that the batch has.
        expected: usize,
    },
    /// Every slot is with the caller, who asks for a batch.
    #[error("no memory for the next batch: every slot is in use, give one back first")]
    NoSlot,
    /// A loader thread could not be started.
    #[error("no thread for the loader: {0}")]
    Thread(#[source] std::io::Error),
    /// A loader thread panicked: a defect of tinyres.
    #[error(
        "a loader thread panicked while it gathered batch {batch}: this is a defect of tinyres, please report it"
    )]
    Panicked {
        /// The batch.
        batch: usize,
    },
}

fn names(splits: &[Split]) -> String {
    splits
        .iter()
        .map(|split| split.name())
        .collect::<Vec<_>>()
        .join(", ")
}
