//! The pictures of a run: curves, confusions, classes, calibration, and sheets of photographs.

mod boxes;
mod classes;
mod curves;
mod matrix;
mod reliability;
mod sheet;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use tinyres::caught::caught;
use tinyres::runs::Metrics;
use tinyres_format::publish;
use tinyres_load::{Dataset, pool};

use crate::analysis::Analysis;
use crate::draw::Scene;
use crate::{Error, Result};

pub(crate) use curves::{Curve, curves};
pub(crate) use reliability::reliability as reliability_of;

/// Subject of the pictures: a run, or the predictions of other weights.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// Name of the run or of the weights.
    pub name: &'a str,
    /// The figures of the run's steps and epochs, for the curves.
    pub metrics: Option<&'a Metrics>,
    /// The predictions and what follows from them.
    pub analysis: &'a Analysis,
    /// The images of the predictions, for the photographs.
    pub images: Option<&'a Dataset>,
    /// The splits of the set, which duplicates were looked for in.
    pub sets: &'a [Arc<Dataset>],
    /// The directory of the run, for the margins of training images.
    pub run: Option<&'a Path>,
}

pub(crate) type Draw = fn(&Subject<'_>) -> Result<Option<Scene>>;

/// The pictures by name, and what each shows.
pub(crate) const PICTURES: [(&str, Draw); 10] = [
    ("results", |subject| {
        let curve = subject.metrics.map(|metrics| Curve {
            name: subject.name,
            metrics,
        });
        Ok(curves(curve.as_slice()))
    }),
    ("confusion_matrix", |subject| {
        Ok(matrix::matrix(subject.analysis))
    }),
    ("confused_pairs", sheet::confused_pairs),
    ("classes", |subject| Ok(classes::classes(subject.analysis))),
    ("reliability", |subject| {
        Ok(reliability::reliability(&[(
            subject.name,
            subject.analysis,
        )]))
    }),
    ("confident_mistakes", sheet::confident_mistakes),
    ("suspect_labels", sheet::suspect_labels),
    ("suspect_training_labels", sheet::suspect_training_labels),
    ("duplicates", sheet::duplicates),
    ("boxes", boxes::boxes),
];

/// Draws the pictures of `subject` into the directory `dir`, as `NAME.png` each. Those that there is nothing to draw for
/// are left out, and older ones of their names removed, but for
/// duplicates that were not looked for. Returns their paths.
///
/// # Errors
/// [`Error::Io`] if a file cannot be written; [`Error::Load`] if the photographs are damaged.
pub fn write(subject: &Subject<'_>, dir: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let write = |&(name, draw): &(&str, Draw)| {
        let path = dir.join(format!("{name}.png"));
        // A panic while drawing must not end a training.
        let scene = caught(|| draw(subject)).map_err(|what| Error::Drawing {
            name: name.to_owned(),
            what,
        })??;
        let Some(scene) = scene else {
            // Those of an earlier search still hold.
            if name == "duplicates" && subject.analysis.duplicates.is_none() {
                return Ok(None);
            }
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::io(&path)(error))
                }
                _ => Ok(None),
            };
        };
        let png = scene
            .png()
            .map_err(|error| Error::io(&path)(std::io::Error::other(error)))?;
        publish::write(&path, &png).map_err(Error::io(&path))?;
        Ok(Some(path))
    };
    let paths: Result<Vec<_>> = pool::install(|| PICTURES.par_iter().map(write).collect());
    Ok(paths?.into_iter().flatten().collect())
}
