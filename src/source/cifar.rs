//! CIFAR-10 and CIFAR-100 as their authors publish them: batches of 32 x 32 images, pickled by Python or in
//! the binary version.
//!
//! Source: <https://www.cs.toronto.edu/~kriz/cifar.html>. CIFAR-100 gets its fine labels.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::folder::Folder;
use super::pickle::Pickle;
use super::raw::{Block, Layout, Raw};
use super::tree::Tree;
use super::{Error, Item, Listing, Problems, Split, TreeProblem};

const LAYOUT: Layout = Layout {
    height: 32,
    width: 32,
    channels: 3,
    planar: true,
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

/// Opens the set in `tree`, which was opened from `path`, if it is CIFAR.
pub(super) fn open(
    tree: &mut Tree,
    path: &Path,
    problems: &mut Problems<TreeProblem>,
) -> Result<Option<(Raw, Listing)>, Error> {
    let is = |form: &Form, folder: &Folder| form.marks.iter().all(|mark| folder.has_file(mark));
    let roots = tree.find_roots(|_, folder| FORMS.iter().any(|form| is(form, folder)));
    let [root] = roots.as_slice() else {
        return Ok(None);
    };
    let Ok(Some(folder)) = tree.list(root) else {
        return Ok(None);
    };
    let Some(form) = FORMS.iter().find(|form| is(form, &folder)) else {
        return Ok(None);
    };
    tree.enter(root);
    read(form, tree, path, problems).map(Some)
}

fn read(
    form: &Form,
    tree: &Tree,
    path: &Path,
    problems: &mut Problems<TreeProblem>,
) -> Result<(Raw, Listing), Error> {
    let failed = |file: &str, reason: String| Error::Table {
        path: tree.display_path(file).into(),
        reason: format!("{reason}; download or unpack it again"),
    };
    let extent = |file: &str| -> Result<(File, Range<u64>), Error> {
        tree.extent(file)
            .map_err(|reason| failed(file, reason.to_string()))
    };
    let (names_file, key) = form.names;
    let names = if key.is_empty() {
        let text = tree
            .read(names_file)
            .map_err(|reason| failed(names_file, reason.to_string()))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let names = text.lines().map(str::trim).filter(|name| !name.is_empty());
        Some(names.map(str::to_owned).collect())
    } else {
        let (file, range) = extent(names_file)?;
        let pickle = Pickle::read(&file, range).map_err(|reason| failed(names_file, reason))?;
        pickle.texts(key)
    };
    let names: Vec<String> = names.unwrap_or_default();
    if names.len() != form.classes {
        let reason = format!("names {} classes, expected {}", names.len(), form.classes);
        return Err(failed(names_file, reason));
    }
    let mut raw = Raw {
        path: path.to_owned(),
        blocks: Vec::new(),
    };
    let mut splits: Vec<(Split, Vec<Item>)> = Vec::new();
    let mut first = 0;
    for &(split, batch) in form.batches {
        let (file, range) = extent(batch)?;
        let (block, labels) = match form.labels {
            Labels::Pickled(key) => pickled(&file, range, key),
            Labels::Bytes(before) => binary(&file, range, before),
        }
        .map_err(|reason| failed(batch, reason))?;
        if splits.last().is_none_or(|(last, _)| *last != split) {
            splits.push((split, Vec::new()));
        }
        let Some((_, items)) = splits.last_mut() else {
            continue;
        };
        let shown = tree.display_path(batch);
        let rows = labels.len();
        for (row, label) in labels.into_iter().enumerate() {
            match u32::try_from(label) {
                Ok(label) if (label as usize) < names.len() => items.push(Item {
                    name: format!("{}/{}", split.name(), items.len()),
                    label: Some(label),
                    bbox: None,
                    entry: first + row,
                }),
                _ => problems.push(TreeProblem::Row {
                    file: shown.clone(),
                    row,
                    reason: format!("label {label}, expected less than {}", names.len()),
                }),
            }
        }
        raw.blocks.push(Block {
            shown,
            stamp: tree
                .stamp(batch)
                .map_err(|reason| failed(batch, reason.to_string()))?,
            file: Arc::new(file),
            start: block.0,
            stride: block.1,
            first,
            layout: LAYOUT,
        });
        first += rows;
    }
    splits.retain(|(_, items)| !items.is_empty());
    if problems.is_empty() && !splits.iter().any(|(split, _)| *split == Split::Train) {
        problems.push(TreeProblem::NoImages);
    }
    Ok((raw, (super::distinct(names), splits)))
}

/// Offset of the first image and bytes between images, and all labels.
type Batch = ((u64, u64), Vec<i64>);

fn pickled(file: &File, range: Range<u64>, key: &str) -> Result<Batch, String> {
    let pickle = Pickle::read(file, range)?;
    let row = LAYOUT.len() as u64;
    let array = pickle.array("data").filter(|array| array.columns == row);
    let array = array.ok_or_else(|| {
        format!("has no array `data` of bytes with {row} columns, as protocols 2 of Python 2 and 4 or 5 of Python 3 write it")
    })?;
    let labels = pickle
        .integers(key)
        .ok_or_else(|| format!("has no list of integers `{key}`"))?;
    if labels.len() as u64 != array.rows {
        return Err(format!(
            "has {} labels for {} images",
            labels.len(),
            array.rows
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
