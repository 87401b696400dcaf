//! One split of a set as a Python object: images, labels, boxes and names as NumPy arrays, and indexing.

use std::ffi::OsStr;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use numpy::ndarray::Dimension;
use numpy::{
    PyArray, PyArray1, PyArray2, PyArray3, PyArray4, PyArrayMethods, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyTuple};
use tinyres_format::{Manifest, Split};
use tinyres_load::{Dataset as Loaded, Verify};

use crate::error;
use crate::faults;
use crate::images::Images;
use crate::index::{self, Index};
use crate::names::Names;

/// Images that are checked or copied before Python may handle a signal: 10 to 20 ms from memory.
const STEP: u32 = 1 << 12;

/// One split of a set: its images in the order in which they lie in the shards.
///
/// ``ds[i]`` is an image, ``u8 [3, H, W]``, and its label, an ``int``. ``ds[2:5]``, ``ds[[7, 3]]`` and ``ds[mask]`` are
/// images, ``u8 [n, 3, H, W]``, and labels, ``i64 [n]``. These are copies; ``ds.images`` is a view.
///
/// path: directory of the set.
/// split: "train", "val" or "test".
/// verify: when pixels are checked against their checksums: "lazy" (when first touched), "full" (all of them now),
///     or "off".
#[pyclass(frozen, module = "tinyres")]
pub(crate) struct Dataset {
    data: Arc<Loaded>,
    path: PathBuf,
    verify: Verify,
    /// The array, and where it lies.
    images: PyOnceLock<(Py<PyAny>, Range<usize>)>,
    labels: PyOnceLock<Py<PyArray1<i64>>>,
    boxes: PyOnceLock<Py<PyArray2<i32>>>,
    targets: PyOnceLock<Py<PyList>>,
}

#[pymethods]
impl Dataset {
    #[new]
    #[pyo3(signature = (path, split, verify = "lazy"))]
    fn new(py: Python<'_>, path: PathBuf, split: &str, verify: &str) -> PyResult<Self> {
        let (split, verify) = (split_of(split)?, verify_of(verify)?);
        faults::install();
        // A process that unpickles this may be in another directory.
        let path = std::path::absolute(path)?;
        let lazily = if verify == Verify::Full {
            Verify::Lazy
        } else {
            verify
        };
        let set = Self {
            data: Arc::new(py.detach(|| open(&path, split, lazily))?),
            path,
            verify,
            images: PyOnceLock::new(),
            labels: PyOnceLock::new(),
            boxes: PyOnceLock::new(),
            targets: PyOnceLock::new(),
        };
        if verify == Verify::Full {
            set.verify(py)?;
        }
        Ok(set)
    }

    /// Directory of the set, absolute: ``str``.
    #[getter]
    fn path(&self) -> &OsStr {
        self.path.as_os_str()
    }

    /// Name of the split: "train", "val" or "test".
    #[getter]
    fn split(&self) -> &'static str {
        self.data.split().name()
    }

    /// Shape of an image: ``(3, height, width)``.
    #[getter]
    fn shape(&self) -> (u32, u32, u32) {
        let shape = self.data.shape();
        (shape.channels, shape.height, shape.width)
    }

    /// Hexadecimal digest that identifies the listing and the settings that the set was packed from. All splits of a
    /// set have the same.
    #[getter]
    fn fingerprint(&self) -> String {
        self.data.fingerprint().to_string()
    }

    /// Identifiers of the classes, in the order of the labels: names of folders, such as "n01443537", or what the
    /// source called the class.
    #[getter]
    fn classes(&self) -> Vec<&str> {
        self.data.classes().iter().map(|class| &*class.id).collect()
    }

    /// Names of the classes for people, such as "goldfish", in the order of the labels. They may repeat.
    #[getter]
    fn class_names(&self) -> Vec<&str> {
        self.data
            .classes()
            .iter()
            .map(|class| &*class.name)
            .collect()
    }

    /// Label of each class, by its identifier.
    #[getter]
    fn class_to_idx<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let labels = PyDict::new(py);
        for (label, class) in self.data.classes().iter().enumerate() {
            labels.set_item(&class.id, label)?;
        }
        Ok(labels)
    }

    /// All images as one array over all shards, ``u8 [N, 3, H, W]``, read-only. Nothing is copied: it is the page
    /// cache. The array stays valid when the data set is gone.
    ///
    /// All checksums that have not been compared yet are, before it is handed out for the first time; with
    /// ``verify="off"`` none are.
    ///
    /// Raises ``ValueError`` if the images of a shard do not end on a page of memory, so that those of the next one
    /// cannot follow; ``gather`` reads such a set. Shards of 8,192 images, the default, always do.
    #[getter]
    fn images<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (images, addresses) = self.images.get_or_try_init(py, || {
            let images = py
                .detach(|| faults::as_views(|| self.data.images()))
                .map_err(error::load)?;
            self.verify_images(py, false)?;
            let range = images.as_ptr_range();
            let addresses = range.start.addr()..range.end.addr();
            let images = Images::array(py, &self.data, range.start, false, Box::new(images))?;
            Ok::<_, PyErr>((images.unbind(), addresses))
        })?;
        faults::check([addresses.clone()].into_iter())?;
        Ok(images.bind(py).clone())
    }

    /// All images, as in ``images``, but writable: what is written stays in this process, and in this array. Only the
    /// pages that are written to are copied. Each call makes a map of its own.
    fn private_images<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let mut images = py
            .detach(|| faults::as_views(|| self.data.private_images()))
            .map_err(error::load)?;
        self.verify_images(py, false)?;
        let start = images.as_mut_ptr();
        Images::array(py, &self.data, start, true, Box::new(images))
    }

    /// Labels of all images, ``i64 [N]``, read-only: places in ``classes``, or -1 for none.
    #[getter]
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let made = self.labels.get_or_try_init(py, || {
            let labels = faults::settle(&self.data, py.detach(|| self.data.labels()))?;
            let labels = PyArray1::from_vec(py, labels);
            freeze(&labels)?;
            Ok::<_, PyErr>(labels.unbind())
        });
        Ok(made?.bind(py).clone())
    }

    /// Labels of all images as a list of ``int``, as torchvision's data sets have it.
    #[getter]
    fn targets<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let made = self.targets.get_or_try_init(py, || {
            let labels = self.labels(py)?.call_method0("tolist")?;
            Ok::<_, PyErr>(labels.cast_into::<PyList>()?.unbind())
        });
        Ok(made?.bind(py).clone())
    }

    /// Boxes of all images, ``i32 [N, 4]``, read-only: inclusive pixels (x0, y0, x1, y1), or four times -1 for none.
    #[getter]
    fn boxes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<i32>>> {
        let made = self.boxes.get_or_try_init(py, || {
            let boxes = faults::settle(&self.data, py.detach(|| self.data.boxes()))?;
            let count = boxes.len();
            let boxes = PyArray1::from_vec(py, boxes.into_flattened()).reshape([count, 4])?;
            freeze(&boxes)?;
            Ok::<_, PyErr>(boxes.unbind())
        });
        Ok(made?.bind(py).clone())
    }

    /// Names of all images in the source that was packed: a sequence of ``str`` that reads each when it is asked for.
    #[getter]
    fn names(&self) -> Names {
        Names::new(Arc::clone(&self.data))
    }

    /// Copies images, in the order of ``index``, and checks those that have not been checked yet.
    ///
    /// index: numbers of images (a sequence or an array of integers, negative ones from the end), a mask of N bools,
    ///     or a slice.
    /// out: array ``u8 [n, 3, H, W]`` for the result, writable and contiguous; None for a new one.
    ///
    /// Returns ``out`` or the new array.
    #[pyo3(signature = (index, out = None))]
    fn gather<'py>(
        &self,
        py: Python<'py>,
        index: &Bound<'py, PyAny>,
        out: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray4<u8>>> {
        let Index::Many(images) = index::of(index, self.data.len())? else {
            return Err(PyTypeError::new_err(
                "gather takes a sequence of numbers, a mask or a slice; ds[i] is a single image",
            ));
        };
        let Some(out) = out else {
            return self.copy(py, &images);
        };
        let [channels, height, width] = self.size();
        let size = [images.len(), channels, height, width];
        let out = out.cast_into::<PyArray4<u8>>().ok();
        let out = out.filter(|out| out.shape() == size && out.is_c_contiguous());
        let out = out.ok_or_else(|| {
            PyValueError::new_err(format!("out: expected a contiguous array u8 {size:?}"))
        })?;
        self.fill(&out, &images)?;
        Ok(out)
    }

    /// Checks every byte of the split, pixels that have passed before included.
    ///
    /// Raises ``ChecksumError`` or ``FormatError`` for the first part that is wrong.
    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        faults::settle(&self.data, py.detach(|| self.data.verify_columns()))?;
        self.verify_images(py, true)
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        match index::of(index, self.data.len())? {
            Index::One(image) => {
                let label = faults::settle(&self.data, self.data.label(image))?;
                let pixels = PyArray3::zeros(py, self.size(), false);
                self.fill(&pixels, &[image])?;
                (pixels, label).into_pyobject(py)
            }
            Index::Many(images) => {
                let labels = images.iter().map(|&image| self.data.label(image));
                let labels = faults::settle(&self.data, labels.collect::<Result<Vec<i64>, _>>())?;
                (self.copy(py, &images)?, PyArray1::from_vec(py, labels)).into_pyobject(py)
            }
        }
    }

    fn __len__(&self) -> usize {
        self.data.len() as usize
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let path = self.path().into_pyobject(py)?.repr()?;
        Ok(format!(
            "Dataset(path={path}, split='{}', images={}, shape={:?}, classes={}, fingerprint='{}')",
            self.split(),
            self.data.len(),
            self.shape(),
            self.data.classes().len(),
            self.fingerprint(),
        ))
    }

    /// All images, as ``images`` has them.
    #[pyo3(signature = (dtype = None, copy = None))]
    fn __array__<'py>(
        &self,
        py: Python<'py>,
        dtype: Option<Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let images = self.images(py)?;
        if copy != Some(true)
            && dtype.as_ref().is_none_or(|dtype| {
                images
                    .getattr("dtype")
                    .is_ok_and(|own| own.eq(dtype).unwrap_or(false))
            })
        {
            return Ok(images);
        }
        if copy == Some(false) {
            return Err(PyValueError::new_err(
                "images of another type are a copy, and copy=False asks for none",
            ));
        }
        let dtype = dtype.map_or_else(|| images.getattr("dtype"), Ok)?;
        images.call_method1("astype", (dtype,))
    }

    /// All images, as ``images`` has them, by DLPack. Arguments are those of NumPy's method.
    #[pyo3(signature = (**arguments))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        arguments: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.images(py)?.call_method("__dlpack__", (), arguments)
    }

    fn __dlpack_device__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.images(py)?.call_method0("__dlpack_device__")
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let again = py.import("tinyres._native")?.getattr("reopen")?;
        let verify = if self.verify == Verify::Off {
            "off"
        } else {
            "lazy"
        };
        let arguments = (self.path(), self.split(), verify, self.fingerprint());
        (again, arguments).into_pyobject(py)
    }
}

impl Dataset {
    /// The split, for the loader.
    pub(crate) fn data(&self) -> &Arc<Loaded> {
        &self.data
    }

    /// Checks pixels, as [`Loaded::verify_images`] does, and lets Python handle signals now and then.
    fn verify_images(&self, py: Python<'_>, again: bool) -> PyResult<()> {
        for first in (0..self.data.len()).step_by(STEP as usize) {
            let images = first..first.saturating_add(STEP).min(self.data.len());
            let checked = py.detach(|| self.data.verify_images(images, again));
            faults::settle(&self.data, checked)?;
            py.check_signals()?;
        }
        Ok(())
    }

    /// The shape of an image as NumPy counts.
    fn size(&self) -> [usize; 3] {
        let shape = self.data.shape();
        [shape.channels, shape.height, shape.width].map(|side| side as usize)
    }

    /// Copies images to a new array.
    fn copy<'py>(&self, py: Python<'py>, images: &[u32]) -> PyResult<Bound<'py, PyArray4<u8>>> {
        let [channels, height, width] = self.size();
        let out = PyArray4::zeros(py, [images.len(), channels, height, width], false);
        self.fill(&out, images)?;
        Ok(out)
    }

    /// Copies images to an array of their size.
    fn fill<D: Dimension>(&self, out: &Bound<'_, PyArray<u8, D>>, images: &[u32]) -> PyResult<()> {
        let wrong = |error: &dyn fmt::Display| PyValueError::new_err(format!("out: {error}"));
        let mut memory = out.try_readwrite().map_err(|error| wrong(&error))?;
        let mut rest = memory.as_slice_mut().map_err(|error| wrong(&error))?;
        for images in images.chunks(STEP as usize) {
            let own;
            (own, rest) = rest.split_at_mut(images.len() * self.data.shape().image_len());
            let copied = out.py().detach(|| self.data.gather(images, own));
            faults::settle(&self.data, copied)?;
            if !rest.is_empty() {
                out.py().check_signals()?;
            }
        }
        Ok(())
    }
}

/// Makes an array read-only, since it is handed out more than once.
fn freeze(array: &Bound<'_, PyAny>) -> PyResult<()> {
    let arguments = PyDict::new(array.py());
    arguments.set_item("write", false)?;
    array.call_method("setflags", (), Some(&arguments))?;
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "the documentation of `tinyres.open` asks that nobody change the files"
)]
fn open(path: &Path, split: Split, verify: Verify) -> PyResult<Loaded> {
    // SAFETY: finished shards are never changed in place, and `tinyres.open` asks its caller to keep others off
    // them.
    unsafe { Loaded::open(path, split, verify) }.map_err(error::load)
}

fn verify_of(name: &str) -> PyResult<Verify> {
    match name {
        "off" => Ok(Verify::Off),
        "lazy" => Ok(Verify::Lazy),
        "full" => Ok(Verify::Full),
        _ => Err(PyValueError::new_err(format!(
            "verify is {name:?}, expected one of {:?}",
            Verify::NAMES
        ))),
    }
}

fn split_of(name: &str) -> PyResult<Split> {
    let all = [Split::Train, Split::Val, Split::Test];
    let found = all.into_iter().find(|split| split.name() == name);
    found.ok_or_else(|| {
        PyValueError::new_err(format!("split is {name:?}, expected train, val or test"))
    })
}

/// Names of the splits of the set in a directory.
#[pyfunction]
pub(crate) fn splits(py: Python<'_>, path: PathBuf) -> PyResult<Vec<&'static str>> {
    let manifest = py.detach(|| Manifest::load(&path)).map_err(error::format)?;
    let splits = manifest.splits.iter();
    Ok(splits.map(|entry| entry.split.name()).collect())
}

/// Opens a split that was pickled, if the same set is still there.
#[pyfunction]
pub(crate) fn reopen(
    py: Python<'_>,
    path: PathBuf,
    split: &str,
    verify: &str,
    fingerprint: &str,
) -> PyResult<Dataset> {
    let set = Dataset::new(py, path, split, verify)?;
    let found = set.fingerprint();
    if found == fingerprint {
        return Ok(set);
    }
    Err(PyValueError::new_err(format!(
        "{}: holds a set with fingerprint {found}, but the one that was pickled had {fingerprint}: it was packed again; open it by tinyres.open",
        set.path.display()
    )))
}
