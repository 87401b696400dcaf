use std::path::PathBuf;

use tinyres_format::Refused;

use crate::source::{self, Problems};

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a set was not packed. Nothing has been published then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Images that cannot be packed, all of them.
    #[error("nothing was packed: {}\nmend or remove them, or leave them out with --skip-bad", .images)]
    Bad {
        /// Which, and why.
        images: Problems<BadImage>,
    },
    /// The first image is no square, and nothing is to be resized.
    #[error("{image}: {}x{} pixels; images that are not all squares of one size must be resized: \
             --size 64, say, keeps the middle square of each, and --squash all of it", size[0], size[1])]
    NotSquare {
        /// Its name in the source.
        image: String,
        /// Its width and height in pixels.
        size: [u32; 2],
    },
    /// The output directory holds a finished set.
    #[error("{}: holds a packed set already ({}); choose another directory, or replace it with --force", output.display(), holds)]
    Occupied {
        /// The directory.
        output: PathBuf,
        /// What it holds.
        holds: String,
    },
    /// Another process packs to the same directory.
    #[error("{}: another tinyres is packing here: wait for it, or choose another directory", output.display())]
    Busy {
        /// The directory.
        output: PathBuf,
    },
    /// The output could not be created, or the shards in it not be replaced.
    #[error("{}: {reason}", path.display())]
    Output {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        reason: std::io::Error,
    },
    /// More shards than their number in a shard can count.
    #[error("{shards} shards are too many: put more images into each with --shard-images")]
    TooManyShards {
        /// How many there would be.
        shards: usize,
    },
    /// The threads that compress could not be started.
    #[error("no threads to compress with: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// The source could not be read.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// A shard could not be written.
    #[error(transparent)]
    Format(#[from] tinyres_format::Error),
}

/// An image that cannot be packed, with its name in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadImage(pub Refused);

impl std::fmt::Display for BadImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.0.name, self.0.reason)
    }
}
