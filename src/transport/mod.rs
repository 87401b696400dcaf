//! The transport form: shards compressed with zstd by `pack --zstd`. Opens and writes compressed shards,
//! and expands whole sets to raw shards ([`expand`]). The bytes of the form itself are defined and checked in the
//! format crate.

mod error;
mod expand;
mod report;

pub use crate::scratch::OutputError;
pub use error::{Error, Result};
pub use expand::expand;
pub use report::ExpandReport;
pub(crate) use report::ratio;

use std::fs::File;
use std::path::Path;

use rayon::prelude::*;
use tinyres_format::ZstdShard;
use tinyres_format::transport::{Level, compress};

/// Opens the transport form of a shard at `path`.
///
/// # Errors
/// The file cannot be read or is damaged. The error names it.
pub fn open(path: &Path) -> tinyres_format::Result<ZstdShard<File>> {
    let open = || ZstdShard::open(File::open(path)?);
    open().map_err(|error| error.at(path))
}

/// Writes the transport form of the raw shard at `raw` to the file `to`, which appears when it is
/// complete. Returns its length in bytes. Uses all threads of the current rayon pool; the bytes do not
/// depend on their number.
///
/// # Errors
/// The shard is damaged, or the file cannot be written.
pub fn write(raw: &Path, to: &Path, level: Level) -> tinyres_format::Result<u64> {
    let write = || write_file(&File::open(raw)?, to, level);
    write().map_err(|error| error.at(raw))
}

/// Like [`write`], for a raw shard that is open.
pub(crate) fn write_file(raw: &File, to: &Path, level: Level) -> tinyres_format::Result<u64> {
    compress(raw, to, level, |blocks, job| {
        blocks.into_par_iter().map(job).collect()
    })
}
