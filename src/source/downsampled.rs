//! Downsampled ImageNet (ImageNet 8x8 to 64x64) as its authors publish it: `train_data_batch_1` and so on, and
//! `val_data`, each an `.npz` file or a pickled dictionary of `data` (`u8 [N, 3 * S * S]`, planes of red, green and
//! blue) and `labels`, which begin at 1.
//!
//! Source: Chrabaszcz, Loshchilov and Hutter 2017, and their `imagenet_resizing` scripts; names of the classes
//! from the devkit's `map_clsloc.txt`.

use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::folder::{Folder, join};
use super::npz;
use super::pickled::Pickled;
use super::raw::{Layout, Part, Pixels, Raw};
use super::tree::Tree;
use super::zip::Zip;
use super::{Class, Contents, Error, Problems, ReadError, Split, TreeProblem};
use crate::text::counted;

const NPZ: &str = ".npz";
/// The file that names the classes: a line `WNID LABEL NAME` for each.
const NAMES: &str = "map_clsloc.txt";

/// A file of rows. Ordered as its rows are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Batch {
    split: Split,
    /// From 1; 0 for a file that has none.
    number: u32,
    path: String,
}

impl Batch {
    /// The batch in the file `name` of the folder at `path`, by the name.
    fn named(path: &str, name: &str) -> Option<Self> {
        let stem = name.strip_suffix(NPZ).unwrap_or(name);
        let (split, number) = match stem {
            "val_data" => (Split::Val, 0),
            "test_data" => (Split::Test, 0),
            _ => {
                let number = stem.strip_prefix("train_data_batch_")?;
                (Split::Train, number.parse().ok()?)
            }
        };
        let path = join(path, name);
        Some(Self {
            split,
            number,
            path,
        })
    }
}

/// Returns whether there are batches in a folder.
pub(super) fn is_marked(folder: &Folder) -> bool {
    let mut files = folder.files.iter();
    files.any(|name| Batch::named("", name).is_some())
}

/// Opens the batches in `roots`, which are folders of `tree`, and in the folders inside them. `tree` was opened
/// from `path`.
pub(super) fn open(
    tree: &Tree,
    roots: &[String],
    path: &Path,
    problems: &mut Problems<TreeProblem>,
) -> Result<(Raw, Contents), Error> {
    let mut batches = Vec::new();
    let mut names = None;
    let list = |path: &str| tree.list(path).ok().flatten().unwrap_or_default();
    for root in roots {
        let inside = (list(root).folders.into_iter()).map(|name| join(root, &name));
        for place in inside.chain([root.clone()]) {
            let folder = list(&place);
            batches.extend((folder.files.iter()).filter_map(|name| Batch::named(&place, name)));
            if folder.has_file(NAMES) {
                names = Some(join(&place, NAMES));
            }
        }
    }
    batches.sort();
    check_numbers(tree, &batches, problems)?;
    // In parallel, since an archive checks or inflates each.
    let parts: Vec<_> = (batches.par_iter())
        .map(|batch| read(tree, batch))
        .collect();
    let mut parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
    let classes = names.map(|file| classes(tree, &file)).transpose()?;
    let mut notes = Vec::new();
    notes.extend(count_from_0(&mut parts));
    let (raw, listing) = Raw::list(path, parts, classes, problems);
    let contents = Contents {
        notes,
        ..Contents::of_file(listing, "Downsampled ImageNet")
    };
    Ok((raw, contents))
}

/// Makes labels that begin at 1 begin at 0, and says so. Labels of which one is 0 begin there already.
pub(super) fn count_from_0(parts: &mut [Part]) -> Option<String> {
    let labels = parts.iter_mut().filter_map(|part| part.labels.as_mut());
    let mut labels: Vec<&mut i64> = labels.flatten().collect();
    let least = labels.iter().map(|label| **label).min()?;
    if least < 1 {
        return None;
    }
    for label in &mut labels {
        **label -= 1;
    }
    Some("labels begin at 1 in the files: class 0 is their label 1".to_owned())
}

/// Reports a batch that is there twice, or one that is missing before others.
fn check_numbers(
    tree: &Tree,
    batches: &[Batch],
    problems: &mut Problems<TreeProblem>,
) -> Result<(), Error> {
    let is_same =
        |pair: &&[Batch]| pair[0].split == pair[1].split && pair[0].number == pair[1].number;
    if let Some([first, second]) = batches.windows(2).find(is_same) {
        let other = tree.display_path(&first.path);
        return Err(Error::Table {
            path: tree.display_path(&second.path).into(),
            reason: format!("holds the same batch as {other}; remove one of the two"),
        });
    }
    let train = batches.iter().filter(|batch| batch.split == Split::Train);
    let mut expected = 1;
    for batch in train {
        for number in expected..batch.number.min(expected + 100) {
            problems.push(TreeProblem::Missing {
                name: format!("train_data_batch_{number}"),
                why: "batches are numbered from 1 without a gap; fetch it, too",
            });
        }
        expected = batch.number + 1;
    }
    Ok(())
}

fn read(tree: &Tree, batch: &Batch) -> Result<Part, Error> {
    let shown = tree.display_path(&batch.path);
    let failed = |reason: String| Error::Table {
        path: shown.clone().into(),
        reason: format!("{reason}; download or unpack it again"),
    };
    let unreadable = |reason: ReadError| Error::Table {
        path: shown.clone().into(),
        reason: reason.with("download or unpack it again"),
    };
    let (file, range) = tree.extent(&batch.path).map_err(unreadable)?;
    let stamp = (tree.stamp(&batch.path)).map_err(|reason| failed(reason.to_string()))?;
    if batch.path.ends_with(NPZ) {
        let mut problems = Problems::default();
        let zip = Zip::within(shown.clone().into(), file, range, stamp, &mut problems)?;
        if !problems.is_empty() {
            let tree = shown;
            return Err(Error::Tree { tree, problems });
        }
        return npz::part(&Arc::new(zip), batch.split, "data.npy", Some("labels.npy"));
    }
    let pickle = Pickled::read(&file, range).map_err(failed)?;
    let array = pickle.array("data").filter(|array| array.dtype == "|u1");
    let layout = (array.as_ref()).and_then(|array| Layout::of_row(array.columns));
    let Some((array, layout)) = array.zip(layout) else {
        let reason =
            "has no array `data` of bytes with 3 * S * S columns, as protocols 3 to 5 write it"
                .to_owned();
        return Err(failed(reason));
    };
    let labels = (pickle.integers("labels", &file))
        .ok_or_else(|| failed("has no list of integers `labels`".to_owned()))?;
    if labels.len() as u64 != array.rows {
        let labels = counted(labels.len(), "label");
        let images = counted(array.rows, "image");
        return Err(failed(format!("has {labels} for {images}")));
    }
    Ok(Part {
        split: batch.split,
        labels_shown: shown.clone(),
        shown: shown.clone(),
        stamp,
        pixels: Pixels::File {
            file,
            start: array.place.start,
        },
        stride: layout.len() as u64,
        layout,
        rows: array.rows,
        labels: Some(labels),
    })
}

/// The classes in the order of their labels.
fn classes(tree: &Tree, file: &str) -> Result<Vec<Class>, Error> {
    let failed = |reason: String| Error::Table {
        path: tree.display_path(file).into(),
        reason: format!("{reason}; restore the file, or remove it to call classes by numbers"),
    };
    let bytes = tree
        .read(file)
        .map_err(|reason| failed(reason.to_string()))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut classes = Vec::new();
    for (at, line) in (1..).zip(text.lines().filter(|line| !line.trim().is_empty())) {
        let mut fields = line.split_whitespace();
        let fields = [fields.next(), fields.next(), fields.next()];
        let [Some(wnid), Some(label), Some(name)] = fields else {
            return Err(failed(format!("line {at}: expected WNID LABEL NAME")));
        };
        let label: usize = label
            .parse()
            .map_err(|_| failed(format!("line {at}: label {label:?}")))?;
        classes.push((label, wnid.to_owned(), name.replace('_', " ")));
    }
    classes.sort();
    if !classes
        .iter()
        .map(|(label, ..)| *label)
        .eq(1..=classes.len())
    {
        return Err(failed("expected each label from 1 once".to_owned()));
    }
    let class = |(_, id, name)| Class { id, name };
    Ok(classes.into_iter().map(class).collect())
}
