//! Sources of images: a tree in a directory or an archive, read as classes and lists of items.
//!
//! Opening reads annotations and file names, never an image; [`ItemReader::read`] returns one image on demand: the
//! bytes of its file, or its pixels where the source has them raw. Users of a source need to know neither its layout nor its storage.
//!
//! # Layouts
//!
//! A tree with `Data/CLS-LOC` has the layout of the ILSVRC. One with `wnids.txt`, `words.txt`, `WNID_boxes.txt` in a class folder or `val_annotations.txt` in `val` has
//! the layout of Tiny ImageNet, any other tree that of class folders. It may lie two levels down in a
//! directory, further where each folder holds only one, and up to a dozen levels down in an archive; the
//! nearest counts.
//!
//! The folders of the splits are named by a word, in any case: `train` or `training`; `val`, `valid`,
//! `validation` or `dev`; `test` or `testing`. The word may be a part of the name (`seg_train`) if there are images
//! in the folder, and the split may lie in a folder of the same name inside it (`seg_train/seg_train`).
//!
//! ## Tiny ImageNet
//!
//! | in the tree | what it gives | required |
//! | --- | --- | --- |
//! | `wnids.txt` | the classes, one WordNet id a line; a label is a line's place | with `words.txt` |
//! | `words.txt` | the classes' names, `wnid` tab `words`; a class that it lacks is called by its wnid | no |
//! | `train/WNID/WNID_boxes.txt` | a line per image: `name x0 y0 x1 y1`, separated by tabs | for all classes or none |
//! | `train/WNID/images/`, or `train/WNID/` itself | the images | for each class |
//! | `val/val_annotations.txt` | a line per image: `name wnid x0 y0 x1 y1` | unless `val/` is sorted |
//! | `val/images/` | the images | where there is `val/` |
//! | `val/WNID/`, `val/WNID/images/` or `val/images/WNID/` | the same, sorted into class folders | no |
//! | `test/images/`, or `test/` itself | images without labels | where there is `test/` |
//!
//! - Items come class by class in the order of `wnids.txt`, and in the order of their lines; those
//!   of `test` in natural order (`test_2.JPEG` before `test_10.JPEG`), as those of a sorted `val` and of a
//!   `train` without lists in each class. A split without an image is left out.
//! - Without `wnids.txt` the classes are the folders of `train`, sorted. `train` alone, without the folder around
//!   it, is a set, too.
//! - The folders of a sorted `val` label its images. `val_annotations.txt`, here, in `images` or next to `val`,
//!   gives their boxes if it is there.
//! - Annotations and images must match: an image that is listed and absent, present and not
//!   listed, or listed twice is an error, and all errors of a tree are reported at once.
//!
//! ## ILSVRC
//!
//! ImageNet of the challenge, Kaggle's zip or its content, or the official tree, which is the folder `ILSVRC` alone.
//!
//! | in the tree | what it gives | required |
//! | --- | --- | --- |
//! | `ILSVRC/Data/CLS-LOC/train/WNID/` | the classes, sorted by their WordNet ids, and their images | yes |
//! | `ILSVRC/Data/CLS-LOC/val/` | the images, or class folders of them | no |
//! | `ILSVRC/Data/CLS-LOC/test/` | images without labels | no |
//! | `ILSVRC/Annotations/CLS-LOC/train/WNID/*.xml` | the boxes of images of train | no |
//! | `ILSVRC/Annotations/CLS-LOC/val/*.xml` | the classes and boxes of images of val | unless Kaggle's solution is there, or `val/` is sorted |
//! | `LOC_synset_mapping.txt` | the classes' names, `wnid` space `words`; without it they are called by their ids | no |
//! | `LOC_val_solution.csv`, `LOC_train_solution.csv` | the classes of val; boxes where no XML file gives them | no |
//!
//! - The box of an image is the largest one of its class, cut to the image that was annotated. Images with several, with
//!   none that lies in the image, and without an annotation are counted in the notes; the last two have no box.
//! - An image of val without a label, or of a class that `train` lacks, and XML that cannot be parsed are errors.
//!   Classes of the list that have no folder, and XML files without an image, are counted.
//! - Items come class by class, in the order of torchvision's `ImageFolder`; those of `val` and `test` in natural order.
//!
//! ## Class folders
//!
//! The layout of torchvision's `ImageFolder`, with the same labels and the same order.
//!
//! | in the tree | what it gives |
//! | --- | --- |
//! | `train/CLASS/` | the classes, and their images |
//! | `val/CLASS/` | images of the same classes, where there is one |
//! | `test/CLASS/` | images of the same classes |
//! | `test/`, or `test/ANY/` alone that is no class | images without labels |
//! | `CLASS/` alone, two or more that hold images, and no `train/` | a train split |
//! | `test/` and `val/` next to such folders | splits, if they hold class folders; `test/` of images alone is unlabelled |
//!
//! - The classes are the folders of `train`, sorted by the bytes of their names; a class is called
//!   by its folder. The other splits may lack some of them, but have no others. A folder `train` that holds images
//!   and lies next to class folders is a class.
//! - All images in a class folder are of its class, in folders inside it too (up to eight levels),
//!   sorted by folder and then by name; unlabelled ones come in natural order.
//! - `classes.csv` in the root and `metadata.csv` in the folder of a split, as `tinyres unpack` writes them, give the
//!   order and names of the classes, and the boxes.
//! - A class folder without an image, one that `train` lacks, and an image next to class folders are
//!   errors. An empty folder in another split, or among class folders without a `train`, is passed over.
//!
//! ## What is passed over
//!
//! In every layout, names with an extension that torchvision accepts (`.jpg`, `.jpeg`, `.png`, `.ppm`,
//! `.bmp`, `.pgm`, `.tif`, `.tiff`, `.webp`) and `.jfif` and `.jpe`, in any case, count as images. One that
//! cannot be decoded is an error. All else is passed over and counted by kind in [`Source::passed_over`]: files by
//! extension, hidden names, empty folders, folders that are no split, and what tinyres wrote itself (a packed set,
//! a killed pack, a run). A link to nothing is an error, and so is one that leads back to a folder above it.
//!
//! ## Parquet
//!
//! A file, or a directory with files as the Hugging Face Hub has them: `train-*.parquet`, `valid*` or
//! `validation*`, `test*`, in the directory itself or in `data/`. Other names are ignored.
//!
//! - A column of encoded images (`image.bytes`, or the one that the features of `datasets` call an
//!   `Image`), and one of integer labels (`label`, `fine_label` or another `ClassLabel`).
//! - Labels and classes are those of the metadata's `ClassLabel`; without it, a class is called by its
//!   number. The order is that of the file, not that of `wnids.txt`.
//! - Items come in the order of rows. An item is called `SPLIT/ROW`, or `SPLIT/ROW/FILE` if the image has
//!   a file name.
//! - Train and val need a label in each row. A null label, or a negative one, is none.
//!
//! ## CIFAR-10 and CIFAR-100
//!
//! The Python and the binary version, in a directory or an archive (`cifar-10-python.tar.gz`): `train` are
//! all training batches in order, `test` is the test batch. CIFAR-100 has its fine labels. Pickles are
//! read as data: nothing in them is imported or called. An item is called `SPLIT/NUMBER`.
//!
//! ## NumPy archives
//!
//! An `.npz` file of images and labels:
//!
//! - By name: `train_images` and `train_labels` as MedMNIST has them, `x_train` and `y_train` as Keras, or
//!   `train_x`, `train_data`; the same for `val` (`valid`, `validation`) and `test`. `images` and `labels`, `x` and
//!   `y`, or `data` and `labels` alone are a train split. Other arrays are passed over. `test` may lack labels.
//! - Images are `u8 [N, H, W]`, `[N, H, W, 3]`, `[N, 3, H, W]`, or `[N, 3 * S * S]`, planes of red, green and blue.
//!   Labels are integers `[N]` or `[N, 1]`; classes are called by their numbers.
//! - An array may have any length. A stored one is read in place. A compressed one is decompressed to a temporary
//!   file when its first image is read; its checksum is checked then, as that of a stored one. Other threads do
//!   that to the next arrays meanwhile.
//!
//! ## Downsampled ImageNet
//!
//! `train_data_batch_1` to `train_data_batch_10` and `val_data`, each an `.npz` file or a pickle of `data`
//! (`u8 [N, 3 * S * S]`) and `labels`, in a directory or an archive, or in folders of it next to each other
//! (`Imagenet64_train_npz`, `Imagenet64_val_npz`).
//!
//! - Labels begin at 1 in the files, and at 0 here. If a label is 0, they are kept.
//! - Classes are called by their numbers, or as `map_clsloc.txt` of the devkit says, if it is there.
//! - Batches are numbered without a gap. A batch that a zip deflates goes to a temporary file, several at one time.
//!
//! ## WebDataset
//!
//! A tar, plain or compressed, or a directory of them (shards: `train-000000.tar`), whose files come in samples: those
//! whose path is the same up to the first dot of the name, the key.
//!
//! | in the tar | what it gives |
//! | --- | --- |
//! | `KEY.jpg`, or another extension of an image | the image; a part with a dot (`KEY.mask.png`) only where there is no other |
//! | `KEY.cls`, `KEY.class` | its label: a number, or the name of a class |
//! | `KEY.json` | its label where there is no `.cls`: the first of `cls`, `label`, `class`, `class_id`, `target`; and the name of its class (`class_name`, `label`, ...) where that is a number |
//! | other parts | passed over: a `.txt` is a caption |
//!
//! - The split of a shard is told by its folder or name (`in1k-validation-00.tar`); if none tells one, all are train.
//!   In a tar alone, folders `train/`, `val/` and `test/` tell it. Shards come in natural order, samples in the order
//!   of the tar. A missing number between shards is a note.
//! - Classes are called by their numbers, by the names in `.json`, or as a file next to the shards or in the tar lists
//!   them: `classes`, `classnames`, `class_names` or `labels`, each `.txt` or `.json`, `class_to_idx.json`,
//!   `imagenet_class_index.json`. Labels that are names are sorted, unless such a file orders them.
//! - An image without a label (but in `test`), a label without an image, and a key of two images are errors. `.json`
//!   files next to the images of class folders do not make them samples.
//! - An item is called `SPLIT/SHARD/KEY.jpg`, or `SPLIT/KEY.jpg` in a tar alone. A shard that changes after it was
//!   opened is an error. There may be more shards than a process may open files; but a compressed shard keeps its
//!   temporary file open. The programs raise their limit of open files as far as the system lets them.
//!
//! ## Images of a program
//!
//! [`Feed`] takes encoded bytes, raw pixels and paths of files from a program, with labels, boxes and names, and
//! becomes a source of them.
//!
//! - The order is that in which they came. An item is called `SPLIT/NUMBER` unless it got a name.
//! - Labels are numbers or names. Names become classes in the order of their bytes, unless the program lists the
//!   classes. Train and val need a label for each image.
//! - Bytes are copied to a file without a name in `TMPDIR` (or `/var/tmp`), or stay where they are if they are lent.
//!
//! ## A validation split by name
//!
//! [`Source::hold_out`] takes a fraction of `train` for `val`. An image is taken if
//! `(h >> 11) / 2^53 < fraction`, where `h` is the first 8 bytes, as a big-endian integer, of the
//! SHA-256 of its path in `train` (`CLASS/NAME`). This does not depend on any other image. So a set
//! that grows moves none of its images, and a larger fraction only adds images to a smaller one.
//!
//! # Storage
//!
//! A directory, a zip, a tar, or a tar compressed by gzip or zstd; the first bytes of a file tell which.
//! Archives are never unpacked: their names are read once, and each image is read at its position.
//!
//! - A zip has checksums of its files, and every byte read is checked. Those that macOS makes of more than 65,535
//!   files or 4 GiB, without the records for that, are read too. A tar has checksums
//!   of its headers only: opening it detects that it was cut, but other damage to the data shows only
//!   when an image no longer decodes. A compressed tar is decompressed once,
//!   which checks its checksum, to a file without a name in `TMPDIR` (or `/var/tmp`) that vanishes with the
//!   process. Memory does not grow with it; the disk needs room for the tar.
//! - Hidden are names that begin with a dot, and those that programs leave behind: `__MACOSX`, `__pycache__`,
//!   `Thumbs.db`, `desktop.ini`.
//! - A byte of a name that is not UTF-8 becomes `%` and two hexadecimal digits (`Ch%E2teau.jpg`); in a zip, whose
//!   names are then in code page 437, the character of that page.
//! - Names from annotations are only looked up among the names of a listing, so they cannot lead
//!   outside the tree. Symbolic links in a directory are followed, as they are how
//!   people spread a data set over disks; in an archive links are an error, as are two entries of
//!   one name, names that lead outside, encrypted entries and sparse ones.

mod cifar;
pub(crate) mod csv_files;
mod dir;
mod downsampled;
mod error;
mod feed;
mod folder;
mod hold_out;
mod ilsvrc;
mod image;
mod image_folder;
mod index;
mod inflate;
mod names;
mod npz;
mod open;
#[cfg(feature = "parquet")]
mod parquet;
mod passed_over;
mod pickled;
mod pictures;
mod problems;
mod raw;
mod read_ahead;
mod read_error;
mod reader;
mod spool;
mod stamp;
mod storage;
mod tar;
mod tiny_imagenet;
mod tree;
mod tree_problem;
mod webdataset;
mod zip;

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use error::Error;
pub use feed::{Annotations, FedImage, Feed, Form, Label, Lent};
pub use image::{Image, Order, RawImage};
pub use passed_over::PassedOver;
pub use pictures::{in_folder, read};
pub use problems::{Problem, Problems};
pub use read_error::{ReadError, TemporaryError};
pub use stamp::Stamp;
use storage::{ReadState, Storage};
pub use tinyres_format::{Class, Split};
pub use tree_problem::{Location, TreeProblem};

/// Maximum depth of folders in a class folder. Deeper ones are a link to a folder above, or not a data set.
const MAX_DEPTH: usize = 8;
/// Maximum length of a file that is read from a source, text or image, in bytes: 64 MiB.
pub const MAX_FILE: u64 = 64 << 20;

/// An image that can be read, with its annotations.
#[derive(Clone, Debug)]
pub struct Item {
    /// Path in the tree, separated by `/`: `train/n02124075/images/n02124075_0.JPEG`.
    pub name: String,
    /// Index of its class, if it is labelled.
    pub label: Option<u32>,
    /// The annotated box in inclusive pixels x0, y0, x1, y1: none is negative, x0 <= x1 and y0 <= y1.
    /// It may reach beyond the image; the caller that decodes the image checks that.
    pub bbox: Option<[i32; 4]>,
    /// The index of its entry in an archive, or of its row; 0 in a directory.
    entry: usize,
}

/// Ignores the archive entry: the same image has another one in another archive.
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
    /// The layout that was found, in words.
    pub layout: String,
    /// Sentences about decisions that a person may want to know.
    pub notes: Vec<String>,
    /// Files and folders of the tree that are not used, by kind.
    pub passed_over: Vec<PassedOver>,
    /// The path of the train split's folder in the tree.
    train: String,
    storage: Storage,
    /// Once true, no image is read any more.
    stop: Arc<AtomicBool>,
}

/// Classes and images as a layout finds them.
#[derive(Debug, Default)]
struct Contents {
    classes: Vec<Class>,
    splits: Vec<(Split, Vec<Item>)>,
    /// The path of the train split's folder in the tree.
    train: String,
    /// The layout in words.
    layout: String,
    /// What the reader of a tree collected.
    notes: Vec<String>,
    passed_over: Vec<PassedOver>,
}

impl Contents {
    /// Those of a file of many images, whose items are called `SPLIT/NAME`.
    fn of_file((classes, splits): Listing, layout: &str) -> Self {
        Self {
            classes,
            splits,
            train: "train".to_owned(),
            layout: layout.to_owned(),
            ..Self::default()
        }
    }
}

impl Source {
    /// Opens the directory, zip or tar at `path`.
    ///
    /// Costs one listing of each folder of images, or one read of the zip's directory or of the tar's
    /// headers, and one read of each annotation file.
    ///
    /// # Errors
    /// The path cannot be read, or is not a data set of a known layout. [`Error::Tree`] reports all problems
    /// of a tree at once.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let (storage, contents) = open::open(path, &mut problems)?;
        if !problems.is_empty() {
            return Err(Error::Tree {
                tree: storage.display(),
                problems,
            });
        }
        Ok(Self::new(storage, contents))
    }

    fn new(storage: Storage, contents: Contents) -> Self {
        let Contents {
            classes,
            splits,
            train,
            layout,
            notes,
            passed_over,
        } = contents;
        Self {
            classes,
            splits,
            layout,
            notes,
            passed_over,
            train,
            storage,
            stop: Arc::default(),
        }
    }

    /// A flag that another thread sets to end the work: no image is read after that, and reading fails with
    /// [`Error::Stopped`].
    #[must_use]
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// A reader of the items of this source. Takes no lock: any number of threads may read at the same
    /// time, each with its own reader.
    #[must_use]
    pub fn reader(&self) -> ItemReader<'_> {
        ItemReader {
            storage: &self.storage,
            stop: &self.stop,
            state: ReadState::default(),
        }
    }

    /// Stamp of the file that holds `item`: the image as it is now, or its archive as it was opened. `None` if a
    /// program handed over its bytes.
    ///
    /// # Errors
    /// The operating system cannot read it.
    pub fn stamp(&self, item: &Item) -> io::Result<Option<Stamp>> {
        self.storage.stamp(item)
    }
}

/// Reads the items of a source, one after the other, and reuses its memory.
#[derive(Debug)]
pub struct ItemReader<'a> {
    storage: &'a Storage,
    stop: &'a AtomicBool,
    state: ReadState,
}

impl ItemReader<'_> {
    /// The image of `item`. Bytes from a zip have been checked against their CRC-32.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged. The error names it. [`Error::Stopped`] after the
    /// [flag](Source::stop_flag) was set.
    pub fn read(&mut self, item: &Item) -> Result<Image<'_>, Error> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        self.storage.read(item, &mut self.state)
    }

    /// Width and height of an image that is kept as raw pixels, which are known without reading it.
    pub(crate) fn raw_size(&self, item: &Item) -> Option<[u32; 2]> {
        self.storage.raw_size(item)
    }

    /// Stamp of the file that held the item read last, from before it was read.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.storage.stamp_of_read(&self.state)
    }

    /// Prepares to read `items`. Reads those that are adjacent in an archive at once.
    pub fn load(&mut self, items: &[&Item]) {
        self.storage.load(items, &mut self.state);
    }
}

/// Classes, and the items of each split.
type Listing = (Vec<Class>, Vec<(Split, Vec<Item>)>);

/// Classes that are called by `names`. One whose name is there already gets its label, too.
#[must_use]
pub fn distinct(names: Vec<String>) -> Vec<Class> {
    let mut seen = HashSet::new();
    let class = |(label, name): (usize, String)| {
        let id = match seen.insert(name.clone()) {
            true => name.clone(),
            false => format!("{name} ({label})"),
        };
        Class { id, name }
    };
    names.into_iter().enumerate().map(class).collect()
}

#[cfg(test)]
mod tests;
