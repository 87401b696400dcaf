use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tinyres_format::transport::Level;
use tinyres_format::{Published, Sealed};

use super::Result;
use crate::text::Bytes;
use crate::transport::{self, ratio};

/// Turns finished shards into their transport form, on threads of its own.
pub(super) struct Compressor {
    level: Level,
    pool: rayon::ThreadPool,
    sum: Mutex<Compression>,
}

/// What compressing took and gave.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Compression {
    /// Level of zstd.
    pub level: i32,
    /// Bytes of the transport form, all shards together.
    pub bytes: u64,
    /// How many times shorter that is than the raw shards.
    pub ratio: Option<f64>,
    /// Raw bytes that were compressed: without shards that an interrupted pack had finished.
    pub compressed: u64,
    /// Time that it took, forcing it to the disk included, most of it beside decoding.
    pub seconds: f64,
}

impl Compressor {
    pub fn new(level: Level, threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        Ok(Self {
            level,
            pool: pool.build()?,
            sum: Mutex::default(),
        })
    }

    /// Publishes the transport form of `raw` at `to`, and drops the raw one, which is never forced to
    /// the disk. Says what that would have been published as.
    pub fn replace(&self, raw: &Sealed, to: &Path) -> Result<Published> {
        let began = Instant::now();
        let write = || transport::write_file(raw.file(), to, self.level);
        let written = self.pool.install(write);
        let bytes = written.map_err(|error| error.at(raw.path()))?;
        let published = raw.published().clone();
        self.count(|sum| {
            sum.bytes += bytes;
            sum.compressed += published.bytes;
            sum.seconds += began.elapsed().as_secs_f64();
        });
        Ok(published)
    }

    /// Counts a shard that an interrupted pack had compressed to `bytes` bytes.
    pub fn keep(&self, bytes: u64) {
        self.count(|sum| sum.bytes += bytes);
    }

    /// What was compressed of a set with `raw` bytes.
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
