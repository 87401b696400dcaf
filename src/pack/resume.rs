//! Resuming a killed pack: which of its finished shards need not be packed again.
//!
//! A shard is kept only if it was made of the same bytes by the same settings. The proof is a record
//! next to each finished shard: a digest of the shard, of the form that it was written in, and of a
//! [`Stamp`](crate::source::Stamp) of every source file, taken before the file was read.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use rayon::prelude::*;
use tinyres_format::transport::{Level, SUFFIX};
use tinyres_format::{Digest, MANIFEST, Metadata, Refused, ShardEntry, Warned, publish};

use super::Result;
use super::finished::FinishedShard;
use super::staging::{REPLACED, Staging};
use crate::scratch::output_error;
use crate::source::{Item, Source, Stamp};

/// Suffix of a record's name, after the name of its shard.
const RECORD: &str = ".sources";

/// The shards that a killed pack left, and the records for the next one.
pub(super) struct Resume {
    inner: PathBuf,
    zstd: Option<Level>,
    /// True if there is a record of a shard in the form asked for.
    pub found: bool,
}

impl Resume {
    /// Looks for shards that a killed pack left in `staging`; removes other files from there.
    pub fn begin(staging: &Staging, zstd: Option<Level>) -> Result<Self> {
        let inner = staging.inner().path().to_owned();
        let suffix = match zstd {
            None => format!(".bin{RECORD}"),
            Some(_) => format!(".bin{SUFFIX}{RECORD}"),
        };
        let mut found = false;
        for entry in fs::read_dir(&inner).map_err(output_error(&inner))? {
            let name = entry.map_err(output_error(&inner))?.file_name();
            let Some(record) = name.to_str().filter(|name| name.ends_with(&suffix)) else {
                continue;
            };
            found = true;
            let shard = record.trim_end_matches(RECORD);
            if !staging.output().join(MANIFEST).exists() {
                // Killed while it moved its shards out: they stay there, too, until the set is
                // published. A shard that cannot be linked is packed again.
                let _ = fs::hard_link(staging.output().join(shard), inner.join(shard));
            }
        }
        if !found {
            let published = staging.output().join(MANIFEST).exists();
            let spared = (!published).then_some(REPLACED);
            let cleared = staging.inner().clear(spared);
            cleared.map_err(output_error(&inner))?;
        }
        Ok(Self { inner, zstd, found })
    }

    /// Shard `file` of a killed pack, if it is whole and packing it again would give the same bytes.
    /// `items` are its items in `source`. `expected` is the metadata for a number of grey images, the
    /// images left out and those with warnings, which are known only after decoding.
    pub fn finished(
        &self,
        file: &str,
        source: &Source,
        items: &[Item],
        expected: impl FnOnce(u64, Vec<Refused>, Vec<Warned>) -> Metadata,
    ) -> Option<FinishedShard> {
        let name = self.name(file);
        let record = fs::read_to_string(self.inner.join(name.clone() + RECORD)).ok()?;
        let stamps: Vec<_> = (items
            .par_iter()
            .map(|item| source.stamp(item).ok().flatten()))
        .collect();
        let sources = Sources::of(stamps).0?;
        let shard = FinishedShard::open(&self.inner.join(name), self.zstd.is_some()).ok()?;
        let metadata = shard.metadata();
        let same = record == self.record_of(&shard.entry(String::new()), sources)
            && *metadata
                == expected(
                    metadata.grey,
                    metadata.refused.clone(),
                    metadata.warned.clone(),
                );
        (same && shard.verify().is_ok()).then_some(shard)
    }

    /// Records that the finished shard `entry` was made of `sources`. It need not be forced to the disk:
    /// a lost record costs only time, and a kept shard is verified.
    pub fn record(&self, entry: &ShardEntry, sources: &Sources) -> Result<()> {
        let Some(sources) = sources.0 else {
            return Ok(());
        };
        let path = self.inner.join(self.name(&entry.file) + RECORD);
        let record = self.record_of(entry, sources);
        let write = |mut file: fs::File| file.write_all(record.as_bytes());
        Ok(publish::create_new(&path)
            .and_then(write)
            .map_err(output_error(&path))?)
    }

    fn name(&self, file: &str) -> String {
        match self.zstd {
            None => file.to_owned(),
            Some(_) => file.to_owned() + SUFFIX,
        }
    }

    fn record_of(&self, entry: &ShardEntry, sources: Digest) -> String {
        let level = self.zstd.map_or(0, Level::get);
        let shard = entry.digest;
        Digest::of(format!("zstd {level}\n{shard}\n{sources}\n").as_bytes()).to_string()
    }
}

/// Digest of the stamps of a shard's items. `None` if one of them could not be read, or changed too
/// recently to tell it from a later change.
#[derive(Clone, Copy)]
pub(super) struct Sources(Option<Digest>);

impl Sources {
    /// Sources with these stamps, each from before its file was read: a file that changes afterwards has
    /// another stamp.
    pub fn of(stamps: impl IntoIterator<Item = Option<Stamp>>) -> Self {
        let settled = |stamp: Option<Stamp>| stamp.filter(Stamp::is_settled);
        let bytes = |stamp| settled(stamp).map(|stamp| stamp.to_bytes());
        let stamps: Option<Vec<[u8; 56]>> = stamps.into_iter().map(bytes).collect();
        Self(stamps.map(|stamps| Digest::of(stamps.as_flattened())))
    }
}
