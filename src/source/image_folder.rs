//! The layout of torchvision's `ImageFolder`, described in the documentation of [`source`](super).

use super::names::{is_picture, natural};
use super::tree::{Folder, Tree, join};
use super::{Class, Fault, Item, Problem, Problems, Split};

pub(super) const TRAIN: &str = "train";
const VAL: [&str; 3] = ["val", "valid", "validation"];
const TEST: &str = "test";

/// Folders inside each other in the folder of a class, at most: more is a link to a folder that it
/// lies in, or no data set.
const DEEPEST: usize = 8;

/// Whether the folder at `path` holds class folders and nothing says so but the images in them: at
/// least two, since one folder of images is any folder of images.
pub(super) fn is_bare(tree: &Tree, path: &str, folder: &Folder) -> bool {
    let has_images = |name: &&String| {
        let inside = tree.list(&join(path, name));
        matches!(inside, Ok(Some(inside)) if inside.files.iter().any(|file| is_picture(file)))
    };
    folder.folders.iter().filter(has_images).nth(1).is_some()
}

/// Reads the names of all images, as far as problems allow.
pub(super) fn read(
    tree: &Tree,
    problems: &mut Problems<Problem>,
) -> (Vec<Class>, Vec<(Split, Vec<Item>)>) {
    let mut reader = Reader { tree, problems };
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
                reader.problems.push(Problem::NoClasses {
                    folder: format!("{val}/"),
                });
            }
            splits.push((Split::Val, reader.labelled(val, &folder, &classes)));
        }
        [first, second, ..] => reader.problems.push(Problem::TwoVals { first, second }),
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

struct Reader<'a> {
    tree: &'a Tree,
    problems: &'a mut Problems<Problem>,
}

impl Reader<'_> {
    /// A class for each folder of `train`, in the order of their names' bytes, as Python sorts.
    fn classes(&mut self, path: &str, train: &Folder) -> Vec<Class> {
        if train.folders.is_empty() {
            self.problems.push(Problem::NoClasses {
                folder: format!("{path}/"),
            });
        }
        let class = |name: &String| Class {
            id: name.clone(),
            name: name.clone(),
        };
        train.folders.iter().map(class).collect()
    }

    /// The images in the class folders of `split`, which lies at `path`.
    fn labelled(&mut self, path: &str, split: &Folder, classes: &[Class]) -> Vec<Item> {
        let mut items = Vec::new();
        for name in &split.folders {
            let folder = join(path, name);
            let Ok(at) = classes.binary_search_by(|class| class.id.cmp(name)) else {
                self.problems.push(Problem::ClassNotInTrain { folder });
                continue;
            };
            let label = u32::try_from(at).ok();
            let before = (items.len(), self.problems.count());
            let mut found = Vec::new();
            self.walk(&folder, 0, &mut found);
            found.sort_unstable();
            let names = found
                .iter()
                .flat_map(|(folder, files)| files.iter().map(|file| join(folder, file)));
            for name in names {
                items.extend(self.item(name, label));
            }
            if before == (items.len(), self.problems.count()) {
                self.problems.push(Problem::EmptyClassFolder { folder });
            }
        }
        self.refuse_links(path, &split.files);
        for file in split.files.iter().filter(|file| is_picture(file)) {
            self.problems.push(Problem::OutsideClass {
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

    /// The images in `path` and all folders inside it: each folder's path, and its images.
    fn walk(&mut self, path: &str, depth: usize, found: &mut Vec<(String, Vec<String>)>) {
        if depth > DEEPEST {
            let folder = path.to_owned();
            return self.problems.push(Problem::TooDeep { folder });
        }
        let Folder { folders, mut files } = self.list(path);
        for folder in folders {
            self.walk(&join(path, &folder), depth + 1, found);
        }
        self.refuse_links(path, &files);
        files.retain(|file| is_picture(file));
        found.push((path.to_owned(), files));
    }

    /// In an archive a link may stand for a folder of images, whose loss nobody would notice. One
    /// that is called like an image is met as such.
    fn refuse_links(&mut self, path: &str, files: &[String]) {
        for file in files.iter().filter(|file| !is_picture(file)) {
            let name = join(path, file);
            if let Err(fault @ Fault::Link) = self.tree.place(&name) {
                self.problems.push(Problem::Unreadable { name, fault });
            }
        }
    }

    fn item(&mut self, name: String, label: Option<u32>) -> Option<Item> {
        match self.tree.place(&name) {
            Ok(place) => Some(Item {
                name,
                label,
                bbox: None,
                place,
            }),
            Err(fault) => {
                self.problems.push(Problem::Unreadable { name, fault });
                None
            }
        }
    }

    /// The names in a folder that another listing has named.
    fn list(&mut self, path: &str) -> Folder {
        let fault = match self.tree.list(path) {
            Ok(Some(folder)) => return folder,
            Ok(None) => Fault::Missing,
            Err(fault) => fault,
        };
        let name = format!("{path}/");
        self.problems.push(Problem::Unreadable { name, fault });
        Folder::default()
    }
}
