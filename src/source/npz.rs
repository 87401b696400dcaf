//! `.npz` files of images and labels: MedMNIST's `train_images` and `train_labels`, Keras' `x_train` and
//! `y_train`, a batch of Downsampled ImageNet (`data`, `labels`). An array may have any length: a stored one is
//! read in place, a compressed one goes through a temporary file when its first image is read.
//!
//! Sources: MedMNIST's `dataset.py`, `keras.datasets.mnist`.

use std::path::Path;
use std::sync::Arc;

use super::names::words_of;
use super::passed_over::Tally;
use super::raw::{Layout, Part, Pixels, Raw};
use super::zip::Zip;
use super::{Contents, Error, Order, Problems, ReadError, Split, TreeProblem};
use crate::npy::{MAX_HEAD, Npy};
use crate::text::counted;

/// The names of the images and labels of a split, in any case. `{}` is a word for the split.
const PAIRS: [[&str; 2]; 4] = [
    ["{}_images", "{}_labels"],
    ["x_{}", "y_{}"],
    ["{}_x", "{}_y"],
    ["{}_data", "{}_labels"],
];
/// The same in a file that holds one split, which is train.
const ALONE: [[&str; 2]; 3] = [["images", "labels"], ["data", "labels"], ["x", "y"]];
const SUFFIX: &str = ".npy";

/// Returns whether `zip` is an `.npz` file: it holds arrays and nothing else.
pub(super) fn is_npz(zip: &Zip) -> bool {
    let root = zip.index.list("").unwrap_or_default();
    root.folders.is_empty()
        && !root.files.is_empty()
        && root.files.iter().all(|file| file.ends_with(SUFFIX))
}

/// Opens the arrays in `zip`, which was opened from the file at `path`.
pub(super) fn open(
    zip: Zip,
    path: &Path,
    problems: &mut Problems<TreeProblem>,
) -> Result<(Raw, Contents), Error> {
    let arrays: Vec<String> = zip.index.list("").unwrap_or_default().files;
    let zip = Arc::new(zip);
    let find = |name: &str| {
        let is = |file: &&String| {
            file.strip_suffix(SUFFIX)
                .is_some_and(|it| it.eq_ignore_ascii_case(name))
        };
        arrays.iter().find(is)
    };
    let of_split = |[images, labels]: [&str; 2], split: Split| {
        words_of(split).iter().find_map(|word| {
            let [images, labels] = [images, labels].map(|it| find(&it.replace("{}", word)));
            Some((split, images?, labels))
        })
    };
    let is_whole = |pair: &&[&str; 2]| of_split(**pair, Split::Train).is_some();
    let found: Vec<_> = match PAIRS.iter().find(is_whole) {
        Some(&pair) => ([Split::Train, Split::Val, Split::Test].into_iter())
            .filter_map(|split| of_split(pair, split))
            .collect(),
        None => (ALONE.iter())
            .filter_map(|[images, labels]| Some((Split::Train, find(images)?, find(labels))))
            .take(1)
            .collect(),
    };
    if found.is_empty() {
        let names: Vec<_> = arrays
            .iter()
            .map(|it| it.trim_end_matches(SUFFIX))
            .collect();
        return Err(Error::Table {
            path: path.to_owned(),
            reason: format!(
                "holds the arrays {}; expected train_images and train_labels, x_train and y_train, or images and labels",
                names.join(", ")
            ),
        });
    }
    let mut used: Vec<&String> = Vec::new();
    let mut parts = Vec::new();
    let mut is_downsampled = true;
    for (split, images, labels) in found {
        is_downsampled &= images == "data.npy";
        used.push(images);
        used.extend(labels);
        parts.push(part(&zip, split, images, labels.map(String::as_str))?);
    }
    let mut notes = Vec::new();
    if is_downsampled {
        notes.extend(super::downsampled::count_from_0(&mut parts));
    }
    let mut unused = Tally::default();
    for array in arrays.iter().filter(|array| !used.contains(array)) {
        unused.add("array that is not used", || array.clone());
    }
    let (raw, listing) = Raw::list(path, parts, None, problems);
    let contents = Contents {
        notes,
        passed_over: unused.finish(),
        ..Contents::of_file(listing, "npz")
    };
    Ok((raw, contents))
}

/// The array `images` of `zip` with its labels. Reads its header alone, and all of the labels.
pub(super) fn part(
    zip: &Arc<Zip>,
    split: Split,
    images: &str,
    labels: Option<&str>,
) -> Result<Part, Error> {
    let shown = |file: &str| format!("{}: {file}", zip.path.display());
    const REMEDY: &str = "download it again, or write it by numpy.savez_compressed";
    let table = |file: &str, reason: String| Error::Table {
        path: shown(file).into(),
        reason,
    };
    let failed = |file: &str, reason: String| table(file, format!("{reason}; {REMEDY}"));
    let unreadable = |file: &str, reason: ReadError| table(file, reason.with(REMEDY));
    let header = |file: &str| {
        let entry = zip.index.find(file).ok_or(ReadError::Missing);
        let head = entry.and_then(|entry| zip.head(entry, MAX_HEAD).map(|head| (entry, head)));
        let (entry, (head, len)) = head.map_err(|reason| unreadable(file, reason))?;
        let array = Npy::parse(&head, len).map_err(|reason| failed(file, reason))?;
        Ok::<_, Error>((entry, array))
    };
    let (entry, array) = header(images)?;
    let layout = match array.shape[..] {
        [_, columns] => Layout::of_row(columns),
        [_, height, width] | [_, height, width, 1] | [_, 1, height, width] => {
            Layout::new(height, width, Order::Grey)
        }
        [_, height, width, 3] => Layout::new(height, width, Order::Interleaved),
        [_, 3, height, width] => Layout::new(height, width, Order::Planar),
        _ => None,
    };
    let layout = layout.filter(|_| array.dtype == "|u1").ok_or_else(|| {
        let (dtype, shape) = (&array.dtype, &array.shape);
        let expected = "|u1 [N, H, W], [N, H, W, 3], [N, 3, H, W] or [N, 3 * S * S]";
        failed(
            images,
            format!("holds {dtype} {shape:?}, expected {expected}"),
        )
    })?;
    let rows = array.shape.first().copied().unwrap_or(0);
    let values = match labels {
        Some(labels) => {
            let (entry, array) = header(labels)?;
            let (file, range) = (zip.extent(entry)).map_err(|reason| unreadable(labels, reason))?;
            let values = array.integers(&file, range);
            let values = values.map_err(|reason| failed(labels, reason))?;
            if values.len() as u64 != rows {
                let (found, images) = (counted(values.len(), "label"), counted(rows, "image"));
                return Err(failed(labels, format!("{found} for {images}")));
            }
            Some(values)
        }
        None if split == Split::Test => None,
        None => {
            let reason = "has no labels: expected an array of them next to it".to_owned();
            return Err(failed(images, reason));
        }
    };
    Ok(Part {
        split,
        shown: shown(images),
        stamp: zip.stamp,
        pixels: Pixels::zipped(Arc::clone(zip), entry, array.start),
        stride: layout.len() as u64,
        layout,
        rows,
        labels: values,
        labels_shown: shown(labels.unwrap_or(images)),
    })
}
