//! WebDataset: tars whose files come in samples, `KEY.jpg` with `KEY.cls` or `KEY.json`, in one tar or in many
//! (shards). Opening reads the headers of each tar once, and the labels.
//!
//! Sources: `webdataset.tariterators` (what a key is), `webdataset.writer` (`cls`, `json`), and the sets of timm on
//! the Hugging Face Hub (`imagenet1k-train-0000.tar`).

mod classes;
mod labels;
mod recognition;
mod samples;
mod shards;

use std::path::Path;

use rayon::prelude::*;

use self::classes::ClassList;
use self::labels::{Label, Names};
pub(super) use self::recognition::is_set;
use self::samples::{is_class_list, samples};
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
use crate::text::counted;

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
        if is_class_list(&file)
            && let Some(entry) = tar.index.find(&file)
        {
            let mut read_ahead = ReadAhead::default();
            let bytes = tar.read(entry, &mut read_ahead);
            let shown = format!("{}: {file}", tar.path.display());
            list.read(&shown, bytes.map(<[u8]>::to_owned))?;
        }
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let split = split_of(&name).map_or(Split::Train, |(split, _)| split);
    let listed = Listed::of(tar, None, split);
    finish(
        path,
        vec![listed],
        list,
        Vec::new(),
        Tally::default(),
        problems,
    )
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
    let Some((_, first)) = found.shards.first() else {
        return Ok(None);
    };
    if holds_images(tree, "")
        || !recognition::is_samples(&Tree::open(&dir.path(first), &mut Problems::default())?)
    {
        return Ok(None);
    }
    let listed: Result<Vec<_>, Error> = (found.shards.par_iter())
        .map(|(split, file)| {
            let mut of_tar = Problems::default();
            let Tree::Tar(tar) = Tree::open(&dir.path(file), &mut of_tar)? else {
                return Err(Error::Table {
                    path: dir.path(file),
                    reason: "not a tar; remove it, or make a tar of it".to_owned(),
                });
            };
            let mut listed = Listed::of(tar, Some(stem(file)), *split);
            listed
                .problems
                .extend(of_tar.first().iter().map(|problem| TreeProblem::Shard {
                    file: file.clone(),
                    reason: problem.to_string(),
                }));
            Ok(listed)
        })
        .collect();
    let listed = listed?;
    let mut list = ClassList::default();
    let mut passed_over = Tally::default();
    for file in found.others {
        let name = file.rsplit('/').next().unwrap_or(&file);
        if is_class_list(name) {
            let mut bytes = Vec::new();
            let read = dir.read(&file, &mut bytes).map(|_| bytes);
            list.read(&dir.path(&file).display().to_string(), read)?;
        } else {
            passed_over.add(&extension(name), || file.clone());
        }
    }
    let gaps = gaps(found.shards.iter().map(|(_, file)| file.as_str()));
    let notes = gaps.into_iter().collect();
    finish(path, listed, list, notes, passed_over, problems).map(Some)
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
    let missing = counted(missing, "shard");
    Some(format!(
        "{missing} missing between others, from number {number} of {name}"
    ))
}

/// What one tar holds.
#[derive(Debug)]
struct Listed {
    shard: Shard,
    /// Images with their labels, in the order of the tar.
    found: Vec<(Split, Item, Option<Label>)>,
    names: Names,
    passed_over: Tally,
    problems: Vec<TreeProblem>,
}

impl Listed {
    /// Reads the samples of `tar`. `stem` tells its images from those of other shards; `None` for a tar alone.
    fn of(tar: Tar, stem: Option<&str>, split: Split) -> Self {
        let shown = |name: &str| match stem {
            Some(_) => format!("{}: {name}", tar.path.display()),
            None => name.to_owned(),
        };
        let mut images = Vec::new();
        let mut found = Vec::new();
        let mut names = Names::default();
        let mut passed_over = Tally::default();
        let mut problems = Vec::new();
        let mut read_ahead = ReadAhead::default();
        for sample in samples(&tar, &mut passed_over) {
            let split = sample.split().unwrap_or(split);
            let key = shown(&sample.key);
            let label = match names.label(&tar, &sample, &mut read_ahead) {
                Ok(label) => label,
                Err(reason) => {
                    problems.push(TreeProblem::SampleLabel { key, reason });
                    continue;
                }
            };
            let (file, entry) = match sample.image() {
                Ok(Some(image)) => image,
                Ok(None) if label.is_some() => {
                    problems.push(TreeProblem::SampleWithoutImage { key });
                    continue;
                }
                Ok(None) => {
                    passed_over.add(".json", || format!("{}.json", sample.key));
                    continue;
                }
                Err(images) => {
                    problems.push(TreeProblem::SampleOfSeveralImages { key, images });
                    continue;
                }
            };
            let label = match label {
                Some(Label::Number(..0)) | None if split == Split::Test => None,
                Some(Label::Number(number @ ..0)) => {
                    let reason = format!("label {number}, expected 0 or more");
                    problems.push(TreeProblem::SampleLabel { key, reason });
                    continue;
                }
                None => {
                    problems.push(TreeProblem::SampleWithoutLabel { key });
                    continue;
                }
                label => label,
            };
            let range = match tar.readable_entry(entry) {
                Ok(entry) => entry.extent(),
                Err(reason) => {
                    let name = shown(&file);
                    problems.push(TreeProblem::Unreadable { name, reason });
                    continue;
                }
            };
            let name = match (stem, sample.split()) {
                (Some(stem), _) => format!("{}/{stem}/{file}", split.name()),
                (None, None) => format!("{}/{file}", split.name()),
                (None, Some(_)) => file,
            };
            let item = Item {
                name,
                label: None,
                bbox: None,
                entry: images.len(),
            };
            images.push(range);
            found.push((split, item, label));
        }
        Self {
            shard: Shard::new(tar, images, stem.is_some()),
            found,
            names,
            passed_over,
            problems,
        }
    }
}

/// Puts the shards together.
fn finish(
    path: &Path,
    listed: Vec<Listed>,
    list: ClassList,
    notes: Vec<String>,
    mut passed_over: Tally,
    problems: &mut Problems<TreeProblem>,
) -> Result<(Shards, Contents), Error> {
    let mut shards = Vec::new();
    let mut found = Vec::new();
    let mut names = Names::default();
    for mut listed in listed {
        listed.shard.first = found.len();
        let first = found.len();
        found.extend(listed.found.into_iter().map(|(split, item, label)| {
            let entry = first + item.entry;
            (split, Item { entry, ..item }, label)
        }));
        shards.push(listed.shard);
        names.add(listed.names);
        passed_over.merge(listed.passed_over);
        for problem in listed.problems {
            problems.push(problem);
        }
    }
    let labels = found.iter().map(|(.., label)| label.as_ref());
    let (classes, labels) = list.classes(path, labels, &names)?;
    let mut splits = [Split::Train, Split::Val, Split::Test].map(|split| (split, Vec::new()));
    for ((split, item, _), label) in found.into_iter().zip(labels) {
        splits[split as usize].1.push(Item { label, ..item });
    }
    let mut splits = Vec::from(splits);
    splits.retain(|(_, items)| !items.is_empty());
    if problems.is_empty() && !splits.iter().any(|(split, _)| *split == Split::Train) {
        problems.push(match splits.is_empty() {
            true => TreeProblem::NoImages,
            false => TreeProblem::Missing {
                name: "train-*.tar".to_owned(),
                why: "all shards are of other splits by their names; add those of train, or rename some",
            },
        });
    }
    let path = path.to_owned();
    let contents = Contents {
        notes,
        passed_over: passed_over.finish(),
        ..Contents::of_file((classes, splits), "WebDataset")
    };
    Ok((Shards { path, shards }, contents))
}
