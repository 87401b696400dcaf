//! The val split: as it is downloaded, and sorted into class folders by one of the common scripts.

use std::collections::HashMap;

use super::annotations::{Listed, VAL_FIELDS, annotation, numbered};
use super::{AnnotationReader, IMAGES, Labels, VAL_ANNOTATIONS};
use crate::source::folder::{Folder, join, shown};
use crate::source::names::{is_picture, natural};
use crate::source::{Item, Location, TreeProblem};
use crate::text::counted;

impl AnnotationReader<'_, '_> {
    /// The images of the split at `path`. As downloaded, they are in `images`, and the annotations label them.
    /// After one of the common scripts they are in class folders, in `path` or in `images`, which label them.
    pub(super) fn val(
        &mut self,
        path: &str,
        root: &Folder,
        wnids: &[String],
        labels: &Labels,
    ) -> Vec<Item> {
        let mut folder = self.reader.list(path);
        let images_path = join(path, IMAGES);
        let mut images = match folder.has_folder(IMAGES) {
            true => self.reader.list(&images_path),
            false => Folder::default(),
        };
        let places = [
            (
                folder.has_file(VAL_ANNOTATIONS),
                join(path, VAL_ANNOTATIONS),
            ),
            (
                images.has_file(VAL_ANNOTATIONS),
                join(&images_path, VAL_ANNOTATIONS),
            ),
            (root.has_file(VAL_ANNOTATIONS), VAL_ANNOTATIONS.to_owned()),
        ];
        let list = places
            .into_iter()
            .find_map(|(there, list)| there.then_some(list));
        folder.files.retain(|file| file != VAL_ANNOTATIONS);
        images.files.retain(|file| file != VAL_ANNOTATIONS);
        let has_images = folder.has_folder(IMAGES);
        folder.folders.retain(|name| name != IMAGES);
        let pictures = |folder: &Folder| folder.files.iter().any(|file| is_picture(file));
        let (images_flat, folder_flat) = (pictures(&images), pictures(&folder));
        let is_class = |name: &String| labels.contains_key(name.as_str());
        let sorted = (folder.folders.iter()).chain(&images.folders).any(is_class);
        let why = "it labels the images of val/; restore it, or remove val/ to do without";
        if sorted && (list.is_none() || !(images_flat || folder_flat)) {
            self.layout += ", val/ in class folders";
            for (path, folder) in [(path, &mut folder), (&images_path, &mut images)] {
                self.reader.keep_pictures(path, &mut folder.files);
                self.reader.outside_class(path, &folder.files);
            }
            let places = [(path, folder), (&images_path, images)];
            return self.sorted_val(places, list, wnids, labels);
        }
        // The images of class folders next to the annotated ones are copies.
        let (at, mut unused, folder) = match (images_flat || !folder_flat, has_images) {
            (true, true) => (images_path, folder, Some(images)),
            (true, false) => {
                let why = "it holds images that are annotated; restore it";
                let missing = self.missing(shown(&images_path), why);
                (images_path, folder, missing)
            }
            (false, _) => (path.to_owned(), images, Some(folder)),
        };
        let other = if at == path {
            join(path, IMAGES)
        } else {
            path.to_owned()
        };
        self.reader.keep_pictures(&other, &mut unused.files);
        self.reader
            .pass_over("image that is not used", &other, &unused.files);
        self.reader
            .pass_over("folder that is not used", &other, &unused.folders);
        if let Some(folder) = &folder {
            self.reader
                .pass_over("folder that is not used", &at, &folder.folders);
        }
        let list = list.unwrap_or_else(|| join(path, VAL_ANNOTATIONS));
        let label = |values: &[&str]| {
            labels
                .get(values[1])
                .copied()
                .ok_or_else(|| values[1].to_owned())
        };
        self.annotated(&list, why, &at, folder, VAL_FIELDS, label)
    }

    /// The images in class folders, in the order of the classes and in natural order, with the boxes of the
    /// annotations where `list` is there.
    fn sorted_val(
        &mut self,
        places: [(&str, Folder); 2],
        list: Option<String>,
        wnids: &[String],
        labels: &Labels,
    ) -> Vec<Item> {
        let mut found: Vec<Vec<String>> = vec![Vec::new(); wnids.len()];
        for (path, folder) in &places {
            for name in &folder.folders {
                let inside = join(path, name);
                match labels.get(name.as_str()) {
                    Some(&label) => {
                        let names = self.reader.collect(&inside).unwrap_or_default();
                        found[label as usize].extend(names);
                    }
                    None => self.folder_without_class(inside),
                }
            }
        }
        let [(val, _), _] = &places;
        let mut boxes = match &list {
            Some(list) => self.boxes_of(list, val),
            None => HashMap::new(),
        };
        let (mut items, mut without) = (Vec::new(), 0);
        for ((names, wnid), label) in found.iter_mut().zip(wnids).zip(0..) {
            names.sort_by(|a, b| natural(a, b));
            for path in names.drain(..) {
                let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
                let annotation = boxes.remove(name);
                if let Some((at, class, _)) = &annotation
                    && class != wnid
                {
                    let problem = TreeProblem::OtherClass {
                        at: at.clone(),
                        name: name.to_owned(),
                        wnid: class.clone(),
                        folder: folder.to_owned(),
                    };
                    self.reader.problems.push(problem);
                }
                let bbox = annotation.map(|(.., bbox)| bbox);
                without += usize::from(bbox.is_none());
                items.extend(self.reader.item(path, Some(label), bbox));
            }
        }
        let mut absent: Vec<_> = boxes.into_iter().collect();
        absent.sort_unstable_by_key(|(_, (at, ..))| at.line);
        for (name, (at, wnid, _)) in absent {
            let folder = join(val, &wnid);
            let problem = TreeProblem::Absent { at, name, folder };
            self.reader.problems.push(problem);
        }
        if list.is_none() {
            self.layout += " without val_annotations.txt, no boxes of val";
        } else if without > 0 {
            let images = counted(without, "image");
            let note =
                format!("{images} of val without a line in val_annotations.txt, so without a box");
            self.reader.notes.push(note);
        }
        items
    }

    /// The class and box of each image that `list` annotates, by its name.
    fn boxes_of(&mut self, list: &str, val: &str) -> HashMap<String, (Location, String, [i32; 4])> {
        let Some(text) = self.text(list, "it annotates the images of val/; restore it") else {
            return HashMap::new();
        };
        let mut boxes = HashMap::new();
        for (line, text) in numbered(&text) {
            let at = Location::new(list, line);
            let name = text.split('\t').next().unwrap_or_default();
            let mut listed = Listed::from([(name.to_owned(), 0)]);
            let wnid = text.split('\t').nth(1).unwrap_or_default().to_owned();
            let parsed = annotation(at.clone(), text, val, VAL_FIELDS, &mut listed, |_| Ok(0));
            if let Some((_, _, bbox)) = self.reader.keep(parsed) {
                boxes.insert(name.to_owned(), (at, wnid, bbox));
            }
        }
        boxes
    }
}
