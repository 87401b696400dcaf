//! The layout of torchvision's `ImageFolder`, described in the documentation of [`source`](super).

use super::folder::{Folder, join};
use super::names::{is_picture, natural};
use super::tree::Tree;
use super::{Class, Item, Problems, ReadError, Split, TreeProblem};

pub(super) const TRAIN: &str = "train";
const VAL: [&str; 3] = ["val", "valid", "validation"];
const TEST: &str = "test";

/// Maximum depth of folders in a class folder. Deeper ones are a link to a folder above, or not a data set.
const MAX_DEPTH: usize = 8;

/// Returns whether the folder at `path` holds class folders without a `train/`: at least two folders with
/// images in them. One is not enough, since any folder of images looks like that.
pub(super) fn is_bare(tree: &Tree, path: &str, folder: &Folder) -> bool {
    let has_images = |name: &&String| {
        let inside = tree.list(&join(path, name));
        matches!(inside, Ok(Some(inside)) if inside.files.iter().any(|file| is_picture(file)))
    };
    folder.folders.iter().filter(has_images).nth(1).is_some()
}

/// Lists all images, as far as problems allow.
pub(super) fn read(
    tree: &Tree,
    problems: &mut Problems<TreeProblem>,
) -> (Vec<Class>, Vec<(Split, Vec<Item>)>) {
    let mut reader = FolderReader { tree, problems };
    let root = reader.list("");
    if !root.has_folder(TRAIN) {
        let classes = reader.classes("", &root);
        let train = reader.labelled("", &root, &classes);
        return (classes, vec![(Split::Train, train)]);
    }
    let train = reader.list(TRAIN);
    let classes = reader.classes(TRAIN, &train);
    let mut splits = vec![(Split::Train, reader.labelled(TRAIN, &train, &classes))];

    let mut parts = root.files.clone();
    parts.retain(|name| name == TEST || VAL.contains(&name.as_str()));
    reader.refuse_links("", &parts);
    let vals = VAL.iter().filter(|name| root.has_folder(name));
    match *vals.collect::<Vec<_>>() {
        [] => {}
        [val] => {
            let folder = reader.list(val);
            if folder.folders.is_empty() {
                reader.problems.push(TreeProblem::NoClasses {
                    folder: format!("{val}/"),
                });
            }
            splits.push((Split::Val, reader.labelled(val, &folder, &classes)));
        }
        [first, second, ..] => reader.problems.push(TreeProblem::TwoVals { first, second }),
    }
    if root.has_folder(TEST) {
        let folder = reader.list(TEST);
        let items = if folder.folders.is_empty() {
            reader.unlabelled(TEST, folder)
        } else {
            reader.labelled(TEST, &folder, &classes)
        };
        splits.push((Split::Test, items));
    }
    splits.retain(|(_, items)| !items.is_empty());
    (classes, splits)
}

struct FolderReader<'a> {
    tree: &'a Tree,
    problems: &'a mut Problems<TreeProblem>,
}

impl FolderReader<'_> {
    /// A class for each folder of `train`, ordered by the bytes of the names, as Python sorts.
    fn classes(&mut self, path: &str, train: &Folder) -> Vec<Class> {
        if train.folders.is_empty() {
            self.problems.push(TreeProblem::NoClasses {
                folder: format!("{path}/"),
            });
        }
        let class = |name: &String| Class {
            id: name.clone(),
            name: name.clone(),
        };
        train.folders.iter().map(class).collect()
    }

    /// The images in the class folders of `split`, which is the folder at `path`.
    fn labelled(&mut self, path: &str, split: &Folder, classes: &[Class]) -> Vec<Item> {
        let mut items = Vec::new();
        for name in &split.folders {
            let folder = join(path, name);
            let Ok(at) = classes.binary_search_by(|class| class.id.cmp(name)) else {
                self.problems.push(TreeProblem::ClassNotInTrain { folder });
                continue;
            };
            let label = u32::try_from(at).ok();
            let before = (items.len(), self.problems.count());
            let mut found = Vec::new();
            self.collect(&folder, 0, &mut found);
            found.sort_unstable();
            let names = found
                .iter()
                .flat_map(|(folder, files)| files.iter().map(|file| join(folder, file)));
            for name in names {
                items.extend(self.item(name, label));
            }
            if before == (items.len(), self.problems.count()) {
                self.problems.push(TreeProblem::EmptyClassFolder { folder });
            }
        }
        self.refuse_links(path, &split.files);
        for file in split.files.iter().filter(|file| is_picture(file)) {
            self.problems.push(TreeProblem::OutsideClass {
                image: join(path, file),
            });
        }
        items
    }

    fn unlabelled(&mut self, path: &str, mut split: Folder) -> Vec<Item> {
        split.files.retain(|file| is_picture(file));
        split.files.sort_by(|a, b| natural(a, b));
        let item = |file: &String| self.item(join(path, file), None);
        split.files.iter().filter_map(item).collect()
    }

    /// Adds to `found` the folder at `path` and every folder inside it, each with its images.
    fn collect(&mut self, path: &str, depth: usize, found: &mut Vec<(String, Vec<String>)>) {
        if depth > MAX_DEPTH {
            let folder = path.to_owned();
            return self.problems.push(TreeProblem::TooDeep { folder });
        }
        let Folder { folders, mut files } = self.list(path);
        for folder in folders {
            self.collect(&join(path, &folder), depth + 1, found);
        }
        self.refuse_links(path, &files);
        files.retain(|file| is_picture(file));
        found.push((path.to_owned(), files));
    }

    /// Reports links in an archive that are not named like an image. Such a link may replace a folder of
    /// images, and nobody would notice their loss. Links named like an image fail in [`item`](Self::item).
    fn refuse_links(&mut self, path: &str, files: &[String]) {
        for file in files.iter().filter(|file| !is_picture(file)) {
            let name = join(path, file);
            if let Err(reason @ ReadError::Link) = self.tree.find_entry(&name) {
                self.problems.push(TreeProblem::Unreadable { name, reason });
            }
        }
    }

    fn item(&mut self, name: String, label: Option<u32>) -> Option<Item> {
        match self.tree.find_entry(&name) {
            Ok(entry) => Some(Item {
                name,
                label,
                bbox: None,
                entry,
            }),
            Err(reason) => {
                self.problems.push(TreeProblem::Unreadable { name, reason });
                None
            }
        }
    }

    /// The names in a folder that exists, since the listing of its parent contains it.
    fn list(&mut self, path: &str) -> Folder {
        let reason = match self.tree.list(path) {
            Ok(Some(folder)) => return folder,
            Ok(None) => ReadError::Missing,
            Err(reason) => reason,
        };
        let name = format!("{path}/");
        self.problems.push(TreeProblem::Unreadable { name, reason });
        Folder::default()
    }
}
