//! Unpacking from Python.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tinyres::event::Observer;
use tinyres::inspect::Set;
use tinyres::{text, unpack};
use tinyres_format::{Map, Result, Shard};

use crate::error;
use crate::watched::{pool, watched};

/// Writes the images of the set, or the shard, at `shards` to `output`. Returns the report as JSON.
#[pyfunction]
#[pyo3(name = "unpack", signature = (shards, output, progress = None))]
pub(crate) fn unpack_path(
    py: Python<'_>,
    shards: PathBuf,
    output: PathBuf,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let stop = AtomicBool::new(false);
    let work = |watch: &mut dyn Observer| {
        let set = Set::open(&shards, map).map_err(error::inspect)?;
        unpack::unpack(&set, &output, &stop, watch).map_err(error::unpack)
    };
    let report = watched(py, &pool(0)?, progress, &stop, None, work)??;
    text::json(&report).map_err(|error| PyRuntimeError::new_err(error.to_string()))
}

#[expect(
    unsafe_code,
    reason = "the documentation of `tinyres.unpack` asks that nobody change the files"
)]
fn map(path: &Path) -> Result<Shard<Map>> {
    // SAFETY: finished shards are never changed in place, and `tinyres.unpack` asks its caller to keep others off
    // them.
    unsafe { tinyres_format::map(path) }
}
