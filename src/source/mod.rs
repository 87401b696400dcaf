//! What can be packed: a tree of images in a directory or a zip, as classes and lists of items.
//!
//! Opening reads annotations and file names, never an image; [`Source::read`] hands out the bytes
//! of one image on demand. Whoever uses a source knows neither its layout nor its storage.
//!
//! # Tiny ImageNet
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
//! - The tree may lie one level down in the directory, or up to a dozen in the zip.
//! - Annotations and images must match: an image that is listed and absent, present and not
//!   listed, or listed twice is an error, and all errors of a tree are reported at once. Only names
//!   that end in `.jpeg` or `.jpg` (in any case) count as images.
//! - What file managers leave behind is passed over: names that begin with a dot, `__MACOSX`,
//!   `Thumbs.db`, `desktop.ini`.
//! - Names from annotations are only ever looked up among the names that a listing gave, so they
//!   cannot lead outside the tree. Symbolic links in a directory are followed, as they are how
//!   people spread a data set over disks; in a zip they are an error.

mod dir;
mod error;
mod names;
mod tiny_imagenet;
mod tree;
mod zip;

use std::io;
use std::path::Path;
use std::time::SystemTime;

pub use error::{Error, Fault, Place, Problem, Problems};
pub use tinyres_format::{Class, Split};
use tree::Tree;

/// The largest file, in bytes, that is read from a source: 64 MiB, text or image.
pub const MAX_FILE: u64 = 64 << 20;

/// An image that can be read, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Path in the tree, separated by `/`: `train/n02124075/images/n02124075_0.JPEG`.
    pub name: String,
    /// Index of its class, where it is labelled.
    pub label: Option<u32>,
    /// What the annotation says: inclusive pixels x0, y0, x1, y1, none negative, x0 <= x1 and
    /// y0 <= y1. Whether it lies inside the image is for whoever decodes the image to say.
    pub bbox: Option<[i32; 4]>,
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
    /// Opens the Tiny ImageNet directory or zip at `path`.
    ///
    /// Costs one listing of each folder of images, or of the zip's directory, and a read of each
    /// annotation file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let mut tree = Tree::open(path, &mut problems)?;
        let (classes, splits) = match tiny_imagenet::enter(&mut tree, path) {
            Ok(()) => tiny_imagenet::read(&tree, &mut problems),
            // The tree may be missing only because the zip's names were refused.
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

    /// Reads the encoded bytes of `item` into `bytes`, whose content and length do not matter.
    ///
    /// Takes no lock: any number of threads may read at once. What comes from a zip has been
    /// checked against its CRC-32.
    pub fn read(&self, item: &Item, bytes: &mut Vec<u8>) -> Result<(), Error> {
        self.tree
            .read(&item.name, bytes)
            .map_err(|fault| Error::Read {
                file: self.tree.show(&item.name),
                fault,
            })
    }

    /// When the file that holds `item` was last written to: the image itself, or its zip.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn modified(&self, item: &Item) -> io::Result<SystemTime> {
        self.tree.modified(&item.name)
    }
}

#[cfg(test)]
mod tests;
