use std::path::PathBuf;

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a set was not expanded. What was there before is still there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shard that the set should have.
    #[error("{}: in dataset.json, but not here: copy it again", .0.display())]
    Missing(PathBuf),
    /// The set to be written elsewhere is not in its transport form.
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
    /// A file is where the shard should be written.
    #[error("{}: is there already; remove it, or write elsewhere with -o", .0.display())]
    Exists(PathBuf),
    /// A file whose name does not say what to call the shard.
    #[error("{}: does not end with .zst: name the shard with -o", .0.display())]
    Nameless(PathBuf),
    /// Another process packs or expands to the same place.
    #[error("{}: another tinyres is at work here: wait for it, or choose another place", .0.display())]
    Busy(PathBuf),
    /// There is no directory to keep expanded shards in.
    #[error(
        "a set in its transport form, and no place to expand it to: set TINYRES_CACHE, or run `tinyres expand` on it"
    )]
    NoCache,
    /// The output could not be created or moved to its place.
    #[error("{}: {reason}", path.display())]
    Output {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        reason: std::io::Error,
    },
    /// A shard or the manifest is not as it must be, or could not be written.
    #[error(transparent)]
    Format(#[from] tinyres_format::Error),
}
