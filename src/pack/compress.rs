//! Compression of finished shards to their transport form, and its report.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tinyres_format::transport::Level;
use tinyres_format::{Sealed, ShardEntry};

use super::Result;
use crate::text::Bytes;
use crate::threads;
use crate::transport::{self, ratio};

/// Compresses finished shards on a thread pool of its own.
pub(super) struct Compressor {
    level: Level,
    pool: rayon::ThreadPool,
    sum: Mutex<Compression>,
}

/// Cost and gain of compression.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Compression {
    /// Level of zstd.
    pub level: i32,
    /// Bytes of all compressed shards.
    pub bytes: u64,
    /// Length of the raw shards divided by that of the compressed ones.
    pub ratio: Option<f64>,
    /// Raw bytes that were compressed, without shards kept of a killed pack.
    pub compressed: u64,
    /// Seconds of compression, including forcing the files to the disk. Most of it happens while other
    /// images are decoded.
    pub seconds: f64,
}

impl Compressor {
    pub fn new(level: Level, count: usize) -> Result<Self> {
        Ok(Self {
            level,
            pool: threads::pool(count)?,
            sum: Mutex::default(),
        })
    }

    /// Publishes the compressed form of `raw` at `to`. The raw file is never forced to the disk, and
    /// removed once `raw` is dropped. Returns the entry that publishing it would have returned.
    pub fn replace(&self, raw: &Sealed, to: &Path) -> Result<ShardEntry> {
        let began = Instant::now();
        let write = || transport::write_file(raw.file(), to, self.level);
        let written = self.pool.install(write);
        let bytes = written.map_err(|error| error.at(raw.path()))?;
        let entry = raw.entry().clone();
        self.count(|sum| {
            sum.bytes += bytes;
            sum.compressed += entry.bytes;
            sum.seconds += began.elapsed().as_secs_f64();
        });
        Ok(entry)
    }

    /// Counts a shard of `bytes` compressed bytes, kept of a killed pack.
    pub fn keep(&self, bytes: u64) {
        self.count(|sum| sum.bytes += bytes);
    }

    /// The report for a set of `raw` bytes.
    pub fn report(self, raw: u64) -> Compression {
        let sum = self
            .sum
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        Compression {
            level: self.level.get(),
            ratio: ratio(raw, sum.bytes),
            ..sum
        }
    }

    fn count(&self, add: impl FnOnce(&mut Compression)) {
        add(&mut self.sum.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (level, bytes) = (self.level, Bytes(self.bytes));
        let ratio = self.ratio.unwrap_or_default();
        write!(
            f,
            "compressed to {bytes} by zstd level {level}, ratio {ratio:.3}"
        )?;
        if self.compressed > 0 {
            let rate = self.compressed as f64 / 1e6 / self.seconds;
            write!(f, ", at {rate:.0} MB/s")?;
        }
        Ok(())
    }
}
