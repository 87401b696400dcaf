//! Packing: images of a source become shards. They are decoded in parallel, written in source order and
//! published as a whole. Reading sources and the shard format itself are other modules' work.

mod bmp;
mod compress;
mod decode;
mod decode_shard;
mod error;
mod exif;
mod existing;
mod facts;
mod fingerprint;
mod finished;
mod gif;
mod jpeg;
mod left_out;
mod limits;
mod orientation;
mod png;
mod pnm;
mod raw;
mod report;
mod resize;
mod resume;
mod signature;
mod staging;
mod tiff;
mod webp;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Instant;

use tinyres_format::transport::{Level, SUFFIX};
use tinyres_format::{
    Columns, Digest, Form, Manifest, Metadata, Refused, Sealed, Shape, ShardEntry, Split,
    SplitEntry, Warned, Writer,
};

use crate::background::BackgroundJob;
use crate::event::{Event, Observer};
use crate::source::{Item, Problems, Source};

pub use crate::scratch::OutputError;
pub use compress::Compression;
use compress::Compressor;
pub use decode::{Decoded, Decoder};
use decode_shard::{ImageReader, decode_shard};
pub use error::{Error, ImageError, Result};
use existing::existing;
pub use fingerprint::fingerprint;
pub(crate) use fingerprint::listing;
pub use left_out::SkipBad;
pub use limits::MAX_PIXELS;
pub use report::{PackReport, SplitReport};
pub use resize::Resize;
use resume::{Resume, Sources};
use staging::Staging;

/// Images in a shard where nothing else is asked for.
pub const SHARD_IMAGES: NonZeroU32 = NonZeroU32::new(8192).unwrap();

/// Settings of a pack.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the shards, created if missing.
    pub output: PathBuf,
    /// Images in a shard; the last shard of a split may have fewer.
    pub shard_images: NonZeroU32,
    /// Size to resize images to. Without it, all images must be squares of one size: the most frequent one
    /// among some that are looked at.
    pub resize: Option<Resize>,
    /// Decoding threads; 0 for one a core. If a core is left, another thread writes decoded images. The
    /// shards do not depend on it.
    pub threads: usize,
    /// Leave out images that cannot be decoded, and record them, instead of failing. Fails if the bound is
    /// exceeded, a split is left empty, or a class is left without a train image.
    pub skip_bad: Option<SkipBad>,
    /// Replace a finished set in `output`, or shards there that no manifest lists.
    pub force: bool,
    /// Write the shards in their transport form, compressed at this level.
    pub zstd: Option<Level>,
}

/// Packs `source` to `config.output`.
///
/// If exactly this set is there already, writes nothing and says so in the report. Keeps the shards that a
/// killed pack finished, if the files that they were made of are still the same.
///
/// # Errors
/// The first failure, or every image that cannot be packed. Nothing has been published then: an older
/// set in `output` is still there.
pub fn pack(source: &Source, config: &Config, watch: &mut dyn Observer) -> Result<PackReport> {
    let began = Instant::now();
    let threads = threads(config.threads);
    let mut readers: Vec<ImageReader> = (0..threads)
        .map(|_| ImageReader::new(source, config.resize))
        .collect();
    let side = match config.resize {
        Some(resize) => resize.side.get(),
        None => {
            let items = source.splits.iter().flat_map(|(_, items)| items);
            readers[0].side(&items.collect::<Vec<_>>())?
        }
    };
    let shape = Shape::rgb(side);
    let plan = Plan {
        source,
        config,
        shape,
        fingerprint: LazyLock::new(Box::new(move || {
            fingerprint(source, shape, config.resize, config.shard_images)
        })),
    };
    if let Some(report) = plan.unchanged(began, watch)? {
        Staging::clean(&config.output);
        return Ok(report);
    }
    let staging = Staging::begin(&config.output, config.force, watch)?;
    // Another pack may have finished before this one got the lock.
    if let Some(report) = plan.unchanged(began, watch)? {
        return Ok(report);
    }
    let resume = Resume::begin(&staging, config.zstd)?;
    if resume.found {
        watch.on(&Event::Notice(format!(
            "{}: resuming a killed pack; its shards are kept if they are whole and their source files unchanged",
            config.output.display()
        )));
    }
    staging.check_room(plan.least_bytes())?;
    let compressor = config
        .zstd
        .map(|level| Compressor::new(level, threads))
        .transpose()?;
    let mut packer = Packer {
        plan: &plan,
        staging: &staging,
        resume: &resume,
        readers,
        compressor: compressor.as_ref(),
        fewest_threads: threads,
        refused: Vec::new(),
        warned: Vec::new(),
    };
    let mut splits = Vec::new();
    let mut reports = Vec::new();
    for (split, items) in &source.splits {
        watch.on(&Event::Begin {
            task: format!("packing {split}"),
            unit: "img",
            total: items.len() as u64,
        });
        let (entry, report) = packer.pack_split(*split, items, watch)?;
        watch.on(&Event::End);
        splits.push(entry);
        reports.push(report);
    }
    if packer.fewest_threads < threads {
        watch.on(&Event::Notice(format!(
            "decoded by {} of {threads} threads at times: the system gave no more; end other programs, or raise the limit of processes (ulimit -u)",
            packer.fewest_threads
        )));
    }
    let (refused, warned) = (packer.refused, packer.warned);
    match config.skip_bad {
        Some(bound) => left_out::check(source, &refused, bound)?,
        None if refused.is_empty() => {}
        None => {
            // Names --skip-bad only where it would work.
            left_out::check(source, &refused, SkipBad::HALF)?;
            let mut images = Problems::default();
            refused.into_iter().for_each(|image| images.push(image));
            return Err(Error::BadImages { images });
        }
    }
    let fingerprint = *plan.fingerprint;
    let mut manifest = Manifest::new(creator(), fingerprint, shape, source.classes.len(), splits);
    manifest.transport = config.zstd.map(|_| Form::Zstd);
    staging.publish(&manifest, watch)?;
    Ok(PackReport {
        output: config.output.clone(),
        fingerprint,
        shape,
        classes: manifest.classes,
        zstd: compressor.map(|compressor| {
            compressor.report(reports.iter().map(|split: &SplitReport| split.bytes).sum())
        }),
        splits: reports,
        layout: source.layout.clone(),
        notes: plan.notes(),
        passed_over: source.passed_over.clone(),
        refused,
        warned,
        unchanged: false,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// Name and version of the program, as shards and manifest record it.
pub(crate) fn creator() -> String {
    concat!("tinyres ", env!("CARGO_PKG_VERSION")).to_owned()
}

/// The number of threads asked for; one for each core if 0 are.
fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        asked => asked,
    }
}

/// The set to be packed.
struct Plan<'a> {
    source: &'a Source,
    config: &'a Config,
    shape: Shape,
    /// Computed when first needed: when the first shard is finished, while the second is decoded. It
    /// takes the time of decoding a few hundred images.
    fingerprint: LazyLock<Digest, Box<dyn FnOnce() -> Digest + Send + 'a>>,
}

impl Plan<'_> {
    /// The report if exactly this set is in the output directory, and need not be replaced.
    fn unchanged(&self, began: Instant, watch: &mut dyn Observer) -> Result<Option<PackReport>> {
        if self.config.force {
            return Ok(None);
        }
        let report = existing(self)?.map(|report| PackReport {
            seconds: began.elapsed().as_secs_f64(),
            ..report
        });
        if report.is_some() {
            watch.on(&Event::Notice(format!(
                "{}: holds exactly this set already; nothing was written (--force packs it again)",
                self.config.output.display()
            )));
        }
        Ok(report)
    }

    /// Notes of the source, and what training will miss.
    fn notes(&self) -> Vec<String> {
        let mut notes = self.source.notes.clone();
        if !self.source.splits.iter().any(|it| it.0 == Split::Val) {
            notes.push(match self.source.fraction_to_hold_out() {
                Some(fraction) => format!(
                    "no val split, which training needs: pack again with --val-fraction {fraction} --force to hold out a part of train"
                ),
                None => "no val split, which training needs, and too few images to hold some out".to_owned(),
            });
        }
        notes
    }

    /// A number of bytes that the output takes at least while it is packed: the pixels of the set, or of one
    /// shard where shards are compressed one after the other. 0 if bad images may be left out.
    fn least_bytes(&self) -> u64 {
        if self.config.skip_bad.is_some() {
            return 0;
        }
        let splits = self.source.splits.iter().map(|(_, items)| items.len());
        let images = match self.config.zstd {
            None => splits.sum(),
            Some(_) => splits.max().unwrap_or(0).min(self.shard_images()),
        };
        images as u64 * self.shape.image_len() as u64
    }

    fn shard_images(&self) -> usize {
        self.config.shard_images.get() as usize
    }
}

/// State of a pack from split to split.
struct Packer<'p, 'a> {
    plan: &'p Plan<'a>,
    staging: &'p Staging,
    resume: &'p Resume,
    readers: Vec<ImageReader<'a>>,
    compressor: Option<&'p Compressor>,
    /// The fewest threads that decoded a shard.
    fewest_threads: usize,
    /// Bad images of the splits so far.
    refused: Vec<Refused>,
    /// Packed images of the splits so far that have a warning.
    warned: Vec<Warned>,
}

/// A shard whose images are in the file, and the facts that its columns and metadata need.
struct DecodedShard<'a> {
    writer: Writer,
    items: Vec<&'a Item>,
    images: Vec<Decoded>,
    grey: u64,
    refused: Vec<Refused>,
    sources: Sources,
    warned: Vec<Warned>,
}

impl Packer<'_, '_> {
    fn pack_split(
        &mut self,
        split: Split,
        items: &[Item],
        watch: &mut dyn Observer,
    ) -> Result<(SplitEntry, SplitReport)> {
        let (plan, resume) = (self.plan, self.resume);
        let mut entry = SplitEntry {
            split,
            images: 0,
            shards: Vec::new(),
        };
        let mut report = SplitReport::new(split, plan.source.classes.len());
        let shards = items.chunks(plan.shard_images());
        let count = number(shards.len())?;
        let mut done = 0;
        std::thread::scope(|scope| -> Result<()> {
            let mut finishing = BackgroundJob::<Result<ShardEntry>>::new(scope);
            for (index, items) in shards.enumerate() {
                let file = split.shard_name(index);
                let shard = number(index)?;
                let metadata = move |grey, refused, warned| Metadata {
                    creator: creator(),
                    fingerprint: *plan.fingerprint,
                    split,
                    shard,
                    shards: count,
                    grey,
                    refused,
                    warned,
                    classes: plan.source.classes.clone(),
                };
                if let Some(kept) = resume.finished(&file, plan.source, items, metadata)
                    && (plan.config.skip_bad.is_some() || kept.metadata().refused.is_empty())
                {
                    done += items.len() as u64;
                    watch.on(&Event::Advance { done });
                    let Metadata {
                        grey,
                        refused,
                        warned,
                        ..
                    } = kept.metadata();
                    report.count(kept.labels(), *grey, refused.len(), warned.len());
                    report.kept += 1;
                    self.refused.extend_from_slice(refused);
                    self.warned.extend_from_slice(warned);
                    if let Some(compressor) = self.compressor {
                        compressor.keep(kept.compressed_len());
                    }
                    entry.shards.extend(finishing.wait().transpose()?);
                    entry.shards.push(kept.entry(file));
                    continue;
                }
                let decoded = self.decode_good(&file, items, |images| {
                    done += images;
                    watch.on(&Event::Advance { done });
                })?;
                let Some(decoded) = decoded else { continue };
                let labels = decoded.items.iter().map(label);
                let (refused, warned) = (decoded.refused.len(), decoded.warned.len());
                report.count(labels, decoded.grey, refused, warned);
                entry.shards.extend(finishing.wait().transpose()?);
                self.refused.extend_from_slice(&decoded.refused);
                self.warned.extend_from_slice(&decoded.warned);
                let (staging, compressor) = (self.staging, self.compressor);
                finishing.start(move || {
                    let (shard, sources) = decoded.seal(metadata)?;
                    let entry = match compressor {
                        None => shard.publish()?,
                        Some(compressor) => {
                            let to = staging.path(&(file + SUFFIX));
                            compressor.replace(&shard, &to)?
                        }
                    };
                    resume.record(&entry, &sources)?;
                    Ok(entry)
                });
            }
            entry.shards.extend(finishing.wait().transpose()?);
            Ok(())
        })?;
        entry.images = entry.shards.iter().map(|shard| shard.images).sum();
        report.close(&entry);
        Ok((entry, report))
    }

    /// Decodes `items` to the new shard `file`. Leaves out bad images if the settings say so; otherwise
    /// a bad image yields no shard.
    fn decode_good<'a>(
        &mut self,
        file: &str,
        items: &'a [Item],
        mut advance: impl FnMut(u64),
    ) -> Result<Option<DecodedShard<'a>>> {
        let shape = self.plan.shape;
        let mut items: Vec<&Item> = items.iter().collect();
        let mut refused = Vec::new();
        let mut sources = None;
        loop {
            let mut writer = Writer::create(&self.staging.path(file), shape)?;
            let advance = |images| {
                if refused.is_empty() {
                    advance(images);
                }
            };
            let (images, threads) =
                decode_shard(&mut self.readers, shape, &mut writer, &items, advance)?;
            self.fewest_threads = self.fewest_threads.min(threads);
            // Those of all items, bad ones included, so from the first time.
            let sources =
                sources.get_or_insert_with(|| Sources::of(images.iter().map(|image| image.stamp)));
            if images.iter().all(|image| image.decoded.is_ok()) {
                let images = images.into_iter().flat_map(|image| image.decoded);
                let images: Vec<Decoded> = images.collect();
                let warned = items.iter().zip(&images).filter_map(|(item, image)| {
                    let (name, warning) = (item.name.clone(), image.warning.clone()?);
                    Some(Warned { name, warning })
                });
                let warned = warned.collect();
                return Ok(Some(DecodedShard {
                    writer,
                    items,
                    grey: images.iter().filter(|image| image.grey).count() as u64,
                    images,
                    refused,
                    sources: *sources,
                    warned,
                }));
            }
            // The images after a bad one move up: decode the shard again without it.
            let mut good = Vec::new();
            for (item, image) in items.into_iter().zip(images) {
                match image.decoded {
                    Ok(_) => good.push(item),
                    Err(error) => refused.push(Refused {
                        name: item.name.clone(),
                        reason: error.to_string(),
                    }),
                }
            }
            items = good;
            if self.plan.config.skip_bad.is_none() {
                self.refused.extend(refused);
                return Ok(None);
            }
        }
    }
}

/// Class of an item as the labels column holds it: -1 without one.
fn label(item: &&Item) -> i64 {
    item.label.map_or(-1, i64::from)
}

impl DecodedShard<'_> {
    /// Writes columns and metadata, which complete the file. Returns it with the sources of the shard.
    fn seal(
        self,
        metadata: impl FnOnce(u64, Vec<Refused>, Vec<Warned>) -> Metadata,
    ) -> Result<(Sealed, Sources)> {
        let bbox = |image: &Decoded| image.bbox.unwrap_or([-1; 4]);
        let columns = Columns {
            labels: self.items.iter().map(label).collect(),
            boxes: self.images.iter().map(bbox).collect(),
            names: self.items.iter().map(|item| item.name.clone()).collect(),
        };
        let metadata = metadata(self.grey, self.refused, self.warned);
        Ok((self.writer.seal(&columns, &metadata)?, self.sources))
    }
}

/// A number of shards as the metadata holds it.
fn number(shards: usize) -> Result<u32> {
    u32::try_from(shards).map_err(|_| Error::TooManyShards { shards })
}
