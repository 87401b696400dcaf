//! Report of a pack, as text for people and as JSON.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use tinyres_format::{Digest, Refused, Shape, Split, SplitEntry, Warned};

use super::Compression;
use super::facts::Conversion;
use crate::source::PassedOver;
use crate::text::{Bytes, Count, counted, one_line};

/// Result of a pack.
#[derive(Clone, Debug, Serialize)]
pub struct PackReport {
    /// Directory of the shards.
    #[serde(serialize_with = "crate::text::path")]
    pub output: PathBuf,
    /// Identifies the set.
    pub fingerprint: Digest,
    /// Shape of every image.
    pub shape: Shape,
    /// Number of classes.
    pub classes: usize,
    /// The splits, in the order of the manifest.
    pub splits: Vec<SplitReport>,
    /// Layout of the source, in words.
    pub layout: String,
    /// Sentences about decisions that a person may want to know.
    pub notes: Vec<String>,
    /// Files and folders of the source that are not used, by kind.
    pub passed_over: Vec<PassedOver>,
    /// Images that were left out.
    pub refused: Vec<Refused>,
    /// Images that were packed as Pillow reads them although their files are damaged, or that were converted to
    /// RGB in a way that a person may want to know of.
    pub warned: Vec<Warned>,
    /// Cost and gain of compression, if shards were compressed.
    pub zstd: Option<Compression>,
    /// True if exactly this set was there already, and nothing was written.
    pub unchanged: bool,
    /// Seconds from the opened source to the published set.
    pub seconds: f64,
}

/// Result of packing one split.
#[derive(Clone, Debug, Serialize)]
pub struct SplitReport {
    /// The split.
    pub split: Split,
    /// Images packed.
    pub images: u64,
    /// Packed images that are greyscale in the source.
    pub grey: u64,
    /// Images left out.
    pub refused: u64,
    /// Packed images with a warning.
    pub warned: u64,
    /// Packed images of each class, in label order.
    pub per_class: Vec<u64>,
    /// Number of shards.
    pub shards: usize,
    /// Shards that were kept of a killed pack.
    pub kept: usize,
    /// Length of all shards in bytes, raw.
    pub bytes: u64,
}

impl SplitReport {
    pub(super) fn new(split: Split, classes: usize) -> Self {
        Self {
            split,
            images: 0,
            grey: 0,
            refused: 0,
            warned: 0,
            per_class: vec![0; classes],
            shards: 0,
            kept: 0,
            bytes: 0,
        }
    }

    /// Counts the images of a shard.
    pub(super) fn count(
        &mut self,
        labels: impl IntoIterator<Item = i64>,
        grey: u64,
        refused: usize,
        warned: usize,
    ) {
        self.grey += grey;
        self.refused += refused as u64;
        self.warned += warned as u64;
        for label in labels {
            if let Some(count) = usize::try_from(label)
                .ok()
                .and_then(|label| self.per_class.get_mut(label))
            {
                *count += 1;
            }
        }
    }

    /// Takes the totals of the shards from the manifest.
    pub(super) fn close(&mut self, entry: &SplitEntry) {
        self.images = entry.images;
        self.shards = entry.shards.len();
        self.bytes = entry.shards.iter().map(|shard| shard.bytes).sum();
    }
}

impl PackReport {
    fn images(&self) -> u64 {
        self.splits.iter().map(|split| split.images).sum()
    }

    /// A line for each kind of warning, with the number of images and the first.
    fn fmt_warned(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conversions = Conversion::ALL.map(Conversion::text);
        for text in conversions {
            let mut images = self.warned.iter().filter(|it| it.warning.ends_with(text));
            if let Some(Warned { name, .. }) = images.next() {
                let images = counted(images.count() + 1, "image");
                writeln!(
                    f,
                    "{images} of {text}; --json names all, the first is {name}"
                )?;
            }
        }
        let conversion = |it: &&Warned| conversions.contains(&&*it.warning);
        let mut damaged = self.warned.iter().filter(|it| !conversion(it));
        if let Some(Warned { name, warning }) = damaged.next() {
            let count = damaged.count() + 1;
            let their = match count {
                1 => "its file is",
                _ => "their files are",
            };
            let images = counted(count, "image");
            writeln!(
                f,
                "{images} packed although {their} damaged; --json names all, the first is {}: {warning}",
                one_line(name),
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for PackReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "split     images  per class    grey  refused  shards       size"
        )?;
        for split in &self.splits {
            let (least, most) = (split.per_class.iter().min(), split.per_class.iter().max());
            let per_class = match (least, most) {
                (Some(least), Some(most)) if least == most && *most > 0 => Count(*most).to_string(),
                (Some(least), Some(most)) if *most > 0 => {
                    format!("{}-{}", Count(*least), Count(*most))
                }
                _ => "-".to_owned(),
            };
            writeln!(
                f,
                "{:<5} {:>10}  {:>9}  {:>6}  {:>7}  {:>6}  {:>9}",
                split.split,
                Count(split.images),
                per_class,
                Count(split.grey),
                Count(split.refused),
                Count(split.shards as u64),
                Bytes(split.bytes),
            )?;
        }
        let kept: usize = self.splits.iter().map(|split| split.kept).sum();
        if kept > 0 {
            writeln!(f, "kept {} of a killed pack", counted(kept, "shard"))?;
        }
        self.fmt_warned(f)?;
        if let Some(zstd) = &self.zstd {
            writeln!(f, "{zstd}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        if !self.passed_over.is_empty() {
            writeln!(f, "passed over:")?;
        }
        for PassedOver {
            kind,
            count,
            example,
        } in &self.passed_over
        {
            let example = one_line(example);
            writeln!(f, "{:>8}  {kind}: {example}", Count(*count))?;
        }
        writeln!(f, "layout: {}", self.layout)?;
        let bytes = self.splits.iter().map(|split| split.bytes).sum();
        write!(
            f,
            "{} of {} and {}, {}",
            counted(self.images(), "image"),
            self.shape,
            counted(self.classes, "class"),
            Bytes(bytes),
        )?;
        if self.unchanged {
            write!(f, ", were packed already: nothing was written")?;
        } else {
            let rate = Count::rounded(self.images() as f64 / self.seconds);
            write!(f, " in {:.2} s: {rate} images/s", self.seconds)?;
        }
        write!(f, "\n{}", self.output.display())
    }
}
