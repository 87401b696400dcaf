//! Faults of a tree or of a row of a file. All problems of a source are reported at once. Every
//! text names the file, what was found, what was expected and a remedy.

use std::fmt;
use std::mem::{Discriminant, discriminant};

use super::problems::Problem;
use super::read_error::ReadError;
use super::{MAX_DEPTH, Split};
use crate::text::counted;

/// A line of a text file in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Path in the tree.
    pub file: String,
    /// The number of the line, from 1.
    pub line: usize,
}

impl Location {
    pub(super) fn new(file: &str, line: usize) -> Self {
        let file = file.to_owned();
        Self { file, line }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One problem of a tree. Names files by their path in the tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeProblem {
    /// A row of a file that holds many images has no label, or one of no class.
    #[error("{file}: row {row}: {reason}; mend the label or remove the row")]
    Row {
        /// The file.
        file: String,
        /// The row, from 0.
        row: usize,
        /// The value found and the one expected.
        reason: String,
    },
    /// A file or folder that the layout requires is missing.
    #[error("{name} is missing: {why}")]
    Missing {
        /// The file or folder.
        name: String,
        /// Its purpose, and the remedy.
        why: &'static str,
    },
    /// A required file or folder cannot be read.
    #[error("{name}: {reason}")]
    Unreadable {
        /// The file or folder.
        name: String,
        /// The reason.
        reason: ReadError,
    },
    /// A text file is not UTF-8.
    #[error("{at}: not UTF-8 text")]
    NotText {
        /// The first line that is not.
        at: Location,
    },
    /// A line without a class id.
    #[error("{at}: an empty line, expected a wnid such as n02124075; remove it")]
    EmptyClass {
        /// The line.
        at: Location,
    },
    /// A class is listed twice, so it would have two labels.
    #[error("{at}: {wnid} is on line {first} already; remove one of the two")]
    RepeatedClass {
        /// The second line.
        at: Location,
        /// The class.
        wnid: String,
        /// The first line.
        first: usize,
    },
    /// A symbolic link leads nowhere, so that what it stands for would be lost.
    #[error(
        "{link}: a link to nothing; fetch the file or folder that it stands for, or remove the link"
    )]
    DeadLink {
        /// The link.
        link: String,
    },
    /// A symbolic link leads to a folder that it lies in.
    #[error("{folder}: leads back to a folder above it; remove the link")]
    LinkLoop {
        /// The link.
        folder: String,
    },
    /// A class has no folder of the same name.
    #[error("{at}: class {wnid:?} has no folder in train/; restore the folder or remove the line")]
    ClassWithoutFolder {
        /// The class's line.
        at: Location,
        /// The class.
        wnid: String,
    },
    /// A class folder is missing in the list of classes.
    #[error("{folder}: wnids.txt does not list this class; add it there or remove the folder")]
    FolderWithoutClass {
        /// The folder.
        folder: String,
    },
    /// An annotation has too few or too many fields.
    #[error("{at}: found {}, expected {} separated by tabs: {}", counted(*got, "field"), expected.len(), expected.join(", "))]
    Fields {
        /// The line.
        at: Location,
        /// The number of fields found.
        got: usize,
        /// The names of the fields expected.
        expected: &'static [&'static str],
    },
    /// A coordinate of a box is not a pixel.
    #[error("{at}: {field} is {got:?}, expected a whole number of pixels, 0 or more")]
    Coordinate {
        /// The line.
        at: Location,
        /// One of `x0`, `y0`, `x1`, `y1`.
        field: &'static str,
        /// The text found.
        got: String,
    },
    /// A box ends before it begins.
    #[error("{at}: box {bbox:?} is inverted, expected x0 <= x1 and y0 <= y1")]
    Inverted {
        /// The line.
        at: Location,
        /// x0, y0, x1, y1.
        bbox: [i32; 4],
    },
    /// An annotation names a class that is not listed.
    #[error("{at}: unknown class {wnid:?}, expected one that wnids.txt lists")]
    UnknownClass {
        /// The line.
        at: Location,
        /// The class.
        wnid: String,
    },
    /// An annotation names a path instead of a file.
    #[error("{at}: {name:?} is a path, expected the bare name of a file in {folder}")]
    Path {
        /// The line.
        at: Location,
        /// The text found.
        name: String,
        /// The folder that holds the images.
        folder: String,
    },
    /// A listed image is missing.
    #[error("{at}: {name:?} is not in {folder}; restore the image or remove the line")]
    Absent {
        /// The line.
        at: Location,
        /// The image.
        name: String,
        /// The folder that should hold it.
        folder: String,
    },
    /// An image is listed twice.
    #[error("{at}: {name} is on line {first} already; remove one of the two")]
    Repeated {
        /// The second line.
        at: Location,
        /// The image.
        name: String,
        /// The first line.
        first: usize,
    },
    /// An image is not listed.
    #[error("{image}: {list} does not list it; add a line there or remove the image")]
    Unlisted {
        /// The image.
        image: String,
        /// The file that should list it.
        list: String,
    },
    /// The folder that an image is in is that of another class than its annotation says.
    #[error(
        "{at}: {name} is of class {wnid} here, but lies in {folder}; correct the line, or move the image"
    )]
    OtherClass {
        /// The line.
        at: Location,
        /// The image.
        name: String,
        /// The class in the line.
        wnid: String,
        /// The folder of the image.
        folder: String,
    },
    /// There are no train images.
    #[error("train/ holds no image")]
    NoImages,
    /// A split has no class folders.
    #[error("{folder} holds no folder, expected one for each class")]
    NoClasses {
        /// The split's folder.
        folder: String,
    },
    /// A class folder has no image.
    #[error("{folder}: no image in this class folder; add some or remove the folder")]
    EmptyClassFolder {
        /// The folder.
        folder: String,
    },
    /// A class folder has no counterpart in `train`.
    #[error("{folder}: train/ has no class of this name; add it there or remove the folder")]
    ClassNotInTrain {
        /// The folder.
        folder: String,
    },
    /// An image lies outside the class folders, so its class is unknown.
    #[error("{image}: lies beside the class folders; move it into one or remove it")]
    OutsideClass {
        /// The image.
        image: String,
    },
    /// Folders are nested too deeply.
    #[error(
        "{folder}: too many folders inside each other, expected at most {MAX_DEPTH}; move its images up or remove it"
    )]
    TooDeep {
        /// The folder.
        folder: String,
    },
    /// Two folders are named like the same split.
    #[error(
        "{first}/ and {second}/ are both there, expected one {split} split; remove one of the two"
    )]
    TwoSplits {
        /// The split.
        split: Split,
        /// One folder.
        first: String,
        /// The other.
        second: String,
    },
    /// The name of an archive entry leads outside the archive, or is not a valid path.
    #[error(
        "archive entry {name:?}: expected a relative path without `..`; make the archive again"
    )]
    EntryName {
        /// The entry.
        name: String,
    },
    /// An annotation of ILSVRC cannot be parsed.
    #[error("{file}: {reason}; mend the annotation, or remove it to pack the image without a box")]
    Annotation {
        /// The file, and the line of a list.
        file: String,
        /// The value found and the one expected.
        reason: String,
    },
    /// A CSV file of classes or images that `tinyres unpack` wrote was changed.
    #[error("{file}: {reason}; mend it, or remove the file to pack without it")]
    List {
        /// The file.
        file: String,
        /// The value found and the one expected.
        reason: String,
    },
    /// An image of ILSVRC is neither in a class folder nor annotated.
    #[error(
        "{image}: no label: no XML file in Annotations/CLS-LOC/val, no line in LOC_val_solution.csv; restore one of them or remove the image"
    )]
    NoLabel {
        /// The image.
        image: String,
    },
    /// An image of ILSVRC is annotated with a class that `train` lacks.
    #[error(
        "{image}: of class {wnid}, which has no folder in train/; add it there or remove the image"
    )]
    ImageOfNoClass {
        /// The image.
        image: String,
        /// The class.
        wnid: String,
    },
    /// A problem of one of several archives.
    #[error("{file}: {reason}")]
    Shard {
        /// The archive.
        file: String,
        /// The problem.
        reason: String,
    },
    /// A sample of a WebDataset has an image and no label.
    #[error(
        "{key}: no label, expected a .cls of the same key, or a .json with a field label, cls or class; add it or remove the image"
    )]
    SampleWithoutLabel {
        /// The key, and the shard if there are several.
        key: String,
    },
    /// A sample of a WebDataset has a label and no image.
    #[error(
        "{key}: a label without an image of the same key; restore the image or remove the label"
    )]
    SampleWithoutImage {
        /// The key, and the shard if there are several.
        key: String,
    },
    /// A sample of a WebDataset has several images.
    #[error("{key}: {} images of one key, expected one: {}; keep one of them", images.len(), images.join(", "))]
    SampleOfSeveralImages {
        /// The key, and the shard if there are several.
        key: String,
        /// The images.
        images: Vec<String>,
    },
    /// The label of a sample of a WebDataset cannot be read, or is none.
    #[error("{key}: {reason}; mend the label or remove the sample")]
    SampleLabel {
        /// The key, and the shard if there are several.
        key: String,
        /// The value found and the one expected.
        reason: String,
    },
    /// Two entries of an archive have the same name.
    #[error("archive entry {name:?} is there more than once; make the archive again")]
    RepeatedEntry {
        /// The entry.
        name: String,
    },
}

impl Problem for TreeProblem {
    type Kind = (
        Discriminant<Self>,
        Option<Discriminant<ReadError>>,
        &'static str,
    );

    fn kind(&self) -> Self::Kind {
        let (reason, why) = match self {
            Self::Unreadable { reason, .. } => (Some(discriminant(reason)), ""),
            Self::Missing { why, .. } => (None, *why),
            _ => (None, ""),
        };
        (discriminant(self), reason, why)
    }
}
