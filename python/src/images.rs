//! The memory behind `Dataset.images`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tinyres_load::{Dataset, Images as Mapped};

/// All images of a split in memory. NumPy makes an array of it by the array interface, and keeps it alive for as long
/// as there is a view.
#[pyclass(frozen, module = "tinyres._native")]
pub(crate) struct Images {
    mapped: Mapped,
    /// Images, channels, rows, columns.
    shape: [usize; 4],
}

impl Images {
    /// An array `u8 [N, C, H, W]`, read-only.
    pub(crate) fn array<'py>(
        py: Python<'py>,
        mapped: Mapped,
        data: &Arc<Dataset>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shape = data.shape();
        let shape = [data.len(), shape.channels, shape.height, shape.width];
        let shape = shape.map(|side| side as usize);
        let images = Bound::new(py, Self { mapped, shape })?;
        py.import("numpy")?.getattr("asarray")?.call1((images,))
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
        // True: it must not be written to.
        interface.set_item("data", (self.mapped.as_ptr().addr(), true))?;
        Ok(interface)
    }
}
