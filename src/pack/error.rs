//! Errors of packing: why one image, or the whole set, cannot be packed.

use std::path::PathBuf;

use tinyres_format::{Refused, Split};

use super::limits::MAX_PIXELS;
use super::staging::REPLACED;
use crate::scratch::OutputError;
use crate::source::{self, Problems};
use crate::text::counted;

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a set was not packed. Nothing was published, unless it is [`Error::HalfPublished`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Every image that cannot be packed.
    #[error("nothing was packed: {}\nmend or remove them, or leave them out with --skip-bad", .images)]
    BadImages {
        /// The name of each image, and why it cannot be packed.
        images: Problems<Refused>,
    },
    /// Too many images of a split are bad to pack it without them.
    #[error(
        "nothing was packed: of {all} images of {split}, {bad} cannot be packed, and {bound}% may be left out: {images}\n\
             mend or remove them, or leave them out with --skip-bad={needed}%"
    )]
    ManyLeftOut {
        /// The split.
        split: Split,
        /// The number of its bad images.
        bad: usize,
        /// The number of its images.
        all: usize,
        /// The bound in percent.
        bound: f64,
        /// The bound in percent that would suffice.
        needed: f64,
        /// The name of each bad image of the set, and why it cannot be packed.
        images: Problems<Refused>,
    },
    /// Without the bad images, nothing would be left of a split or class.
    #[error(
        "nothing was packed: all images of {what} are bad: {images}\nmend them, or remove {what} from the source"
    )]
    NoneLeft {
        /// The split or class.
        what: String,
        /// The name of each bad image of the set, and why it cannot be packed.
        images: Problems<Refused>,
    },
    /// The most frequent size is not a square, and images are not to be resized.
    #[error("{image}: {}x{} pixels, the most frequent size of those looked at ({}); images that are not all squares of \
             one size must be resized: --size 64, say, keeps the middle square of each, and --squash all of it",
             size[0], size[1], seen)]
    NotSquare {
        /// The name in the source of an image of this size.
        image: String,
        /// Its width and height in pixels.
        size: [u32; 2],
        /// How many images of which sizes were seen, in words.
        seen: String,
    },
    /// The output directory holds a finished set.
    #[error("{}: holds a packed set already ({}); choose another directory, or replace it with --force", output.display(), holds)]
    Occupied {
        /// The directory.
        output: PathBuf,
        /// The set there, or how it differs from the one to be packed.
        holds: String,
    },
    /// The output directory holds shards, but no manifest.
    #[error(
        "{}: {count} without a dataset.json, the first {}: they may be another program's or of a copy under way: remove them, choose another directory, or replace what is there with --force",
        output.display(), .first.display(), count = counted(*.count, "shard")
    )]
    Leftover {
        /// The directory.
        output: PathBuf,
        /// The number of shards.
        count: usize,
        /// The name of the first.
        first: PathBuf,
    },
    /// The finished set could not be published. An older one is there as before.
    #[error("{source}; the finished shards are kept in {}: once that is mended, the same command goes on with them", inner.display())]
    NotPublished {
        /// Why.
        source: Box<Error>,
        /// The directory of the finished shards.
        inner: PathBuf,
    },
    /// The finished set could not be published, and an older one not put back.
    #[error("{source}, and then {failure}; the shards of the finished set, and of an older one in {REPLACED}, are kept in {}: once that is mended, the same command goes on with them", inner.display())]
    HalfPublished {
        /// Why the set could not be published.
        source: Box<Error>,
        /// Why the older one could not be put back.
        failure: OutputError,
        /// The directory of the finished shards.
        inner: PathBuf,
    },
    /// There was too little memory to decode an image. It is not left out: it may be a good one.
    #[error("{image}: {}", ImageError::Memory)]
    Memory {
        /// Its name in the source.
        image: String,
    },
    /// Another process packs to the same directory.
    #[error("{}: another tinyres is packing here: wait for it, or choose another directory", output.display())]
    Busy {
        /// The directory.
        output: PathBuf,
    },
    /// The output could not be created or replaced.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// More shards in a split than the `u32` in a shard's metadata can number.
    #[error("{shards} shards are too many: put more images into each with --shard-images")]
    TooManyShards {
        /// Number of shards.
        shards: usize,
    },
    /// The threads that compress could not be started.
    #[error("cannot start a thread to compress with: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// The source could not be read.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// A shard could not be written.
    #[error(transparent)]
    Format(#[from] tinyres_format::Error),
}

/// Why an image cannot be packed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The decoder gave up: the image is damaged or cut short.
    #[error("undecodable: {0}")]
    Undecodable(String),
    /// The first bytes are not those of an image that can be decoded, whatever the name says.
    #[error("{found}, expected a JPEG, PNG, WebP, GIF, BMP, TIFF or PNM image")]
    Kind {
        /// Kind of file that begins like this.
        found: &'static str,
    },
    /// The size is not that of the shards, and images are not to be resized.
    #[error("{}x{} pixels, expected {}x{} as most images have; --size resizes all of them", got[0], got[1], expected[0], expected[1])]
    Size {
        /// Width and height found.
        got: [u32; 2],
        /// Width and height that every image of the set must have.
        expected: [u32; 2],
    },
    /// The image has more than [`MAX_PIXELS`].
    #[error("{}x{} pixels: too large, at most {MAX_PIXELS} pixels can be decoded", got[0], got[1])]
    TooLarge {
        /// Width and height found.
        got: [u32; 2],
    },
    /// The intermediate image of the resize has more than [`MAX_PIXELS`].
    #[error("{}x{} pixels: too large for a resize to this size; use --size {fits} or less", got[0], got[1])]
    TooLargeToResize {
        /// Width and height found.
        got: [u32; 2],
        /// The largest size that it can be resized to.
        fits: u64,
    },
    /// The box ends outside the image.
    #[error("box {got:?} is not inside {}x{} pixels", size[0], size[1])]
    Box {
        /// x0, y0, x1, y1 found.
        got: [i32; 4],
        /// Width and height of the image.
        size: [u32; 2],
    },
    /// The bytes read are not the bytes that were once written.
    #[error("unreadable: {0}")]
    Unreadable(String),
    /// There was too little memory to decode the image, which may be a good one.
    #[error("too little memory to decode it: free some, or use fewer threads")]
    Memory,
}

/// Error of an image whose bytes are not those of its format, in the words of `what`.
pub(super) fn broken(what: &str) -> ImageError {
    ImageError::Undecodable(what.to_owned())
}

/// Error of an image that is not whole.
pub(super) fn cut() -> ImageError {
    broken("the file ends too early")
}
