use std::fmt;
use std::io;
use std::path::PathBuf;

use super::MAX_FILE;

/// Why a source could not be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path does not exist or may not be read.
    #[error("{}: {reason}; expected a directory, a zip or a tar of images", path.display())]
    Open {
        /// The path given.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// The file is no zip, or its directory of entries is damaged.
    #[error("{}: not a whole zip file ({reason}), nor a tar; if it should be one, copy or download it again", path.display())]
    Zip {
        /// The path given.
        path: PathBuf,
        /// What is wrong with it.
        reason: ::zip::result::ZipError,
    },
    /// The zip's end record counts fewer entries than its directory lists: entries would be lost.
    #[error(
        "{}: the zip counts {counted} entries but lists more, as zips made by macOS do beyond 65,535 files; \
         unpack it and pack the directory",
        path.display()
    )]
    ZipCount {
        /// The path given.
        path: PathBuf,
        /// How many entries the end record counts.
        counted: usize,
    },
    /// The tar ends before its end, or a header of it is damaged.
    #[error("{}: not a whole tar, at byte {offset}: {reason}; copy or download it again", path.display())]
    Tar {
        /// The path given.
        path: PathBuf,
        /// Where the headers ceased to make sense.
        offset: u64,
        /// What is wrong there.
        reason: io::Error,
    },
    /// A compressed tar can only be read from its beginning, not image by image.
    #[error("{}: compressed, so that no image of it can be read by itself; unpack it first: {unpack} {}", path.display(), path.display())]
    Compressed {
        /// The path given.
        path: PathBuf,
        /// The program that leaves the tar.
        unpack: &'static str,
    },
    /// Nothing that looks like a layout is where one would be.
    #[error(
        "{}: no set of images {searched}; expected one of\n  \
         Tiny ImageNet   wnids.txt, train/WNID/WNID_boxes.txt, train/WNID/images/*.JPEG\n  \
         class folders   train/CLASS/*.jpg and val/CLASS/*.jpg, or two or more CLASS/*.jpg alone",
        path.display()
    )]
    NotATree {
        /// The path given.
        path: PathBuf,
        /// Where they were looked for.
        searched: &'static str,
    },
    /// More than one tree lies at the same depth.
    #[error("{}: several sets of images, expected one: {}; pack one of them by itself", path.display(), roots.join(", "))]
    SeveralTrees {
        /// The path given.
        path: PathBuf,
        /// The trees in it.
        roots: Vec<String>,
    },
    /// The tree is not as it should be.
    #[error("{tree}: {problems}")]
    Tree {
        /// Where the tree lies.
        tree: String,
        /// All that is wrong with it.
        problems: Problems<Problem>,
    },
    /// A validation split is asked for where there is one.
    #[error("{tree}: has a validation split already; pack it without --val-fraction")]
    HasVal {
        /// Where the tree lies.
        tree: String,
    },
    /// A split would be without an image.
    #[error(
        "--val-fraction {fraction} takes {held} of the {all} train images, and both splits need some; choose another"
    )]
    HoldOut {
        /// The fraction asked for.
        fraction: f64,
        /// How many images it takes.
        held: usize,
        /// Of how many.
        all: usize,
    },
    /// An item's bytes could not be read.
    #[error("{file}: {fault}")]
    Read {
        /// Where the file lies.
        file: String,
        /// Why.
        fault: Fault,
    },
}

/// Why the bytes of one file cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// There is no such file.
    #[error("no such file")]
    Missing,
    /// The operating system refused.
    #[error("{0}")]
    Io(io::Error),
    /// Longer than anything that belongs into such a tree.
    #[error("{size} bytes long or longer, expected at most {MAX_FILE}")]
    TooLarge {
        /// A length in bytes that it has at least.
        size: u64,
    },
    /// The zip entry asks for a password.
    #[error("encrypted in the zip; unpack it with its password and pack the directory")]
    Encrypted,
    /// The zip entry is compressed by a method that is not read here.
    #[error("compressed in the zip by {method}, expected stored or deflated; zip it again")]
    Method {
        /// The method's name.
        method: String,
    },
    /// The entry of a zip or tar is a link to another file.
    #[error(
        "a link in the archive; archive the file that it stands for (tar has --dereference --hard-dereference)"
    )]
    Link,
    /// The tar holds the file's data in parts, without its runs of zeros.
    #[error("a sparse file in the tar; make the tar again without --sparse")]
    Sparse,
    /// No local header lies where the zip's directory says, or the data does not fit into the file.
    #[error("the zip is damaged at byte {offset}: {reason}; copy or download it again")]
    Entry {
        /// Where the entry's local header should lie.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// The bytes are not those that were zipped.
    #[error(
        "the zip is damaged: checksum {got:08x}, expected {expected:08x}; copy or download it again"
    )]
    Checksum {
        /// The CRC-32 of the bytes found.
        got: u32,
        /// The CRC-32 that the zip's directory states.
        expected: u32,
    },
}

/// A line of a text file of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Path in the tree.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
}

impl Place {
    pub(super) fn new(file: &str, line: usize) -> Self {
        let file = file.to_owned();
        Self { file, line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One thing that is wrong with a tree. Files are named by their path in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A file or folder that the layout asks for is absent.
    #[error("{name} is missing: {why}")]
    Missing {
        /// The file or folder.
        name: String,
        /// What it is needed for, and what can be done without it.
        why: &'static str,
    },
    /// A file or folder that is needed cannot be read.
    #[error("{name}: {fault}")]
    Unreadable {
        /// The file or folder.
        name: String,
        /// Why.
        fault: Fault,
    },
    /// A text file is not text.
    #[error("{at}: not UTF-8 text")]
    NotText {
        /// The first line that is not.
        at: Place,
    },
    /// A class without an id.
    #[error("{at}: an empty line, expected a wnid such as n02124075; remove it")]
    EmptyClass {
        /// The line.
        at: Place,
    },
    /// A class that is listed twice would have two labels.
    #[error("{at}: {wnid} is on line {first} already; remove one of the two")]
    RepeatedClass {
        /// The second line.
        at: Place,
        /// The class.
        wnid: String,
        /// The first line.
        first: usize,
    },
    /// A class without a folder of that very name.
    #[error("{at}: class {wnid:?} has no folder in train/; restore the folder or remove the line")]
    ClassWithoutFolder {
        /// The class's line.
        at: Place,
        /// The class.
        wnid: String,
    },
    /// A folder of a class that has no label.
    #[error("{folder}: wnids.txt does not list this class; add it there or remove the folder")]
    FolderWithoutClass {
        /// The folder.
        folder: String,
    },
    /// An annotation with too few or too many fields.
    #[error("{at}: found {got} fields, expected {} separated by tabs: {}", expected.len(), expected.join(", "))]
    Fields {
        /// The line.
        at: Place,
        /// How many it has.
        got: usize,
        /// What they should be.
        expected: &'static [&'static str],
    },
    /// A corner of a box is no pixel.
    #[error("{at}: {field} is {got:?}, expected a whole number of pixels, 0 or more")]
    Coordinate {
        /// The line.
        at: Place,
        /// Which of the four.
        field: &'static str,
        /// What stands there.
        got: String,
    },
    /// A box ends before it begins.
    #[error("{at}: box {bbox:?} is inverted, expected x0 <= x1 and y0 <= y1")]
    Inverted {
        /// The line.
        at: Place,
        /// x0, y0, x1, y1.
        bbox: [i32; 4],
    },
    /// An annotation names a class that has no label.
    #[error("{at}: unknown class {wnid:?}, expected one that wnids.txt lists")]
    UnknownClass {
        /// The line.
        at: Place,
        /// The class.
        wnid: String,
    },
    /// An annotation names no file of its folder, but a path.
    #[error("{at}: {name:?} is a path, expected the bare name of a file in {folder}")]
    Path {
        /// The line.
        at: Place,
        /// What stands there.
        name: String,
        /// The folder that holds the images.
        folder: String,
    },
    /// An image is listed but absent.
    #[error("{at}: {name:?} is not in {folder}; restore the image or remove the line")]
    Absent {
        /// The line.
        at: Place,
        /// The image.
        name: String,
        /// The folder that should hold it.
        folder: String,
    },
    /// An image is listed twice.
    #[error("{at}: {name} is on line {first} already; remove one of the two")]
    Repeated {
        /// The second line.
        at: Place,
        /// The image.
        name: String,
        /// The first line.
        first: usize,
    },
    /// An image is present but not listed.
    #[error("{image}: {list} does not list it; add a line there or remove the image")]
    Unlisted {
        /// The image.
        image: String,
        /// The file that should list it.
        list: String,
    },
    /// There is nothing to train on.
    #[error("train/ holds no image")]
    NoImages,
    /// A split without a folder for each class.
    #[error("{folder} holds no folder, expected one for each class")]
    NoClasses {
        /// The split's folder.
        folder: String,
    },
    /// A class folder without an image.
    #[error("{folder}: no image in this class folder; add some or remove the folder")]
    EmptyClassFolder {
        /// The folder.
        folder: String,
    },
    /// A class folder of a class that has no label.
    #[error("{folder}: train/ has no class of this name; add it there or remove the folder")]
    ClassNotInTrain {
        /// The folder.
        folder: String,
    },
    /// An image whose class no folder tells.
    #[error("{image}: lies beside the class folders; move it into one or remove it")]
    OutsideClass {
        /// The image.
        image: String,
    },
    /// Folders inside each other without end.
    #[error(
        "{folder}: too many folders inside each other; is one a link to a folder above it? remove it"
    )]
    TooDeep {
        /// The folder.
        folder: String,
    },
    /// Two folders could be the validation split.
    #[error(
        "{first}/ and {second}/ are both there, expected one validation split; remove one of the two"
    )]
    TwoVals {
        /// One.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A name in an archive leads outside, or nowhere.
    #[error(
        "archive entry {name:?}: expected a relative path in UTF-8 without `..`; make the archive again"
    )]
    EntryName {
        /// The entry.
        name: String,
    },
    /// Two entries of an archive have one name, so that it is open which is meant.
    #[error("archive entry {name:?} is there more than once; make the archive again")]
    RepeatedEntry {
        /// The entry.
        name: String,
    },
}

/// All that is wrong, so that it can be mended in one go: the first [`SHOWN`](Self::SHOWN)
/// offenders and the count of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems<P> {
    first: Vec<P>,
    count: usize,
}

impl<P> Problems<P> {
    /// How many are kept and shown; a damaged text file of 64 MiB can hold millions.
    pub const SHOWN: usize = 20;

    /// Adds one.
    pub fn push(&mut self, problem: P) {
        self.count += 1;
        if self.first.len() < Self::SHOWN {
            self.first.push(problem);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first of them, in the order they were met.
    #[must_use]
    pub fn first(&self) -> &[P] {
        &self.first
    }
}

impl<P> Default for Problems<P> {
    fn default() -> Self {
        Self {
            first: Vec::new(),
            count: 0,
        }
    }
}

impl<P: fmt::Display> fmt::Display for Problems<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.count == 1 { "" } else { "s" };
        write!(f, "{} problem{plural}", self.count)?;
        for problem in &self.first {
            write!(f, "\n  {problem}")?;
        }
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}
