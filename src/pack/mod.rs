//! From JPEGs and PNGs to shards: decoded in parallel, written in source order, published as a whole.

mod compress;
mod decode;
mod error;
mod fill;
mod fingerprint;
mod frame;
mod orientation;
mod png;
mod report;
mod resize;
mod staging;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Instant;

use tinyres_format::transport::{Level, SUFFIX};
use tinyres_format::{
    Columns, Digest, Form, Manifest, Metadata, Refused, Sealed, Shape, ShardEntry, Split,
    SplitEntry, Writer,
};

use crate::beside::Beside;
use crate::event::{Event, Observer};
use crate::source::{Item, Problems, Source};

pub use compress::Compression;
use compress::Compressor;
pub use decode::{Bad, Decoded, Decoder, MAX_PIXELS};
pub use error::{BadImage, Error, Result};
use fill::{Outcome, Worker, fill};
pub use fingerprint::fingerprint;
pub use report::{Report, SplitReport};
pub use resize::Resize;
use staging::Staging;

/// What to pack, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the shards, created if missing.
    pub output: PathBuf,
    /// Images in a shard; the last of a split has fewer.
    pub shard_images: NonZeroU32,
    /// What to resize images to. Where there is none, all must be squares of one size: the first's.
    pub resize: Option<Resize>,
    /// Decoding threads; 0 for one a core. With fewer, another thread writes what they decoded. The
    /// shards do not depend on it.
    pub threads: usize,
    /// Leave out images that cannot be decoded, and record them, instead of failing.
    pub skip_bad: bool,
    /// Replace a finished set in `output`.
    pub force: bool,
    /// Write the shards in their transport form, compressed at this level.
    pub zstd: Option<Level>,
}

/// Packs `source` to `config.output`.
///
/// Where a pack of the same source was killed, the shards that it finished are kept.
///
/// # Errors
/// The first thing that keeps the set from being written, or all images that cannot be packed.
/// Then nothing has been published: what was in `output` is still there.
pub fn pack(source: &Source, config: &Config, watch: &mut dyn Observer) -> Result<Report> {
    let began = Instant::now();
    let staging = Staging::begin(&config.output, config.force, config.zstd)?;
    if staging.resumes() {
        watch.on(&Event::Notice(format!(
            "{}: going on where an interrupted pack ended; what it finished is checked and kept",
            config.output.display()
        )));
    }
    let threads = threads(config.threads);
    let mut workers: Vec<Worker> = (0..threads)
        .map(|_| Worker::new(source, config.resize))
        .collect();
    let side = match config.resize {
        Some(resize) => resize.side.get(),
        None => {
            let items = source.splits.iter().flat_map(|(_, items)| items);
            workers[0].side(items)?
        }
    };
    let shape = Shape::rgb(side);
    let compressor = config
        .zstd
        .map(|level| Compressor::new(level, threads))
        .transpose()?;
    let fingerprint: Fingerprint<'_> = LazyLock::new(Box::new(move || {
        fingerprint(source, shape, config.resize, config.shard_images)
    }));
    let mut packer = Packer {
        source,
        shape,
        fingerprint: &fingerprint,
        skip_bad: config.skip_bad,
        staging: &staging,
        workers,
        compressor: compressor.as_ref(),
        refused: Vec::new(),
    };
    let mut splits = Vec::new();
    let mut reports = Vec::new();
    for (split, items) in &source.splits {
        watch.on(&Event::Begin {
            task: format!("packing {split}"),
            unit: "img",
            total: items.len() as u64,
        });
        let shards = items.chunks(config.shard_images.get() as usize).collect();
        let (entry, report) = packer.pack_split(*split, shards, watch)?;
        watch.on(&Event::End);
        splits.push(entry);
        reports.push(report);
    }
    let refused = packer.refused;
    if !config.skip_bad && !refused.is_empty() {
        let mut images = Problems::default();
        refused
            .into_iter()
            .for_each(|image| images.push(BadImage(image)));
        return Err(Error::Bad { images });
    }
    let fingerprint = *fingerprint;
    let mut manifest = Manifest::new(creator(), fingerprint, shape, source.classes.len(), splits);
    manifest.transport = config.zstd.map(|_| Form::Zstd);
    staging.publish(&manifest)?;
    Ok(Report {
        output: config.output.clone(),
        fingerprint,
        shape,
        classes: manifest.classes,
        zstd: compressor.map(|compressor| {
            compressor.report(reports.iter().map(|split: &SplitReport| split.bytes).sum())
        }),
        splits: reports,
        refused,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// What wrote the shards: the only mark of it that they carry.
fn creator() -> String {
    concat!("tinyres ", env!("CARGO_PKG_VERSION")).to_owned()
}

/// As many as asked for, or one for each core: at least one.
fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        asked => asked,
    }
}

/// Computed when the first shard is finished, beside the decoding of the second: it takes the time of
/// decoding a few hundred images.
type Fingerprint<'a> = LazyLock<Digest, Box<dyn FnOnce() -> Digest + Send + 'a>>;

/// What all splits of a set share.
struct Packer<'a, 'f> {
    source: &'a Source,
    shape: Shape,
    fingerprint: &'a Fingerprint<'f>,
    skip_bad: bool,
    staging: &'a Staging,
    workers: Vec<Worker<'a>>,
    compressor: Option<&'a Compressor>,
    /// Bad images of the splits so far.
    refused: Vec<Refused>,
}

/// A shard whose images are written.
struct Filled<'a> {
    writer: Writer,
    items: Vec<&'a Item>,
    images: Vec<Decoded>,
    grey: u64,
    refused: Vec<Refused>,
}

impl Packer<'_, '_> {
    fn pack_split(
        &mut self,
        split: Split,
        shards: Vec<&[Item]>,
        watch: &mut dyn Observer,
    ) -> Result<(SplitEntry, SplitReport)> {
        let mut entry = SplitEntry {
            split,
            images: 0,
            shards: Vec::new(),
        };
        let mut report = SplitReport::new(split, self.source.classes.len());
        let count = number(shards.len())?;
        let mut done = 0;
        std::thread::scope(|scope| -> Result<()> {
            let mut finishing = Beside::<Result<ShardEntry>>::new(scope);
            for (index, items) in shards.iter().enumerate() {
                let file = split.shard_name(index);
                let (source, fingerprint, shard) = (self.source, self.fingerprint, number(index)?);
                let metadata = move |grey, refused| Metadata {
                    creator: creator(),
                    fingerprint: **fingerprint,
                    split,
                    shard,
                    shards: count,
                    grey,
                    refused,
                    classes: source.classes.clone(),
                };
                if let Some(kept) = self.staging.kept(&file, metadata, source, items)
                    && (self.skip_bad || kept.refused.is_empty())
                {
                    done += items.len() as u64;
                    watch.on(&Event::Advance { done });
                    report.count(kept.labels, kept.grey, kept.refused.len());
                    report.kept += 1;
                    self.refused.extend(kept.refused);
                    entry.shards.extend(finishing.wait().transpose()?);
                    if let Some(compressor) = self.compressor {
                        compressor.keep(kept.compressed);
                    }
                    entry.shards.push(kept.entry);
                    continue;
                }
                let filled = self.fill(&file, items, |images| {
                    done += images;
                    watch.on(&Event::Advance { done });
                })?;
                let Some(filled) = filled else { continue };
                let labels = filled.items.iter().map(label);
                report.count(labels, filled.grey, filled.refused.len());
                entry.shards.extend(finishing.wait().transpose()?);
                self.refused.extend_from_slice(&filled.refused);
                let (staging, compressor) = (self.staging, self.compressor);
                finishing.begin(move || {
                    let shard = filled.seal(metadata)?;
                    let published = match compressor {
                        None => shard.publish()?,
                        Some(compressor) => {
                            let to = staging.path(&(file.clone() + SUFFIX));
                            compressor.replace(&shard, &to)?
                        }
                    };
                    Ok(ShardEntry {
                        file,
                        images: published.images,
                        bytes: published.bytes,
                        digest: published.digest,
                    })
                });
            }
            entry.shards.extend(finishing.wait().transpose()?);
            Ok(())
        })?;
        entry.images = entry.shards.iter().map(|shard| shard.images).sum();
        report.close(&entry);
        Ok((entry, report))
    }

    /// Begins the shard `file` with the images of `items`; without the bad ones, or if these are not to
    /// be left out, not at all.
    fn fill<'a>(
        &mut self,
        file: &str,
        items: &'a [Item],
        mut advance: impl FnMut(u64),
    ) -> Result<Option<Filled<'a>>> {
        let mut items: Vec<&Item> = items.iter().collect();
        let mut refused = Vec::new();
        loop {
            let mut writer = Writer::create(&self.staging.path(file), self.shape)?;
            let advance = |images| {
                if refused.is_empty() {
                    advance(images);
                }
            };
            let outcomes = fill(&mut self.workers, self.shape, &mut writer, &items, advance)?;
            if outcomes.iter().all(Outcome::is_ok) {
                let images: Vec<Decoded> = outcomes.into_iter().flatten().collect();
                return Ok(Some(Filled {
                    writer,
                    items,
                    grey: images.iter().filter(|image| image.grey).count() as u64,
                    images,
                    refused,
                }));
            }
            // What follows a bad image moves up: once more, without it.
            let mut good = Vec::new();
            for (item, outcome) in items.into_iter().zip(outcomes) {
                match outcome {
                    Ok(_) => good.push(item),
                    Err(bad) => refused.push(Refused {
                        name: item.name.clone(),
                        reason: bad.to_string(),
                    }),
                }
            }
            items = good;
            if !self.skip_bad {
                self.refused.extend(refused);
                return Ok(None);
            }
        }
    }
}

fn label(item: &&Item) -> i64 {
    item.label.map_or(-1, i64::from)
}

impl Filled<'_> {
    fn seal(self, metadata: impl FnOnce(u64, Vec<Refused>) -> Metadata) -> Result<Sealed> {
        let bbox = |image: &Decoded| image.bbox.unwrap_or([-1; 4]);
        let columns = Columns {
            labels: self.items.iter().map(label).collect(),
            boxes: self.images.iter().map(bbox).collect(),
            names: self.items.iter().map(|item| item.name.clone()).collect(),
        };
        let metadata = metadata(self.grey, self.refused);
        Ok(self.writer.seal(&columns, &metadata)?)
    }
}

fn number(shards: usize) -> Result<u32> {
    u32::try_from(shards).map_err(|_| Error::TooManyShards { shards })
}
