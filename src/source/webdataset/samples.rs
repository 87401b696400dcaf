//! The samples of a tar: its files by their keys. A key is the path up to the first dot of the file's name, what
//! follows is the part. Files of a key need not follow each other.

use std::collections::HashMap;

use crate::source::Split;
use crate::source::names::{Clarity, extension, is_picture, split_of};
use crate::source::passed_over::Tally;
use crate::source::tar::Tar;

/// Files that list classes, without the extension `.txt` (a name a line) or `.json` (a list, or an object of
/// numbers and names).
const LISTS: [&str; 6] = [
    "classes",
    "classnames",
    "class_names",
    "labels",
    "class_to_idx",
    "imagenet_class_index",
];
/// Files with one key. Entries are those of the tar.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub key: String,
    /// The parts that are named like an image.
    pub images: Vec<(String, usize)>,
    pub cls: Option<usize>,
    pub json: Option<usize>,
}

impl Sample {
    /// The path and entry of its image. One whose part has no dot is preferred: `jpg` to `mask.png`. Fails with the
    /// names of several that are alike.
    pub fn image(&self) -> Result<Option<(String, usize)>, Vec<String>> {
        let is_plain = |image: &&(String, usize)| !image.0.contains('.');
        let mut images: Vec<_> = self.images.iter().filter(is_plain).collect();
        if images.is_empty() {
            images = self.images.iter().collect();
        }
        let path = |part: &str| format!("{}.{part}", self.key);
        match images.as_slice() {
            [] => Ok(None),
            [(part, entry)] => Ok(Some((path(part), *entry))),
            several => Err(several.iter().map(|(part, _)| path(part)).collect()),
        }
    }

    /// The split that the first folder of its key names.
    pub fn split(&self) -> Option<Split> {
        let (folder, _) = self.key.split_once('/')?;
        let (split, clarity) = split_of(folder)?;
        (clarity == Clarity::Word).then_some(split)
    }
}

/// The samples of `tar` in the order of their first files. Counts the parts that are neither an image nor a label.
pub(super) fn samples(tar: &Tar, passed_over: &mut Tally) -> Vec<Sample> {
    let mut files: Vec<_> = tar.index.files().collect();
    files.sort_unstable_by_key(|&(_, entry)| entry);
    let mut places = HashMap::new();
    let mut samples: Vec<Sample> = Vec::new();
    for (path, entry) in files {
        if is_class_list(&path) {
            continue;
        }
        let name = path.rfind('/').map_or(0, |at| at + 1);
        let split = path[name..].find('.').map(|dot| name + dot);
        let Some(dot) = split.filter(|_| !path[name..].starts_with("__")) else {
            passed_over.add(&extension(&path), || path.clone());
            continue;
        };
        let (key, part) = (&path[..dot], path[dot + 1..].to_lowercase());
        let kind = part.rsplit('.').next().unwrap_or(&part);
        if !(is_picture(&path) || matches!(kind, "cls" | "class" | "json" | "jsn")) {
            passed_over.add(&format!(".{part}"), || path.clone());
            continue;
        }
        let place = *places.entry(key.to_owned()).or_insert_with(|| {
            samples.push(Sample {
                key: key.to_owned(),
                ..Sample::default()
            });
            samples.len() - 1
        });
        let sample = &mut samples[place];
        match kind {
            // The library writes both as text.
            "cls" | "class" => sample.cls = Some(entry),
            "json" | "jsn" => sample.json = Some(entry),
            // The part as it is written names the file.
            _ => sample.images.push((path[dot + 1..].to_owned(), entry)),
        }
    }
    samples
}

/// Returns whether a file of this name lists classes.
pub(super) fn is_class_list(name: &str) -> bool {
    let stem = name.strip_suffix(".txt").or(name.strip_suffix(".json"));
    stem.is_some_and(|stem| LISTS.contains(&stem))
}
