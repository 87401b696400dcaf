//! The layout of torchvision's `ImageFolder`, described in the documentation of [`source`](super).

use std::collections::HashMap;

use super::csv_files::{ClassList, add_boxes};
use super::folder::{Folder, join, shown};
use super::names::{Clarity, is_picture, natural, split_of};
use super::reader::{TreeReader, holds_images, inner, is_output, split_folders};
use super::tree::Tree;
use super::{Class, Contents, Item, Split, TreeProblem};

/// Returns whether the folder at `path` holds class folders without a `train/`: at least two folders with
/// images in them. One is not enough, since any folder of images looks like that.
pub(super) fn is_bare(tree: &Tree, path: &str, folder: &Folder) -> bool {
    let mut classes = folder.folders.iter().filter(|name| {
        let path = join(path, name);
        // `WNID/images/*.JPEG`, as the train/ of Tiny ImageNet has it.
        let images = join(&path, "images");
        has_images(tree, &path) || has_images(tree, &images)
    });
    classes.nth(1).is_some()
}

/// Returns whether the folder at `path` holds splits: a folder that is named like train. A folder `train` is
/// one of several classes instead if it holds images and no folder, and so does a folder that is named like
/// no split. A folder such as `seg_train` must hold class folders.
pub(super) fn is_split(tree: &Tree, path: &str, folder: &Folder) -> bool {
    folder.folders.iter().any(|name| {
        let Some((Split::Train, clarity)) = split_of(name) else {
            return false;
        };
        let train = join(path, name);
        let listed = tree.list(&train).ok().flatten();
        let holds_folders = listed.is_some_and(|folder| !folder.folders.is_empty());
        match clarity {
            Clarity::Part => holds_folders && holds_images(tree, &train),
            Clarity::Word => {
                let is_class =
                    |name: &String| split_of(name).is_none() && has_images(tree, &join(path, name));
                holds_folders || !has_images(tree, &train) || !folder.folders.iter().any(is_class)
            }
        }
    })
}

fn has_images(tree: &Tree, path: &str) -> bool {
    let folder = tree.list(path).ok().flatten();
    folder.is_some_and(|folder| folder.files.iter().any(|file| is_picture(file)))
}

/// Lists all images, as far as problems allow.
pub(super) fn read(reader: &mut TreeReader<'_>) -> Contents {
    let root = reader.list("");
    if !is_split(reader.tree, "", &root) {
        return bare(reader, root);
    }
    let folders = split_folders(reader, &root.folders);
    let inner = |path| inner(reader.tree, path);
    let [train, val, test] = [folders.train, folders.val, folders.test].map(|it| it.map(inner));
    reader.pass_over_root(&root.files);
    let Some(train) = train else {
        reader.problems.push(TreeProblem::NoImages);
        return Contents::default();
    };
    let listed = reader.list(&train);
    let (known, mut items) = train_classes(reader, &train, listed, false);
    let list = ClassList::read(reader, &root, known.clone());
    list.relabel(&known, &mut items);
    let mut splits = vec![(Split::Train, items)];
    if let Some(val) = val {
        let folder = reader.list(&val);
        if folder.folders.is_empty() {
            let folder = shown(&val);
            reader.problems.push(TreeProblem::NoClasses { folder });
        }
        let mut items = labelled(reader, &val, folder, &list.folders);
        add_boxes(reader, &val, &mut items);
        splits.push((Split::Val, items));
    }
    if let Some(test) = test {
        let mut items = test_items(reader, &test, &list.folders);
        add_boxes(reader, &test, &mut items);
        splits.push((Split::Test, items));
    }
    add_boxes(reader, &train, &mut splits[0].1);
    splits.retain(|(_, items)| !items.is_empty());
    Contents {
        classes: list.classes,
        splits,
        train,
        layout: "class folders".to_owned(),
        ..Contents::default()
    }
}

/// Class folders without a `train/`. A `test/` next to them is a split if it holds class folders, or if it
/// holds images and there are two classes without it.
fn bare(reader: &mut TreeReader<'_>, mut root: Folder) -> Contents {
    let mut splits = Vec::new();
    let other = |reader: &TreeReader<'_>, name: &String, split: Split, clarity: Clarity| {
        let others = root.folders.iter().filter(|other| {
            *other != name && split_of(other).is_none() && has_images(reader.tree, other)
        });
        let path = inner(reader.tree, name.clone());
        let holds = reader.peek(&path);
        let folders = (holds.folders.iter()).any(|class| root.has_folder(class));
        let is_test = (split, clarity) == (Split::Test, Clarity::Word);
        let images = is_test && holds.folders.is_empty() && !holds.files.is_empty();
        ((folders || images) && others.count() >= 2).then_some(path)
    };
    for name in &root.folders {
        if let Some((split @ (Split::Val | Split::Test), clarity)) = split_of(name)
            && let Some(path) = other(reader, name, split, clarity)
        {
            splits.push((name.clone(), split, path));
        }
    }
    for (name, split, path) in &splits {
        root.folders.retain(|folder| folder != name);
        reader.notes.push(format!(
            "{} is the {split} split of the class folders next to it",
            shown(path)
        ));
    }
    let (classes, train) = train_classes(reader, "", root, true);
    let mut items = vec![(Split::Train, train)];
    for (_, split, path) in splits {
        let found = match split {
            Split::Test => test_items(reader, &path, &classes),
            _ => {
                let folder = reader.list(&path);
                labelled(reader, &path, folder, &classes)
            }
        };
        items.push((split, found));
    }
    items.sort_by_key(|(split, _)| *split);
    items.retain(|(_, items)| !items.is_empty());
    Contents {
        classes,
        splits: items,
        train: String::new(),
        layout: "class folders without train/".to_owned(),
        ..Contents::default()
    }
}

/// A class for each folder in the folder of `train` at `path`, ordered by the bytes of the names, as Python
/// sorts, and its images. An empty folder is passed over if `bare`: then nothing says that it is a class.
pub(super) fn train_classes(
    reader: &mut TreeReader<'_>,
    path: &str,
    mut train: Folder,
    bare: bool,
) -> (Vec<Class>, Vec<Item>) {
    if train.folders.is_empty() {
        reader.problems.push(TreeProblem::NoClasses {
            folder: shown(path),
        });
    }
    let mut classes: Vec<Class> = Vec::new();
    let mut items = Vec::new();
    for name in &train.folders {
        let folder = join(path, name);
        let before = reader.problems.count();
        let Some(names) = reader.collect(&folder) else {
            continue;
        };
        if names.is_empty() && bare && reader.peek(&folder).is_empty() {
            reader.passed_over.add("empty folder", || folder);
            continue;
        }
        let label = u32::try_from(classes.len()).ok();
        let is_empty = names.is_empty();
        items.extend((names.into_iter()).filter_map(|name| reader.item(name, label, None)));
        if is_empty && before == reader.problems.count() {
            reader
                .problems
                .push(TreeProblem::EmptyClassFolder { folder });
        }
        classes.push(Class {
            id: name.clone(),
            name: name.clone(),
        });
    }
    let mut lower = HashMap::new();
    for class in &classes {
        if let Some(alike) = lower.insert(class.id.to_lowercase(), &class.id) {
            let id = &class.id;
            let note = format!("the classes {alike} and {id} differ only in case");
            reader.notes.push(note);
        }
    }
    reader.keep_pictures(path, &mut train.files);
    reader.outside_class(path, &train.files);
    (classes, items)
}

/// The images in the class folders of a split, which is the folder at `path`.
pub(super) fn labelled(
    reader: &mut TreeReader<'_>,
    path: &str,
    mut split: Folder,
    classes: &[Class],
) -> Vec<Item> {
    let mut items = Vec::new();
    for name in &split.folders {
        let folder = join(path, name);
        let Some(label) = label_of(name, classes) else {
            match reader.peek(&folder) {
                inside if is_output(reader.tree, &folder, &inside, 0) => {
                    reader.passed_over.add("output of tinyres", || folder);
                }
                inside if inside.is_empty() => reader.passed_over.add("empty folder", || folder),
                _ => reader
                    .problems
                    .push(TreeProblem::ClassNotInTrain { folder }),
            }
            continue;
        };
        let before = reader.problems.count();
        let names = reader.collect(&folder).unwrap_or_default();
        if names.is_empty() && before == reader.problems.count() {
            match reader.peek(&folder).is_empty() {
                true => reader.passed_over.add("empty folder", || folder),
                false => reader
                    .problems
                    .push(TreeProblem::EmptyClassFolder { folder }),
            }
        }
        items.extend((names.into_iter()).filter_map(|name| reader.item(name, Some(label), None)));
    }
    reader.keep_pictures(path, &mut split.files);
    reader.outside_class(path, &split.files);
    items
}

/// The label of the class folder `name`: that of the class of this name, or else of the only one that differs
/// in case alone.
fn label_of(name: &str, classes: &[Class]) -> Option<u32> {
    let exact = classes.iter().position(|class| class.id == name);
    let at = exact.or_else(|| {
        let lower = name.to_lowercase();
        let mut alike = (classes.iter().enumerate())
            .filter(|(_, class)| class.id.to_lowercase() == lower)
            .map(|(at, _)| at);
        alike.next().filter(|_| alike.next().is_none())
    });
    u32::try_from(at?).ok()
}

/// The images of the test split at `path`: labelled where it holds class folders, and unlabelled where it
/// holds images alone, or one folder that is named like no class.
pub(super) fn test_items(reader: &mut TreeReader<'_>, path: &str, classes: &[Class]) -> Vec<Item> {
    let mut folder = reader.list(path);
    let images = match folder.folders.as_slice() {
        [] => {
            reader.keep_pictures(path, &mut folder.files);
            let names = folder.files.iter().map(|file| join(path, file));
            names.collect()
        }
        [only] if label_of(only, classes).is_none() => {
            let inside = join(path, only);
            let mut images = reader.collect(&inside).unwrap_or_default();
            reader.keep_pictures(path, &mut folder.files);
            images.extend(folder.files.iter().map(|file| join(path, file)));
            if !images.is_empty() {
                reader.notes.push(format!(
                    "{} is named like no class: its images are packed without labels",
                    shown(&inside)
                ));
            }
            images
        }
        _ => return labelled(reader, path, folder, classes),
    };
    unlabelled(reader, images)
}

/// Items for `images` without labels, in natural order.
pub(super) fn unlabelled(reader: &mut TreeReader<'_>, mut images: Vec<String>) -> Vec<Item> {
    images.sort_by(|a, b| natural(a, b));
    let items = images.into_iter();
    items
        .filter_map(|name| reader.item(name, None, None))
        .collect()
}
