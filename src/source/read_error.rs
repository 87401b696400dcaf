//! Reasons why one file of a source cannot be read. Every text says what was found, what was expected and a remedy.

use std::io;
use std::path::PathBuf;

use super::MAX_FILE;
use crate::open_files::Remedy;

/// A temporary file, for bytes that were decompressed or handed over, that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: cannot write temporary data there ({reason}); {}",
    folder.display(), Remedy(reason, "set TMPDIR to a folder on a disk with more room")
)]
pub struct TemporaryError {
    /// The folder for temporary files.
    pub folder: PathBuf,
    /// The error of the operating system.
    pub reason: io::Error,
}

/// Reason why one file of a tree cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// There is no such file.
    #[error("no such file")]
    Missing,
    /// The operating system reported an error.
    #[error("{}{}", .0, remedy(.0))]
    Io(io::Error),
    /// The temporary file for decompressed bytes cannot be written.
    #[error(transparent)]
    Temporary(#[from] TemporaryError),
    /// A row of a file that holds many images has none, or is damaged.
    #[error("{reason}")]
    Row {
        /// The fault, and the remedy.
        reason: String,
    },
    /// The file is longer than any file of a data set.
    #[error("{size} bytes long or longer, expected at most {MAX_FILE}")]
    TooLarge {
        /// Its length in bytes, or a lower bound.
        size: u64,
    },
    /// The zip entry is encrypted.
    #[error("encrypted in the zip; unpack it with its password and pack the directory")]
    Encrypted,
    /// The zip entry is compressed by a method that is not supported.
    #[error("compressed in the zip by {method}, expected stored or deflated; zip it again")]
    Method {
        /// The method's name.
        method: String,
    },
    /// The entry of a zip or tar is a link to another file.
    #[error(
        "a link in the archive; archive the file that it stands for (tar has --dereference --hard-dereference)"
    )]
    Link,
    /// The tar stores the file without its runs of zeros.
    #[error("a sparse file in the tar; make the tar again without --sparse")]
    Sparse,
    /// The local header is not at the offset that the zip's directory states, or the data is damaged.
    #[error("the zip is damaged at byte {offset}: {reason}; copy or download it again")]
    Entry {
        /// The offset of the entry's local header, in bytes.
        offset: u64,
        /// The damage, in words.
        reason: &'static str,
    },
    /// The bytes differ from those that were zipped.
    #[error(
        "the zip is damaged: checksum {got:08x}, expected {expected:08x}; copy or download it again"
    )]
    Checksum {
        /// The CRC-32 of the bytes read.
        got: u32,
        /// The CRC-32 that the zip's directory states.
        expected: u32,
    },
}

impl ReadError {
    /// The text, with `remedy` where it has none of its own.
    pub(super) fn with(&self, remedy: &str) -> String {
        match self {
            Self::Missing => format!("{self}; {remedy}"),
            _ => self.to_string(),
        }
    }
}

/// The remedy for an error of the system that is not about a file.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::OutOfMemory => ": free some, or use fewer threads",
        _ => "",
    }
}
