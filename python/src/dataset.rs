//! One split of a set as a Python object.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tinyres_format::{Manifest, Split};
use tinyres_load::{Dataset as Loaded, Verify};

use crate::error;

/// One split of a set: its images in the order in which they lie in the shards.
#[pyclass(frozen, module = "tinyres")]
pub(crate) struct Dataset {
    data: Arc<Loaded>,
    path: PathBuf,
}

#[pymethods]
impl Dataset {
    /// Dataset(path, split, verify="lazy")
    #[new]
    #[pyo3(signature = (path, split, verify = "lazy"))]
    fn new(py: Python<'_>, path: PathBuf, split: &str, verify: &str) -> PyResult<Self> {
        let (split, verify) = (split_of(split)?, verify_of(verify)?);
        let data = py.detach(|| open(&path, split, verify))?;
        Ok(Self {
            data: Arc::new(data),
            path,
        })
    }

    /// Directory of the set.
    #[getter]
    fn path(&self) -> &Path {
        &self.path
    }

    /// Name of the split: "train", "val" or "test".
    #[getter]
    fn split(&self) -> &'static str {
        self.data.split().name()
    }

    fn __len__(&self) -> usize {
        self.data.len() as usize
    }
}

impl Dataset {
    /// The split, for the loader.
    #[expect(dead_code, reason = "the loader is being written")]
    pub(crate) fn data(&self) -> &Arc<Loaded> {
        &self.data
    }
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
    Ok(manifest
        .splits
        .iter()
        .map(|entry| entry.split.name())
        .collect())
}
