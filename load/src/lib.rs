//! Random batches from tinyres shards: a set's splits as mapped lists of images, the order of an epoch,
//! and threads that gather its batches ahead. Needs no decoder, no torch and no C compiler. An image is named
//! by its number in the split, from 0.
//!
//! ```no_run
//! use std::num::NonZeroUsize;
//! use std::path::Path;
//! use std::sync::Arc;
//! use tinyres_format::Split;
//! use tinyres_load::{Dataset, Verify};
//!
//! // SAFETY: nobody writes to or truncates the shards while they are mapped.
//! let data = unsafe { Dataset::open(Path::new("shards"), Split::Train, Verify::Lazy) }?;
//! let data = Arc::new(data);
//! let size = NonZeroUsize::new(512).expect("not zero");
//! let mut epoch = data.epoch(42, 0, size)?; // seed 42, epoch 0
//! while let Some(batch) = epoch.next_batch() {
//!     let (images, pixels) = batch?; // pixels: u8 [n, 3, 64, 64]
//!     println!("{} is of class {}", data.name(images[0])?, data.label(images[0])?);
//!     assert_eq!(pixels.len(), images.len() * data.shape().image_len());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Dataset::epoch`] is the short way. Its parts serve those who want more:
//!
//! - [`Dataset::gather`] copies any images to memory of the caller's, [`Dataset::gather_f32`] normalises
//!   them on the way, [`Dataset::sequential`] gives views of the map in file order, and [`Dataset::images`]
//!   one view of all of it.
//! - [`Dataset::gather_in`] and [`Dataset::gather_f32_in`] take a [`Form`]: channels first or last, and with
//!   [`FlipShift`] the flips and shifts of `tinyres train`.
//! - [`shuffled`] is the order of an epoch. [`Batches`] cuts it into batches; with several processes, each
//!   [`Rank`] gets its slice of every batch.
//! - [`Prefetch`] gathers batches ahead with any number of threads, into slots of the caller's
//!   (pinned memory, say), from any batch of an epoch on.
//!
//! All of it works after `fork`, too: the [`pool`] of threads is made again in a child. A `Prefetch` that the
//! parent has begun says so in the child, and can be dropped there.
//!
//! The order follows from (seed, epoch) by the rule of section 7 of the
//! [specification](tinyres_format::spec). Neither threads nor ranks nor a resume change it.

mod dataset;
mod epoch;
mod fetch;
mod flip_shift;
mod form;
mod images;
mod member;
mod normalize;
mod order;
pub mod pool;
mod prefetch;
mod stream;

pub use dataset::{Dataset, Verify};
pub use epoch::Epoch;
pub use flip_shift::{FlipShift, Move};
pub use form::{Form, Layout};
pub use images::Images;
pub use normalize::Normalization;
pub use order::{Batches, Rank, shuffled};
pub use prefetch::{Batch, Prefetch, alloc_slot};

use std::path::PathBuf;

use tinyres_format::Split;

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a data set could not be opened, or a batch not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shard or the manifest is damaged or missing.
    #[error(transparent)]
    Format(#[from] tinyres_format::Error),
    /// The set has no such split.
    #[error("{}: no {split} split here, only {}: {}", dir.display(), names(present), remedy(*split))]
    NoSplit {
        /// The directory of the set.
        dir: PathBuf,
        /// The split asked for.
        split: Split,
        /// The splits that there are.
        present: Vec<Split>,
    },
    /// Two shards of a split name different classes.
    #[error("{}: its classes are not those of the split's first shard: pack the set again with --force", path.display())]
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
    /// The split has no image of this number.
    #[error("image {image} asked for, but the split has {len}, counted from 0")]
    NoImage {
        /// The image asked for.
        image: u32,
        /// Images of the split.
        len: u32,
    },
    /// A slot does not have the size of its batch.
    #[error("a batch of {expected} bytes does not fit into memory of {got} bytes")]
    Slot {
        /// Bytes given.
        got: usize,
        /// Bytes that the batch has.
        expected: usize,
    },
    /// A shift would reflect more of an image than there is.
    #[error("a shift of {shift} pixels, but the images have a side of {side}: shift by at most {}", side - 1)]
    Shift {
        /// The shift.
        shift: u32,
        /// The shorter side of the images.
        side: u32,
    },
    /// A batch was asked for while the caller held every slot.
    #[error("no memory for the next batch: every slot is in use, give one back first")]
    NoSlot,
    /// The system has no memory for a batch.
    #[error("no memory for a batch: {0}")]
    Memory(#[source] std::io::Error),
    /// A loader thread could not be started.
    #[error("no thread for the loader: {0}")]
    Thread(#[source] std::io::Error),
    /// The threads that gather batches are those of the process that started them.
    #[error(
        "these batches are gathered by threads of process {started}, and this is process {here}, made from it by fork: start another epoch here"
    )]
    Forked {
        /// The process that started the threads.
        started: u32,
        /// This process.
        here: u32,
    },
    /// A loader thread panicked: a defect of tinyres.
    #[error(
        "a loader thread panicked while it gathered batch {batch}: this is a defect of tinyres, please report it"
    )]
    Panicked {
        /// The batch.
        batch: usize,
    },
}

/// How to get a split.
fn remedy(split: Split) -> &'static str {
    match split {
        Split::Val => {
            "pack the source again with --val-fraction 0.1 (and --force to replace these shards), or one that has a val split"
        }
        Split::Train | Split::Test => "pack a source that has one",
    }
}

fn names(splits: &[Split]) -> String {
    splits
        .iter()
        .map(|split| split.name())
        .collect::<Vec<_>>()
        .join(", ")
}
