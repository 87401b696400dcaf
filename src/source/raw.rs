//! Images as raw pixels, one after the other in a file, and their labels: CIFAR, `.npz` files. Files are read by
//! position, so threads share them without a lock, and no row stays in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::zip::Zip;
use super::{
    Class, Item, Listing, Order, Problems, RawImage, ReadError, Split, Stamp, TreeProblem,
};

/// Classes that have no names are called by their numbers, which must be less than this.
const MAX_CLASSES: i64 = 1 << 16;
/// Maximum width and height of an image, in pixels.
const MAX_SIDE: u64 = 1 << 14;

/// Blocks of images of a source, in the order of their rows.
#[derive(Debug)]
pub(super) struct Raw {
    pub path: PathBuf,
    pub blocks: Vec<Block>,
}

/// Rows of one file.
#[derive(Debug)]
pub(super) struct Block {
    /// The path as messages show it.
    pub shown: String,
    pub stamp: Stamp,
    pub pixels: Pixels,
    /// Bytes from one row's pixels to those of the next.
    pub stride: u64,
    /// The number of rows in all blocks before this one.
    pub first: usize,
    pub layout: Layout,
}

/// The place of the pixels of the first row. Offsets are in bytes.
#[derive(Debug)]
pub(super) enum Pixels {
    File { file: File, start: u64 },
    Zipped(Zipped),
}

/// Pixels in a file of a zip. Its checksum is checked, and deflated data inflated to a temporary file, before the
/// first row is read.
#[derive(Debug)]
pub(super) struct Zipped {
    zip: Arc<Zip>,
    entry: usize,
    /// Offset of the first row in the file of the zip.
    start: u64,
    /// True once a thread prepares the file.
    is_begun: AtomicBool,
    /// An open file, and the offset in it of the first row.
    ready: OnceLock<Result<(File, u64), ReadError>>,
}

impl Zipped {
    pub fn is_ready(&self) -> bool {
        self.ready.get().is_some()
    }

    /// Returns true to the first thread that asks, which is then to prepare the file.
    pub fn begin(&self) -> bool {
        !self.is_begun.swap(true, Ordering::Relaxed)
    }

    /// Checks and inflates the file, unless that is done. Waits if another thread is at it.
    fn prepare(&self) -> Result<(&File, u64), ReadError> {
        let ready = self.ready.get_or_init(|| {
            let (file, range) = self.zip.extent(self.entry)?;
            Ok((file, range.start.saturating_add(self.start)))
        });
        match ready {
            Ok((file, start)) => Ok((file, *start)),
            // The system has it, and not the rows.
            Err(ReadError::Io(error)) => Err(ReadError::Io(io::Error::new(
                error.kind(),
                error.to_string(),
            ))),
            Err(ReadError::Temporary(error)) => {
                Err(ReadError::Io(io::Error::other(error.to_string())))
            }
            Err(damage) => Err(ReadError::Row {
                reason: damage.to_string(),
            }),
        }
    }
}

impl Pixels {
    /// Those in the file of `zip` with this entry, of which the first row is at `start`.
    pub fn zipped(zip: Arc<Zip>, entry: usize, start: u64) -> Self {
        Self::Zipped(Zipped {
            zip,
            entry,
            start,
            is_begun: AtomicBool::new(false),
            ready: OnceLock::new(),
        })
    }
}

/// How the pixels of one image lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Width and height in pixels.
    pub size: [u32; 2],
    pub order: Order,
}

impl Layout {
    pub fn new(height: u64, width: u64, order: Order) -> Option<Self> {
        let side = |side: u64| {
            u32::try_from(side)
                .ok()
                .filter(|_| (1..=MAX_SIDE).contains(&side))
        };
        Some(Self {
            size: [side(width)?, side(height)?],
            order,
        })
    }

    /// Rows of `columns` bytes: a square in grey, or the planes of its red, green and blue.
    pub fn of_row(columns: u64) -> Option<Self> {
        let square = |area: u64| {
            let side = area.isqrt();
            (side * side == area).then_some(side)
        };
        if let Some(side) = square(columns) {
            return Self::new(side, side, Order::Grey);
        }
        let side = square(columns / 3).filter(|_| columns.is_multiple_of(3))?;
        Self::new(side, side, Order::Planar)
    }

    /// Length of an image in bytes.
    pub fn len(self) -> usize {
        let [width, height] = self.size;
        width as usize * height as usize * self.order.channels()
    }
}

/// The rows of one file with their labels.
#[derive(Debug)]
pub(super) struct Part {
    pub split: Split,
    pub shown: String,
    pub stamp: Stamp,
    pub pixels: Pixels,
    pub stride: u64,
    pub layout: Layout,
    pub rows: u64,
    /// The label of each row, or none for all.
    pub labels: Option<Vec<i64>>,
    /// The file with the labels, as messages show it.
    pub labels_shown: String,
}

impl Raw {
    /// The rows of `parts` in their order, which are those of the splits, of the source at `path`. Labels are
    /// indices into `classes`, or else the classes are called by their numbers.
    pub fn list(
        path: &Path,
        parts: Vec<Part>,
        classes: Option<Vec<Class>>,
        problems: &mut Problems<TreeProblem>,
    ) -> (Self, Listing) {
        let bound = match &classes {
            Some(classes) => i64::try_from(classes.len()).unwrap_or(i64::MAX),
            None => MAX_CLASSES,
        };
        let mut count = 0;
        let mut blocks = Vec::new();
        let mut splits: Vec<(Split, Vec<Item>)> = Vec::new();
        let mut first = 0;
        for part in parts {
            let split = part.split;
            if splits.last().is_none_or(|(last, _)| *last != split) {
                splits.push((split, Vec::new()));
            }
            let Some((_, items)) = splits.last_mut() else {
                continue;
            };
            let rows = usize::try_from(part.rows).unwrap_or(usize::MAX);
            for row in 0..rows {
                let given = part.labels.as_ref().and_then(|labels| labels.get(row));
                let label = match given {
                    Some(label) if (0..bound).contains(label) => u32::try_from(*label).ok(),
                    None | Some(..0) if split == Split::Test => None,
                    other => {
                        let got = other.map_or("no label".to_owned(), |it| format!("label {it}"));
                        let reason = format!("{got}, expected 0 to {}", bound - 1);
                        let file = part.labels_shown.clone();
                        problems.push(TreeProblem::Row { file, row, reason });
                        continue;
                    }
                };
                count = count.max(label.map_or(0, |label| label + 1));
                items.push(Item {
                    name: format!("{}/{}", split.name(), items.len()),
                    label,
                    bbox: None,
                    entry: first + row,
                });
            }
            blocks.push(Block {
                shown: part.shown,
                stamp: part.stamp,
                pixels: part.pixels,
                stride: part.stride,
                first,
                layout: part.layout,
            });
            first += rows;
        }
        splits.retain(|(_, items)| !items.is_empty());
        if problems.is_empty() && !splits.iter().any(|(split, _)| *split == Split::Train) {
            problems.push(TreeProblem::NoImages);
        }
        let numbered = || super::distinct((0..count).map(|label| label.to_string()).collect());
        let path = path.to_owned();
        let classes = classes.unwrap_or_else(numbered);
        (Self { path, blocks }, (classes, splits))
    }

    /// The image of row `row`, counted over all blocks, whose values are read to `buffer`.
    pub fn read<'a>(&self, row: usize, buffer: &'a mut Vec<u8>) -> Result<RawImage<'a>, ReadError> {
        let at = self.block_at(row);
        let block = &self.blocks[at];
        let (file, start) = self.open(at)?;
        let Layout { size, order } = block.layout;
        buffer.resize(block.layout.len(), 0);
        file.read_exact_at(buffer, start + block.stride * (row - block.first) as u64)
            .map_err(ReadError::Io)?;
        Ok(RawImage {
            size,
            order,
            values: buffer,
        })
    }

    /// The file of block `at`, and the offset in it of the first row. While another thread prepares the block,
    /// prepares those after it, which are needed next.
    fn open(&self, at: usize) -> Result<(&File, u64), ReadError> {
        let block = match &self.blocks[at].pixels {
            Pixels::File { file, start } => return Ok((file, *start)),
            Pixels::Zipped(block) => block,
        };
        if !block.is_ready() && !block.begin() {
            for later in &self.blocks[at + 1..] {
                if let Pixels::Zipped(later) = &later.pixels
                    && !block.is_ready()
                    && later.begin()
                {
                    // An error is kept for those who read a row of it.
                    let _ = later.prepare();
                }
            }
        }
        block.prepare()
    }

    /// Width and height of the image of row `row`.
    pub fn size(&self, row: usize) -> [u32; 2] {
        self.block_of(row).layout.size
    }

    pub fn stamp(&self, row: usize) -> Stamp {
        self.block_of(row).stamp
    }

    pub fn display_row(&self, row: usize) -> String {
        let block = self.block_of(row);
        format!("{}: row {}", block.shown, row - block.first)
    }

    fn block_of(&self, row: usize) -> &Block {
        &self.blocks[self.block_at(row)]
    }

    /// The index of the block that holds row `row`.
    fn block_at(&self, row: usize) -> usize {
        self.blocks.partition_point(|block| block.first <= row) - 1
    }
}
