//! Packing from Python: its options, and how they become those of the packer.

use std::num::NonZeroU32;
use std::path::PathBuf;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use tinyres::event::Observer;
use tinyres::pack::{self as packer, Config, Resize, SHARD_IMAGES, SkipBad};
use tinyres::source::Source;
use tinyres::text;
use tinyres_format::transport::Level;

use crate::error;
use crate::watched::{pool, watched};

/// The options of `tinyres.pack`. Those that are `None` were not given.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Options {
    size: Option<u32>,
    squash: bool,
    zstd: Option<i32>,
    val_fraction: Option<f64>,
    /// In percent.
    skip_bad: Option<f64>,
    shard_images: Option<u32>,
    threads: Option<usize>,
    force: bool,
}

/// A pack whose settings are checked.
pub(crate) struct Job {
    config: Config,
    val_fraction: Option<f64>,
}

impl Job {
    /// Checks the options.
    ///
    /// # Errors
    /// A `ValueError`.
    pub(crate) fn new(output: PathBuf, options: &Options) -> PyResult<Self> {
        let wrong = |what: String| Err(PyValueError::new_err(what));
        let side = match options.size {
            None => None,
            Some(side @ 1..=4096) => NonZeroU32::new(side),
            Some(side) => return wrong(format!("size is {side}, expected 1 to 4096")),
        };
        if options.squash && side.is_none() {
            return wrong("squash=True needs size".to_owned());
        }
        let shard_images = match options.shard_images.map(NonZeroU32::new) {
            None => SHARD_IMAGES,
            Some(Some(images)) => images,
            Some(None) => return wrong("shard_images is 0, expected 1 or more".to_owned()),
        };
        let skip_bad = options.skip_bad.map(SkipBad::percent);
        if let (Some(None), Some(percent)) = (skip_bad, options.skip_bad) {
            return wrong(format!("skip_bad is {}, expected 0 to 1", percent / 100.0));
        }
        if let Some(fraction) = options.val_fraction
            && !(0.0 < fraction && fraction < 1.0)
        {
            return wrong(format!(
                "val_fraction is {fraction}, expected more than 0 and less than 1"
            ));
        }
        let zstd = options.zstd.map(Level::new).transpose();
        let config = Config {
            output,
            shard_images,
            resize: side.map(|side| Resize {
                side,
                squash: options.squash,
            }),
            threads: options.threads.unwrap_or(0),
            skip_bad: skip_bad.flatten(),
            force: options.force,
            zstd: zstd.map_err(error::format)?,
        };
        Ok(Self {
            config,
            val_fraction: options.val_fraction,
        })
    }

    /// Packs `source`. Returns the report as JSON.
    pub(crate) fn run(
        &self,
        py: Python<'_>,
        mut source: Source,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        if let Some(fraction) = self.val_fraction {
            source.hold_out(fraction).map_err(error::source)?;
        }
        let images = source.splits.iter().map(|(_, items)| items.len() as u64);
        let total = images.sum();
        let stop = source.stop_flag();
        let work = |watch: &mut dyn Observer| packer::pack(&source, &self.config, watch);
        let report = watched(py, &self.pool()?, progress, &stop, Some(total), work)?;
        let report = report.map_err(error::pack)?;
        text::json(&report).map_err(|error| PyRuntimeError::new_err(error.to_string()))
    }

    fn pool(&self) -> PyResult<rayon::ThreadPool> {
        pool(self.config.threads)
    }
}

/// Packs the directory, archive or file at `source` to `output`. Returns the report as JSON.
#[pyfunction]
#[pyo3(signature = (source, output, options, progress = None))]
pub(crate) fn pack_path(
    py: Python<'_>,
    source: PathBuf,
    output: PathBuf,
    options: Options,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let job = Job::new(output, &options)?;
    let pool = job.pool()?;
    let opened = py.detach(|| pool.install(|| Source::open(&source)));
    job.run(py, opened.map_err(error::source)?, progress)
}
