//! From JPEGs to shards: decoded in parallel, written in source order, published as a whole.

mod decode;
mod error;
mod fingerprint;
mod report;
mod staging;

use std::num::NonZeroU32;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use rayon::prelude::*;
use tinyres_format::{
    Columns, Digest, Manifest, Metadata, Refused, Shape, ShardEntry, Split, SplitEntry, Writer,
};

use crate::event::{Event, Observer};
use crate::source::{self, Fault, Item, Problems, Source};

pub use decode::Bad;
use decode::Decoder;
pub use error::{BadImage, Error, Result};
pub use fingerprint::fingerprint;
pub use report::{Report, SplitReport};
use staging::Staging;

/// Images decoded between two writes: enough that no core idles long at the end of a group, and
/// two groups of them, one decoded while the other is written, are small beside any set.
const GROUP: usize = 1024;
/// Images that one task of a group decodes at least.
const TASK: usize = 32;

/// What to pack, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the shards, created if missing.
    pub output: PathBuf,
    /// Images in a shard; the last of a split has fewer.
    pub shard_images: NonZeroU32,
    /// Width and height that every image must have, in pixels.
    pub side: u32,
    /// Decoding threads; 0 for one a core. The shards do not depend on it.
    pub threads: usize,
    /// Leave out images that cannot be decoded, and record them, instead of failing.
    pub skip_bad: bool,
    /// Replace a finished set in `output`.
    pub force: bool,
}

/// Packs `source` to `config.output`.
///
/// # Errors
/// The first thing that keeps the set from being written, or all images that cannot be packed.
/// Then nothing has been published: what was in `output` is still there.
pub fn pack(source: &Source, config: &Config, watch: &mut dyn Observer) -> Result<Report> {
    let began = Instant::now();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(config.threads)
        .build()?;
    let staging = Staging::begin(&config.output, config.force)?;
    let set = Set {
        pool: &pool,
        source,
        shape: Shape::rgb(config.side),
        shard_images: config.shard_images.get() as usize,
        fingerprint: fingerprint(source, Shape::rgb(config.side), config.shard_images),
        staging: &staging,
    };
    let mut refused = Vec::new();
    let mut splits = Vec::new();
    let mut reports = Vec::new();
    for (split, items) in &source.splits {
        watch.on(&Event::Begin {
            task: format!("packing {split}"),
            unit: "img",
            total: items.len() as u64,
        });
        let (entry, report) = set.pack_split(*split, items, &mut refused, watch)?;
        watch.on(&Event::End);
        splits.push(entry);
        reports.push(report);
    }
    if !config.skip_bad && !refused.is_empty() {
        let mut images = Problems::default();
        refused
            .into_iter()
            .for_each(|image| images.push(BadImage(image)));
        return Err(Error::Bad { images });
    }
    let manifest = Manifest::new(
        creator(),
        set.fingerprint,
        set.shape,
        source.classes.len(),
        splits,
    );
    let fingerprint = set.fingerprint;
    staging.publish(&manifest)?;
    Ok(Report {
        output: config.output.clone(),
        fingerprint,
        shape: manifest.shape,
        classes: manifest.classes,
        splits: reports,
        refused,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// What wrote the shards: the only mark of it that they carry.
fn creator() -> String {
    concat!("tinyres ", env!("CARGO_PKG_VERSION")).to_owned()
}

/// What all splits of a set share.
struct Set<'a> {
    pool: &'a rayon::ThreadPool,
    source: &'a Source,
    shape: Shape,
    shard_images: usize,
    fingerprint: Digest,
    staging: &'a Staging,
}

/// Whether an image was greyscale, or why it cannot be packed.
type Outcome = std::result::Result<bool, Bad>;

/// Images that are decoded together, and written together after that.
#[derive(Default)]
struct Group {
    /// The split's images that it holds.
    items: Range<usize>,
    pixels: Vec<u8>,
    outcomes: Vec<Outcome>,
}

/// A shard that is being written.
struct Open {
    writer: Writer,
    columns: Columns,
    grey: u64,
    refused: Vec<Refused>,
}

impl Set<'_> {
    fn pack_split(
        &self,
        split: Split,
        items: &[Item],
        bad: &mut Vec<Refused>,
        watch: &mut dyn Observer,
    ) -> Result<(SplitEntry, SplitReport)> {
        let mut entry = SplitEntry {
            split,
            images: 0,
            shards: Vec::new(),
        };
        let mut report = SplitReport::new(split, self.source.classes.len());
        let shards = items.len().div_ceil(self.shard_images);
        std::thread::scope(|scope| -> Result<()> {
            // Forcing a shard to the disk takes as long as decoding several groups: it happens
            // beside that, one shard at a time.
            let mut finishing = None;
            let (mut ready, mut next) = (Group::default(), Group::default());
            for index in 0..shards {
                let first = index * self.shard_images;
                let last = items.len().min(first + self.shard_images);
                let file = split.shard_name(index);
                let mut open = Open::create(&self.staging.path(&file), self.shape)?;
                for start in (first..last).step_by(GROUP).chain([last]) {
                    next.items = start..last.min(start + GROUP);
                    let (written, decoded) = self.pool.join(
                        || open.write(&ready, items, self.shape),
                        || self.decode(&mut next, items),
                    );
                    written?;
                    decoded?;
                    watch.on(&Event::Advance {
                        done: next.items.end as u64,
                    });
                    std::mem::swap(&mut ready, &mut next);
                }
                // The last group decoded was the empty one after the shard's end: all are written.
                report.count(&open.columns, open.grey, open.refused.len());
                bad.extend(open.refused.iter().cloned());
                if let Some(shard) = finishing.take() {
                    entry.shards.push(join(shard)?);
                }
                let metadata = Metadata {
                    creator: creator(),
                    fingerprint: self.fingerprint,
                    split,
                    shard: number(index)?,
                    shards: number(shards)?,
                    grey: open.grey,
                    refused: std::mem::take(&mut open.refused),
                    classes: self.source.classes.clone(),
                };
                finishing = Some(scope.spawn(move || open.finish(&metadata, file)));
            }
            if let Some(shard) = finishing {
                entry.shards.push(join(shard)?);
            }
            Ok(())
        })?;
        entry.images = entry.shards.iter().map(|shard| shard.images).sum();
        report.close(&entry);
        Ok((entry, report))
    }

    /// Fills `group` with the pixels of its items, on all threads of the pool.
    fn decode(&self, group: &mut Group, items: &[Item]) -> Result<()> {
        let items = &items[group.items.clone()];
        let image_len = self.shape.image_len();
        group.pixels.resize(items.len() * image_len, 0);
        let outcomes: Result<Vec<Outcome>> = items
            .par_iter()
            .zip(group.pixels.par_chunks_exact_mut(image_len))
            .with_min_len(TASK)
            .map_init(
                || (Decoder::new(), Vec::new()),
                |(decoder, jpeg), (item, pixels)| {
                    if let Err(error) = self.source.read(item, jpeg) {
                        return damage(error).map(Err);
                    }
                    Ok(decoder.decode(jpeg, item.bbox, self.shape, pixels))
                },
            )
            .collect();
        group.outcomes = outcomes?;
        Ok(())
    }
}

impl Open {
    fn create(path: &Path, shape: Shape) -> Result<Self> {
        let writer = Writer::create(path, shape)?;
        Ok(Self {
            writer,
            columns: Columns::default(),
            grey: 0,
            refused: Vec::new(),
        })
    }

    /// Appends a decoded group, without the images that could not be.
    fn write(&mut self, group: &Group, items: &[Item], shape: Shape) -> Result<()> {
        let mut at = 0;
        for run in group.outcomes.chunk_by(|a, b| a.is_ok() == b.is_ok()) {
            let end = at + run.len();
            if run[0].is_ok() {
                let len = shape.image_len();
                self.writer.append(&group.pixels[at * len..end * len])?;
            }
            at = end;
        }
        for (item, outcome) in items[group.items.clone()].iter().zip(&group.outcomes) {
            match outcome {
                Ok(grey) => {
                    self.columns.labels.push(item.label.map_or(-1, i64::from));
                    self.columns.boxes.push(item.bbox.unwrap_or([-1; 4]));
                    self.columns.names.push(item.name.clone());
                    self.grey += u64::from(*grey);
                }
                Err(bad) => {
                    self.refused.push(Refused {
                        name: item.name.clone(),
                        reason: bad.to_string(),
                    });
                }
            }
        }
        Ok(())
    }

    fn finish(self, metadata: &Metadata, file: String) -> Result<ShardEntry> {
        let published = self.writer.finish(&self.columns, metadata)?;
        Ok(ShardEntry {
            file,
            images: published.images,
            bytes: published.bytes,
            digest: published.digest,
        })
    }
}

/// Bytes that are not as they were written are the image's fault; that they could not be read is not.
fn damage(error: source::Error) -> Result<Bad> {
    match error {
        source::Error::Read {
            fault: fault @ (Fault::Entry { .. } | Fault::Checksum { .. }),
            ..
        } => Ok(Bad::Unreadable(fault.to_string())),
        error => Err(error.into()),
    }
}

fn number(shards: usize) -> Result<u32> {
    u32::try_from(shards).map_err(|_| Error::TooManyShards { shards })
}

fn join(shard: ScopedJoinHandle<Result<ShardEntry>>) -> Result<ShardEntry> {
    shard
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
