//! The layout of Tiny ImageNet, described in the documentation of [`source`](super), as it is downloaded and
//! as common scripts leave it: `val` sorted into class folders, `train` flattened, lists removed.

mod annotations;
mod val;

use std::collections::{HashMap, HashSet};

use self::annotations::{BOX_FIELDS, Listed, annotation, numbered, text};
use super::folder::{Folder, join, shown};
use super::image_folder::{test_items, unlabelled};
use super::names::{is_picture, natural};
use super::reader::{TreeReader, is_output, split_folders};
use super::tree::Tree;
use super::{Class, Contents, Item, Location, ReadError, Split, TreeProblem};

pub(super) const WNIDS: &str = "wnids.txt";
pub(super) const WORDS: &str = "words.txt";
const IMAGES: &str = "images";
const VAL_ANNOTATIONS: &str = "val_annotations.txt";

/// Returns whether the tree has this layout: by its lists of classes, or else by a list of boxes in a class
/// folder of `train`, or by the annotations of `val`. `root` are the names in it.
pub(super) fn is_marked(tree: &Tree, root: &Folder) -> bool {
    let has_boxes = |path: &str, folder: &Folder| {
        let mut first = folder.folders.iter().take(3);
        first.any(|wnid| {
            let class = tree.list(&join(path, wnid)).ok().flatten();
            class.is_some_and(|class| class.has_file(&boxes_file(wnid)))
        })
    };
    if root.has_file(WNIDS) || root.has_file(WORDS) || has_boxes("", root) {
        return true;
    }
    root.folders.iter().any(|name| {
        let is_split = super::names::split_of(name).is_some();
        is_split
            && (tree.list(name).ok().flatten())
                .is_some_and(|folder| folder.has_file(VAL_ANNOTATIONS) || has_boxes(name, &folder))
    })
}

fn boxes_file(wnid: &str) -> String {
    format!("{wnid}_boxes.txt")
}

/// Reads all annotations and matches them with the images, as far as problems allow.
pub(super) fn read(reader: &mut TreeReader<'_>) -> Contents {
    let root = reader.list("");
    let mut layout = "Tiny ImageNet".to_owned();
    let known = [WNIDS, WORDS, VAL_ANNOTATIONS];
    let others: Vec<String> = (root.files.iter())
        .filter(|file| !known.contains(&file.as_str()))
        .cloned()
        .collect();
    reader.pass_over_root(&others);
    let is_split = |name: &String| super::names::split_of(name).is_some();
    let has_wnids = root.has_file(WNIDS) || root.has_file(WORDS);
    let (train, val, test) = if has_wnids || root.folders.iter().any(is_split) {
        let folders = split_folders(reader, &root.folders);
        (folders.train, folders.val, folders.test)
    } else {
        layout += ", train/ alone";
        (Some(String::new()), None, None)
    };
    let listed = match &train {
        Some(train) if train.is_empty() => Some(root.clone()),
        Some(train) => Some(reader.list(train)),
        None => {
            let why = "it holds the images to train on; restore it";
            let name = "train/".to_owned();
            reader.problems.push(TreeProblem::Missing { name, why });
            None
        }
    };
    let train = train.unwrap_or_else(|| "train".to_owned());
    let mut annotations = AnnotationReader {
        reader,
        train,
        layout,
    };
    let wnids = annotations.wnids(has_wnids, listed.as_ref());
    let labels = wnids.iter().map(String::as_str).zip(0..).collect();
    let classes = annotations.classes(&wnids, &labels, root.has_file(WORDS));
    let mut splits = vec![(Split::Train, annotations.train(&wnids, listed.as_ref()))];
    if let Some(val) = val {
        splits.push((Split::Val, annotations.val(&val, &root, &wnids, &labels)));
    }
    if let Some(test) = test {
        splits.push((Split::Test, annotations.test(&test, &classes)));
    }
    let AnnotationReader { train, layout, .. } = annotations;
    if reader.problems.is_empty() && splits[0].1.is_empty() {
        reader.problems.push(TreeProblem::NoImages);
    }
    splits.retain(|(_, items)| !items.is_empty());
    Contents {
        classes,
        splits,
        train,
        layout,
        ..Contents::default()
    }
}

struct AnnotationReader<'a, 'b> {
    reader: &'a mut TreeReader<'b>,
    /// The folder of the train split.
    train: String,
    /// Description of the layout so far.
    layout: String,
}

/// The label of each class, by its id.
type Labels<'a> = HashMap<&'a str, u32>;

impl AnnotationReader<'_, '_> {
    /// The ids of the classes, in the order of their labels: those of the list if there is one, or else the
    /// folders of `train`. Uses these, too, if the list is missing but `expected`, so that the search for
    /// other problems can go on.
    fn wnids(&mut self, expected: bool, train: Option<&Folder>) -> Vec<String> {
        let why = "it gives each class its label; restore it, or remove words.txt to number the classes by their sorted ids";
        let text = match expected {
            true => self.text(WNIDS, why),
            false => {
                self.layout += " without wnids.txt (labels are those of the sorted folders)";
                None
            }
        };
        let Some(text) = text else {
            let folders = train.map(|train| train.folders.clone());
            let mut folders = folders.unwrap_or_default();
            folders.retain(|name| {
                let path = join(&self.train, name);
                let is_output = is_output(self.reader.tree, &path, &self.reader.peek(&path), 0);
                if is_output {
                    self.reader.passed_over.add("output of tinyres", || path);
                }
                !is_output
            });
            return folders;
        };
        let mut wnids = Vec::new();
        let mut lines = HashMap::new();
        for (line, wnid) in numbered(&text) {
            let at = Location::new(WNIDS, line);
            let wnid = wnid.to_owned();
            if wnid.is_empty() {
                self.reader.problems.push(TreeProblem::EmptyClass { at });
            } else if let Some(first) = lines.insert(wnid.clone(), line) {
                self.reader
                    .problems
                    .push(TreeProblem::RepeatedClass { at, wnid, first });
            } else {
                wnids.push(wnid.clone());
                if train.is_some_and(|train| !train.has_folder(&wnid)) {
                    self.reader
                        .problems
                        .push(TreeProblem::ClassWithoutFolder { at, wnid });
                }
            }
        }
        for folder in train.iter().flat_map(|train| &train.folders) {
            if !lines.contains_key(folder) {
                self.folder_without_class(join(&self.train, folder));
            }
        }
        wnids
    }

    /// Reports a folder that is named like no class, unless tinyres wrote it or it is empty.
    fn folder_without_class(&mut self, folder: String) {
        let inside = self.reader.peek(&folder);
        let kind = if is_output(self.reader.tree, &folder, &inside, 0) {
            "output of tinyres"
        } else if inside.is_empty() {
            "empty folder"
        } else {
            let problem = TreeProblem::FolderWithoutClass { folder };
            return self.reader.problems.push(problem);
        };
        self.reader.passed_over.add(kind, || folder);
    }

    /// The classes with their names from `words.txt`, if `named`, and with their ids as names otherwise.
    fn classes(&mut self, wnids: &[String], labels: &Labels, named: bool) -> Vec<Class> {
        let text = if named {
            self.text(WORDS, "it names the classes; restore it")
        } else {
            None
        }
        .unwrap_or_default();
        let names: HashMap<_, _> = text
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .filter(|(id, _)| labels.contains_key(id))
            .collect();
        let class = |id: &String| Class {
            name: (*names.get(id.as_str()).unwrap_or(&id.as_str())).to_owned(),
            id: id.clone(),
        };
        wnids.iter().map(class).collect()
    }

    /// The images of `train`, in the order of the classes. Those of a class are in `WNID/images`, or in `WNID`
    /// itself. If no class has a list of boxes, they have none; if some have, all must.
    fn train(&mut self, wnids: &[String], train: Option<&Folder>) -> Vec<Item> {
        let Some(train) = train else {
            return Vec::new();
        };
        if self.train.is_empty() {
            return self.train_classes(wnids, &Folder::default());
        }
        let mut files = train.files.clone();
        let path = self.train.clone();
        self.reader.keep_pictures(&path, &mut files);
        self.reader.outside_class(&path, &files);
        self.train_classes(wnids, train)
    }

    fn train_classes(&mut self, wnids: &[String], train: &Folder) -> Vec<Item> {
        let mut folders = Vec::new();
        for (wnid, label) in wnids.iter().zip(0..) {
            if self.train.is_empty() || train.has_folder(wnid) {
                let path = join(&self.train, wnid);
                let folder = self.reader.list(&path);
                folders.push((wnid, label, path, folder));
            }
        }
        let has_boxes = (folders.iter()).any(|(wnid, .., it)| it.has_file(&boxes_file(wnid)));
        let mut flat = 0;
        let mut items = Vec::new();
        for (wnid, label, path, mut folder) in folders {
            let boxes = boxes_file(wnid);
            let list = join(&path, &boxes);
            let has_images = folder.has_folder(IMAGES);
            let has_direct = folder.files.iter().any(|file| is_picture(file));
            let has_list = folder.has_file(&boxes);
            folder.files.retain(|file| *file != boxes);
            folder.folders.retain(|name| !has_images || name != IMAGES);
            self.reader
                .pass_over("folder that is not used", &path, &folder.folders);
            let (at, folder) = if has_direct && !has_images {
                flat += 1;
                (path, Some(folder))
            } else {
                self.reader.keep_pictures(&path, &mut folder.files);
                self.reader.outside_class(&path, &folder.files);
                let at = join(&path, IMAGES);
                let images = match has_images {
                    true => Some(self.reader.list(&at)),
                    // A dead link is a problem already.
                    false if folder.dead_links.iter().any(|link| link == IMAGES) => None,
                    false => {
                        self.missing(shown(&at), "it holds images that are annotated; restore it")
                    }
                };
                (at, images)
            };
            if has_list || has_boxes {
                let why = "it lists the class's images and their boxes; restore it";
                items.extend(self.annotated(&list, why, &at, folder, BOX_FIELDS, |_| Ok(label)));
            } else if let Some(mut folder) = folder {
                self.reader.keep_pictures(&at, &mut folder.files);
                folder.files.sort_by(|a, b| natural(a, b));
                let items_of = |file: &String| self.reader.item(join(&at, file), Some(label), None);
                items.extend(folder.files.iter().filter_map(items_of));
            }
        }
        if flat > 0 {
            self.layout += ", train/ without images/";
        }
        if !has_boxes {
            self.layout += ", no boxes of train";
        }
        items
    }

    /// The images of the split at `path`, in its folder `images`, in itself, or in class folders.
    fn test(&mut self, path: &str, classes: &[Class]) -> Vec<Item> {
        let folder = self.reader.peek(path);
        let holds_images = folder.files.iter().any(|file| is_picture(file));
        if !holds_images && folder.folders != [IMAGES] {
            let is_class = |name: &String| classes.iter().any(|class| class.id == *name);
            if folder.folders.iter().any(is_class) || folder.folders.len() == 1 {
                return test_items(self.reader, path, classes);
            }
            let why = "it holds the images of test/; restore it, or remove test/ to do without";
            return (self.missing(shown(&join(path, IMAGES)), why)).unwrap_or_default();
        }
        let mut images = Vec::new();
        for at in [path.to_owned(), join(path, IMAGES)] {
            if at == path || folder.has_folder(IMAGES) {
                let mut folder = self.reader.list(&at);
                folder.folders.retain(|name| at != path || name != IMAGES);
                self.reader
                    .pass_over("folder that is not used", &at, &folder.folders);
                self.reader.keep_pictures(&at, &mut folder.files);
                images.extend(folder.files.iter().map(|file| join(&at, file)));
            }
        }
        unlabelled(self.reader, images)
    }

    /// The images in `folder`, whose path is `path`, that the file `list` annotates, in the order of its
    /// lines. `why` says what the file is needed for. `label` returns the label of a line's values, or the
    /// unknown class.
    fn annotated(
        &mut self,
        list: &str,
        why: &'static str,
        path: &str,
        folder: Option<Folder>,
        fields: &'static [&'static str],
        label: impl Fn(&[&str]) -> Result<u32, String>,
    ) -> Vec<Item> {
        let text = self.text(list, why);
        let (Some(text), Some(folder)) = (text, folder) else {
            return Vec::new();
        };
        // Dead links are problems already; that a line names one is no other.
        let dead: HashSet<String> = folder.dead_links.into_iter().collect();
        let files = folder.files.into_iter().chain(dead.iter().cloned());
        let mut listed: Listed = files.map(|name| (name, 0)).collect();
        let mut items = Vec::with_capacity(listed.len());
        for (line, text) in numbered(&text) {
            let at = Location::new(list, line);
            let parsed = annotation(at, text, path, fields, &mut listed, &label);
            if let Some((name, label, bbox)) = self.reader.keep(parsed)
                && (dead.is_empty() || !dead.contains(name.rsplit('/').next().unwrap_or(&name)))
            {
                items.extend(self.reader.item(name, Some(label), Some(bbox)));
            }
        }
        let mut unlisted: Vec<_> = listed
            .into_iter()
            .filter(|(name, line)| *line == 0 && !dead.contains(name))
            .collect();
        unlisted.sort_unstable();
        for (name, _) in unlisted {
            if is_picture(&name) {
                self.reader.problems.push(TreeProblem::Unlisted {
                    image: join(path, &name),
                    list: list.to_owned(),
                });
            } else {
                self.reader.pass_over_file(path, &name);
            }
        }
        items
    }

    /// Reports that the file or folder `name` is missing.
    fn missing<T>(&mut self, name: String, why: &'static str) -> Option<T> {
        self.reader.keep(Err(TreeProblem::Missing { name, why }))
    }

    /// The text of a required file.
    fn text(&mut self, name: &str, why: &'static str) -> Option<String> {
        let text = match self.reader.tree.read(name) {
            Ok(bytes) => text(name, bytes),
            Err(ReadError::Missing) => Err(TreeProblem::Missing {
                name: name.to_owned(),
                why,
            }),
            Err(reason) => Err(TreeProblem::Unreadable {
                name: name.to_owned(),
                reason,
            }),
        };
        self.reader.keep(text)
    }
}
