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
}

impl RunOutput {
    /// The consequence of a failure to write it.
    fn consequence(self) -> &'static str {
        match self {
            Self::Checkpoint => "the checkpoint before is kept",
            Self::Best => "the best weights before are kept",
            Self::Events => "what TensorBoard shows has gaps",
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

/// Fails if one of the losses of the latest steps is not finite. The last one is of step `state.at.step`.
pub(super) fn expect_finite_losses(
    run: &mut Run,
    setup: &Setup,
    state: &State,
    losses: &[f64],
) -> Result<()> {
    match losses.iter().position(|loss| !loss.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let later = losses.len() - 1 - at;
            Err(not_finite(
                run,
                setup,
                state,
                format!("the loss is {}", losses[at]),
                later,
            )?)
        }
    }
}

/// Fails if a weight or a running statistic is not finite.
pub(super) fn expect_finite_weights(run: &mut Run, setup: &Setup, state: &State) -> Result<()> {
    for named in state.model.named() {
        if named.tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            let what = format!("{} is no longer finite", named.name);
            return Err(not_finite(run, setup, state, what, 0)?);
        }
    }
    Ok(())
}

/// The error for the step `later` steps before the last one, which is of the same epoch. Names the images
/// of its batch, also in the metrics.
fn not_finite(
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
