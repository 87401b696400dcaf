//! The samples of a tar: its files by their keys. A key is the path up to the first dot of the file's name, what
//! follows is the part. Files of a key need not follow each other.

use std::collections::HashMap;

use super::{classes, labels};
use crate::source::Split;
use crate::source::image_folder;
use crate::source::names::{Clarity, extension, is_picture, split_of};
use crate::source::passed_over::Tally;
use crate::source::read_ahead::ReadAhead;
use crate::source::tar::Tar;
use crate::source::tree::Tree;

/// Files with one key. Entries are those of the tar.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub key: String,
    /// The parts that are named like an image.
    images: Vec<(String, usize)>,
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
        if classes::is_list(&path) {
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
        if !(is_picture(&path) || matches!(kind, "cls" | "json" | "jsn")) {
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
            "cls" => sample.cls = Some(entry),
            "json" | "jsn" => sample.json = Some(entry),
            // The part as it is written names the file.
            _ => sample.images.push((path[dot + 1..].to_owned(), entry)),
        }
    }
    samples
}

/// Returns whether `tree` is a tar of samples. Images with `.json` files in class folders are not.
pub(in crate::source) fn is_set(tree: &Tree) -> bool {
    let Tree::Tar(tar) = tree else {
        return false;
    };
    match labelled_by(tar) {
        Some(Labelled::Cls) => true,
        Some(Labelled::Json { depth }) => {
            let root = tar.index.list("").unwrap_or_default();
            depth <= 1 && !image_folder::is_bare(tree, "", &root)
        }
        None => false,
    }
}

/// Returns whether `tree` is a tar of samples, if it is known not to hold class folders.
pub(super) fn is_shard(tree: &Tree) -> bool {
    matches!(tree, Tree::Tar(tar) if labelled_by(tar).is_some())
}

/// What labels the samples of a tar.
#[derive(Clone, Copy, Debug)]
enum Labelled {
    Cls,
    /// With the number of folders in the key.
    Json {
        depth: usize,
    },
}

/// What labels the images of `tar`: a `.cls` of one of them, or else the `.json` of one of the first.
fn labelled_by(tar: &Tar) -> Option<Labelled> {
    const MAX_READ: usize = 100;
    let may_label = |name: &str| {
        let part = name.rsplit('.').next().unwrap_or(name);
        let mut known = ["cls", "json", "jsn"].iter();
        known.any(|known| part.eq_ignore_ascii_case(known))
    };
    if !tar.index.names().any(may_label) {
        return None;
    }
    let samples = samples(tar, &mut Tally::default());
    let mut with_image = samples.iter().filter(|it| !it.images.is_empty());
    if with_image.clone().any(|sample| sample.cls.is_some()) {
        return Some(Labelled::Cls);
    }
    let mut read_ahead = ReadAhead::default();
    let mut is_labelled =
        |sample: &&Sample| matches!(labels::label(tar, sample, &mut read_ahead), Ok(Some(_)));
    let mut first = with_image.by_ref().take(MAX_READ);
    let sample = first.find(|sample| is_labelled(sample))?;
    let depth = sample.key.matches('/').count();
    Some(Labelled::Json { depth })
}
