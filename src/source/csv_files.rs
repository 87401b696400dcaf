//! The CSV files that `tinyres unpack` writes next to class folders: `classes.csv` in the root has the order and the names
//! of the classes, `metadata.csv` in the folder of a split the boxes. The name of the second is that of Hugging Face's
//! `imagefolder`. A file of such a name without these columns is another program's, and is passed over.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::folder::{Folder, join};
use super::reader::TreeReader;
use super::{Class, Item, TreeProblem};

/// Name of the file of classes, and of that of images.
pub(crate) const CLASSES: &str = "classes.csv";
pub(crate) const IMAGES: &str = "metadata.csv";
/// Columns of the file of classes.
pub(crate) const CLASS_COLUMNS: [&str; 4] = ["label", "folder", "id", "name"];
/// Columns of the file of images. The last four, the box in inclusive pixels or four times -1, are only there if the
/// set has boxes.
pub(crate) const IMAGE_COLUMNS: [&str; 7] = ["file_name", "label", "name", "x0", "y0", "x1", "y1"];

#[derive(Deserialize)]
struct ClassRow {
    label: usize,
    folder: String,
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct ImageRow {
    file_name: String,
    x0: i32,
    y0: i32,
    x1: i32,
    y1: i32,
}

/// Classes, and the folder of each.
#[derive(Debug)]
pub(super) struct ClassList {
    pub classes: Vec<Class>,
    pub folders: Vec<Class>,
}

impl ClassList {
    /// Reads the list in the root folder, whose content is `root`. Without one, the classes are called by their folders.
    pub fn read(reader: &mut TreeReader<'_>, root: &Folder, folders: Vec<Class>) -> Self {
        let by_folder = |folders: Vec<Class>| Self {
            classes: folders.clone(),
            folders,
        };
        let Some(rows) = rows::<ClassRow>(reader, "", root, CLASSES, &CLASS_COLUMNS) else {
            return by_folder(folders);
        };
        let mut problem = |reason| {
            let file = CLASSES.to_owned();
            reader.problems.push(TreeProblem::List { file, reason });
        };
        if let Some((at, row)) = rows.iter().enumerate().find(|(at, row)| row.label != *at) {
            problem(format!(
                "label {}, expected {at}, as labels count rows",
                row.label
            ));
            return by_folder(folders);
        }
        let mut listed = HashSet::new();
        if let Some(row) = rows.iter().find(|row| !listed.insert(&row.folder)) {
            problem(format!(
                "lists the class folder {} twice, expected once",
                row.folder
            ));
            return by_folder(folders);
        }
        if let Some(class) = folders.iter().find(|class| !listed.contains(&class.id)) {
            problem(format!("does not list the class folder {}", class.id));
            return by_folder(folders);
        }
        let (folders, classes) = (rows.into_iter())
            .map(
                |ClassRow {
                     folder, id, name, ..
                 }| {
                    let name_of_folder = folder.clone();
                    let folder = Class {
                        id: folder,
                        name: name_of_folder,
                    };
                    (folder, Class { id, name })
                },
            )
            .unzip();
        Self { classes, folders }
    }

    /// Labels `items`, whose labels are places in `known`, by this list, and puts them in the order of the labels.
    pub fn relabel(&self, known: &[Class], items: &mut [Item]) {
        let places: HashMap<_, _> = (0..)
            .zip(&self.folders)
            .map(|(at, it)| (&it.id, at))
            .collect();
        for item in &mut *items {
            let folder = item.label.and_then(|label| known.get(label as usize));
            item.label = folder
                .and_then(|folder| places.get(&folder.id).copied())
                .or(item.label);
        }
        items.sort_by_key(|item| item.label);
    }
}

/// Gives `items` in the folder `path` the boxes in its file, if there is one with boxes.
pub(super) fn add_boxes(reader: &mut TreeReader<'_>, path: &str, items: &mut [Item]) {
    let listed = reader.peek(path);
    let Some(rows) = rows::<ImageRow>(reader, path, &listed, IMAGES, &IMAGE_COLUMNS) else {
        return;
    };
    let (mut boxes, mut named) = (HashMap::new(), HashSet::new());
    for ImageRow {
        file_name,
        x0,
        y0,
        x1,
        y1,
    } in rows
    {
        if !named.insert(file_name.clone()) {
            let file = join(path, IMAGES);
            let reason = format!("lists {file_name} twice, expected once");
            reader.problems.push(TreeProblem::List { file, reason });
            continue;
        }
        let sides = [x0, y0, x1, y1];
        if sides == [-1; 4] {
            continue;
        }
        if !(0 <= x0 && x0 <= x1 && 0 <= y0 && y0 <= y1) {
            let reason =
                format!("box {sides:?} of {file_name}, expected 0 <= x0 <= x1 and 0 <= y0 <= y1");
            let file = join(path, IMAGES);
            reader.problems.push(TreeProblem::List { file, reason });
            continue;
        }
        boxes.insert(join(path, &file_name), sides);
    }
    for item in items {
        item.bbox = boxes.remove(&item.name).or(item.bbox);
    }
    if let Some(name) = boxes.into_keys().min() {
        let file = join(path, IMAGES);
        let reason = format!("has a box of {name}, which is not there");
        reader.problems.push(TreeProblem::List { file, reason });
    }
}

/// The rows of `file` in the folder `path`, which lists `listed`. `None` if it is not there or has other columns, or
/// cannot be read, which is then reported.
fn rows<R: for<'d> Deserialize<'d>>(
    reader: &mut TreeReader<'_>,
    path: &str,
    listed: &Folder,
    file: &str,
    columns: &[&str],
) -> Option<Vec<R>> {
    if !listed.has_file(file) {
        return None;
    }
    let name = join(path, file);
    let read = reader.tree.read(&name);
    let unreadable = read.map_err(|reason| TreeProblem::Unreadable {
        name: name.clone(),
        reason,
    });
    let bytes = reader.keep(unreadable)?;
    let mut table = csv::Reader::from_reader(&*bytes);
    let header = table.headers().ok()?;
    if !header.iter().eq(columns.iter().copied()) {
        return None;
    }
    let rows: Result<Vec<R>, _> = table.deserialize().collect();
    let rows = rows.map_err(|error| TreeProblem::List {
        file: name,
        reason: error.to_string(),
    });
    reader.keep(rows)
}
