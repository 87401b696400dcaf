//! The layout of Tiny ImageNet, described in the documentation of [`source`](super).

use std::collections::HashMap;

use super::folder::{Folder, join};
use super::names::{is_image, natural};
use super::tree::Tree;
use super::{Class, Item, Location, Problems, ReadError, Split, TreeProblem};

pub(super) const WNIDS: &str = "wnids.txt";
pub(super) const WORDS: &str = "words.txt";
const TRAIN: &str = "train";
const VAL: &str = "val";
const TEST: &str = "test";
const IMAGES: &str = "images";
const VAL_ANNOTATIONS: &str = "val/val_annotations.txt";

/// The fields of a line of the two kinds of annotations. In both, the last four are the box.
const BOX_FIELDS: &[&str] = &["name", "x0", "y0", "x1", "y1"];
const VAL_FIELDS: &[&str] = &["name", "wnid", "x0", "y0", "x1", "y1"];

/// Reads all annotations and matches them with the images, as far as problems allow.
pub(super) fn read(
    tree: &Tree,
    problems: &mut Problems<TreeProblem>,
) -> (Vec<Class>, Vec<(Split, Vec<Item>)>) {
    let mut reader = AnnotationReader { tree, problems };
    let root = reader
        .folder("", "it holds the data set; restore it")
        .unwrap_or_default();
    let folders = reader.folder(TRAIN, "it holds the images to train on; restore it");
    let wnids = reader.wnids(folders.as_ref());
    let labels = wnids.iter().map(String::as_str).zip(0..).collect();
    let classes = reader.classes(&wnids, &labels, root.has_file(WORDS));

    let mut splits = vec![(Split::Train, reader.train(&wnids, folders.as_ref()))];
    if root.has_folder(VAL) {
        splits.push((Split::Val, reader.val(&labels)));
    }
    if root.has_folder(TEST) {
        splits.push((Split::Test, reader.test()));
    }
    if problems.is_empty() && splits[0].1.is_empty() {
        problems.push(TreeProblem::NoImages);
    }
    splits.retain(|(_, items)| !items.is_empty());
    (classes, splits)
}

struct AnnotationReader<'a> {
    tree: &'a Tree,
    problems: &'a mut Problems<TreeProblem>,
}

/// The label of each class, by its id.
type Labels<'a> = HashMap<&'a str, u32>;

/// The line that lists each file of a folder of images; 0 until a line does.
type Listed = HashMap<String, usize>;

impl AnnotationReader<'_> {
    /// The ids of the classes, in the order of their labels. If the file is missing, uses the folders of
    /// `train` so that the search for other problems can go on.
    fn wnids(&mut self, train: Option<&Folder>) -> Vec<String> {
        let Some(text) = self.text(WNIDS, "it gives each class its label; restore it") else {
            return train.map(|train| train.folders.clone()).unwrap_or_default();
        };
        let mut wnids = Vec::new();
        let mut lines = HashMap::new();
        for (line, wnid) in numbered(&text) {
            let at = Location::new(WNIDS, line);
            let wnid = wnid.to_owned();
            if wnid.is_empty() {
                self.problems.push(TreeProblem::EmptyClass { at });
            } else if let Some(first) = lines.insert(wnid.clone(), line) {
                self.problems
                    .push(TreeProblem::RepeatedClass { at, wnid, first });
            } else {
                wnids.push(wnid.clone());
                if train.is_some_and(|train| !train.has_folder(&wnid)) {
                    self.problems
                        .push(TreeProblem::ClassWithoutFolder { at, wnid });
                }
            }
        }
        for folder in train.iter().flat_map(|train| &train.folders) {
            if !lines.contains_key(folder) {
                self.problems.push(TreeProblem::FolderWithoutClass {
                    folder: join(TRAIN, folder),
                });
            }
        }
        wnids
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

    fn train(&mut self, wnids: &[String], folders: Option<&Folder>) -> Vec<Item> {
        let mut items = Vec::new();
        for (wnid, label) in wnids.iter().zip(0..) {
            if folders.is_some_and(|train| train.has_folder(wnid)) {
                let list = format!("{TRAIN}/{wnid}/{wnid}_boxes.txt");
                let why = "it lists the class's images and their boxes; restore it";
                let folder = format!("{TRAIN}/{wnid}/{IMAGES}");
                items.extend(self.annotated(&list, why, &folder, BOX_FIELDS, |_| Ok(label)));
            }
        }
        items
    }

    fn val(&mut self, labels: &Labels) -> Vec<Item> {
        let why = "it labels the images of val/; restore it, or remove val/ to do without, or wnids.txt and words.txt to go by class folders alone";
        let label = |values: &[&str]| {
            labels
                .get(values[1])
                .copied()
                .ok_or_else(|| values[1].to_owned())
        };
        self.annotated(VAL_ANNOTATIONS, why, &join(VAL, IMAGES), VAL_FIELDS, label)
    }

    fn test(&mut self) -> Vec<Item> {
        let path = join(TEST, IMAGES);
        let why = "it holds the images of test/; restore it, or remove test/ to do without";
        let mut names = self.folder(&path, why).unwrap_or_default().files;
        names.retain(|name| is_image(name));
        names.sort_by(|a, b| natural(a, b));
        let item = |name: &String| self.item(join(&path, name), None, None);
        names.iter().filter_map(item).collect()
    }

    /// The images in `folder` that the file `list` annotates, in the order of its lines. `why` says what
    /// the file is needed for. `label` returns the label of a line's values, or the unknown class.
    fn annotated(
        &mut self,
        list: &str,
        why: &'static str,
        folder: &str,
        fields: &'static [&'static str],
        label: impl Fn(&[&str]) -> Result<u32, String>,
    ) -> Vec<Item> {
        let text = self.text(list, why);
        let files = self.folder(folder, "it holds images that are annotated; restore it");
        let (Some(text), Some(files)) = (text, files) else {
            return Vec::new();
        };
        let mut listed: Listed = files.files.into_iter().map(|name| (name, 0)).collect();
        let mut items = Vec::with_capacity(listed.len());
        for (line, text) in numbered(&text) {
            let at = Location::new(list, line);
            let parsed = annotation(at, text, folder, fields, &mut listed, &label);
            if let Some((name, label, bbox)) = self.keep(parsed) {
                items.extend(self.item(name, Some(label), Some(bbox)));
            }
        }
        let mut unlisted: Vec<_> = listed
            .into_iter()
            .filter(|(name, line)| *line == 0 && is_image(name))
            .collect();
        unlisted.sort_unstable();
        for (name, _) in unlisted {
            self.problems.push(TreeProblem::Unlisted {
                image: join(folder, &name),
                list: list.to_owned(),
            });
        }
        items
    }

    fn item(&mut self, name: String, label: Option<u32>, bbox: Option<[i32; 4]>) -> Option<Item> {
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

    fn keep<T>(&mut self, result: Result<T, TreeProblem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// The names in a required folder.
    fn folder(&mut self, name: &str, why: &'static str) -> Option<Folder> {
        let listed = match self.tree.list(name) {
            Ok(folder) => folder.ok_or(TreeProblem::Missing {
                name: format!("{name}/"),
                why,
            }),
            Err(reason) => Err(TreeProblem::Unreadable {
                name: format!("{name}/"),
                reason,
            }),
        };
        self.keep(listed)
    }

    /// The text of a required file.
    fn text(&mut self, name: &str, why: &'static str) -> Option<String> {
        let text = match self.tree.read(name) {
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
        self.keep(text)
    }
}

/// Parses a line of annotations, and records in `listed` that it names its image.
fn annotation(
    at: Location,
    text: &str,
    folder: &str,
    fields: &'static [&'static str],
    listed: &mut Listed,
    label: impl Fn(&[&str]) -> Result<u32, String>,
) -> Result<(String, u32, [i32; 4]), TreeProblem> {
    let values: Vec<&str> = text.split('\t').collect();
    let name = values[0];
    // Recorded even if something else is wrong with the line, so that the image is not also reported as
    // unlisted.
    let before = listed
        .get_mut(name)
        .map(|line| std::mem::replace(line, at.line));
    if values.len() != fields.len() {
        return Err(TreeProblem::Fields {
            at,
            got: values.len(),
            expected: fields,
        });
    }
    match before {
        Some(0) => {}
        Some(first) => {
            let name = name.to_owned();
            return Err(TreeProblem::Repeated { at, name, first });
        }
        None => {
            let (name, folder) = (name.to_owned(), folder.to_owned());
            let is_path = name.contains(['/', '\\']) || name == "..";
            return Err(if is_path {
                TreeProblem::Path { at, name, folder }
            } else {
                TreeProblem::Absent { at, name, folder }
            });
        }
    }
    let label = match label(&values) {
        Ok(label) => label,
        Err(wnid) => return Err(TreeProblem::UnknownClass { at, wnid }),
    };
    let corners = fields.len() - 4;
    let bbox = bbox(at, &fields[corners..], &values[corners..])?;
    Ok((join(folder, name), label, bbox))
}

fn bbox(
    at: Location,
    fields: &'static [&'static str],
    values: &[&str],
) -> Result<[i32; 4], TreeProblem> {
    let mut bbox = [0; 4];
    for ((corner, &field), &value) in bbox.iter_mut().zip(fields).zip(values) {
        match value.parse() {
            Ok(pixel @ 0..) => *corner = pixel,
            _ => {
                return Err(TreeProblem::Coordinate {
                    at,
                    field,
                    got: value.to_owned(),
                });
            }
        }
    }
    let [x0, y0, x1, y1] = bbox;
    if x0 <= x1 && y0 <= y1 {
        Ok(bbox)
    } else {
        Err(TreeProblem::Inverted { at, bbox })
    }
}

fn text(file: &str, bytes: Vec<u8>) -> Result<String, TreeProblem> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        TreeProblem::NotText {
            at: Location::new(file, line),
        }
    })
}

/// The lines, numbered from 1. Accepts CR LF and a byte order mark, which Windows programs write.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines())
}
