//! Sets of shards in their transport form: made by `pack --zstd`, and turned back here.

mod cache;
mod error;
mod expand;
mod report;

pub use cache::{cache_dir, ready};
pub use error::{Error, Result};
pub use expand::expand;
pub use report::Report;
pub(crate) use report::ratio;

use std::fs::File;
use std::path::Path;

use rayon::prelude::*;
use tinyres_format::ZstdShard;
use tinyres_format::transport::{Level, compress};

/// Opens the transport form of a shard at `path`.
///
/// # Errors
/// What is wrong with it, with the path.
pub fn open(path: &Path) -> tinyres_format::Result<ZstdShard<File>> {
    let open = || ZstdShard::open(File::open(path)?);
    open().map_err(|error| error.at(path))
}

/// Writes the transport form of the raw shard at `raw` to a file that appears at `to`, and says how
/// many bytes it has. Uses all threads of the current pool; the bytes do not depend on their number.
///
/// # Errors
/// What is wrong with the shard, or why the file could not be written.
pub fn write(raw: &Path, to: &Path, level: Level) -> tinyres_format::Result<u64> {
    let write = || write_file(&File::open(raw)?, to, level);
    write().map_err(|error| error.at(raw))
}

/// As [`write`], for a raw shard that is open.
pub(crate) fn write_file(raw: &File, to: &Path, level: Level) -> tinyres_format::Result<u64> {
    compress(raw, to, level, |blocks, job| {
        blocks.into_par_iter().map(job).collect()
    })
}
