//! Reading of a tree by a layout: lists folders, makes items, and collects problems, notes and the count of
//! what is passed over. Knows what any layout may meet, and no layout.

use super::folder::{Folder, join, shown};
use super::names::{extension, is_picture, split_of};
use super::passed_over::Tally;
use super::tree::Tree;
use super::{Item, MAX_DEPTH, Problems, ReadError, TreeProblem};

/// What a layout finds in a tree.
#[derive(Debug)]
pub(super) struct TreeReader<'a> {
    pub tree: &'a Tree,
    pub problems: &'a mut Problems<TreeProblem>,
    pub passed_over: Tally,
    /// Sentences about decisions that a person may want to know.
    pub notes: Vec<String>,
}

impl TreeReader<'_> {
    /// The names in a folder that exists, since the listing of its parent contains it. Reports dead links,
    /// and counts what no layout uses.
    pub fn list(&mut self, path: &str) -> Folder {
        let reason = match self.tree.list(path) {
            Ok(Some(folder)) => {
                for link in &folder.dead_links {
                    let link = join(path, link);
                    self.problems.push(TreeProblem::DeadLink { link });
                }
                self.pass_over("hidden", path, &folder.hidden);
                self.pass_over("not a file or folder", path, &folder.special);
                return folder;
            }
            Ok(None) => ReadError::Missing,
            Err(reason) => reason,
        };
        let name = shown(path);
        self.problems.push(TreeProblem::Unreadable { name, reason });
        Folder::default()
    }

    /// The names in a folder, for a look ahead that reports nothing.
    pub fn peek(&self, path: &str) -> Folder {
        self.tree.list(path).ok().flatten().unwrap_or_default()
    }

    /// Counts `names` in the folder at `path` as passed over.
    pub fn pass_over(&mut self, kind: &str, path: &str, names: &[String]) {
        for name in names {
            self.passed_over.add(kind, || join(path, name));
        }
    }

    /// Removes from `files` those that are not named like an image, and counts them by extension.
    pub fn keep_pictures(&mut self, path: &str, files: &mut Vec<String>) {
        files.retain(|file| {
            let keep = is_picture(file);
            if !keep {
                self.pass_over_file(path, file);
            }
            keep
        });
    }

    /// Counts a file by its extension. Reports it if it is a link in an archive: such a link may replace a
    /// folder of images, and nobody would notice their loss.
    pub fn pass_over_file(&mut self, path: &str, file: &str) {
        let name = join(path, file);
        if let Err(reason @ ReadError::Link) = self.tree.find_entry(&name) {
            self.problems.push(TreeProblem::Unreadable { name, reason });
        } else {
            self.passed_over.add(&extension(file), || name);
        }
    }

    /// The images in the folder at `path` and in all folders inside it, sorted by folder and then by name.
    /// `None` if tinyres wrote the folder: then it is passed over.
    pub fn collect(&mut self, path: &str) -> Option<Vec<String>> {
        let mut found = Vec::new();
        if !self.collect_into(path, 0, false, &mut found) {
            return None;
        }
        found.sort_unstable();
        let names = found
            .iter()
            .flat_map(|(folder, files)| files.iter().map(|file| join(folder, file)));
        Some(names.collect())
    }

    /// Adds to `found` the folder at `path` and every folder inside it, each with its images. `linked` says
    /// that it lies in a folder that is a link. Returns false for a folder that tinyres wrote.
    fn collect_into(
        &mut self,
        path: &str,
        depth: usize,
        linked: bool,
        found: &mut Vec<(String, Vec<String>)>,
    ) -> bool {
        if depth > MAX_DEPTH {
            let folder = path.to_owned();
            self.problems.push(TreeProblem::TooDeep { folder });
            return true;
        }
        let linked = linked || self.tree.is_link(path);
        if linked && self.tree.leads_back(path) {
            let folder = path.to_owned();
            self.problems.push(TreeProblem::LinkLoop { folder });
            return true;
        }
        let mut folder = self.list(path);
        if is_output(self.tree, path, &folder, 0) {
            self.passed_over
                .add("output of tinyres", || path.to_owned());
            return false;
        }
        if depth > 0 && folder.is_empty() {
            self.passed_over.add("empty folder", || path.to_owned());
        }
        for name in &folder.folders {
            self.collect_into(&join(path, name), depth + 1, linked, found);
        }
        self.keep_pictures(path, &mut folder.files);
        found.push((path.to_owned(), folder.files));
        true
    }

    /// Counts the files of the root, which belong to no split. Reports a link in an archive that is named
    /// like a split.
    pub fn pass_over_root(&mut self, files: &[String]) {
        for file in files {
            match split_of(file) {
                Some(_) => self.pass_over_file("", file),
                None => self.passed_over.add(&extension(file), || file.clone()),
            }
        }
    }

    /// An item for the image `name`, if it can be read.
    pub fn item(
        &mut self,
        name: String,
        label: Option<u32>,
        bbox: Option<[i32; 4]>,
    ) -> Option<Item> {
        let item = match self.tree.find_entry(&name) {
            Ok(entry) => Ok(Item {
                name,
                label,
                bbox,
                entry,
            }),
            Err(reason) => Err(TreeProblem::Unreadable { name, reason }),
        };
        self.keep(item)
    }

    pub fn keep<T>(&mut self, result: Result<T, TreeProblem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// Reports each of `files` in the folder at `path`, which are images without a class.
    pub fn outside_class(&mut self, path: &str, files: &[String]) {
        for file in files {
            self.problems.push(TreeProblem::OutsideClass {
                image: join(path, file),
            });
        }
    }
}

/// Returns whether tinyres wrote the folder at `path`: a packed set, a killed pack, a training run, or a
/// folder of such.
pub(super) fn is_output(tree: &Tree, path: &str, folder: &Folder, depth: usize) -> bool {
    let is_shard = |file: &String| {
        let stem = file.strip_suffix(".bin").or(file.strip_suffix(".bin.zst"));
        let split = stem.and_then(|stem| stem.rsplit_once('-'));
        split.is_some_and(|(split, _)| ["train", "val", "test"].contains(&split))
    };
    let is_packed = folder.has_file("dataset.json") && folder.files.iter().any(is_shard);
    let is_run = folder.has_file("config.toml") && folder.has_file("metrics.jsonl");
    let is_killed = folder
        .hidden
        .iter()
        .any(|name| name == crate::scratch::STAGING);
    if is_packed || is_run || is_killed {
        return true;
    }
    depth < 2
        && folder.files.is_empty()
        && !folder.folders.is_empty()
        && folder.folders.iter().all(|name| {
            let inside = join(path, name);
            let listed = tree.list(&inside).ok().flatten();
            listed.is_some_and(|folder| is_output(tree, &inside, &folder, depth + 1))
        })
}

/// The folders of a split: where its class folders or images are.
#[derive(Debug)]
pub(super) struct SplitFolders {
    pub train: Option<String>,
    pub val: Option<String>,
    pub test: Option<String>,
}

/// Finds the folders of the splits in the root, which lists `folders`. Counts the others as passed over.
pub(super) fn split_folders(reader: &mut TreeReader<'_>, folders: &[String]) -> SplitFolders {
    let mut found = [const { None::<(_, String)> }; 3];
    for name in folders {
        let place = split_of(name).filter(|(_, clarity)| {
            *clarity == super::names::Clarity::Word || holds_images(reader.tree, name)
        });
        let Some((split, clarity)) = place else {
            let kind = match is_output(reader.tree, name, &reader.peek(name), 0) {
                true => "output of tinyres",
                false => "folder that is not a split",
            };
            reader.passed_over.add(kind, || name.clone());
            continue;
        };
        let known = &mut found[split as usize];
        match known {
            Some((clear, other)) if *clear == clarity => {
                let problem = TreeProblem::TwoSplits {
                    split,
                    first: other.clone(),
                    second: name.clone(),
                };
                reader.problems.push(problem);
            }
            Some((clear, other)) if *clear > clarity => {
                let other = std::mem::replace(other, name.clone());
                *clear = clarity;
                reader
                    .passed_over
                    .add("folder that is not a split", || other);
            }
            Some(_) => reader
                .passed_over
                .add("folder that is not a split", || name.clone()),
            None => *known = Some((clarity, name.clone())),
        }
    }
    let [train, val, test] = found.map(|found| found.map(|(_, name)| name));
    SplitFolders { train, val, test }
}

/// The folder that really holds a split: `seg_train/seg_train`, where `path` is `seg_train` and holds only
/// that folder, of the same name, or named `images`, with class folders in it.
pub(super) fn inner(tree: &Tree, path: String) -> String {
    let Ok(Some(folder)) = tree.list(&path) else {
        return path;
    };
    let [only] = folder.folders.as_slice() else {
        return path;
    };
    let same = |name: &str| split_of(name).map(|(split, _)| split);
    let own = path.rsplit('/').next().unwrap_or(&path);
    let is_same = only == own || same(only) == same(own) || only == "images";
    let inside = join(&path, only);
    let holds_folders =
        matches!(tree.list(&inside), Ok(Some(inside)) if !inside.folders.is_empty());
    match is_same && holds_folders && !folder.files.iter().any(|file| is_picture(file)) {
        true => inside,
        false => path,
    }
}

/// Returns whether there are images in the folder at `path`, up to three levels down.
pub(super) fn holds_images(tree: &Tree, path: &str) -> bool {
    fn search(tree: &Tree, path: &str, depth: usize) -> bool {
        let Ok(Some(folder)) = tree.list(path) else {
            return false;
        };
        folder.files.iter().any(|file| is_picture(file))
            || (depth > 0
                && (folder.folders.iter()).any(|name| search(tree, &join(path, name), depth - 1)))
    }
    search(tree, path, 3)
}
