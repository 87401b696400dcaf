//! What keeps a run's results worth having: nothing is saved that is not finite, and a disk that fails
//! costs what could not be written, not the run.

use std::collections::BTreeSet;

use tinyres::event::{Event, Observer};
use tinyres_load::{Batches, Rank, shuffled};

use super::{Trainer, batch_size};
use crate::{Error, Result};

/// What a run writes while it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Output {
    Checkpoint,
    Best,
    Figures,
    Events,
}

impl Output {
    /// What a failure to write it means.
    fn loss(self) -> &'static str {
        match self {
            Self::Checkpoint => "the checkpoint before is kept",
            Self::Best => "the best weights before are kept",
            Self::Events => "what TensorBoard shows has gaps",
            Self::Figures => "figures are missing from here on",
        }
    }
}

/// What could not be written the last time.
#[derive(Debug, Default)]
pub(super) struct Failing(BTreeSet<Output>);

impl Failing {
    /// Lets an error of the file system pass with a warning: once, until `output` can be written again.
    pub(super) fn pass(
        &mut self,
        output: Output,
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
                    let loss = output.loss();
                    let warning = format!("step {step}: {error}: the run goes on, {loss}");
                    watch.on(&Event::Warning(warning));
                }
                Ok(())
            }
            failed => failed,
        }
    }
}

impl Trainer<'_> {
    /// Refuses losses of the latest steps, the last of which is `self.at.step`, that are not finite.
    pub(super) fn expect_finite(&mut self, losses: &[f64]) -> Result<()> {
        match losses.iter().position(|loss| !loss.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let later = losses.len() - 1 - at;
                Err(self.not_finite(format!("the loss is {}", losses[at]), later)?)
            }
        }
    }

    /// Refuses weights and statistics that are not finite.
    pub(super) fn expect_finite_weights(&mut self) -> Result<()> {
        for named in self.model.named() {
            if named.tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
                let what = format!("{} is no longer finite", named.name);
                return Err(self.not_finite(what, 0)?);
            }
        }
        Ok(())
    }

    /// The error for the step that was taken `later` steps before the last one, all of this epoch, with
    /// its batch.
    fn not_finite(&mut self, what: String, later: usize) -> Result<Error> {
        let data = self.train.data();
        let order = shuffled(data.len(), self.config.seed, self.at.epoch.into());
        let batches = Batches::new(order, batch_size(&self.config), true, Rank::ONLY);
        // `at.batch` batches of the epoch are done.
        let batch = self.at.batch.checked_sub(1 + later);
        let images = batch
            .and_then(|batch| batches.get(batch))
            .into_iter()
            .flatten();
        let names = images.map(|&image| Ok(data.name(image)?.to_owned()));
        let step = self.at.step - later as u64;
        let images: Vec<String> = names.collect::<Result<_>>()?;
        // That it cannot be written down is nothing beside what it is about.
        let _ = self.run.note_not_finite(step, &what, &images);
        Ok(Error::NotFinite {
            what,
            step,
            epoch: self.at.epoch + 1,
            images,
            kept: self.run.last(),
        })
    }
}
