//! The pictures of predictions, which `train` and `eval` draw next to them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tinyres::event::{Event, Observer as _};
use tinyres::runs::Metrics;
use tinyres::ui::Ui;
use tinyres_load::Dataset;
use tinyres_results::{Analysis, Predictions, Subject, pictures};

/// The flag `--pictures`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Pictures {
    On,
    Off,
}

impl Pictures {
    /// Draws the pictures of the predictions file `table` for `images`, and the curves of the run in `run`, to a
    /// directory next to the file. Duplicates are looked for in `sets`. A failure is a warning: it must not cost the
    /// result that the pictures are of.
    pub fn draw(
        self,
        table: &Path,
        run: Option<&Path>,
        images: &Dataset,
        sets: &[Arc<Dataset>],
        ui: &mut Ui,
    ) {
        if self == Self::Off {
            return;
        }
        match draw(table, run, images, sets) {
            Ok(dir) => ui.on(&Event::Notice(format!("pictures: {}", dir.display()))),
            Err(error) => ui.warn(&format!("the pictures are not drawn: {error}")),
        }
    }
}

/// The directory of the pictures.
fn draw(
    table: &Path,
    run: Option<&Path>,
    images: &Dataset,
    sets: &[Arc<Dataset>],
) -> tinyres_results::Result<PathBuf> {
    let analysis = Analysis::new(Predictions::read(table)?, sets)?;
    let metrics = run.map(Metrics::read).transpose()?;
    let dir = table.with_extension("");
    let name = match run {
        Some(run) => run.canonicalize().unwrap_or_else(|_| run.to_owned()),
        None => analysis.predictions.origin.weights.clone(),
    };
    let name = name
        .file_name()
        .unwrap_or(name.as_os_str())
        .to_string_lossy();
    let subject = Subject {
        name: &name,
        metrics: metrics.as_ref(),
        analysis: &analysis,
        images: Some(images),
        sets,
        run,
    };
    pictures::write(&subject, &dir)?;
    Ok(dir)
}
