//! Images that a program hands over one after the other, where other sources are files: [`Feed`] takes them and becomes
//! a [`Source`]. Bytes go to a temporary file, or stay in memory that the program lends; a file is read when it is
//! decoded. So memory holds the labels and names of all images, and the pixels of none.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dir;
use super::raw::Layout;
use super::read_ahead::ReadAhead;
use super::spool;
use super::storage::Storage;
use super::{
    Class, Contents, Error, Image, Item, Order, RawImage, ReadError, Source, Split, Stamp,
    TemporaryError,
};

/// Classes that have no names are called by their numbers, which must be less than this.
const MAX_CLASSES: u32 = 1 << 16;
/// Bytes that are written to the temporary file at once.
const BUFFER: usize = 1 << 18;

/// Memory of the program that feeds images, which stays as it is until the set is packed.
#[derive(Clone)]
pub struct Lent(pub Arc<dyn AsRef<[u8]> + Send + Sync>);

impl Lent {
    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lent({} bytes)", self.bytes().len())
    }
}

/// Meaning of the bytes of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A file of an image format, which its first bytes tell.
    Encoded,
    /// Pixels as an array holds them.
    Raw {
        /// Width and height in pixels.
        size: [u32; 2],
        /// Meaning of the values, and how they lie.
        order: Order,
    },
}

/// An image that is handed over.
#[derive(Clone, Debug)]
pub enum FedImage<'a> {
    /// Bytes that are copied.
    Copied(&'a [u8], Form),
    /// A range of memory that is lent.
    Lent(Lent, Range<usize>, Form),
    /// An encoded file, read when it is decoded.
    File(PathBuf),
}

/// The class of an image that is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label<'a> {
    /// The place of its class in the list of classes.
    Number(u32),
    /// The id or name of its class.
    Name(&'a str),
}

/// Annotations of an image that is handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Annotations<'a> {
    /// Its class. Images of train and val need one.
    pub label: Option<Label<'a>>,
    /// Its box in inclusive pixels x0, y0, x1, y1.
    pub bbox: Option<[i32; 4]>,
    /// Its name, which no other image of the set has. Without one it is called `SPLIT/NUMBER`.
    pub name: Option<&'a str>,
}

/// Takes images of unknown number, and becomes a source of them.
///
/// It writes bytes to a file without a name in `TMPDIR` (or `/var/tmp`), which vanishes with it.
#[derive(Debug, Default)]
pub struct Feed {
    classes: Option<Vec<Class>>,
    /// Numbers of labels that are names: places in the list of classes, or in the order of their first images.
    named: HashMap<String, u32>,
    /// The number of classes that labels without names need; 0 before the first of them.
    count: u32,
    names: HashSet<String>,
    splits: [Vec<Item>; 3],
    images: Vec<Stored>,
    spool: Option<Spool>,
}

/// The temporary file while it is written.
#[derive(Debug)]
struct Spool {
    file: BufWriter<File>,
    len: u64,
    folder: PathBuf,
    /// True after a write failed: it is unknown then how much of it is in the file.
    is_broken: bool,
}

impl Feed {
    /// Begins with the classes, in label order. Without them, labels that are names become classes in the order of
    /// their bytes, and labels that are numbers are called by these.
    #[must_use]
    pub fn new(classes: Option<Vec<Class>>) -> Self {
        let mut named = HashMap::new();
        for (label, class) in (0..).zip(classes.iter().flatten()) {
            // An id comes before a name, and the first of two equal names before the second.
            named.insert(class.id.clone(), label);
        }
        for (label, class) in (0..).zip(classes.iter().flatten()) {
            named.entry(class.name.clone()).or_insert(label);
        }
        Self {
            classes,
            named,
            ..Self::default()
        }
    }

    /// The number of images of `split` so far.
    #[must_use]
    pub fn len(&self, split: Split) -> usize {
        self.splits[split as usize].len()
    }

    /// True before the first image.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Adds an image to `split`. Nothing is decoded yet.
    ///
    /// # Errors
    /// [`Error::Fed`] for a label that no class has, a missing one, a box that ends before it begins, and a name that
    /// another image has; and those of the temporary file. The image is not part of the source then.
    pub fn add(
        &mut self,
        split: Split,
        image: FedImage<'_>,
        annotations: Annotations<'_>,
    ) -> Result<(), Error> {
        let number = self.len(split);
        let wrong = |reason| Error::Fed {
            split,
            image: number,
            reason,
        };
        if let Some([x0, y0, x1, y1]) = annotations.bbox
            && !(0 <= x0 && x0 <= x1 && 0 <= y0 && y0 <= y1)
        {
            return Err(wrong(format!(
                "box [{x0}, {y0}, {x1}, {y1}], expected x0, y0, x1, y1 in pixels, all inside the image, of which x1 and y1 are the last ones"
            )));
        }
        let form_len = |form| match form {
            Form::Encoded => None,
            Form::Raw { size, order } => Some(Layout { size, order }.len()),
        };
        let (len, form) = match &image {
            FedImage::Copied(bytes, form) => (bytes.len(), *form),
            FedImage::Lent(memory, range, form) => match memory.bytes().get(range.clone()) {
                Some(bytes) => (bytes.len(), *form),
                None => return Err(wrong("lies outside the memory that was lent".to_owned())),
            },
            FedImage::File(_) => (0, Form::Encoded),
        };
        if let Some(expected) = form_len(form).filter(|expected| *expected != len) {
            return Err(wrong(format!(
                "{len} values of raw pixels, expected {expected}"
            )));
        }
        let name = match annotations.name {
            Some(name) => name.to_owned(),
            None => format!("{}/{number}", split.name()),
        };
        if self.names.contains(&name) {
            return Err(wrong(format!(
                "another image is called {name:?}, too; give each its own name, for example one that begins with the split"
            )));
        }
        let label = self.label(split, annotations.label).map_err(wrong)?;
        let place = match image {
            FedImage::Copied(bytes, _) => Place::Spooled(self.copy(bytes)?),
            FedImage::Lent(memory, range, _) => Place::Lent(memory, range),
            FedImage::File(path) => Place::File(path),
        };
        self.names.insert(name.clone());
        self.splits[split as usize].push(Item {
            name,
            label,
            bbox: annotations.bbox,
            entry: self.images.len(),
        });
        self.images.push(Stored { place, form });
        Ok(())
    }

    /// The number of the class with this label, or what is wrong with it.
    fn label(&mut self, split: Split, label: Option<Label<'_>>) -> Result<Option<u32>, String> {
        let label = match label {
            None if split == Split::Test => return Ok(None),
            None => return Err("no label, as only images of test may have; give it one".to_owned()),
            Some(label) => label,
        };
        let mixed = || {
            "some labels are numbers and some are names; use one of the two, or name the classes"
                .to_owned()
        };
        let number = match (label, &self.classes) {
            (Label::Number(number), Some(classes)) if number as usize >= classes.len() => {
                return Err(format!(
                    "label {number}, expected less than {}, the number of classes",
                    classes.len()
                ));
            }
            (Label::Number(number), None) if number >= MAX_CLASSES => {
                return Err(format!(
                    "label {number}, expected less than {MAX_CLASSES} where classes have no names; name the classes"
                ));
            }
            (Label::Number(_), None) if !self.named.is_empty() => return Err(mixed()),
            (Label::Name(_), None) if self.count > 0 => return Err(mixed()),
            (Label::Number(number), _) => {
                self.count = self.count.max(number + 1);
                number
            }
            (Label::Name(name), Some(classes)) => *self.named.get(name).ok_or_else(|| {
                let first = classes.iter().take(3).map(|class| class.id.as_str());
                let first = first.collect::<Vec<_>>().join(", ");
                format!("label {name:?}, expected one of the classes: {first}, ...")
            })?,
            (Label::Name(name), None) => {
                let next = u32::try_from(self.named.len()).unwrap_or(u32::MAX);
                *self.named.entry(name.to_owned()).or_insert(next)
            }
        };
        Ok(Some(number))
    }

    /// Copies bytes to the end of the temporary file.
    fn copy(&mut self, bytes: &[u8]) -> Result<Range<u64>, TemporaryError> {
        let spool = match &mut self.spool {
            Some(spool) => spool,
            empty => {
                let folder = spool::folder();
                let file = tempfile::tempfile_in(&folder).map_err(|reason| TemporaryError {
                    folder: folder.clone(),
                    reason,
                })?;
                empty.insert(Spool {
                    file: BufWriter::with_capacity(BUFFER, file),
                    len: 0,
                    folder,
                    is_broken: false,
                })
            }
        };
        spool.check()?;
        let written = spool.file.write_all(bytes);
        spool.is_broken = written.is_err();
        written.map_err(|reason| spool.failed(reason))?;
        let start = spool.len;
        spool.len += bytes.len() as u64;
        Ok(start..spool.len)
    }

    /// The source of all images, in the order in which each split got them. Its splits are those that have images.
    ///
    /// # Errors
    /// Those of the temporary file; [`Error::NothingFed`] without an image.
    pub fn finish(mut self) -> Result<Source, Error> {
        if self.is_empty() {
            return Err(Error::NothingFed);
        }
        let classes = match self.classes.take() {
            Some(classes) => classes,
            None if self.named.is_empty() => {
                super::distinct((0..self.count).map(|label| label.to_string()).collect())
            }
            None => self.sort_classes(),
        };
        let spool = self.spool.take().map(Spool::finish).transpose()?;
        let mut splits: Vec<_> = [Split::Train, Split::Val, Split::Test]
            .into_iter()
            .zip(self.splits)
            .collect();
        splits.retain(|(_, items)| !items.is_empty());
        let images = self.images;
        Ok(Source::new(
            Storage::Fed(Fed { spool, images }),
            Contents::of_file((classes, splits), "images that a program handed over"),
        ))
    }

    /// Numbers the classes in the order of their names.
    fn sort_classes(&mut self) -> Vec<Class> {
        let mut names: Vec<_> = self.named.drain().collect();
        names.sort_unstable();
        let mut sorted = vec![0; names.len()];
        for (label, (_, known)) in (0..).zip(&names) {
            sorted[*known as usize] = label;
        }
        for item in self.splits.iter_mut().flatten() {
            item.label = item.label.map(|label| sorted[label as usize]);
        }
        super::distinct(names.into_iter().map(|(name, _)| name).collect())
    }
}

impl Spool {
    fn failed(&self, reason: io::Error) -> TemporaryError {
        TemporaryError {
            folder: self.folder.clone(),
            reason,
        }
    }

    fn check(&self) -> Result<(), TemporaryError> {
        match self.is_broken {
            true => Err(self.failed(io::Error::other("an earlier write failed"))),
            false => Ok(()),
        }
    }

    fn finish(mut self) -> Result<File, TemporaryError> {
        self.check()?;
        self.file.flush().map_err(|reason| self.failed(reason))?;
        let Self { file, folder, .. } = self;
        file.into_inner().map_err(|error| TemporaryError {
            folder,
            reason: error.into_error(),
        })
    }
}

/// The images of a [`Feed`], by the number in which they came.
#[derive(Debug)]
pub(super) struct Fed {
    spool: Option<File>,
    images: Vec<Stored>,
}

#[derive(Debug)]
struct Stored {
    place: Place,
    form: Form,
}

#[derive(Debug)]
enum Place {
    /// Bytes of the temporary file.
    Spooled(Range<u64>),
    Lent(Lent, Range<usize>),
    File(PathBuf),
}

/// Memory of one thread that reads them.
#[derive(Debug, Default)]
pub(super) struct FedBuffer {
    read_ahead: ReadAhead,
    file: Vec<u8>,
    /// Stamp of the file that was read last, if it was one.
    pub stamp: Option<Stamp>,
}

impl Fed {
    pub fn read<'a>(
        &'a self,
        image: usize,
        buffer: &'a mut FedBuffer,
    ) -> Result<Image<'a>, ReadError> {
        let Stored { place, form } = self.images.get(image).ok_or(ReadError::Missing)?;
        buffer.stamp = None;
        let bytes = match place {
            Place::Spooled(range) => {
                let file = self.spool.as_ref().ok_or(ReadError::Missing)?;
                (buffer.read_ahead.get(file, range.clone())).map_err(ReadError::Io)?
            }
            Place::Lent(memory, range) => {
                (memory.bytes().get(range.clone())).ok_or(ReadError::Missing)?
            }
            Place::File(path) => {
                buffer.stamp = Some(dir::read(path, &mut buffer.file)?);
                &buffer.file
            }
        };
        Ok(match *form {
            Form::Encoded => Image::Encoded(bytes),
            Form::Raw { size, order } => Image::Raw(RawImage {
                size,
                order,
                values: bytes,
            }),
        })
    }

    /// Reads `images` ahead as far as they lie in the temporary file.
    pub fn load(&self, images: impl Iterator<Item = usize>, buffer: &mut FedBuffer) {
        let ranges: Vec<_> = images
            .filter_map(|image| match &self.images.get(image)?.place {
                Place::Spooled(range) => Some(range.clone()),
                _ => None,
            })
            .collect();
        if let (Some(file), false) = (&self.spool, ranges.is_empty()) {
            buffer.read_ahead.load_all(file, ranges.into_iter());
        }
    }

    /// Width and height of an image of raw pixels.
    pub fn raw_size(&self, image: usize) -> Option<[u32; 2]> {
        match self.images.get(image)?.form {
            Form::Raw { size, .. } => Some(size),
            Form::Encoded => None,
        }
    }

    /// Stamp of the file of the image, if it is one.
    pub fn stamp(&self, image: usize) -> io::Result<Option<Stamp>> {
        match self.path(image) {
            Some(path) => Stamp::of_file(path).map(Some),
            None => Ok(None),
        }
    }

    /// The path of the image, if it is a file.
    pub fn path(&self, image: usize) -> Option<&Path> {
        match &self.images.get(image)?.place {
            Place::File(path) => Some(path),
            _ => None,
        }
    }
}
