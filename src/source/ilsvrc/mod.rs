//! ImageNet as the ILSVRC has it, Kaggle's zip or the official tree, described in the documentation of
//! [`source`](super): `Data/CLS-LOC`, boxes in `Annotations/CLS-LOC`, Kaggle's lists next to both.

mod annotations;

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use self::annotations::Annotation;
use super::folder::{Folder, join, shown};
use super::image_folder::unlabelled;
use super::names::natural;
use super::reader::{TreeReader, is_output};
use super::tree::{ReadBuffer, Tree};
use super::{Class, Contents, Item, Location, ReadError, Split, TreeProblem};
use crate::text::counted;

/// The folder that holds `Data` and `Annotations`; it may be the root itself.
const TOP: &str = "ILSVRC";
const SET: &str = "CLS-LOC";
/// Kaggle's files next to `ILSVRC`.
const NAMES: &str = "LOC_synset_mapping.txt";
const SOLUTIONS: [(Split, &str); 2] = [
    (Split::Train, "LOC_train_solution.csv"),
    (Split::Val, "LOC_val_solution.csv"),
];

/// Returns whether the folder at `path` has this layout.
pub(super) fn is_marked(tree: &Tree, path: &str, folder: &Folder) -> bool {
    top(tree, path, folder).is_some()
}

/// The folder with `Data` and `Annotations`: `path`, or `ILSVRC` in it.
fn top(tree: &Tree, path: &str, folder: &Folder) -> Option<String> {
    let has_set = |top: &str| {
        let data = tree.list(&join(top, "Data")).ok().flatten();
        data.is_some_and(|data| data.has_folder(SET))
    };
    if folder.has_folder(TOP) {
        Some(join(path, TOP)).filter(|top| has_set(top))
    } else {
        folder
            .has_folder("Data")
            .then(|| path.to_owned())
            .filter(|top| has_set(top))
    }
}

/// Lists all images and reads their annotations, as far as problems allow.
pub(super) fn read(reader: &mut TreeReader<'_>) -> Contents {
    let root = reader.list("");
    let Some(top) = top(reader.tree, "", &root) else {
        return Contents::default();
    };
    let lists = [NAMES, SOLUTIONS[0].1, SOLUTIONS[1].1];
    pass_over(reader, "", &root, &[TOP, "Data", "Annotations"], &lists);
    if !top.is_empty() {
        let folder = reader.list(&top);
        pass_over(reader, &top, &folder, &["Data", "Annotations"], &[]);
    }
    let place = join(&top, "Data");
    let folder = reader.list(&place);
    pass_over(reader, &place, &folder, &[SET], &[]);
    let data = join(&place, SET);
    let splits = reader.list(&data);
    pass_over(reader, &data, &splits, &["train", "val", "test"], &[]);
    if !splits.has_folder("train") {
        let name = shown(&join(&data, "train"));
        let why = "it holds the images to train on; restore it";
        reader.problems.push(TreeProblem::Missing { name, why });
        return Contents::default();
    }
    let train = join(&data, "train");
    let mut listed = reader.list(&train);
    reader.keep_pictures(&train, &mut listed.files);
    reader.outside_class(&train, &listed.files);
    let mut folders = listed.folders;
    folders.retain(|name| {
        let path = join(&train, name);
        let is_output = is_output(reader.tree, &path, &reader.peek(&path), 0);
        if is_output {
            reader.passed_over.add("output of tinyres", || path);
        }
        !is_output
    });
    let classes = classes(reader, &folders, root.has_file(NAMES));
    let labels: Labels = (classes.iter().map(|class| class.id.clone()))
        .zip(0..)
        .collect();
    let annotations = join(&top, &join("Annotations", SET));
    let mut set = Set {
        reader,
        root,
        annotations,
        classes,
        labels,
    };
    let mut found = Vec::new();
    for wnid in &folders {
        let folder = join(&train, wnid);
        let Some(names) = set.reader.collect(&folder) else {
            continue;
        };
        if names.is_empty() {
            set.reader
                .problems
                .push(TreeProblem::EmptyClassFolder { folder });
        }
        let label = set.labels.get(wnid).copied();
        found.extend(names.into_iter().map(|name| (name, label)));
    }
    let mut items = vec![(Split::Train, set.annotated(Split::Train, found))];
    if splits.has_folder("val") {
        items.push((Split::Val, set.val(&join(&data, "val"))));
    }
    let Set { classes, .. } = set;
    if splits.has_folder("test") {
        let images = reader.collect(&join(&data, "test")).unwrap_or_default();
        items.push((Split::Test, unlabelled(reader, images)));
    }
    items.retain(|(_, items)| !items.is_empty());
    Contents {
        classes,
        splits: items,
        train,
        layout: "ILSVRC".to_owned(),
        ..Contents::default()
    }
}

/// Counts what the folder at `path` holds but for these folders and files.
fn pass_over(
    reader: &mut TreeReader<'_>,
    path: &str,
    folder: &Folder,
    folders: &[&str],
    files: &[&str],
) {
    let is_other = |known: &[&str], name: &&String| !known.contains(&name.as_str());
    for name in folder.folders.iter().filter(|name| is_other(folders, name)) {
        let kind = "folder that is not used";
        reader.passed_over.add(kind, || join(path, name));
    }
    for name in folder.files.iter().filter(|name| is_other(files, name)) {
        reader.pass_over_file(path, name);
    }
}

/// A class for each folder of `train`, sorted by id as in torchvision, with its name from Kaggle's list.
fn classes(reader: &mut TreeReader<'_>, wnids: &[String], named: bool) -> Vec<Class> {
    let text = match named {
        true => text(reader, NAMES).unwrap_or_default(),
        false => String::new(),
    };
    let names: HashMap<_, _> = (text.lines())
        .filter_map(|line| line.trim().split_once(char::is_whitespace))
        .collect();
    let unused = names.keys().filter(|id| {
        wnids
            .binary_search_by(|wnid| wnid.as_str().cmp(id))
            .is_err()
    });
    match unused.count() {
        0 => {}
        count => reader.notes.push(format!(
            "{} of {NAMES} without a folder in train/, so without a label",
            counted(count, "class")
        )),
    }
    let class = |id: &String| Class {
        name: names
            .get(id.as_str())
            .map_or(id.as_str(), |name| name.trim())
            .to_owned(),
        id: id.clone(),
    };
    wnids.iter().map(class).collect()
}

/// The text of a file in the root.
fn text(reader: &mut TreeReader<'_>, file: &str) -> Option<String> {
    let read = reader
        .tree
        .read(file)
        .map_err(|reason| TreeProblem::Unreadable {
            name: file.to_owned(),
            reason,
        });
    let bytes = reader.keep(read)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        let at = Location::new(file, line);
        TreeProblem::NotText { at }
    });
    reader.keep(text)
}

/// The label of each class, by its id.
type Labels = HashMap<String, u32>;

struct Set<'a, 'b> {
    reader: &'a mut TreeReader<'b>,
    /// The names in the root.
    root: Folder,
    /// The folder of the XML files.
    annotations: String,
    classes: Vec<Class>,
    labels: Labels,
}

impl Set<'_, '_> {
    /// The images of `val`: all in one folder, or in class folders, which label them then.
    fn val(&mut self, path: &str) -> Vec<Item> {
        let mut folder = self.reader.list(path);
        let mut found = Vec::new();
        for wnid in std::mem::take(&mut folder.folders) {
            let inside = join(path, &wnid);
            let label = self.labels.get(&wnid).copied();
            if label.is_none() {
                let folder = inside.clone();
                self.reader
                    .problems
                    .push(TreeProblem::ClassNotInTrain { folder });
                continue;
            }
            let names = self.reader.collect(&inside).unwrap_or_default();
            found.extend(names.into_iter().map(|name| (name, label)));
        }
        self.reader.keep_pictures(path, &mut folder.files);
        folder.files.sort_by(|a, b| natural(a, b));
        found.extend(folder.files.iter().map(|file| (join(path, file), None)));
        self.annotated(Split::Val, found)
    }

    /// Items of the images `found` in a split, with their boxes. One without a label gets that of its annotation.
    fn annotated(&mut self, split: Split, found: Vec<(String, Option<u32>)>) -> Vec<Item> {
        let folder = join(&self.annotations, split.name());
        let mut files = self.xml_files(&folder);
        let solution = self.solution(split, files.is_empty());
        let solution = solution
            .as_deref()
            .map_or(Ok(HashMap::new()), annotations::solution);
        let solution = solution.unwrap_or_else(|(line, reason)| {
            let file = SOLUTIONS
                .iter()
                .find(|(of, _)| *of == split)
                .map_or("", |it| it.1);
            let file = format!("{file}:{line}");
            self.reader
                .problems
                .push(TreeProblem::Annotation { file, reason });
            HashMap::new()
        });
        let images: Vec<_> = (found.into_iter())
            .map(|(name, label)| {
                let xml = files.remove(stem(&name));
                (name, label, xml)
            })
            .collect();
        let tree = self.reader.tree;
        let parsed: Vec<_> = (images.par_iter())
            .map_init(ReadBuffer::default, |buffer, (.., xml)| {
                xml.as_deref().map(|xml| parse(tree, xml, buffer))
            })
            .collect();
        let mut counts = Counts::default();
        let mut items = Vec::new();
        for ((name, label, xml), parsed) in images.into_iter().zip(parsed) {
            let listed = solution.get(stem(&name));
            let own = match parsed {
                Some(Ok(annotation)) => Some(annotation),
                Some(Err(reason)) => {
                    let file = xml.unwrap_or_default();
                    self.reader
                        .problems
                        .push(TreeProblem::Annotation { file, reason });
                    continue;
                }
                None => None,
            };
            let annotation = own.as_ref().or(listed);
            let class = match label {
                Some(label) => self
                    .classes
                    .get(label as usize)
                    .map(|class| class.id.clone()),
                None => {
                    // All objects of an image of val are of its class.
                    let first = |it: &Annotation| Some(it.objects.first()?.0.clone());
                    listed
                        .and_then(first)
                        .or_else(|| own.as_ref().and_then(first))
                }
            };
            let Some(class) = class else {
                self.reader
                    .problems
                    .push(TreeProblem::NoLabel { image: name });
                continue;
            };
            let Some(&label) = self.labels.get(&class) else {
                let image = name;
                self.reader
                    .problems
                    .push(TreeProblem::ImageOfNoClass { image, wnid: class });
                continue;
            };
            let bbox = annotation.map(|annotation| annotation.largest(&class));
            let bbox = counts.count(bbox);
            items.extend(self.reader.item(name, Some(label), bbox));
        }
        let left: HashSet<_> = files.into_values().collect();
        let mut left: Vec<_> = left.into_iter().collect();
        left.sort_unstable();
        self.reader
            .pass_over("annotation without an image", "", &left);
        self.reader.notes.extend(counts.notes(split));
        items
    }

    /// The paths of the XML files in `folder` and in the folders of it, by their names without the extension.
    fn xml_files(&mut self, folder: &str) -> HashMap<String, String> {
        let mut files = HashMap::new();
        let Ok(Some(listed)) = self.reader.tree.list(folder) else {
            return files;
        };
        let inside = listed.folders.iter().map(|name| join(folder, name));
        for place in inside.chain([folder.to_owned()]) {
            for file in self.reader.peek(&place).files {
                if let Some(stem) = file.strip_suffix(".xml") {
                    files.insert(stem.to_owned(), join(&place, &file));
                }
            }
        }
        files
    }

    /// The text of Kaggle's solution for `split`, which labels val. That of train is read only `for_boxes`.
    fn solution(&mut self, split: Split, for_boxes: bool) -> Option<String> {
        let (_, file) = SOLUTIONS.iter().find(|(of, _)| *of == split)?;
        let is_needed = split == Split::Val || for_boxes;
        if !self.root.has_file(file) || !is_needed {
            return None;
        }
        text(self.reader, file)
    }
}

fn parse(tree: &Tree, xml: &str, buffer: &mut ReadBuffer) -> Result<Annotation, String> {
    let read = |reason: ReadError| reason.to_string();
    let entry = tree.find_entry(xml).map_err(read)?;
    let bytes = tree.read_entry(xml, entry, buffer).map_err(read)?;
    Annotation::parse(bytes)
}

/// The name of an image without its folders and extension.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// Images of a split by what their annotations give.
#[derive(Debug, Default)]
struct Counts {
    boxes: usize,
    several: usize,
    outside: usize,
    without: usize,
}

impl Counts {
    /// Counts an image by the box and the number of boxes of its annotation. Returns the box.
    fn count(&mut self, found: Option<(Option<[i32; 4]>, usize)>) -> Option<[i32; 4]> {
        let (bbox, count) = match found {
            None => {
                self.without += 1;
                return None;
            }
            Some(found) => found,
        };
        self.boxes += usize::from(bbox.is_some());
        self.outside += usize::from(bbox.is_none());
        self.several += usize::from(count > 1);
        bbox
    }

    fn notes(&self, split: Split) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |count: usize, what: &str| {
            if count > 0 {
                notes.push(format!("{} of {split} {what}", counted(count, "image")));
            }
        };
        note(
            self.several,
            "with several boxes of the class, of which the largest is kept",
        );
        note(
            self.outside,
            "without a box of the class inside the image: packed without one",
        );
        if self.boxes > 0 {
            note(self.without, "without an annotation: packed without a box");
        }
        notes
    }
}
