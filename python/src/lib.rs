//! The native part of the Python package `tinyres`: reads sets of shards and hands their images to NumPy.
//!
//! Rust stays thin here: the loader and the packer are crates of their own, and what belongs to a framework is
//! written in Python. Work that takes long runs without the interpreter's lock.

mod dataset;
mod error;
mod faults;
mod images;
mod index;
mod loader;
mod memory;
mod names;

use pyo3::prelude::*;

/// Native part of tinyres. Import `tinyres` instead.
#[pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::dataset::{Dataset, reopen, splits};
    #[pymodule_export]
    use super::loader::{Batches, Loader, Progress};
    #[pymodule_export]
    use super::names::Names;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
