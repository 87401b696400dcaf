//! Comparing every block of pixels with its checksum, for `inspect --verify`.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;
use tinyres_format::transport::Expander;
use tinyres_format::{BLOCK_IMAGES, Error, Split};

use super::Set;
use crate::event::{Event, Observer};
use crate::text::{Bytes, Count, counted};

/// Result of comparing every block of pixels with its checksum.
#[derive(Debug, Serialize)]
pub struct Verification {
    /// Size of the pixels, in bytes.
    pub bytes: u64,
    /// Time taken, in seconds.
    pub seconds: f64,
    /// Blocks that failed.
    pub damaged: Vec<Damage>,
}

/// A block that failed its checksum.
#[derive(Debug, Serialize)]
pub struct Damage {
    /// The shard.
    #[serde(serialize_with = "crate::text::path")]
    pub path: PathBuf,
    /// Number of the block, from 0.
    pub block: u64,
    /// Numbers of its images in the shard.
    pub images: Range<u64>,
    /// The split of the shard.
    pub split: Split,
    /// Numbers of its images in the split, if the whole directory was opened.
    pub in_split: Option<Range<u64>>,
    /// Reason, with the checksum found and the one expected.
    pub reason: String,
}

impl<B: AsRef<[u8]> + Sync + Send> Set<B> {
    /// Compares every block of pixels with its checksum, on all threads. This reads every file. All other
    /// checksums were compared when the set was opened.
    ///
    /// # Errors
    /// There is too little memory to expand compressed blocks. That says nothing about them.
    pub fn verify(&self, watch: &mut dyn Observer) -> tinyres_format::Result<Verification> {
        let began = Instant::now();
        let total = self
            .members
            .iter()
            .map(|member| member.shard.blocks())
            .sum();
        watch.on(&Event::Begin {
            task: "verifying".to_owned(),
            unit: "blocks",
            total,
        });
        let (mut done, mut damaged) = (0, Vec::new());
        for member in &self.members {
            let blocks = member.shard.blocks();
            // The damage of a block, if it is damaged.
            let check = |expander: &mut Option<Expander>, block| {
                let expander = match expander {
                    Some(expander) => expander,
                    None => expander.insert(Expander::new()?),
                };
                match member.block(block, expander) {
                    Ok(_) => Ok(None),
                    Err(Error::Memory) => Err(Error::Memory),
                    Err(error) => Ok(Some((block, error.to_string()))),
                }
            };
            let checked = (0..blocks)
                .into_par_iter()
                .map_init(|| None, check)
                .filter_map(Result::transpose);
            let damage = |(block, reason): (u64, String)| {
                let first = block * BLOCK_IMAGES as u64;
                let images = first..(first + BLOCK_IMAGES as u64).min(member.shard.len() as u64);
                Damage {
                    path: member.path.clone(),
                    block,
                    split: member.split,
                    in_split: self
                        .directory
                        .then_some(member.start + images.start..member.start + images.end),
                    images,
                    reason,
                }
            };
            let found: Vec<_> = checked.collect::<Result<_, _>>()?;
            damaged.extend(found.into_iter().map(damage));
            done += blocks;
            watch.on(&Event::Advance { done });
        }
        watch.on(&Event::End);
        Ok(Verification {
            bytes: self
                .members
                .iter()
                .map(|member| member.shard.images().len() as u64)
                .sum(),
            seconds: began.elapsed().as_secs_f64(),
            damaged,
        })
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.bytes as f64 / 1e9 / self.seconds;
        let (bytes, seconds) = (Bytes(self.bytes), self.seconds);
        write!(
            f,
            "verified {bytes} of pixels in {seconds:.3} s, {rate:.1} GB/s: "
        )?;
        if self.damaged.is_empty() {
            return write!(f, "all are as they were written");
        }
        let count = self.damaged.len();
        let are = if count == 1 { "is" } else { "are" };
        write!(f, "{} {are} damaged", counted(count, "block"))?;
        self.damaged
            .iter()
            .try_for_each(|damage| write!(f, "\n  {damage}"))
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range =
            |images: &Range<u64>| format!("{}-{}", Count(images.start), Count(images.end - 1));
        write!(f, "{}: images {}", self.path.display(), range(&self.images))?;
        if let Some(images) = &self.in_split {
            write!(f, " ({} of {})", range(images), self.split)?;
        }
        write!(f, ": {}", self.reason)
    }
}
