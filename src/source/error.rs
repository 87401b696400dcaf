//! Errors of this module. Every text names the file, what was found, what was expected and a remedy.

use std::io;
use std::path::{Path, PathBuf};

use super::Split;
use super::problems::Problems;
use super::read_error::{ReadError, TemporaryError, remedy};
use super::tree_problem::TreeProblem;
use crate::open_files::Remedy;
use crate::text::{counted, one_line, shell_word};

/// Reason why a source could not be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path does not exist or may not be read.
    #[error("{}: {reason}{}", path.display(), expected(reason))]
    Open {
        /// The path given.
        path: PathBuf,
        /// The error of the operating system.
        reason: io::Error,
    },
    /// The file is not a zip, or its directory of entries is damaged.
    #[error("{}: not a whole zip file ({reason}), nor a tar; if it should be one, copy or download it again", path.display())]
    Zip {
        /// The path given.
        path: PathBuf,
        /// The error of the zip reader.
        reason: ::zip::result::ZipError,
    },
    /// The zip's end record counts other entries than its directory lists: entries would be lost.
    #[error(
        "{}: the zip counts {counted} entries but lists {listed}; copy or download it again, or unpack it and pack the directory",
        path.display()
    )]
    ZipCount {
        /// The path given.
        path: PathBuf,
        /// The count in the end record.
        counted: usize,
        /// The number of entries in the directory.
        listed: usize,
    },
    /// The tar is cut short, or one of its headers is damaged.
    #[error("{}: not a whole tar, at byte {offset}: {}; copy or download it again", path.display(), one_line(&reason.to_string()))]
    Tar {
        /// The path given.
        path: PathBuf,
        /// The offset, in bytes, of the damage.
        offset: u64,
        /// The error of the tar reader.
        reason: io::Error,
    },
    /// Compressed by a program that is not read here.
    #[error("{}: compressed in a form that is not read here; decompress it first: {unpack} {}", path.display(), shell_word(.path))]
    Compressed {
        /// The path given.
        path: PathBuf,
        /// The program that decompresses it.
        unpack: &'static str,
    },
    /// The bytes of a compressed file do not decompress, or fail its checksum.
    #[error("{}: not a whole {form} file ({reason}); copy or download it again", path.display())]
    Damaged {
        /// The path given.
        path: PathBuf,
        /// The form of compression.
        form: &'static str,
        /// Reason, in words.
        reason: io::Error,
    },
    /// The temporary file for decompressed bytes cannot be written.
    #[error(transparent)]
    Temporary(#[from] TemporaryError),
    /// No folder has the layout of a data set.
    #[error(
        "{}: no set of images {searched}; expected one of\n  \
         Tiny ImageNet   wnids.txt, train/WNID/WNID_boxes.txt, train/WNID/images/*.JPEG\n  \
         class folders   train/CLASS/*.jpg and val/CLASS/*.jpg, or two or more CLASS/*.jpg alone\n  \
         ILSVRC          ILSVRC/Data/CLS-LOC/train/WNID/*.JPEG, Annotations/CLS-LOC, LOC_*.txt and .csv\n  \
         Parquet         train-*.parquet, valid*-*.parquet, test-*.parquet, there or in data/\n  \
         CIFAR           cifar-10-python.tar.gz, cifar-100-binary.tar.gz and such, or what is in them\n  \
         NumPy           an .npz file of train_images and train_labels, or of x_train and y_train\n  \
         Downsampled     train_data_batch_1.npz, val_data.npz and such, or pickled, there or in a zip\n  \
         WebDataset      tars of KEY.jpg and KEY.cls or KEY.json: one, or train-000000.tar and so on",
        path.display()
    )]
    NotATree {
        /// The path given.
        path: PathBuf,
        /// The folders that were searched, in words.
        searched: &'static str,
    },
    /// Several folders at the same depth have the layout of a data set.
    #[error("{}: several sets of images, expected one: {}; pack one of them by itself{}", path.display(), roots.join(", "), unpacked(path))]
    SeveralTrees {
        /// The path given.
        path: PathBuf,
        /// The folders.
        roots: Vec<String>,
    },
    /// A file that holds many images cannot be read, or lacks a column.
    #[error("{}: {reason}", path.display())]
    Table {
        /// The path of the file.
        path: PathBuf,
        /// The fault: found, expected, and a remedy.
        reason: String,
    },
    /// The tree breaks the rules of its layout.
    #[error("{tree}: {problems}")]
    Tree {
        /// The path of the tree.
        tree: String,
        /// All problems.
        problems: Problems<TreeProblem>,
    },
    /// A validation split was requested, but the tree has one.
    #[error("{tree}: has a validation split already; pack it without --val-fraction")]
    HasVal {
        /// The path of the tree.
        tree: String,
    },
    /// An image that a program handed over breaks a rule.
    #[error("{split} image {image}: {reason}")]
    Fed {
        /// The split.
        split: Split,
        /// The number of the image in it, from 0.
        image: usize,
        /// The fault: found, expected, and a remedy.
        reason: String,
    },
    /// No image was handed over.
    #[error("no image was handed over, expected at least one")]
    NothingFed,
    /// Another thread ended the work.
    #[error("stopped before all images were read")]
    Stopped,
    /// A split would be empty.
    #[error(
        "--val-fraction {fraction} takes {held} of {}, and both splits need some{}",
        counted(*.all, "train image"), other_fraction(*.fits)
    )]
    HoldOut {
        /// The requested fraction.
        fraction: f64,
        /// The number of images it takes.
        held: usize,
        /// The number of train images.
        all: usize,
        /// A fraction that takes some and leaves some.
        fits: Option<f64>,
    },
    /// The bytes of an item could not be read.
    #[error("{file}: {reason}")]
    Read {
        /// The path of the file.
        file: String,
        /// The reason.
        reason: ReadError,
    },
}

/// The remedy for a path that cannot be opened.
fn expected(reason: &io::Error) -> String {
    match remedy(reason) {
        "" => {
            let remedy = Remedy(reason, "expected a directory, a zip or a tar of images");
            format!("; {remedy}")
        }
        remedy => remedy.to_owned(),
    }
}

/// How to get at one of several sets in an archive.
fn unpacked(path: &Path) -> &'static str {
    match path.is_dir() {
        true => "",
        false => ", after unpacking it",
    }
}

fn other_fraction(fits: Option<f64>) -> String {
    match fits {
        Some(fits) => format!("; --val-fraction {fits} takes some"),
        None => ": there are too few to hold some out".to_owned(),
    }
}
