//! The report on a set: counts, sizes and problems, as plain data that displays as text or serialises to
//! JSON. It reads labels and boxes, but no pixel.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use tinyres_format::{Class, Digest, Form, LeI32, Part, Shape, Shard, Split, VERSION};

use super::{Bytes, Member, Set, Verification};
use crate::text::{Bytes as Size, Count, counted, one_line};
use crate::transport::ratio;

/// Width of the text, in characters.
const WIDTH: usize = 80;

/// Contents of a shard, or of all shards of a directory.
#[derive(Debug, Serialize)]
pub struct SetReport {
    /// The shard or the directory.
    #[serde(serialize_with = "crate::text::path")]
    pub path: PathBuf,
    /// Version of the shard format.
    pub version: u32,
    /// Program that wrote the set, with its version.
    pub creator: String,
    /// Fingerprint of the set.
    pub fingerprint: Digest,
    /// Size of the compressed files, if there are any. All sizes below are those of raw shards.
    pub transport: Option<TransportReport>,
    /// Shape of every image.
    pub shape: Shape,
    /// Number of classes.
    pub classes: usize,
    /// Place in its split of a shard that was opened alone.
    pub place: Option<Place>,
    /// Contents of each split.
    pub splits: Vec<SplitReport>,
    /// Size of each part, summed over all shards.
    pub parts: Vec<PartSize>,
    /// Images of each class, on request.
    pub per_class: Option<Vec<ClassReport>>,
    /// Problems found. Shards that could not be opened are not counted above.
    pub problems: Vec<String>,
    /// Result of comparing all pixels with their checksums, on request.
    pub verification: Option<Verification>,
}

/// Shards in their compressed form.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TransportReport {
    /// Compression.
    pub form: Form,
    /// Number of compressed shards.
    pub shards: u64,
    /// Size of their files, in bytes.
    pub bytes: u64,
    /// Size of the raw shards divided by that of these files.
    pub ratio: Option<f64>,
}

/// A shard's place among those of its split.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Place {
    /// The split.
    pub split: Split,
    /// Index of the shard, from 0.
    pub shard: u32,
    /// Number of shards.
    pub shards: u32,
}

/// Contents of one split.
#[derive(Debug, Serialize)]
pub struct SplitReport {
    /// The split.
    pub split: Split,
    /// Images that the manifest lists.
    pub listed: u64,
    /// Images found. All counts below are of these and their shards.
    pub images: u64,
    /// Images that were greyscale in the source.
    pub grey: u64,
    /// Images of the source that `--skip-bad` left out.
    pub refused: u64,
    /// Number of shards.
    pub shards: u64,
    /// Size of the shards, in bytes.
    pub bytes: u64,
    /// Images without a label.
    pub unlabelled: u64,
    /// Images per class; `None` if no image has a label.
    pub per_class: Option<Spread>,
    /// Images with a box.
    pub boxes: u64,
    /// Mean area of the boxes, in pixels; their edges are inclusive.
    pub mean_area: Option<f64>,
}

/// Distribution of images over classes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Images of the smallest class.
    pub least: u64,
    /// Median over the classes.
    pub median: f64,
    /// Images of the largest class.
    pub most: u64,
}

/// Size of a part.
#[derive(Clone, Debug, Serialize)]
pub struct PartSize {
    /// Name of the part.
    pub part: String,
    /// Size in bytes, summed over all shards.
    pub bytes: u64,
}

/// Number of images of a class.
#[derive(Clone, Debug, Serialize)]
pub struct ClassReport {
    /// Label.
    pub label: usize,
    /// Identifier in the source, such as a WordNet id.
    pub id: String,
    /// Name in words.
    pub name: String,
    /// Number of images in each split.
    pub images: Vec<u64>,
}

impl<B: AsRef<[u8]> + Sync + Send> Set<B> {
    /// Builds the report, with one row for each class if `classes`.
    pub fn report(&self, classes: bool) -> SetReport {
        let splits: Vec<_> = self
            .splits
            .iter()
            .map(|&(split, _)| self.split(split))
            .collect();
        let per_class = classes.then(|| {
            let class = |(label, class): (usize, &Class)| ClassReport {
                label,
                id: class.id.clone(),
                name: class.name.clone(),
                images: splits.iter().map(|(_, counts)| counts[label]).collect(),
            };
            self.class_list().iter().enumerate().map(class).collect()
        });
        let alone = self.members.first().filter(|_| !self.directory);
        SetReport {
            path: self.path.clone(),
            version: VERSION,
            creator: self.creator.clone(),
            fingerprint: self.fingerprint,
            transport: self.transport(),
            shape: self.shape,
            classes: self.classes,
            place: alone.map(|member| Place {
                split: member.split,
                shard: member.shard.metadata().shard,
                shards: member.shard.metadata().shards,
            }),
            splits: splits.into_iter().map(|(report, _)| report).collect(),
            parts: self.parts(),
            per_class,
            problems: self.problems.iter().map(ToString::to_string).collect(),
            verification: None,
        }
    }

    /// Contents of `split`, and its number of images of each class.
    fn split(&self, split: Split) -> (SplitReport, Vec<u64>) {
        let mut report = SplitReport {
            split,
            listed: self.len(split),
            images: 0,
            grey: 0,
            refused: 0,
            shards: 0,
            bytes: 0,
            unlabelled: 0,
            per_class: None,
            boxes: 0,
            mean_area: None,
        };
        let (mut counts, mut area) = (vec![0; self.classes], 0.0);
        for Member { shard, sound, .. } in self.of(split) {
            report.images += shard.len() as u64;
            report.grey += shard.metadata().grey;
            report.refused += shard.metadata().refused.len() as u64;
            report.shards += 1;
            report.bytes += shard.bytes().len() as u64;
            if !sound {
                continue;
            }
            for label in shard.labels() {
                match usize::try_from(label.get()) {
                    Ok(label) => counts[label] += 1,
                    Err(_) => report.unlabelled += 1,
                }
            }
            for [x0, y0, x1, y1] in shard.boxes().iter().map(|sides| sides.map(LeI32::get)) {
                if x0 >= 0 {
                    report.boxes += 1;
                    area += f64::from(x1 - x0 + 1) * f64::from(y1 - y0 + 1);
                }
            }
        }
        report.mean_area = (report.boxes > 0).then(|| area / report.boxes as f64);
        report.per_class = Spread::of(&counts);
        (report, counts)
    }

    /// Size of the compressed shards, if there are any.
    fn transport(&self) -> Option<TransportReport> {
        let compressed = |member: &Member<B>| match member.shard.inner() {
            Bytes::Raw(_) => None,
            Bytes::Zstd(zstd) => {
                Some([1, zstd.compressed_len(), member.shard.bytes().len() as u64])
            }
        };
        let [shards, bytes, raw] = self
            .members
            .iter()
            .filter_map(compressed)
            .reduce(|sum, one| [0, 1, 2].map(|at| sum[at] + one[at]))?;
        Some(TransportReport {
            form: Form::Zstd,
            shards,
            bytes,
            ratio: ratio(raw, bytes),
        })
    }

    fn parts(&self) -> Vec<PartSize> {
        let sum = |bytes: &dyn Fn(&Shard<Bytes<B>>) -> usize| {
            self.members
                .iter()
                .map(|member| bytes(&member.shard) as u64)
                .sum()
        };
        let parts = std::iter::once(Part::Header).chain(Part::SECTIONS);
        let mut parts: Vec<PartSize> = parts
            .map(|part| PartSize {
                part: part.to_string(),
                bytes: sum(&|shard| shard.part(part).len()),
            })
            .collect();
        let whole: u64 = sum(&|shard| shard.bytes().len());
        let known: u64 = parts.iter().map(|part| part.bytes).sum();
        parts.push(PartSize {
            part: "padding".to_owned(),
            bytes: whole - known,
        });
        parts
    }
}

impl Spread {
    /// The spread of `counts`, unless all are zero.
    fn of(counts: &[u64]) -> Option<Self> {
        let mut sorted = counts.to_vec();
        sorted.sort_unstable();
        let most = *sorted.last().filter(|&&most| most > 0)?;
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self {
            least: sorted[0],
            median: (low + high) as f64 / 2.0,
            most,
        })
    }
}

impl SetReport {
    /// True if nothing that was checked is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let damaged = self
            .verification
            .as_ref()
            .is_some_and(|found| !found.damaged.is_empty());
        self.problems.is_empty() && !damaged
    }
}

/// For a terminal of 80 columns.
impl fmt::Display for SetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |of: fn(&SplitReport) -> u64| self.splits.iter().map(of).sum::<u64>();
        let (images, listed) = (sum(|split| split.images), sum(|split| split.listed));
        writeln!(f, "{}", self.path.display())?;
        let (shape, classes) = (self.shape, self.classes);
        write!(f, "  ")?;
        if images < listed {
            write!(f, "{} of ", Count(images))?;
        }
        let (listed, classes) = (
            counted(listed.max(images), "image"),
            counted(classes, "class"),
        );
        write!(f, "{listed}, {shape} u8, {classes}, ")?;
        match self.place {
            Some(Place {
                split,
                shard,
                shards,
            }) => writeln!(f, "{split} shard {} of {shards}", shard + 1)?,
            None => writeln!(f, "{}", counted(sum(|split| split.shards), "shard"))?,
        }
        writeln!(
            f,
            "  format {}, written by {}",
            self.version,
            one_line(&self.creator)
        )?;
        writeln!(f, "  fingerprint {}", self.fingerprint)?;
        if let Some(transport) = self.transport {
            let TransportReport { bytes, ratio, .. } = transport;
            let (bytes, ratio) = (Size(bytes), ratio.unwrap_or_default());
            writeln!(
                f,
                "  compressed to {bytes} of zstd, ratio {ratio:.3}; `tinyres expand` undoes it"
            )?;
        }
        if self.place.is_none() && self.problems.is_empty() {
            writeln!(f, "  dataset.json and all shards agree")?;
        }
        self.write_splits(f)?;
        self.write_parts(f, sum(|split| split.bytes))?;
        if let Some(classes) = &self.per_class {
            self.write_classes(f, classes)?;
        }
        if !self.problems.is_empty() {
            write!(f, "\n\nproblems")?;
            self.problems
                .iter()
                .try_for_each(|problem| write!(f, "\n  {problem}"))?;
        }
        match &self.verification {
            Some(verification) => write!(f, "\n\n{verification}"),
            None => Ok(()),
        }
    }
}

impl SetReport {
    fn write_splits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nimages        count     grey  refused   shards      size"
        )?;
        for split in &self.splits {
            writeln!(
                f,
                "{:<8} {:>10} {:>8} {:>8} {:>8} {:>9}",
                split.split,
                Count(split.images),
                Count(split.grey),
                Count(split.refused),
                Count(split.shards),
                Size(split.bytes),
            )?;
        }
        writeln!(
            f,
            "\nlabels         none    least   median     most  (images of a class)"
        )?;
        for split in &self.splits {
            let [least, median, most] = match split.per_class {
                Some(spread) => spread.columns(),
                None => ["-"; 3].map(str::to_owned),
            };
            let none = Count(split.unlabelled);
            writeln!(
                f,
                "{:<8} {none:>10} {least:>8} {median:>8} {most:>8}",
                split.split
            )?;
        }
        writeln!(f, "\nboxes         count  mean area")?;
        let pixels = f64::from(self.shape.width) * f64::from(self.shape.height);
        for split in &self.splits {
            let area = split.mean_area.map_or("-".to_owned(), |area| {
                format!(
                    "{} pixels, {:.1}% of the image",
                    Count::rounded(area),
                    100.0 * area / pixels
                )
            });
            writeln!(f, "{:<8} {:>10}  {area}", split.split, Count(split.boxes))?;
        }
        Ok(())
    }

    fn write_parts(&self, f: &mut fmt::Formatter<'_>, whole: u64) -> fmt::Result {
        write!(f, "\nparts                size    share")?;
        for PartSize { part, bytes } in &self.parts {
            let share = 100.0 * *bytes as f64 / whole.max(1) as f64;
            write!(f, "\n{part:<15} {:>9} {share:>7.2}%", Size(*bytes))?;
        }
        Ok(())
    }

    fn write_classes(&self, f: &mut fmt::Formatter<'_>, classes: &[ClassReport]) -> fmt::Result {
        write!(f, "\n\nlabel id       ")?;
        self.splits
            .iter()
            .try_for_each(|split| write!(f, "{:>8}", split.split))?;
        write!(f, "  words")?;
        let room = WIDTH.saturating_sub(17 + 8 * self.splits.len());
        for class in classes {
            write!(f, "\n{:>5} {:<9}", class.label, one_line(&class.id))?;
            class
                .images
                .iter()
                .try_for_each(|&images| write!(f, "{:>8}", Count(images)))?;
            write!(f, "  {}", clip(&one_line(&class.name), room))?;
        }
        Ok(())
    }
}

impl Spread {
    fn columns(self) -> [String; 3] {
        let median = match self.median.fract() {
            0.0 => Count::rounded(self.median).to_string(),
            _ => format!("{:.1}", self.median),
        };
        [
            Count(self.least).to_string(),
            median,
            Count(self.most).to_string(),
        ]
    }
}

/// Shortens `text` to at most `room` characters.
fn clip(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars()
        .take(room.saturating_sub(3))
        .chain("...".chars())
        .collect()
}
