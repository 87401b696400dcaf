//! The native part of the Python package `tinyres`: reads sets of shards and hands their images to NumPy.
//!
//! Rust stays thin here: the loader and the packer are crates of their own, and what belongs to a framework is
//! written in Python. Work that takes long runs without the interpreter's lock.

mod borrowed;
mod dataset;
mod error;
mod faults;
mod feed;
mod images;
mod index;
mod loader;
mod memory;
mod names;
mod pack;
mod program;
mod unpack;
mod watched;

use pyo3::prelude::*;

/// Native part of tinyres. Import `tinyres` instead.
#[pymodule(gil_used = false)]
mod _native {
    use numpy::{PyArray1, PyArrayMethods as _};
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::dataset::{Dataset, reopen, splits};
    #[pymodule_export]
    use super::feed::Feed;
    #[pymodule_export]
    use super::loader::{Batches, Loader, Progress};
    #[pymodule_export]
    use super::names::Names;
    #[pymodule_export]
    use super::pack::pack_path;
    #[pymodule_export]
    use super::unpack::unpack_path;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // The crate numpy looks up NumPy's functions at their first use, and panics if Ctrl-C or a broken NumPy is in
        // its way. Here they are found first by an import that raises.
        let py = module.py();
        py.import("numpy")?;
        drop(PyArray1::<u8>::zeros(py, 0, false).try_readonly()?);
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
