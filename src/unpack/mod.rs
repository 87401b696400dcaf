//! The way out of shards: PNG files in class folders, which torchvision's `ImageFolder` and Hugging Face's `imagefolder`
//! read, and CSV files with labels, names and boxes. Packing them gives the same pixels, labels and boxes.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;
use tinyres_format::transport::Expander;
use tinyres_format::{BLOCK_IMAGES, Class, Shape, Split};

use crate::atomic_dir::AtomicDir;
pub use crate::atomic_dir::AtomicDirError;
use crate::event::{Event, Observer};
use crate::inspect::{Member, Set};
use crate::scratch::{OutputError, output_error};
use crate::source::csv_files::{CLASS_COLUMNS, CLASSES, IMAGE_COLUMNS, IMAGES};
use crate::text::{Bytes, Count, counted};

/// Blocks of images between two reports of progress.
const BATCH: u64 = 32;
/// Longest name of a class folder, in bytes. Common file systems allow 255.
const MAX_NAME: usize = 200;
/// Folder of the images without a label in a split that has labels.
const UNLABELLED: &str = "unlabelled";

/// Result with this module's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a set was not unpacked. Nothing is there then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A part of the set is damaged or missing.
    #[error("{0}")]
    Unsound(String),
    /// A block of pixels is damaged.
    #[error(transparent)]
    Format(#[from] tinyres_format::Error),
    /// The output directory cannot be made.
    #[error(transparent)]
    Directory(#[from] AtomicDirError),
    /// The output could not be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// An image could not be encoded.
    #[error("cannot encode a PNG: {0}")]
    Encode(#[from] png::EncodingError),
    /// Another thread ended the work.
    #[error("stopped before all images were written")]
    Stopped,
}

/// Result of unpacking.
#[derive(Debug, Serialize)]
pub struct UnpackReport {
    /// The directory.
    #[serde(serialize_with = "crate::text::path")]
    pub output: PathBuf,
    /// Number of classes.
    pub classes: usize,
    /// The splits.
    pub splits: Vec<UnpackedSplit>,
    /// Length of all PNG files in bytes.
    pub bytes: u64,
    /// Time taken, in seconds.
    pub seconds: f64,
}

/// A split that was unpacked.
#[derive(Debug, Serialize)]
pub struct UnpackedSplit {
    /// The split.
    pub split: Split,
    /// Number of images.
    pub images: u64,
    /// Number of images with a box.
    pub boxes: u64,
}

impl fmt::Display for UnpackReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for UnpackedSplit {
            split,
            images,
            boxes,
        } in &self.splits
        {
            writeln!(
                f,
                "{split:<5}  {} images, {} boxes",
                Count(*images),
                Count(*boxes)
            )?;
        }
        let images: u64 = self.splits.iter().map(|split| split.images).sum();
        write!(
            f,
            "{} of {}, {} in {:.2} s\n{}",
            counted(images, "image"),
            counted(self.classes, "class"),
            Bytes(self.bytes),
            self.seconds,
            self.output.display()
        )
    }
}

/// Writes the images of `set` to the directory `output`, which must be missing or empty. Each is compared with its
/// checksum first. Ends early, with [`Error::Stopped`], once `stop` is true.
///
/// # Errors
/// Any damage to the set, or the first failure to write. The directory is as before then.
pub fn unpack<B: AsRef<[u8]> + Sync + Send>(
    set: &Set<B>,
    output: &Path,
    stop: &AtomicBool,
    watch: &mut dyn Observer,
) -> Result<UnpackReport> {
    let began = Instant::now();
    if let Some(problem) = set.problems().first() {
        return Err(Error::Unsound(problem.to_string()));
    }
    let directory = AtomicDir::create(output)?;
    let folders = folders(set.class_list());
    write_classes(directory.path(), set.class_list(), &folders)?;
    let total = set.splits().flat_map(|split| set.of(split));
    watch.on(&Event::Begin {
        task: "unpacking".to_owned(),
        unit: "img",
        total: total.map(|member| member.shard.len() as u64).sum(),
    });
    let mut boxes = set
        .splits()
        .flat_map(|split| set.of(split))
        .flat_map(|it| it.shard.boxes());
    let has_boxes = boxes.any(|sides| sides[0].get() >= 0);
    let columns = if has_boxes {
        IMAGE_COLUMNS.len()
    } else {
        IMAGE_COLUMNS.len() - 4
    };
    let mut done = 0;
    let mut report = UnpackReport {
        output: output.to_owned(),
        classes: folders.len(),
        splits: Vec::new(),
        bytes: 0,
        seconds: 0.0,
    };
    for split in set.splits() {
        let mut job = SplitJob {
            set,
            split,
            path: directory.path().join(split.name()),
            folders: &folders,
            columns,
            stop,
            bytes: 0,
        };
        let unpacked = job.run(|images| {
            let done = done + images;
            watch.on(&Event::Advance { done });
        })?;
        done += unpacked.images;
        report.splits.push(unpacked);
        report.bytes += job.bytes;
    }
    watch.on(&Event::End);
    directory.publish()?;
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

/// State of unpacking one split.
struct SplitJob<'a, B> {
    set: &'a Set<B>,
    split: Split,
    path: PathBuf,
    folders: &'a [String],
    /// The number of columns of the file of images: `datasets` asks that they are the same in all splits.
    columns: usize,
    stop: &'a AtomicBool,
    bytes: u64,
}

/// An image, and the file that it goes to.
struct Row {
    file: String,
    label: i64,
    sides: [i32; 4],
    name: String,
}

impl<B: AsRef<[u8]> + Sync + Send> SplitJob<'_, B> {
    /// Calls `advance` with the number of images written so far.
    fn run(&mut self, mut advance: impl FnMut(u64)) -> Result<UnpackedSplit> {
        let members: Vec<&Member<B>> = self.set.of(self.split).collect();
        let mut labels = members.iter().flat_map(|member| member.shard.labels());
        let is_labelled = labels.any(|label| label.get() >= 0);
        let images: u64 = members.iter().map(|member| member.shard.len() as u64).sum();
        // Equally long numbers: their order as names is that of the images.
        let digits = images.saturating_sub(1).to_string().len();
        let mut folders_made = HashSet::new();
        let mut rows = Vec::new();
        for member in members {
            let shard = &member.shard;
            let named = |error: tinyres_format::Error| error.at(member.path());
            let first = rows.len();
            for at in 0..shard.len() {
                let label = shard.labels()[at].get();
                let number = rows.len();
                let folder = usize::try_from(label)
                    .ok()
                    .and_then(|label| self.folders.get(label));
                let folder = match folder {
                    Some(folder) => Some(folder.as_str()),
                    None => is_labelled.then_some(UNLABELLED),
                };
                if folders_made.insert(folder) {
                    let path = self.path.join(folder.unwrap_or_default());
                    fs::create_dir_all(&path).map_err(output_error(&path))?;
                }
                let folder = folder.map_or_else(String::new, |folder| format!("{folder}/"));
                rows.push(Row {
                    file: format!("{folder}{number:0digits$}.png"),
                    label,
                    sides: shard.boxes()[at].map(|side| side.get()),
                    name: shard
                        .name(at)
                        .transpose()
                        .map_err(named)?
                        .unwrap_or_default()
                        .to_owned(),
                });
            }
            let blocks: Vec<u64> = (0..shard.blocks()).collect();
            for batch in blocks.chunks(usize::try_from(BATCH).unwrap_or(1)) {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Error::Stopped);
                }
                let written = (batch.par_iter()).map(|&block| {
                    let begin = first + usize::try_from(block).unwrap_or(0) * BLOCK_IMAGES;
                    let end = rows.len().min(begin + BLOCK_IMAGES);
                    let mut expander = Expander::new()?;
                    // A copy is checked: the map may lose its pages meanwhile.
                    let pixels = member.block(block, &mut expander).map_err(named)?.to_vec();
                    shard.check_block(block, &pixels).map_err(named)?;
                    let images = pixels.chunks_exact(shard.shape().image_len());
                    (images.zip(&rows[begin..end]))
                        .map(|(pixels, row)| {
                            write_png(&self.path.join(&row.file), shard.shape(), pixels)
                        })
                        .sum::<Result<u64>>()
                });
                self.bytes += written.sum::<Result<u64>>()?;
                let done = batch
                    .last()
                    .map_or(0, |last| (last + 1) * BLOCK_IMAGES as u64);
                advance(images.min(first as u64 + done));
            }
        }
        self.write_rows(&rows)?;
        let boxes = rows.iter().filter(|row| row.sides[0] >= 0).count() as u64;
        let split = self.split;
        Ok(UnpackedSplit {
            split,
            images,
            boxes,
        })
    }

    /// Writes the file of images of the split.
    fn write_rows(&self, rows: &[Row]) -> Result<()> {
        let columns = self.columns;
        let lines = rows.iter().map(|row| {
            let marks = [row.file.clone(), row.label.to_string(), row.name.clone()];
            marks
                .into_iter()
                .chain(row.sides.map(|side| side.to_string()))
                .take(columns)
        });
        let header = IMAGE_COLUMNS[..columns]
            .iter()
            .map(|name| (*name).to_owned());
        write_csv(&self.path.join(IMAGES), header, lines)
    }
}

/// The folder of each class: its id, or its number where the id cannot name a folder, or would hide it from others.
fn folders(classes: &[Class]) -> Vec<String> {
    let is_plain = |id: &str| {
        !id.is_empty()
            && id.len() <= MAX_NAME
            && !id.starts_with('.')
            && !id.ends_with([' ', '.'])
            && !id.contains(|c: char| c.is_control() || "/\\:".contains(c))
            && !["__MACOSX", "__pycache__", UNLABELLED].contains(&id)
    };
    // Some file systems take two names that differ in case for one.
    let mut taken = HashSet::new();
    let folder = |(label, class): (usize, &Class)| {
        let mut folder = class.id.clone();
        while !is_plain(&folder) || !taken.insert(folder.to_lowercase()) {
            folder = match folder.starts_with("class-") {
                true => format!("{folder}_"),
                false => format!("class-{label}"),
            };
        }
        folder
    };
    classes.iter().enumerate().map(folder).collect()
}

fn write_classes(path: &Path, classes: &[Class], folders: &[String]) -> Result<()> {
    let header = CLASS_COLUMNS.map(str::to_owned);
    let lines = classes
        .iter()
        .zip(folders)
        .enumerate()
        .map(|(label, (class, folder))| {
            [
                label.to_string(),
                folder.clone(),
                class.id.clone(),
                class.name.clone(),
            ]
        });
    write_csv(&path.join(CLASSES), header, lines)
}

fn write_csv<L: IntoIterator<Item = String>>(
    path: &Path,
    header: impl IntoIterator<Item = String>,
    lines: impl Iterator<Item = L>,
) -> Result<()> {
    let write = || -> csv::Result<()> {
        let mut table = csv::Writer::from_path(path)?;
        table.write_record(header)?;
        for line in lines {
            table.write_record(line)?;
        }
        Ok(table.flush()?)
    };
    write().map_err(|error| output_error(path)(error.into()).into())
}

/// Writes `pixels`, `u8 [3, height, width]`, as a PNG. Returns the length of the file.
fn write_png(path: &Path, shape: Shape, pixels: &[u8]) -> Result<u64> {
    let (red, rest) = pixels.split_at(pixels.len() / 3);
    let (green, blue) = rest.split_at(red.len());
    let planes = red.iter().zip(green).zip(blue);
    let interleaved: Vec<u8> = planes
        .flat_map(|((red, green), blue)| [*red, *green, *blue])
        .collect();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, shape.width, shape.height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&interleaved)?;
    writer.finish()?;
    fs::write(path, &file).map_err(output_error(path))?;
    Ok(file.len() as u64)
}
