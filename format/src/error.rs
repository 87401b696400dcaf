//! The one error type of the crate, with a variant for each way in which a file can be wrong.
//!
//! Each message says what was found, what was expected, and, where there is one, a remedy. The path
//! is added by [`Error::at`], because most checks see only bytes.

use std::path::{Path, PathBuf};

use crate::Part;

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// A reason why a shard or a set cannot be opened, read or written. Offsets and lengths are in bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is not a shard, or a text-mode transfer has changed it.
    #[error("not a tinyres shard: it begins with {got:02x?}, expected {expected:02x?}")]
    Magic {
        /// The first eight bytes of the file.
        got: [u8; 8],
        /// The eight bytes that every shard begins with.
        expected: [u8; 8],
    },
    /// The file was written by a newer tinyres: upgrade this one, or pack again.
    #[error(
        "{what} has version {got}, but this build reads versions up to {max}: upgrade tinyres, or pack again with --force"
    )]
    Version {
        /// The kind of file: a shard or a manifest.
        what: &'static str,
        /// The version found.
        got: u32,
        /// The newest version this build reads.
        max: u32,
    },
    /// The shard uses a feature that a reader must know: upgrade tinyres, or pack again.
    #[error(
        "shard flags {unknown:#x} are unknown to this build: upgrade tinyres, or pack again with --force"
    )]
    Flags {
        /// The flag bits that this build does not know.
        unknown: u32,
    },
    /// The file was cut, or something was added to it: copy it again or pack again.
    #[error(
        "file is {got} bytes long, expected {expected}: it was cut short or added to; copy it again, or pack again with --force"
    )]
    Length {
        /// The length of the file.
        got: u64,
        /// The length that the header states, or the smallest that a shard can have.
        expected: u64,
    },
    /// A field of the header has a value that version 1 does not allow.
    #[error("header field {field} is {got}, expected {expected}")]
    Field {
        /// The field's name in `SPEC.md`.
        field: &'static str,
        /// The value found.
        got: u64,
        /// The values that the format allows.
        expected: &'static str,
    },
    /// A section does not begin where the previous one ends, or its length does not fit the image count.
    #[error("{part} {what} {got}, expected {expected}")]
    Extent {
        /// The section.
        part: Part,
        /// Which of its numbers is wrong.
        what: &'static str,
        /// The value found.
        got: u64,
        /// The value that the sections before it and the image count demand.
        expected: u64,
    },
    /// A section is longer than the format allows, or ends after the end of the file.
    #[error("{part} {what} {got}, expected at most {max}")]
    ExtentLimit {
        /// The section.
        part: Part,
        /// Which of its numbers is too large.
        what: &'static str,
        /// The value found.
        got: u64,
        /// The largest value allowed.
        max: u64,
    },
    /// Something is longer than the format allows.
    #[error("{what} is too large: {got} bytes, at most {max} bytes are allowed; {remedy}")]
    TooLarge {
        /// The part that is too large.
        what: &'static str,
        /// Its length in bytes.
        got: u64,
        /// The longest that is allowed, in bytes.
        max: u64,
        /// How to make it smaller.
        remedy: &'static str,
    },
    /// The shard has no such block of images.
    #[error("image block {block} was asked for, but the shard has {}", blocks_text(*blocks))]
    NoBlock {
        /// The block asked for, counted from 0.
        block: u64,
        /// How many blocks the shard has.
        blocks: u64,
    },
    /// A byte that the format reserves is not zero: the file is damaged, or of a later minor version.
    #[error("reserved byte at {offset} is {got:#04x}, expected 0")]
    Reserved {
        /// Offset in the file.
        offset: u64,
        /// The byte found.
        got: u8,
    },
    /// The bytes changed after they were written: copy or pack the shard again.
    #[error(
        "{part} has checksum {got:08x}, expected {expected:08x}: the bytes changed after they were written; copy the shard again, or pack again with --force"
    )]
    Checksum {
        /// The part that the checksum covers.
        part: Part,
        /// The checksum of the bytes found.
        got: u32,
        /// The checksum that the shard carries.
        expected: u32,
    },
    /// The metadata is not the JSON that the format demands.
    #[error("metadata: {reason}")]
    Metadata {
        /// The problem.
        reason: String,
    },
    /// A sample's label is neither -1 nor the index of a class.
    #[error(
        "image {image} has label {got}, expected -1 (none) or a class from 0 to {classes} exclusive"
    )]
    Label {
        /// The image's index in the shard.
        image: u64,
        /// The label found.
        got: i64,
        /// How many classes the shard's metadata names.
        classes: usize,
    },
    /// A sample's box is neither (-1, -1, -1, -1) nor inside the image.
    #[error(
        "image {image} has box {got:?}, expected all -1 (none) or inclusive pixels x0 <= x1 < {width}, y0 <= y1 < {height}"
    )]
    Box {
        /// The image's index in the shard.
        image: u64,
        /// The box found.
        got: [i32; 4],
        /// The images' width in pixels.
        width: u32,
        /// The images' height in pixels.
        height: u32,
    },
    /// A sample's name does not lie in the names section, or is not UTF-8.
    #[error("image {image} has a name at {start}..{end}, expected UTF-8 inside 0..{len}")]
    Name {
        /// The image's index in the shard.
        image: u64,
        /// Where the name starts in the names section.
        start: u32,
        /// Where it ends.
        end: u32,
        /// The length of the names section.
        len: u64,
    },
    /// The values that the caller gave do not fit together.
    #[error("{what}: got {got}, expected {expected}")]
    Mismatch {
        /// The thing that was counted.
        what: &'static str,
        /// The value given.
        got: u64,
        /// The value needed.
        expected: u64,
    },
    /// The directory holds no `dataset.json`: the pack was interrupted, or this is not its output.
    #[error(
        "no dataset.json here: the pack is unfinished or this is not a directory of shards; run `tinyres pack` again, with --force if shards are here"
    )]
    Unfinished,
    /// `dataset.json` is not what the format demands.
    #[error("dataset.json: {reason}; pack again with --force")]
    Manifest {
        /// The problem.
        reason: String,
    },
    /// The directory for a new set holds shards already.
    #[error(
        "holds a set, or shards of an unfinished one: remove them, or choose another directory"
    )]
    Occupied,
    /// Another [`SetWriter`](crate::SetWriter) is at work in the directory.
    #[error("another process is writing a set here: wait for it, or choose another directory")]
    Busy,
    /// A shard is not the one that `dataset.json` was written for.
    #[error(
        "{what} is {got}, but dataset.json says {expected}: the shard is of another set or another pack; pack again with --force"
    )]
    Foreign {
        /// The property that differs.
        what: &'static str,
        /// The value in the shard.
        got: String,
        /// The value in the manifest.
        expected: String,
    },
    /// A shard in its transport form was opened as a raw one: expand it.
    #[error("compressed for transport: `tinyres expand` turns it into the shard")]
    Compressed,
    /// A set in its transport form was opened as a raw one: expand it.
    #[error("a set compressed for transport: run `tinyres expand` on the directory first")]
    Transport,
    /// The file is not a shard in its transport form, or its end is missing.
    #[error(
        "no seek table at the end: not a shard in its transport form, or cut short; copy it again"
    )]
    NotTransport,
    /// The seek table of a transport file does not fit the file, or the shard's header.
    #[error("seek table: {what} is {got}, expected {expected}: damaged; copy the file again")]
    SeekTable {
        /// Which of its numbers is off.
        what: &'static str,
        /// The value found.
        got: u64,
        /// The value that the file's length or the header demands, or the largest one allowed.
        expected: u64,
    },
    /// A frame of a transport file has the wrong size.
    #[error(
        "{part}: its frame {what} {got} bytes, expected {expected}: damaged; copy the file again"
    )]
    Frame {
        /// The part of the shard that the frame holds.
        part: Part,
        /// Which of its sizes is off.
        what: &'static str,
        /// The size found.
        got: u64,
        /// The size that the shard's header or the seek table demands.
        expected: u64,
    },
    /// A part of the shard is longer than a frame of the transport form may be: leave the shard raw.
    #[error(
        "{part} has {got} bytes, but the transport form takes at most {max}: leave the shard raw"
    )]
    FrameLimit {
        /// The part.
        part: Part,
        /// Its length.
        got: u64,
        /// The longest part that a frame holds.
        max: u64,
    },
    /// zstd could not compress or expand a part of a shard.
    #[error("{part}: zstd: {reason}; copy the file again")]
    Zstd {
        /// The part.
        part: Part,
        /// The message of zstd.
        reason: String,
    },
    /// There is too little memory to compress or expand a part of a shard.
    #[error("too little memory for a part of a shard: free some, or use fewer threads")]
    Memory,
    /// The compression level does not exist.
    #[error("zstd level {got}, expected 1 (fast) to 22 (small)")]
    Level {
        /// The level asked for.
        got: i32,
    },
    /// The images of a shard cannot lie in memory next to those of another one.
    #[error(
        "its images take {bytes} bytes, not whole pages of {page} bytes, so those of the next shard cannot follow them in one array: gather them, or pack again with --force and --shard-images 8192"
    )]
    Apart {
        /// Bytes of the images.
        bytes: u64,
        /// Bytes of a page of memory.
        page: u64,
    },
    /// The file at a path is not the one that was opened there before.
    #[error("was replaced by another file since it was opened: open the set again")]
    Replaced,
    /// The operating system refused an operation.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Another error, with the file in which it was found.
    #[error("{}: {source}", path.display())]
    At {
        /// The file.
        path: PathBuf,
        /// The error.
        source: Box<Error>,
    },
}

impl Error {
    /// Adds the path of the file in which the error was found. An error that names a file already
    /// stays as it is.
    #[must_use]
    pub fn at(self, path: &Path) -> Self {
        match self {
            Self::At { .. } => self,
            source => Self::At {
                path: path.to_owned(),
                source: Box::new(source),
            },
        }
    }
}

/// The number of blocks of a shard, and how they are numbered.
fn blocks_text(blocks: u64) -> String {
    match blocks {
        0 => "no blocks".to_owned(),
        1 => "1 block (0)".to_owned(),
        _ => format!("{blocks} blocks (0 to {})", blocks - 1),
    }
}
