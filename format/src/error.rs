use std::path::{Path, PathBuf};

use crate::Part;

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a shard or a data set could not be opened, read or written. Offsets and lengths are in bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a shard at all, or one that a text-mode transfer has changed.
    #[error("not a tinyres shard: it begins with {got:02x?}, expected {expected:02x?}")]
    Magic {
        /// The first eight bytes of the file.
        got: [u8; 8],
        /// The eight bytes that every shard begins with.
        expected: [u8; 8],
    },
    /// Written by a newer tinyres: upgrade this one, or pack again.
    #[error(
        "{what} has version {got}, but this build reads versions up to {max}: upgrade tinyres or pack again"
    )]
    Version {
        /// What carries the version: a shard or a manifest.
        what: &'static str,
        /// The version found.
        got: u32,
        /// The newest version this build reads.
        max: u32,
    },
    /// Written with a feature that a reader must know: upgrade this one, or pack again.
    #[error("shard flags {unknown:#x} are unknown to this build: upgrade tinyres or pack again")]
    Flags {
        /// The flag bits that this build does not know.
        unknown: u32,
    },
    /// The file was cut, or something was added to it: copy it again or pack again.
    #[error(
        "file is {got} bytes long, expected {expected}: it was cut short or added to; copy or pack it again"
    )]
    Length {
        /// The length of the file.
        got: u64,
        /// The length that the header states, or the least that a shard can have.
        expected: u64,
    },
    /// A field of the header has a value that version 1 does not allow.
    #[error("header field {field} is {got}, expected {expected}")]
    Field {
        /// The field's name in `SPEC.md`.
        field: &'static str,
        /// The value found.
        got: u64,
        /// What the format allows.
        expected: &'static str,
    },
    /// A section does not lie where the ones before it end, or has another length than its count demands.
    #[error("{part} {what} {got}, expected {expected}")]
    Extent {
        /// The section.
        part: Part,
        /// Which of its numbers is off.
        what: &'static str,
        /// The value found.
        got: u64,
        /// The value that the sections before it and the image count demand.
        expected: u64,
    },
    /// Bytes that the format keeps zero are not: the file is damaged, or of a later minor version.
    #[error("reserved byte at {offset} is {got:#04x}, expected 0")]
    Reserved {
        /// Offset in the file.
        offset: u64,
        /// The byte found.
        got: u8,
    },
    /// The bytes changed after they were written: copy or pack the shard again.
    #[error(
        "{part} has checksum {got:08x}, expected {expected:08x}: the bytes changed after they were written; copy or pack the shard again"
    )]
    Checksum {
        /// The part that the checksum covers.
        part: Part,
        /// The checksum of the bytes found.
        got: u32,
        /// The checksum that the shard carries.
        expected: u32,
    },
    /// The metadata is not the JSON that the format asks for.
    #[error("metadata: {reason}")]
    Metadata {
        /// What is wrong with it.
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
    /// What the caller gave does not fit together.
    #[error("{what}: got {got}, expected {expected}")]
    Mismatch {
        /// What was counted.
        what: &'static str,
        /// The value given.
        got: u64,
        /// The value needed.
        expected: u64,
    },
    /// The directory holds no `dataset.json`: the pack was interrupted, or this is not its output.
    #[error(
        "no dataset.json here: the pack is unfinished or this is no shard directory; run `tinyres pack` again"
    )]
    Unfinished,
    /// `dataset.json` is not what the format asks for.
    #[error("dataset.json: {reason}; pack again")]
    Manifest {
        /// What is wrong with it.
        reason: String,
    },
    /// A shard is not the one that `dataset.json` was written for.
    #[error(
        "{what} is {got}, but dataset.json says {expected}: the shard is of another set or another pack; pack again"
    )]
    Foreign {
        /// What differs.
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
    /// Not a shard in its transport form, or one whose end is missing.
    #[error(
        "no seek table at the end: not a shard in its transport form, or cut short; copy it again"
    )]
    NotTransport,
    /// The seek table of a transport file does not fit to the file, or to the shard's header.
    #[error("seek table: {what} is {got}, expected {expected}: damaged; copy the file again")]
    SeekTable {
        /// Which of its numbers is off.
        what: &'static str,
        /// The value found.
        got: u64,
        /// The value that the file's length or the header demands, or the largest one allowed.
        expected: u64,
    },
    /// A frame of a transport file has not the size that it must have.
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
    /// A part of the shard is longer than a frame of the transport form may be: leave it raw.
    #[error(
        "{part} has {got} bytes, but the transport form takes at most {max}: leave the shard raw"
    )]
    FrameLimit {
        /// The part.
        part: Part,
        /// Its length.
        got: u64,
        /// The longest that a frame holds.
        max: u64,
    },
    /// zstd could not compress or expand a part of a shard.
    #[error("{part}: zstd: {reason}; copy the file again")]
    Zstd {
        /// The part.
        part: Part,
        /// What zstd said.
        reason: String,
    },
    /// zstd has no such level.
    #[error("zstd level {got}, expected 1 (fast) to 22 (small)")]
    Level {
        /// The level asked for.
        got: i32,
    },
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The error in `source`, met in the file at `path`.
    #[error("{}: {source}", path.display())]
    At {
        /// The file.
        path: PathBuf,
        /// What went wrong with it.
        source: Box<Error>,
    },
}

impl Error {
    /// Says in which file the error was met. An error that already names its file stays as it is.
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
