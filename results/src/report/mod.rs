//! The report: one HTML file about a run or several, which needs nothing else. It has no script and makes no request,
//! so that it opens from a disk, goes by mail, and prints.

mod sections;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tinyres::runs::{self, Metrics, RunSummary};
use tinyres_format::Split;
use tinyres_load::Dataset;

use crate::html::escape;
use crate::{Analysis, Duplicates, Error, Predictions, Result};

/// Photographs are shown of so many runs: a report of ten should still go by mail.
const WITH_PHOTOS: usize = 3;

const STYLE: &str = include_str!("style.css");

/// A run to report on.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its name: the last part of its directory.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Its figures in short.
    pub summary: RunSummary,
    /// The values that decided it, by key.
    pub config: Vec<(String, String)>,
    /// Its figures by step and epoch.
    pub metrics: Metrics,
    /// Its predictions, if they were saved, and what follows from them.
    pub analysis: Option<Analysis>,
    /// The splits of its set, if they are at hand.
    pub sets: Vec<Arc<Dataset>>,
}

impl Run {
    /// Reads the run in `dir` with its predictions for `split`. Of `sets`, the splits of a set, those that the
    /// predictions are of give the photographs; without any, a report has none.
    ///
    /// # Errors
    /// [`Error::Run`] if there is no run; [`Error::Damaged`] if its predictions are damaged. Without predictions, a report
    /// has curves and configuration alone.
    pub fn read(dir: &Path, split: Split, sets: &[Arc<Dataset>]) -> Result<Self> {
        let summary = RunSummary::read(dir)?;
        let path = dir.join("eval").join(format!("{split}.parquet"));
        let predictions = match Predictions::read(&path) {
            Err(Error::NoPredictions { .. }) => None,
            predictions => Some(predictions?),
        };
        let is_of = |predictions: &Predictions| {
            let fingerprint = predictions.origin.fingerprint;
            sets.iter().any(|data| data.fingerprint() == fingerprint)
        };
        let sets = match &predictions {
            Some(predictions) if is_of(predictions) => sets.to_vec(),
            _ => Vec::new(),
        };
        let name = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        Ok(Self {
            name: name
                .file_name()
                .map_or_else(|| ".".into(), |name| name.to_string_lossy().into_owned()),
            dir: dir.to_owned(),
            summary,
            config: runs::flatten(&runs::config(dir)?),
            metrics: Metrics::read(dir)?,
            analysis: predictions
                .map(|predictions| Analysis::new(predictions, &[]))
                .transpose()?,
            sets,
        })
    }

    /// The split of the predictions, if its shards are at hand.
    fn images(&self) -> Option<&Dataset> {
        let origin = &self.analysis.as_ref()?.predictions.origin;
        let is_own =
            |data: &&Arc<Dataset>| data.split() == origin.split && data.digest() == origin.shards;
        self.sets.iter().find(is_own).map(Arc::as_ref)
    }
}

/// Reads the runs in `dirs`, as [`Run::read`] does. Duplicates are looked for once, since they are those of the set and
/// not of a run: the first run with photographs has them.
///
/// # Errors
/// Those of [`Run::read`]; [`Error::Load`] if pixels are damaged.
pub fn read(dirs: &[PathBuf], split: Split, sets: &[Arc<Dataset>]) -> Result<Vec<Run>> {
    let runs = dirs.iter().map(|dir| Run::read(dir, split, sets));
    let mut runs = runs.collect::<Result<Vec<_>>>()?;
    if let Some(run) = runs.iter_mut().find(|run| !run.sets.is_empty())
        && let Some(analysis) = &mut run.analysis
    {
        analysis.duplicates = Some(Duplicates::find(&run.sets)?);
    }
    Ok(runs)
}

/// The page about `runs`, which are compared if there are several.
///
/// # Errors
/// [`Error::Load`] if photographs are damaged.
pub fn page(runs: &[Run]) -> Result<String> {
    let names: Vec<_> = runs.iter().map(|run| run.name.as_str()).collect();
    let title = escape(&names.join(" and "));
    let mut body = String::new();
    match runs {
        [run] => {
            body += &format!("<h1>{title}</h1>");
            body += &sections::about(run);
            body += &sections::figures(runs);
            body += &sections::contents(run, true)?;
        }
        _ => {
            body += &format!("<h1>{title}</h1>");
            for run in runs {
                body += &sections::about(run);
            }
            body += &sections::figures(runs);
            body += &sections::comparison(runs);
            for (at, run) in runs.iter().enumerate() {
                body += &format!("<h1 class=\"run\">{}</h1>", escape(&run.name));
                body += &sections::contents(run, at < WITH_PHOTOS)?;
            }
        }
    }
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{title}: tinyres report</title><style>{STYLE}</style></head><body><main>{body}\
         <footer>tinyres {}</footer></main></body></html>\n",
        env!("CARGO_PKG_VERSION")
    ))
}
