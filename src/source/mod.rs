//! What can be packed: a tree of images in a directory or an archive, as classes and lists of items.
//!
//! Opening reads annotations and file names, never an image; [`Reader::read`] hands out the bytes
//! of one image on demand. Whoever uses a source knows neither its layout nor its storage.
//!
//! # Layouts
//!
//! A tree with `wnids.txt` or `words.txt` is one of Tiny ImageNet, any other one of class folders.
//! It may lie one level down in a directory, or up to a dozen in an archive; the nearest counts.
//!
//! ## Tiny ImageNet
//!
//! | in the tree | what it gives | required |
//! | --- | --- | --- |
//! | `wnids.txt` | the classes, one WordNet id a line; a label is a line's place | yes |
//! | `words.txt` | the classes' names, `wnid` tab `words`; a class that it lacks is called by its wnid | no |
//! | `train/WNID/WNID_boxes.txt` | a line per image: `name x0 y0 x1 y1`, separated by tabs | for each class |
//! | `train/WNID/images/` | the images | for each class |
//! | `val/val_annotations.txt` | a line per image: `name wnid x0 y0 x1 y1` | where there is `val/` |
//! | `val/images/` | the images | where there is `val/` |
//! | `test/images/` | images without labels | where there is `test/` |
//!
//! - Items come class by class in the order of `wnids.txt`, and in the order of their lines; those
//!   of `test` in natural order (`test_2.JPEG` before `test_10.JPEG`). A split without an image is
//!   left out.
//! - Annotations and images must match: an image that is listed and absent, present and not
//!   listed, or listed twice is an error, and all errors of a tree are reported at once. Only names
//!   that end in `.jpeg` or `.jpg` (in any case) count as images.
//!
//! ## Class folders
//!
//! What torchvision calls an `ImageFolder`; labels and order are the same as there.
//!
//! | in the tree | what it gives |
//! | --- | --- |
//! | `train/CLASS/` | the classes, and their images |
//! | `val/CLASS/`, or `valid/` or `validation/` | images of the same classes, where there is one |
//! | `test/CLASS/`, or `test/` without a folder in it | images of the same classes, or unlabelled ones |
//! | `CLASS/` alone, two or more that hold images, and no `train/` | a train split |
//!
//! - The classes are the folders of `train`, sorted by the bytes of their names; a class is called
//!   by its folder. The other splits may lack some of them, but have no others.
//! - All images in a class folder are of its class, in folders inside it too (up to eight levels),
//!   sorted by folder and then by name; unlabelled ones come in natural order.
//! - Names that end in what torchvision takes for an image (`.jpg`, `.jpeg`, `.png`, `.ppm`,
//!   `.bmp`, `.pgm`, `.tif`, `.tiff`, `.webp`, in any case) count as images, though only JPEG and
//!   PNG can be packed: the others are errors then, and not lost in silence. Other files are passed
//!   over.
//! - A class folder without an image, one that `train` lacks, and an image beside class folders are
//!   errors.
//!
//! ## A validation split by name
//!
//! [`Source::hold_out`] takes a part of `train` for `val`. An image belongs to it if the number
//! that its name gives is less than the fraction asked for: the first 8 bytes of the SHA-256 of its
//! path in `train` (`CLASS/NAME`), read as a big-endian integer, without its lowest 11 bits, over
//! 2^64. No other image has a part in that, so a set that grows moves none of its images, and a
//! larger fraction only adds to a smaller one.
//!
//! # Storage
//!
//! A directory, a zip or a tar, told by its first bytes. Archives are never unpacked: their names
//! are read once, and each image at its place.
//!
//! - A zip has checksums of its files, and every byte read is checked. A tar has them of its
//!   headers alone: that one is cut is found when it is opened, other damage to the data only where
//!   an image no longer decodes. A compressed tar is refused, since nothing in it can be read by
//!   itself; `gunzip` it first.
//! - What file managers leave behind is passed over: names that begin with a dot, `__MACOSX`,
//!   `Thumbs.db`, `desktop.ini`.
//! - Names from annotations are only ever looked up among the names that a listing gave, so they
//!   cannot lead outside the tree. Symbolic links in a directory are followed, as they are how
//!   people spread a data set over disks; in an archive links are an error, as are two entries of
//!   one name, names that lead outside, encrypted entries and sparse ones.

mod dir;
mod error;
mod hold_out;
mod image_folder;
mod index;
mod names;
mod pictures;
mod stamp;
mod tar;
mod tiny_imagenet;
mod tree;
mod window;
mod zip;

use std::io;
use std::path::Path;

pub use error::{Error, Fault, Place, Problem, Problems};
pub use pictures::{in_folder, read};
pub use stamp::Stamp;
pub use tinyres_format::{Class, Split};
use tree::{Folder, Memory, Tree};

/// The largest file, in bytes, that is read from a source: 64 MiB, text or image.
pub const MAX_FILE: u64 = 64 << 20;

/// An image that can be read, and what is known of it.
#[derive(Clone, Debug)]
pub struct Item {
    /// Path in the tree, separated by `/`: `train/n02124075/images/n02124075_0.JPEG`.
    pub name: String,
    /// Index of its class, where it is labelled.
    pub label: Option<u32>,
    /// What the annotation says: inclusive pixels x0, y0, x1, y1, none negative, x0 <= x1 and
    /// y0 <= y1. Whether it lies inside the image is for whoever decodes the image to say.
    pub bbox: Option<[i32; 4]>,
    /// Its place in the archive.
    place: usize,
}

/// The same image of two sources may lie at different places.
impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.label, self.bbox) == (&other.name, other.label, other.bbox)
    }
}

/// A set of images to pack.
#[derive(Debug)]
pub struct Source {
    /// The classes; an item's label is an index into them.
    pub classes: Vec<Class>,
    /// The splits that hold images: train first, then val and test where there are any.
    pub splits: Vec<(Split, Vec<Item>)>,
    tree: Tree,
}

impl Source {
    /// Opens the directory, zip or tar at `path`.
    ///
    /// Costs one listing of each folder of images, or a read of the zip's directory or the tar's
    /// headers, and a read of each annotation file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let mut tree = Tree::open(path, &mut problems)?;
        let (classes, splits) = match enter(&mut tree, path) {
            Ok(Layout::TinyImageNet) => tiny_imagenet::read(&tree, &mut problems),
            Ok(Layout::ClassFolders) => image_folder::read(&tree, &mut problems),
            // The tree may be missing only because the archive's names were refused.
            Err(Error::NotATree { .. }) if !problems.is_empty() => Default::default(),
            Err(error) => return Err(error),
        };
        if !problems.is_empty() {
            return Err(Error::Tree {
                tree: tree.show(""),
                problems,
            });
        }
        Ok(Self {
            classes,
            splits,
            tree,
        })
    }

    /// Reads items of this source. Takes no lock: any number of threads may read at once, each by a
    /// reader of its own.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader {
            tree: &self.tree,
            memory: Memory::default(),
        }
    }

    /// Stamp of the file that holds `item`: the image as it is now, or its archive as it was opened.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn stamp(&self, item: &Item) -> io::Result<Stamp> {
        self.tree.stamp(&item.name)
    }
}

/// Reads the items of a source, one after the other, to memory that it uses again.
#[derive(Debug)]
pub struct Reader<'a> {
    tree: &'a Tree,
    memory: Memory,
}

impl Reader<'_> {
    /// The encoded bytes of `item`. What comes from a zip has been checked against its CRC-32.
    pub fn read(&mut self, item: &Item) -> Result<&[u8], Error> {
        (self.tree.read_at(&item.name, item.place, &mut self.memory)).map_err(|fault| Error::Read {
            file: self.tree.show(&item.name),
            fault,
        })
    }

    /// Prepares to read `items`: those that lie side by side in an archive cost one read together.
    pub fn load(&mut self, items: &[&Item]) {
        let places = items.iter().map(|item| item.place);
        self.tree.load(places, &mut self.memory);
    }
}

enum Layout {
    TinyImageNet,
    ClassFolders,
}

/// Finds the set in `tree`, which was opened from `path`, and makes its place the root.
fn enter(tree: &mut Tree, path: &Path) -> Result<Layout, Error> {
    let mut roots = tree.find(|_, folder| folder.has_file(tiny_imagenet::WNIDS));
    if roots.is_empty() {
        roots = tree.find(|_, folder| folder.has_folder(image_folder::TRAIN));
    }
    if roots.is_empty() {
        roots = tree.find(|path, folder| image_folder::is_bare(tree, path, folder));
    }
    let [root] = roots.as_slice() else {
        let path = path.to_owned();
        return Err(match roots.is_empty() {
            true => Error::NotATree {
                path,
                searched: tree.reach(),
            },
            false => Error::SeveralTrees { path, roots },
        });
    };
    tree.enter(root);
    // A tree of Tiny ImageNet that lacks only wnids.txt is worth saying so.
    let marks = [tiny_imagenet::WNIDS, tiny_imagenet::WORDS];
    let is_marked = |root: &Folder| marks.iter().any(|mark| root.has_file(mark));
    match tree.list("") {
        Ok(Some(root)) if is_marked(&root) => Ok(Layout::TinyImageNet),
        _ => Ok(Layout::ClassFolders),
    }
}

#[cfg(test)]
mod tests;
