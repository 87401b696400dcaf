use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::text::Bytes;

/// What was expanded, in how much time.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The raw shard, or the directory of the set.
    pub output: PathBuf,
    /// Shards expanded: none where all were there already.
    pub shards: u64,
    /// Length of their transport form in bytes.
    pub compressed: u64,
    /// Length of the raw shards in bytes.
    pub bytes: u64,
    /// How many times shorter the transport form is.
    pub ratio: Option<f64>,
    /// Time it took, forcing the shards to the disk included.
    pub seconds: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ratio) = self.ratio {
            let s = if self.shards == 1 { "" } else { "s" };
            write!(
                f,
                "{} shard{s}, {} from {}, ratio {ratio:.3}, in {:.2} s: {:.0} MB/s",
                self.shards,
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

/// How many times shorter `compressed` is than `bytes`.
pub(crate) fn ratio(bytes: u64, compressed: u64) -> Option<f64> {
    (compressed > 0).then(|| bytes as f64 / compressed as f64)
}
