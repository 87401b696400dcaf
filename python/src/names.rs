//! Names of the images of a split, as a sequence that reads each when it is asked for.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};
use tinyres_load::Dataset;

use crate::faults;
use crate::index::{self, Index};

/// Names of the images of a split in the source that was packed. ``names[i]`` is a ``str``; a slice, a sequence of
/// numbers or a mask gives a list of them.
#[pyclass(frozen, sequence, module = "tinyres._native")]
pub(crate) struct Names {
    data: Arc<Dataset>,
}

impl Names {
    pub(crate) fn new(data: Arc<Dataset>) -> Self {
        Self { data }
    }

    fn name(&self, image: u32) -> PyResult<&str> {
        faults::settle(&self.data, self.data.name(image))
    }
}

#[pymethods]
impl Names {
    fn __len__(&self) -> usize {
        self.data.len() as usize
    }

    fn __getitem__<'py>(&self, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = index.py();
        let name = |image| self.name(image);
        match index::of(index, self.data.len())? {
            Index::One(image) => Ok(PyString::new(py, name(image)?).into_any()),
            Index::Many(images) => {
                let names: Vec<&str> = images.into_iter().map(name).collect::<PyResult<_>>()?;
                Ok(PyList::new(py, names)?.into_any())
            }
        }
    }

    /// Number of the first image of this name. Raises ``ValueError`` if there is none.
    fn index(&self, name: &str) -> PyResult<u32> {
        for image in 0..self.data.len() {
            if self.name(image)? == name {
                return Ok(image);
            }
        }
        Err(PyValueError::new_err(format!(
            "no image is called {name:?}"
        )))
    }

    /// Number of images of this name.
    fn count(&self, name: &str) -> PyResult<u32> {
        let mut count = 0;
        for image in 0..self.data.len() {
            count += u32::from(self.name(image)? == name);
        }
        Ok(count)
    }

    fn __repr__(&self) -> String {
        format!("<names of {} images>", self.data.len())
    }
}
