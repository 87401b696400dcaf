//! WebDataset: tars whose files come in samples, `KEY.jpg` with `KEY.cls` or `KEY.json`, in one tar or in many
//! (shards). Opening reads the headers of each tar once, and the labels.
//!
//! Sources: `webdataset.tariterators` (what a key is), `webdataset.writer` (`cls`, `json`), and the sets of timm on
//! the Hugging Face Hub (`imagenet1k-train-0000.tar`).

mod classes;
mod labels;
mod samples;
mod shards;

use std::path::{Path, PathBuf};

use self::classes::ClassList;
use self::labels::Label;
pub(super) use self::samples::is_set;
use self::samples::samples;
use self::shards::Shard;
pub(super) use self::shards::{ShardBuffer, Shards};
use super::dir::Dir;
use super::folder::{Folder, join};
use super::names::{extension, natural, split_of};
use super::passed_over::Tally;
use super::read_ahead::ReadAhead;
use super::reader::holds_images;
use super::tar::Tar;
use super::tree::Tree;
use super::{Contents, Error, Item, Problems, Split, TreeProblem};

/// Extensions of shards in a directory.
const SHARDS: [&str; 4] = [".tar", ".tar.gz", ".tgz", ".tar.zst"];
/// Folders of a directory in which shards are looked for.
const MAX_FOLDERS: usize = 16;

/// Opens the samples in `tar`, which was opened from `path`.
pub(super) fn open_tar(
    tar: Tar,
    path: &Path,
    problems: &mut Problems<TreeProblem>,
) -> Result<(Shards, Contents), Error> {
    let mut list = ClassList::default();
    for file in tar.index.list("").unwrap_or_default().files {
        if classes::is_list(&file)
            && let Some(entry) = tar.index.find(&file)
        {
            let mut read_ahead = ReadAhead::default();
            let bytes = tar.read(entry, &mut read_ahead);
            let shown = format!("{}: {file}", tar.path.display());
            list.read(&shown, bytes.map(<[u8]>::to_owned))?;
        }
    }
    let split = path
        .file_name()
        .and_then(|name| split_of(&name.to_string_lossy()));
    let split = split.map_or(Split::Train, |(split, _)| split);
    let mut set = Set::new(false);
    set.add(tar, "", split, problems);
    set.finish(path, list, problems)
}

/// Opens the shards in the directory `tree`, which was opened from `path`, if there are any and no images.
pub(super) fn open_folder(
    tree: &Tree,
    path: &Path,
    problems: &mut Problems<TreeProblem>,
) -> Result<Option<(Shards, Contents)>, Error> {
    let Tree::Dir(dir) = tree else {
        return Ok(None);
    };
    let found = find(dir);
    if found.shards.is_empty() || holds_images(tree, "") {
        return Ok(None);
    }
    let mut set = Set::new(true);
    for (at, (split, file)) in found.shards.iter().enumerate() {
        let mut of_tar = Problems::default();
        let tree = Tree::open(&dir.path(file), &mut of_tar)?;
        if at == 0 && !is_set(&tree) {
            return Ok(None);
        }
        let Tree::Tar(tar) = tree else {
            continue;
        };
        for problem in of_tar.first() {
            problems.push(TreeProblem::Shard {
                file: file.clone(),
                reason: problem.to_string(),
            });
        }
        set.add(tar, stem(file), *split, problems);
    }
    set.notes
        .extend(gaps(found.shards.iter().map(|(_, file)| file.as_str())));
    let mut list = ClassList::default();
    for file in found.others {
        let mut bytes = Vec::new();
        let name = file.rsplit('/').next().unwrap_or(&file);
        if classes::is_list(name) {
            let read = dir.read(&file, &mut bytes).map(|_| bytes);
            list.read(&dir.path(&file).display().to_string(), read)?;
        } else {
            let kind = extension(name);
            set.passed_over.add(&kind, || file.clone());
        }
    }
    Ok(Some(set.finish(path, list, problems)?))
}

/// The shards of a directory, in the order of their images, and its other files.
#[derive(Debug, Default)]
struct Found {
    shards: Vec<(Split, String)>,
    /// Files of the same folders, by path.
    others: Vec<String>,
}

/// Looks for shards in `dir` itself, in folders named like a split, or in one folder of it such as `data`. A
/// folder, or else a shard's own name, tells the split; if none does, all are train, and if some do, the others are
/// not shards.
fn find(dir: &Dir) -> Found {
    let places = |path: &str| {
        let list = |path: &str| dir.list(path).ok().flatten().unwrap_or_default();
        let root = list(path);
        let splits = (root.folders.iter()).filter_map(|name| Some((name, split_of(name)?.0)));
        let mut places: Vec<_> = splits
            .take(MAX_FOLDERS)
            .map(|(name, split)| (join(path, name), Some(split)))
            .map(|(path, split)| (list(&path), path, split))
            .collect();
        places.insert(0, (root, path.to_owned(), None));
        places
    };
    let has_shards = |places: &Vec<(Folder, String, Option<Split>)>| {
        let mut folders = places.iter().map(|(folder, ..)| folder);
        folders.any(|folder| folder.files.iter().any(|file| is_shard(file)))
    };
    let mut found = places("");
    if !has_shards(&found) {
        let folders: Vec<_> = found[0]
            .0
            .folders
            .iter()
            .take(MAX_FOLDERS)
            .cloned()
            .collect();
        let inside = folders.iter().map(|name| places(name)).find(has_shards);
        let Some(inside) = inside else {
            return Found::default();
        };
        found.truncate(1);
        found.extend(inside);
    }
    let mut shards = Vec::new();
    let mut others = Vec::new();
    for (folder, path, split) in &found {
        for file in &folder.files {
            let own = split_of(file).map(|(split, _)| split);
            match is_shard(file) {
                true => shards.push((split.or(own), join(path, file))),
                false => others.push(join(path, file)),
            }
        }
    }
    let any_split = shards.iter().any(|(split, _)| split.is_some());
    let mut found = Found {
        others,
        ..Found::default()
    };
    for (split, file) in shards {
        match split {
            None if any_split => found.others.push(file),
            split => found.shards.push((split.unwrap_or(Split::Train), file)),
        }
    }
    let order = |a: &(Split, String), b: &(Split, String)| a.0.cmp(&b.0).then(natural(&a.1, &b.1));
    found.shards.sort_by(order);
    found
}

fn is_shard(name: &str) -> bool {
    SHARDS.iter().any(|extension| name.ends_with(extension))
}

/// The name of a shard without its extension.
fn stem(file: &str) -> &str {
    let end = SHARDS
        .iter()
        .find_map(|extension| file.strip_suffix(extension));
    end.unwrap_or(file)
}

/// A sentence about shards whose numbers are passed over between others.
fn gaps<'a>(files: impl Iterator<Item = &'a str>) -> Option<String> {
    let numbered = files.filter_map(|file| {
        let stem = stem(file);
        let name = stem.trim_end_matches(|c: char| c.is_ascii_digit());
        Some((name, stem[name.len()..].parse::<u64>().ok()?))
    });
    let mut missing = 0;
    let mut first = None;
    let mut last: Option<(&str, u64)> = None;
    for (name, number) in numbered {
        if let Some((_, before)) = last.filter(|(known, _)| *known == name)
            && number > before + 1
        {
            missing += number - before - 1;
            first.get_or_insert((name, before + 1));
        }
        last = Some((name, number));
    }
    let (name, number) = first?;
    Some(format!(
        "{missing} shards are missing between others, from number {number} of {name}"
    ))
}

/// A set while its shards are read.
#[derive(Debug)]
struct Set {
    sharded: bool,
    shards: Vec<Shard>,
    /// Images with their labels, in the order of the shards.
    found: Vec<(Split, Item, Option<Label>)>,
    names: labels::Names,
    notes: Vec<String>,
    passed_over: Tally,
}

impl Set {
    fn new(sharded: bool) -> Self {
        Self {
            sharded,
            shards: Vec::new(),
            found: Vec::new(),
            names: labels::Names::default(),
            notes: Vec::new(),
            passed_over: Tally::default(),
        }
    }

    /// Adds the samples of `tar`. `stem` tells its images from those of other shards.
    fn add(&mut self, tar: Tar, stem: &str, split: Split, problems: &mut Problems<TreeProblem>) {
        let shown = |key: &str| match self.sharded {
            true => format!("{}: {key}", tar.path.display()),
            false => key.to_owned(),
        };
        let mut images = Vec::new();
        let first = self.found.len();
        let mut read_ahead = ReadAhead::default();
        for sample in samples(&tar, &mut self.passed_over) {
            let split = sample.split().unwrap_or(split);
            let label = match self.names.label(&tar, &sample, &mut read_ahead) {
                Ok(label) => label,
                Err(reason) => {
                    let sample = shown(&sample.key);
                    problems.push(TreeProblem::SampleLabel { sample, reason });
                    continue;
                }
            };
            let (file, entry) = match sample.image() {
                Ok(Some(image)) => image,
                Ok(None) if label.is_some() => {
                    let sample = shown(&sample.key);
                    problems.push(TreeProblem::SampleWithoutImage { sample });
                    continue;
                }
                Ok(None) => {
                    let name = || format!("{}.json", sample.key);
                    self.passed_over.add(".json", name);
                    continue;
                }
                Err(images) => {
                    let sample = shown(&sample.key);
                    problems.push(TreeProblem::SampleOfSeveralImages { sample, images });
                    continue;
                }
            };
            let label = match label {
                Some(Label::Number(..0)) | None if split == Split::Test => None,
                Some(Label::Number(number @ ..0)) => {
                    let reason = format!("label {number}, expected 0 or more");
                    let sample = shown(&sample.key);
                    problems.push(TreeProblem::SampleLabel { sample, reason });
                    continue;
                }
                None => {
                    let sample = shown(&sample.key);
                    problems.push(TreeProblem::SampleWithoutLabel { sample });
                    continue;
                }
                label => label,
            };
            match tar.readable_entry(entry) {
                Ok(entry) => images.push(entry.extent()),
                Err(reason) => {
                    let name = shown(&file);
                    problems.push(TreeProblem::Unreadable { name, reason });
                    continue;
                }
            }
            let name = match (self.sharded, sample.split()) {
                (true, _) => format!("{}/{stem}/{file}", split.name()),
                (false, None) => format!("{}/{file}", split.name()),
                (false, Some(_)) => file,
            };
            let item = Item {
                name,
                label: None,
                bbox: None,
                entry: self.found.len(),
            };
            self.found.push((split, item, label));
        }
        self.shards
            .push(Shard::new(tar, first, images, self.sharded));
    }

    fn finish(
        self,
        path: &Path,
        list: ClassList,
        problems: &mut Problems<TreeProblem>,
    ) -> Result<(Shards, Contents), Error> {
        let labels = self.found.iter().map(|(.., label)| label.as_ref());
        let (classes, labels) = list.classes(path, labels, &self.names)?;
        let mut splits = [Split::Train, Split::Val, Split::Test].map(|split| (split, Vec::new()));
        for ((split, mut item, _), label) in self.found.into_iter().zip(labels) {
            item.label = label;
            splits[split as usize].1.push(item);
        }
        let mut splits = Vec::from(splits);
        splits.retain(|(_, items)| !items.is_empty());
        if problems.is_empty() && !splits.iter().any(|(split, _)| *split == Split::Train) {
            problems.push(TreeProblem::NoImages);
        }
        let shards = Shards {
            path: PathBuf::from(path),
            shards: self.shards,
        };
        let contents = Contents {
            notes: self.notes,
            passed_over: self.passed_over.finish(),
            ..Contents::of_file((classes, splits), "WebDataset")
        };
        Ok((shards, contents))
    }
}
