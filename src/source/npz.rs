//! `.npz` files of images and labels as MedMNIST publishes them: `train_images`, `train_labels`, and the
//! same for `val` and `test`. Arrays that are compressed go through a temporary file.
//!
//! Source: `numpy.lib.format` (version 1 to 3 of `.npy`), and MedMNIST's `dataset.py`.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::raw::{Block, Layout, Raw};
use super::tree::Tree;
use super::{Error, Item, Listing, Problems, Split, TreeProblem};

const MAX_CLASSES: u64 = 1 << 16;

/// Opens the arrays in `tree`, which was opened from the file at `path`, if they are a set of images.
pub(super) fn open(
    tree: &Tree,
    path: &Path,
    problems: &mut Problems<TreeProblem>,
) -> Result<Option<(Raw, Listing)>, Error> {
    let is_set = |tree: &Tree| {
        tree.list("")
            .ok()
            .flatten()
            .is_some_and(|root| root.has_file("train_images.npy"))
    };
    if !matches!(tree, Tree::Zip(_)) || !is_set(tree) {
        return Ok(None);
    }
    let mut raw = Raw {
        path: path.to_owned(),
        blocks: Vec::new(),
    };
    let (mut splits, mut first, mut classes) = (Vec::new(), 0, 0);
    for split in [Split::Train, Split::Val, Split::Test] {
        let images = format!("{}_images.npy", split.name());
        if split != Split::Train && tree.find_entry(&images).is_err() {
            continue;
        }
        let failed = |file: &str, reason: String| Error::Table {
            path: tree.display_path(file).into(),
            reason: format!("{reason}; download it again, or write it by numpy.savez_compressed"),
        };
        let array = Array::read(tree, &images).map_err(|reason| failed(&images, reason))?;
        let layout = match array.shape[..] {
            [_, height, width] => layout(height, width, 1),
            [_, height, width, 3] => layout(height, width, 3),
            _ => None,
        };
        let layout = layout.filter(|_| array.dtype == "|u1").ok_or_else(|| {
            failed(
                &images,
                format!(
                    "holds {} {:?}, expected |u1 [N, H, W] or [N, H, W, 3]",
                    array.dtype, array.shape
                ),
            )
        })?;
        let names = format!("{}_labels.npy", split.name());
        let labels = Array::read(tree, &names).map_err(|reason| failed(&names, reason))?;
        let values = labels.integers().map_err(|reason| failed(&names, reason))?;
        let rows = array.shape.first().copied().unwrap_or(0);
        if values.len() as u64 != rows {
            return Err(failed(
                &names,
                format!("{} labels for {rows} images", values.len()),
            ));
        }
        let mut items = Vec::new();
        for (row, label) in values.into_iter().enumerate() {
            if label >= MAX_CLASSES {
                problems.push(TreeProblem::Row {
                    file: tree.display_path(&names),
                    row,
                    reason: format!("label {label}, expected less than {MAX_CLASSES}"),
                });
                continue;
            }
            classes = classes.max(label + 1);
            items.push(Item {
                name: format!("{}/{row}", split.name()),
                label: u32::try_from(label).ok(),
                bbox: None,
                entry: first + row,
            });
        }
        raw.blocks.push(Block {
            shown: tree.display_path(&images),
            stamp: tree
                .stamp(&images)
                .map_err(|reason| failed(&images, reason.to_string()))?,
            file: Arc::new(array.file),
            start: array.data.start,
            stride: layout.len() as u64,
            first,
            layout,
        });
        first += items.len();
        if !items.is_empty() {
            splits.push((split, items));
        }
    }
    if problems.is_empty() && !splits.iter().any(|(split, _)| *split == Split::Train) {
        problems.push(TreeProblem::NoImages);
    }
    let names = (0..classes).map(|label| label.to_string()).collect();
    Ok(Some((raw, (super::distinct(names), splits))))
}

fn layout(height: u64, width: u64, channels: usize) -> Option<Layout> {
    const MAX_SIDE: u64 = 1 << 14;
    let side = |side: u64| {
        usize::try_from(side)
            .ok()
            .filter(|_| (1..=MAX_SIDE).contains(&side))
    };
    Some(Layout {
        height: side(height)?,
        width: side(width)?,
        channels,
        planar: false,
    })
}

/// An array in a file.
struct Array {
    file: File,
    data: Range<u64>,
    dtype: String,
    shape: Vec<u64>,
}

impl Array {
    /// Reads the header of the `.npy` file `name`, and checks that its data is there.
    fn read(tree: &Tree, name: &str) -> Result<Self, String> {
        let (file, range) = tree.extent(name).map_err(|reason| reason.to_string())?;
        let mut head = [0; 12];
        let cut = |_| "not a whole .npy file".to_owned();
        file.read_exact_at(&mut head, range.start).map_err(cut)?;
        let [
            b'\x93',
            b'N',
            b'U',
            b'M',
            b'P',
            b'Y',
            version,
            _,
            l0,
            l1,
            l2,
            l3,
        ] = head
        else {
            return Err("not an .npy file".to_owned());
        };
        let (start, len) = match version {
            1 => (10, u32::from(u16::from_le_bytes([l0, l1]))),
            _ => (12, u32::from_le_bytes([l0, l1, l2, l3])),
        };
        let mut text = vec![0; len.min(1 << 16) as usize];
        file.read_exact_at(&mut text, range.start + start)
            .map_err(cut)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let after = |key: &str| text.split_once(key).map(|(_, after)| after.trim_start());
        let dtype = after("'descr':")
            .and_then(|it| it.split('\'').nth(1))
            .unwrap_or_default();
        let shape = after("'shape':").and_then(|it| it.strip_prefix('(')?.split(')').next());
        let shape: Option<Vec<u64>> = shape.and_then(|shape| {
            let sizes = shape
                .split(',')
                .map(str::trim)
                .filter(|size| !size.is_empty());
            sizes.map(|size| size.parse().ok()).collect()
        });
        let is_c = after("'fortran_order':").is_some_and(|it| it.starts_with("False"));
        let shape = shape
            .filter(|_| is_c)
            .ok_or("its header is not that of an array in C order")?;
        let width: u64 = dtype
            .get(2..)
            .and_then(|width| width.parse().ok())
            .unwrap_or(0);
        let data = range.start + start + u64::from(len)..range.end;
        let needed = shape
            .iter()
            .try_fold(width, |len, &size| len.checked_mul(size));
        if needed.is_none_or(|needed| needed != data.end.saturating_sub(data.start)) {
            return Err(format!("its data is not that of {dtype} {shape:?}"));
        }
        Ok(Self {
            file,
            data,
            dtype: dtype.to_owned(),
            shape,
        })
    }

    /// The values of `[N]` or `[N, 1]` integers, none negative.
    fn integers(&self) -> Result<Vec<u64>, String> {
        let width = match self.dtype.as_str() {
            "|u1" | "|i1" => 1,
            "<u2" | "<i2" => 2,
            "<u4" | "<i4" => 4,
            "<u8" | "<i8" => 8,
            _ => 0,
        };
        if width == 0 || !matches!(self.shape[..], [_] | [_, 1]) {
            return Err(format!(
                "holds {} {:?}, expected integers [N] or [N, 1]",
                self.dtype, self.shape
            ));
        }
        let len =
            usize::try_from(self.data.end - self.data.start).map_err(|error| error.to_string())?;
        let mut bytes = vec![0; len];
        self.file
            .read_exact_at(&mut bytes, self.data.start)
            .map_err(|error| error.to_string())?;
        // A negative number becomes one that is too large for a label.
        let value = |bytes: &[u8]| {
            let mut whole = [0; 8];
            whole[..width].copy_from_slice(bytes);
            u64::from_le_bytes(whole)
        };
        Ok(bytes.chunks_exact(width).map(value).collect())
    }
}
