//! What makes a tar one of samples.

use super::labels;
use super::samples::{Sample, samples};
use crate::source::image_folder;
use crate::source::passed_over::Tally;
use crate::source::read_ahead::ReadAhead;
use crate::source::tar::Tar;
use crate::source::tree::Tree;

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
pub(super) fn is_samples(tree: &Tree) -> bool {
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
        let mut known = ["cls", "class", "json", "jsn"].iter();
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
