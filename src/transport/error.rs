//! Errors of `expand`.

use std::path::PathBuf;

use crate::scratch::OutputError;
use crate::text::counted;

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Reason why a set was not expanded. The files that existed before are unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shard of the set is missing.
    #[error("{}: in dataset.json, but not here: copy it again", .0.display())]
    Missing(PathBuf),
    /// The set is raw already, so there is nothing to expand to another directory.
    #[error("{}: its shards are raw already, copy them", .0.display())]
    Raw(PathBuf),
    /// The output directory holds another finished set.
    #[error("{}: holds another set already (fingerprint {fingerprint:.12}); choose another directory, or remove it", output.display())]
    Occupied {
        /// The directory.
        output: PathBuf,
        /// The fingerprint of what it holds.
        fingerprint: String,
    },
    /// The output directory holds shards, but no manifest.
    #[error(
        "{}: {count} without a dataset.json, the first {}: they may be another program's or of a copy under way: remove them, or choose another directory",
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
    /// The output file exists.
    #[error("{}: is there already; remove it, or write elsewhere with -o", .0.display())]
    Exists(PathBuf),
    /// The output is a device, a FIFO or a socket.
    #[error("{}: not a file, and a shard is not written in order: name a file with -o", .0.display())]
    NoFile(PathBuf),
    /// The name of the file does not give the name of the shard.
    #[error("{}: does not end with .zst: name the shard with -o", .0.display())]
    Nameless(PathBuf),
    /// Another process packs or expands to the same output.
    #[error("{}: another tinyres is at work here: wait for it, or choose another directory", .0.display())]
    Busy(PathBuf),
    /// The output could not be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A shard or the manifest is damaged, or could not be written.
    #[error(transparent)]
    Format(#[from] tinyres_format::Error),
}
