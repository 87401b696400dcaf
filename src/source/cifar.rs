//! CIFAR-10 and CIFAR-100 as their authors publish them: batches of 32 x 32 images, pickled by Python or in
//! the binary version.
//!
//! Source: <https://www.cs.toronto.edu/~kriz/cifar.html>. CIFAR-100 gets its fine labels.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use super::folder::Folder;
use super::pickled::Pickled;
use super::raw::{Layout, Part, Pixels, Raw};
use super::tree::Tree;
use super::{Error, Listing, Order, Problems, ReadError, Split, TreeProblem};
use crate::text::counted;

const LAYOUT: Layout = Layout {
    size: [32, 32],
    order: Order::Planar,
};

/// One of the four published forms.
#[derive(Debug)]
struct Form {
    /// Files by which the form is told.
    marks: &'static [&'static str],
    batches: &'static [(Split, &'static str)],
    /// The file with the names of the classes, and their key in it if it is a pickle.
    names: (&'static str, &'static str),
    /// The key of the labels, or the bytes before the pixels, of which the last is the label.
    labels: Labels,
    classes: usize,
}

#[derive(Debug)]
enum Labels {
    Pickled(&'static str),
    Bytes(u64),
}

const FORMS: &[Form] = &[
    Form {
        marks: &["batches.meta", "data_batch_1"],
        batches: &[
            (Split::Train, "data_batch_1"),
            (Split::Train, "data_batch_2"),
            (Split::Train, "data_batch_3"),
            (Split::Train, "data_batch_4"),
            (Split::Train, "data_batch_5"),
            (Split::Test, "test_batch"),
        ],
        names: ("batches.meta", "label_names"),
        labels: Labels::Pickled("labels"),
        classes: 10,
    },
    Form {
        marks: &["batches.meta.txt", "data_batch_1.bin"],
        batches: &[
            (Split::Train, "data_batch_1.bin"),
            (Split::Train, "data_batch_2.bin"),
            (Split::Train, "data_batch_3.bin"),
            (Split::Train, "data_batch_4.bin"),
            (Split::Train, "data_batch_5.bin"),
            (Split::Test, "test_batch.bin"),
        ],
        names: ("batches.meta.txt", ""),
        labels: Labels::Bytes(1),
        classes: 10,
    },
    Form {
        marks: &["meta", "train", "test"],
        batches: &[(Split::Train, "train"), (Split::Test, "test")],
        names: ("meta", "fine_label_names"),
        labels: Labels::Pickled("fine_labels"),
        classes: 100,
    },
    Form {
        marks: &["fine_label_names.txt", "train.bin"],
        batches: &[(Split::Train, "train.bin"), (Split::Test, "test.bin")],
        names: ("fine_label_names.txt", ""),
        labels: Labels::Bytes(2),
        classes: 100,
    },
];

/// Returns whether the set is CIFAR by the files in its folder.
pub(super) fn is_marked(folder: &Folder) -> bool {
    form_of(folder).is_some()
}

fn form_of(folder: &Folder) -> Option<&'static Form> {
    let is = |form: &&Form| form.marks.iter().all(|mark| folder.has_file(mark));
    FORMS.iter().find(is)
}

/// Opens the set in the root of `tree`, which was opened from `path`, if it is CIFAR.
pub(super) fn open(
    tree: &Tree,
    path: &Path,
    problems: &mut Problems<TreeProblem>,
) -> Result<Option<(Raw, Listing)>, Error> {
    let folder = tree.list("").ok().flatten().unwrap_or_default();
    let form = form_of(&folder);
    form.map(|form| read(form, tree, path, problems))
        .transpose()
}

fn read(
    form: &Form,
    tree: &Tree,
    path: &Path,
    problems: &mut Problems<TreeProblem>,
) -> Result<(Raw, Listing), Error> {
    const REMEDY: &str = "download or unpack it again";
    let table = |file: &str, reason: String| Error::Table {
        path: tree.display_path(file).into(),
        reason,
    };
    let failed = |file: &str, reason: String| table(file, format!("{reason}; {REMEDY}"));
    let unreadable = |file: &str, reason: &ReadError| table(file, reason.with(REMEDY));
    let extent = |file: &str| -> Result<(File, Range<u64>), Error> {
        tree.extent(file)
            .map_err(|reason| unreadable(file, &reason))
    };
    let (names_file, key) = form.names;
    let names = if key.is_empty() {
        let text = tree
            .read(names_file)
            .map_err(|reason| unreadable(names_file, &reason))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let names = text.lines().map(str::trim).filter(|name| !name.is_empty());
        Some(names.map(str::to_owned).collect())
    } else {
        let (file, range) = extent(names_file)?;
        let pickle = Pickled::read(&file, range).map_err(|reason| failed(names_file, reason))?;
        pickle.texts(key)
    };
    let names: Vec<String> = names.unwrap_or_default();
    if names.len() != form.classes {
        let reason = format!(
            "names {}, expected {}",
            counted(names.len(), "class"),
            form.classes
        );
        return Err(failed(names_file, reason));
    }
    let mut parts = Vec::new();
    for &(split, batch) in form.batches {
        let (file, range) = extent(batch)?;
        let ((start, stride), labels) = match form.labels {
            Labels::Pickled(key) => pickled(&file, range, key),
            Labels::Bytes(before) => binary(&file, range, before),
        }
        .map_err(|reason| failed(batch, reason))?;
        let shown = tree.display_path(batch);
        parts.push(Part {
            split,
            labels_shown: shown.clone(),
            shown,
            stamp: tree
                .stamp(batch)
                .map_err(|reason| failed(batch, reason.to_string()))?,
            pixels: Pixels::File { file, start },
            stride,
            layout: LAYOUT,
            rows: labels.len() as u64,
            labels: Some(labels),
        });
    }
    let classes = super::distinct(names);
    Ok(Raw::list(path, parts, Some(classes), problems))
}

/// Offset of the first image and bytes between images, and all labels.
type Batch = ((u64, u64), Vec<i64>);

fn pickled(file: &File, range: Range<u64>, key: &str) -> Result<Batch, String> {
    let pickle = Pickled::read(file, range)?;
    let row = LAYOUT.len() as u64;
    let array = pickle
        .array("data")
        .filter(|array| array.dtype == "|u1" && array.columns == row);
    let array = array.ok_or_else(|| {
        format!("has no array `data` of bytes with {row} columns, as protocols 2 of Python 2 and 4 or 5 of Python 3 write it")
    })?;
    let labels = pickle
        .integers(key, file)
        .ok_or_else(|| format!("has no list of integers `{key}`"))?;
    if labels.len() as u64 != array.rows {
        return Err(format!(
            "has {} for {}",
            counted(labels.len(), "label"),
            counted(array.rows, "image")
        ));
    }
    Ok(((array.place.start, row), labels))
}

fn binary(file: &File, range: Range<u64>, before: u64) -> Result<Batch, String> {
    use std::os::unix::fs::FileExt;

    let stride = before + LAYOUT.len() as u64;
    let len = range.end - range.start;
    if !len.is_multiple_of(stride) {
        return Err(format!("{len} bytes long, expected a multiple of {stride}"));
    }
    let mut labels = Vec::new();
    for row in 0..len / stride {
        let mut label = [0];
        let at = range.start + row * stride + before - 1;
        file.read_exact_at(&mut label, at)
            .map_err(|reason| reason.to_string())?;
        labels.push(label[0].into());
    }
    Ok(((range.start + before, stride), labels))
}
