//! The memory behind `Dataset.images`.

use std::any::Any;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tinyres_load::Dataset;

/// All images of a split in memory. NumPy makes an array of it by the array interface, and keeps it alive for as long
/// as there is a view.
#[pyclass(frozen, module = "tinyres._native")]
pub(crate) struct Images {
    /// Address of the first image.
    start: usize,
    writable: bool,
    /// Keeps the map.
    _mapped: Box<dyn Any + Send + Sync>,
    /// Images, channels, rows, columns.
    shape: [usize; 4],
}

impl Images {
    /// An array `u8 [N, C, H, W]` of the images that lie from `start` on in memory that `mapped` keeps.
    pub(crate) fn array<'py>(
        py: Python<'py>,
        data: &Dataset,
        start: *const u8,
        writable: bool,
        mapped: Box<dyn Any + Send + Sync>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shape = data.shape();
        let shape = [data.len(), shape.channels, shape.height, shape.width];
        let images = Self {
            start: start.addr(),
            writable,
            _mapped: mapped,
            shape: shape.map(|side| side as usize),
        };
        let numpy = py.import("numpy")?;
        numpy.getattr("asarray")?.call1((Bound::new(py, images)?,))
    }
}

#[pymethods]
impl Images {
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        let [images, channels, height, width] = self.shape;
        interface.set_item("version", 3)?;
        interface.set_item("shape", (images, channels, height, width))?;
        interface.set_item("typestr", "|u1")?;
        interface.set_item("data", (self.start, !self.writable))?;
        Ok(interface)
    }
}
