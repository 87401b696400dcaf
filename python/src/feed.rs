//! Images that Python hands over to be packed: one by one, or as arrays that are read in place.

use std::ops::Range;
use std::path::PathBuf;

use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use tinyres::source::{self, Annotations, FedImage, Form, Label, Order};
use tinyres_format::{Class, Split};

use crate::borrowed::lend;
use crate::error;
use crate::pack::{Job, Options};

/// A label as Python has it: the number of a class, negative for none, or its name.
#[derive(FromPyObject)]
enum Labelled {
    #[pyo3(transparent)]
    Number(i64),
    #[pyo3(transparent)]
    Name(String),
}

/// Label, box and name of one image.
type Marks<'a> = (Option<Labelled>, Option<[i32; 4]>, Option<&'a str>);

/// Takes images, and packs them.
#[pyclass(module = "tinyres._native")]
pub(crate) struct Feed {
    /// `None` once it is packed.
    feed: Option<source::Feed>,
    job: Job,
}

#[pymethods]
impl Feed {
    #[new]
    #[pyo3(signature = (output, options, classes = None))]
    fn new(
        output: PathBuf,
        options: Options,
        classes: Option<Vec<(Option<String>, String)>>,
    ) -> PyResult<Self> {
        let classes = classes.map(|classes| match classes.iter().all(|(id, _)| id.is_none()) {
            true => source::distinct(classes.into_iter().map(|(_, name)| name).collect()),
            false => (classes.into_iter())
                .map(|(id, name)| Class {
                    id: id.unwrap_or_else(|| name.clone()),
                    name,
                })
                .collect(),
        });
        Ok(Self {
            feed: Some(source::Feed::new(classes)),
            job: Job::new(output, &options)?,
        })
    }

    /// Images of `split` so far.
    fn count(&mut self, split: &str) -> PyResult<usize> {
        let split = split_of(split)?;
        Ok(self.feed()?.len(split))
    }

    /// Adds an encoded image.
    #[pyo3(signature = (split, data, label = None, bbox = None, name = None))]
    fn encoded(
        &mut self,
        split: &str,
        data: &[u8],
        label: Option<Labelled>,
        bbox: Option<[i32; 4]>,
        name: Option<&str>,
    ) -> PyResult<()> {
        self.add(
            split,
            FedImage::Copied(data, Form::Encoded),
            (label, bbox, name),
        )
    }

    /// Adds raw pixels, `u8 [H, W, 3]`, `[3, H, W]` or `[H, W]`, which are copied.
    #[pyo3(signature = (split, pixels, label = None, bbox = None, name = None))]
    fn pixels(
        &mut self,
        split: &str,
        pixels: PyReadonlyArrayDyn<'_, u8>,
        label: Option<Labelled>,
        bbox: Option<[i32; 4]>,
        name: Option<&str>,
    ) -> PyResult<()> {
        let form = form_of(pixels.shape())?;
        self.add(
            split,
            FedImage::Copied(pixels.as_slice()?, form),
            (label, bbox, name),
        )
    }

    /// Adds an encoded file, which is read when it is decoded.
    #[pyo3(signature = (split, path, label = None, bbox = None, name = None))]
    fn file(
        &mut self,
        split: &str,
        path: PathBuf,
        label: Option<Labelled>,
        bbox: Option<[i32; 4]>,
        name: Option<&str>,
    ) -> PyResult<()> {
        self.add(split, FedImage::File(path), (label, bbox, name))
    }

    /// Adds raw pixels of many images, `u8 [N, H, W, 3]`, `[N, 3, H, W]` or `[N, H, W]`, which stay where they are.
    #[pyo3(signature = (split, pixels, labels = None, boxes = None, names = None))]
    fn all_pixels(
        &mut self,
        split: &str,
        pixels: PyReadonlyArrayDyn<'_, u8>,
        labels: Option<Vec<Option<Labelled>>>,
        boxes: Option<PyReadonlyArray2<'_, i32>>,
        names: Option<Vec<String>>,
    ) -> PyResult<()> {
        let shape = pixels.shape().to_vec();
        let [count, image @ ..] = shape.as_slice() else {
            return Err(PyValueError::new_err(
                "images is a number, expected an array",
            ));
        };
        let form = form_of(image)?;
        let len: usize = image.iter().product();
        let memory = lend(pixels)?;
        let ranges = (0..*count).map(|at| at * len..(at + 1) * len);
        let fed = ranges.map(|range| FedImage::Lent(memory.clone(), range, form));
        self.add_all(split, fed, (labels, boxes, names))
    }

    /// Adds encoded images that lie in `data` one after the other, image `i` from `offsets[i]` to `offsets[i + 1]`, and
    /// stay there, or are copied.
    #[pyo3(signature = (split, data, offsets, labels = None, boxes = None, names = None, copies = false))]
    #[expect(clippy::too_many_arguments, reason = "those of one call from Python")]
    fn all_encoded(
        &mut self,
        split: &str,
        data: PyReadonlyArray1<'_, u8>,
        offsets: PyReadonlyArray1<'_, i64>,
        labels: Option<Vec<Option<Labelled>>>,
        boxes: Option<PyReadonlyArray2<'_, i32>>,
        names: Option<Vec<String>>,
        copies: bool,
    ) -> PyResult<()> {
        let memory = lend(data)?;
        let place = |offset: &i64| usize::try_from(*offset).unwrap_or(usize::MAX);
        let offsets: Vec<usize> = offsets.as_slice()?.iter().map(place).collect();
        let ranges = offsets.windows(2).map(|ends| ends[0]..ends[1]);
        let fed = |range: Range<usize>| match copies {
            false => FedImage::Lent(memory.clone(), range, Form::Encoded),
            true => FedImage::Copied(memory.bytes().get(range).unwrap_or_default(), Form::Encoded),
        };
        self.add_all(split, ranges.map(fed), (labels, boxes, names))
    }

    /// Packs the images, as `pack` does a path. Nothing can be added after that.
    #[pyo3(signature = (progress = None))]
    fn pack(&mut self, py: Python<'_>, progress: Option<Py<PyAny>>) -> PyResult<String> {
        self.feed()?;
        let feed = self.feed.take().unwrap_or_default();
        let source = feed.finish().map_err(error::source)?;
        self.job.run(py, source, progress)
    }
}

/// Labels, boxes and names of many images.
type AllMarks<'py> = (
    Option<Vec<Option<Labelled>>>,
    Option<PyReadonlyArray2<'py, i32>>,
    Option<Vec<String>>,
);

impl Feed {
    fn feed(&mut self) -> PyResult<&mut source::Feed> {
        let closed = || PyRuntimeError::new_err("the set was packed already: make another Writer");
        self.feed.as_mut().ok_or_else(closed)
    }

    fn add(
        &mut self,
        split: &str,
        image: FedImage<'_>,
        (label, bbox, name): Marks<'_>,
    ) -> PyResult<()> {
        let split = split_of(split)?;
        let label = match &label {
            None | Some(Labelled::Number(..0)) => None,
            Some(Labelled::Number(number)) => {
                Some(Label::Number(u32::try_from(*number).unwrap_or(u32::MAX)))
            }
            Some(Labelled::Name(name)) => Some(Label::Name(name)),
        };
        let annotations = Annotations {
            label,
            bbox: bbox.filter(|bbox| *bbox != [-1; 4]),
            name,
        };
        (self.feed()?.add(split, image, annotations)).map_err(error::source)
    }

    fn add_all<'a>(
        &mut self,
        split: &str,
        images: impl ExactSizeIterator<Item = FedImage<'a>>,
        (labels, boxes, names): AllMarks<'_>,
    ) -> PyResult<()> {
        let count = images.len();
        let lengths = [
            ("labels", labels.as_ref().map(Vec::len)),
            ("boxes", boxes.as_ref().map(|boxes| boxes.shape()[0])),
            ("names", names.as_ref().map(Vec::len)),
        ];
        for (what, len) in lengths {
            if let Some(len) = len.filter(|len| *len != count) {
                return Err(PyValueError::new_err(format!(
                    "{len} {what} for {count} images, expected one for each"
                )));
            }
        }
        let boxes = boxes.as_ref().map(|boxes| boxes.as_slice()).transpose()?;
        let boxes = match boxes.map(<[i32]>::as_chunks::<4>) {
            None => None,
            Some((boxes, [])) if boxes.len() == count => Some(boxes),
            Some(_) => {
                return Err(PyValueError::new_err(
                    "boxes has another shape, expected [N, 4]",
                ));
            }
        };
        let mut labels = labels.map(Vec::into_iter);
        for (at, image) in images.enumerate() {
            let label = labels.as_mut().and_then(Iterator::next).flatten();
            let bbox = boxes.map(|boxes| boxes[at]);
            let name = names.as_ref().map(|names| names[at].as_str());
            self.add(split, image, (label, bbox, name))?;
        }
        Ok(())
    }
}

fn split_of(name: &str) -> PyResult<Split> {
    name.parse().map_err(PyValueError::new_err)
}

/// How an array of this shape holds the pixels of one image.
fn form_of(shape: &[usize]) -> PyResult<Form> {
    let (height, width, order) = match *shape {
        [height, width] | [height, width, 1] | [1, height, width] => (height, width, Order::Grey),
        [height, width, 3] => (height, width, Order::Interleaved),
        [3, height, width] => (height, width, Order::Planar),
        _ => {
            return Err(PyValueError::new_err(format!(
                "an image of shape {shape:?}, expected [H, W, 3], [3, H, W] or [H, W]; drop an alpha channel"
            )));
        }
    };
    let side = |side: usize| u32::try_from(side).ok().filter(|side| *side > 0);
    match (side(width), side(height)) {
        (Some(width), Some(height)) => Ok(Form::Raw {
            size: [width, height],
            order,
        }),
        _ => Err(PyValueError::new_err(format!(
            "an image of shape {shape:?}, which has no pixels"
        ))),
    }
}
