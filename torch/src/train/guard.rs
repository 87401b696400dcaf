//! Two guards of a run's results. Nothing is saved that is not finite: the run ends with an error that names the
//! images of the step. And a file that cannot be written costs that file, not the run.

use std::collections::BTreeSet;

use tinyres::event::{Event, Observer};

use super::setup::Setup;
use super::state::State;
use crate::run::Run;
use crate::{Error, Result};

/// Outputs that a run writes while it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RunOutput {
    Checkpoint,
    Best,
    Figures,
    Events,
    Predictions,
    Margins,
}

impl RunOutput {
    /// The consequence of a failure to write it.
    fn consequence(self) -> &'static str {
        match self {
            Self::Checkpoint => "the checkpoint before is kept",
            Self::Best => "the best weights before are kept",
            Self::Events => "what TensorBoard shows has gaps",
            Self::Predictions => "without the predictions",
            Self::Margins => "without the margins of an epoch",
            Self::Figures => "figures are missing from here on",
        }
    }
}

/// Outputs that could not be written the last time.
#[derive(Debug, Default)]
pub(super) struct WriteFailures(BTreeSet<RunOutput>);

impl WriteFailures {
    /// Turns an error of the file system into a warning, once until `output` can be written again.
    pub(super) fn tolerate(
        &mut self,
        output: RunOutput,
        written: Result<()>,
        step: u64,
        watch: &mut dyn Observer,
    ) -> Result<()> {
        match written {
            Ok(()) => {
                if self.0.remove(&output) {
                    let notice = format!("step {step}: writing works again");
                    watch.on(&Event::Notice(notice));
                }
                Ok(())
            }
            Err(error @ Error::Io { .. }) => {
                if self.0.insert(output) {
                    let consequence = output.consequence();
                    let warning = format!("step {step}: {error}: the run goes on, {consequence}");
                    watch.on(&Event::Warning(warning));
                }
                Ok(())
            }
            failed => failed,
        }
    }
}

/// The first of `losses` that is not finite, in words, and how many come after it.
pub(super) fn bad_loss(losses: &[f64]) -> Option<(String, usize)> {
    let at = losses.iter().position(|loss| !loss.is_finite())?;
    Some((format!("the loss is {}", losses[at]), losses.len() - 1 - at))
}

/// The first weight or running statistic that is not finite, in words.
pub(super) fn bad_weight(state: &State) -> Result<Option<String>> {
    for named in state.model.named() {
        if named.tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Ok(Some(format!("{} is no longer finite", named.name)));
        }
    }
    Ok(None)
}

/// The error for the step `later` steps before the last one, which is of the same epoch. Names the images
/// of its batch, also in the metrics.
pub(super) fn not_finite(
    run: &mut Run,
    setup: &Setup,
    state: &State,
    what: String,
    later: usize,
) -> Result<Error> {
    let (at, data) = (&state.at, setup.train.data());
    // `at.batch` batches of the epoch are done.
    let batch = at.batch.checked_sub(1 + later);
    let batches = setup.batches(at.epoch);
    let images = batch.and_then(|batch| batches.get(batch));
    let images = images.into_iter().flatten();
    let names = images.map(|&image| Ok(data.name(image)?.to_owned()));
    let images: Vec<String> = names.collect::<Result<_>>()?;
    let step = at.step - later as u64;
    // A failure to write this down matters less than the error itself.
    let _ = run.note_not_finite(step, &what, &images);
    Ok(Error::NotFinite {
        what,
        step,
        epoch: at.epoch + 1,
        images,
        kept: run.last(),
    })
}
