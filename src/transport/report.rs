//! The result of `expand`, as a value that prints itself.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::text::{Bytes, counted};

/// The result of an expansion.
#[derive(Clone, Debug, Serialize)]
pub struct ExpandReport {
    /// The raw shard, or the directory of the set.
    #[serde(serialize_with = "crate::text::path")]
    pub output: PathBuf,
    /// Shards expanded: 0 if all were raw already.
    pub shards: u64,
    /// Length of their transport form in bytes.
    pub compressed: u64,
    /// Length of the raw shards in bytes.
    pub bytes: u64,
    /// Length of the raw shards divided by that of their transport form; `None` if none was expanded.
    pub ratio: Option<f64>,
    /// Time in seconds, including the sync to the disk.
    pub seconds: f64,
}

impl fmt::Display for ExpandReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ratio) = self.ratio {
            write!(
                f,
                "{}, {} from {}, ratio {ratio:.3}, in {:.2} s: {:.0} MB/s",
                counted(self.shards, "shard"),
                Bytes(self.bytes),
                Bytes(self.compressed),
                self.seconds,
                self.bytes as f64 / 1e6 / self.seconds,
            )?;
        } else {
            write!(f, "raw shards already: nothing to expand")?;
        }
        write!(f, "\n{}", self.output.display())
    }
}

/// The compression ratio: `bytes` divided by `compressed`, or `None` if `compressed` is 0.
pub(crate) fn ratio(bytes: u64, compressed: u64) -> Option<f64> {
    (compressed > 0).then(|| bytes as f64 / compressed as f64)
}
