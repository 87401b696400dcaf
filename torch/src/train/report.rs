//! All that leaves a training while it runs: figures, checkpoints, weights and the event file. Reads the losses from
//! the device, saves nothing that is not finite, and lets a full disk cost the files but not the run. Checkpoints are
//! copied, and written by a thread of their own while training goes on.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use tch::Tensor;
use tinyres::background::BackgroundJob;
use tinyres::event::Event;

use super::guard::{self, RunOutput, WriteFailures};
use super::losses::Losses;
use super::metrics::{Epoch, Step, TrainingObserver};
use super::preview;
use super::setup::{Setup, is_cheap};
use super::state::State;
use crate::infer::evaluate::{Score, SplitOutputs};
use crate::infer::predictions::{self, Origin};
use crate::infer::tta::Tta;
use crate::run::Run;
use crate::run::checkpoint::{Position, Snapshot};
use crate::run::save::{Best, Saved};
use crate::run::tensorboard::EventFile;
use crate::{Error, Result};

/// Time from one checkpoint to the next within an epoch: a crash costs no more.
const SAVE_EVERY: Duration = Duration::from_secs(600);

pub(super) struct Reporter<'a, 'scope, 'env> {
    pub run: &'a mut Run,
    pub watch: &'a mut dyn TrainingObserver,
    /// `None` if no event file is wanted, or none could be created.
    events: Option<EventFile>,
    failures: WriteFailures,
    losses: Losses,
    /// The save that is being written.
    saving: BackgroundJob<'scope, 'env, Saved>,
    /// When the losses were last read, or a pause in training ended.
    last_sync: Instant,
    last_save: Instant,
    /// Time that the last save took, in this thread and in that of its own.
    save_took: Duration,
}

impl<'a, 'scope, 'env> Reporter<'a, 'scope, 'env> {
    pub(super) fn new(
        run: &'a mut Run,
        watch: &'a mut dyn TrainingObserver,
        losses: Losses,
        saving: BackgroundJob<'scope, 'env, Saved>,
    ) -> Self {
        Self {
            run,
            watch,
            events: None,
            failures: WriteFailures::default(),
            losses,
            saving,
            last_sync: Instant::now(),
            last_save: Instant::now(),
            save_took: Duration::ZERO,
        }
    }

    /// Creates the event file, if one is wanted.
    pub(super) fn open_events(&mut self, setup: &Setup, state: &State) -> Result<()> {
        if !setup.config.tensorboard || !self.run.is_written() {
            return Ok(());
        }
        // After the last step of an epoch its figures are still to come, and they are of this step.
        let epoch_is_done = state.at.batch == setup.batches_per_epoch();
        let first = state.at.step + u64::from(!epoch_is_done);
        let created = EventFile::create(self.run.dir(), first);
        let opened = created.map(|events| {
            self.run.note_made(events.path());
            self.events = Some(events);
        });
        self.tolerate(RunOutput::Events, opened, state.at.step)
    }

    pub(super) fn begin_epoch(&mut self, setup: &Setup, state: &State) {
        let epochs = match setup.config.length.time_budget {
            Some(_) => String::new(),
            None => format!("/{}", setup.config.length.epochs),
        };
        self.watch.on(&Event::Begin {
            task: format!("epoch {}{epochs}", state.at.epoch + 1),
            unit: "img",
            total: (setup.batches_per_epoch() * setup.batch.get()) as u64,
        });
        self.last_sync = Instant::now();
    }

    /// Tells that images are of `size` pixels from here on, if they were of another size before.
    pub(super) fn note_size(&mut self, at: &Position, size: u32) {
        if size != at.size && at.step > 0 {
            let notice = format!("from here on {size} pixels");
            self.watch.on(&Event::Notice(notice));
        }
    }

    /// Takes the loss of a step, which is on the device. Reads it when [`Losses`] is full.
    pub(super) fn push_loss(
        &mut self,
        setup: &Setup,
        state: &mut State,
        loss: &Tensor,
    ) -> Result<()> {
        self.losses.push(loss)?;
        match self.losses.full() {
            true => self.sync_losses(setup, state),
            false => Ok(()),
        }
    }

    /// Reads the losses since the last call, which waits for a GPU, and reports the last one.
    pub(super) fn sync_losses(&mut self, setup: &Setup, state: &mut State) -> Result<()> {
        let losses = self.losses.take()?;
        let Some(&loss) = losses.last() else {
            return Ok(());
        };
        if let Some((what, later)) = guard::bad_loss(&losses) {
            return Err(self.not_finite(setup, state, what, later)?);
        }
        if let Some(saved) = self.saving.poll() {
            self.note_saved(state, saved)?;
        }
        state.at.losses += losses.iter().sum::<f64>();
        let took = self.last_sync.elapsed();
        self.last_sync = Instant::now();
        state.at.took += took;
        let images = (state.at.batch * setup.batch.get()) as u64;
        self.watch.on(&Event::Advance { done: images });
        let step = Step {
            step: state.at.step,
            epoch: state.at.epoch,
            images,
            loss,
            lr: state.at.rate,
            images_per_second: (losses.len() * setup.batch.get()) as f64 / took.as_secs_f64(),
        };
        self.watch.on_step(&step);
        self.record("step", &step, step.step, &step.scalars())
    }

    /// Ends the progress of an epoch, after the last of its steps or before.
    pub(super) fn end_steps(&mut self, setup: &Setup, state: &mut State) -> Result<()> {
        self.sync_losses(setup, state)?;
        self.expect_finite_weights(setup, state)?;
        self.watch.on(&Event::End);
        Ok(())
    }

    /// Fails if a weight or a running statistic is not finite.
    fn expect_finite_weights(&mut self, setup: &Setup, state: &mut State) -> Result<()> {
        match guard::bad_weight(state)? {
            Some(what) => Err(self.not_finite(setup, state, what, 0)?),
            None => Ok(()),
        }
    }

    /// Those of [`guard::not_finite`].
    fn not_finite(
        &mut self,
        setup: &Setup,
        state: &mut State,
        what: String,
        later: usize,
    ) -> Result<Error> {
        // The error names the last checkpoint, which may just be written.
        self.finish_save(state)?;
        guard::not_finite(self.run, setup, state, what, later)
    }

    /// Reports the figures of the epoch, with its `score` if it was evaluated.
    pub(super) fn epoch(
        &mut self,
        setup: &Setup,
        state: &State,
        score: Option<Score>,
    ) -> Result<()> {
        let at = &state.at;
        let took = at.took.as_secs_f64();
        let epoch = Epoch {
            epoch: at.epoch,
            step: at.step,
            size: at.size,
            train_loss: at.losses / at.batch as f64,
            lr: at.rate,
            images_per_second: (at.batch * setup.batch.get()) as f64 / took,
            wait_share: at.waited.as_secs_f64() / took,
            took: at.took,
            val: score,
        };
        self.watch.on_epoch(&epoch);
        self.record("epoch", &epoch, epoch.step, &epoch.scalars())
    }

    /// Writes figures to the metrics and the event file.
    fn record(
        &mut self,
        kind: &str,
        figures: &impl Serialize,
        step: u64,
        scalars: &[(&str, f64)],
    ) -> Result<()> {
        let noted = self.run.note(kind, figures);
        self.tolerate(RunOutput::Figures, noted, step)?;
        let events = self.events.as_mut();
        let shown = events.map_or(Ok(()), |events| events.scalars(step, scalars));
        self.tolerate(RunOutput::Events, shown, step)
    }

    /// Adds a sheet of validation images and predictions to the event file.
    pub(super) fn preview(&mut self, setup: &Setup, state: &State) -> Result<()> {
        let Some(events) = &mut self.events else {
            return Ok(());
        };
        let picture = preview::sheet(setup, state)?;
        let png = picture.png();
        let png = png.map_err(|error| Error::Picture(error.to_string()))?;
        let sides = [picture.width, picture.height];
        let shown = events.image(state.at.step, "val", png, sides);
        self.tolerate(RunOutput::Events, shown, state.at.step)
    }

    /// True if the last checkpoint is too long ago.
    pub(super) fn is_save_old(&self) -> bool {
        self.last_save.elapsed() >= SAVE_EVERY
    }

    /// True if a checkpoint is to be saved at the end of an epoch: always, but in a run with a time budget as often as
    /// saving costs little. Call [`finish_save`](Self::finish_save) first.
    pub(super) fn is_save_due(&self, setup: &Setup) -> bool {
        !setup.is_budgeted() || is_cheap(self.save_took, self.last_save.elapsed())
    }

    /// Copies what a resumed run needs, and saves it while training goes on, and its weights if they are `best`. A
    /// failure to write them is a warning, when it is known.
    pub(super) fn save(
        &mut self,
        setup: &Setup,
        state: &mut State,
        best: Option<Best>,
    ) -> Result<()> {
        // A checkpoint that is not finite must not replace one that is.
        self.sync_losses(setup, state)?;
        if state.at.batch > 0 {
            self.expect_finite_weights(setup, state)?;
        }
        state.expect_equal(&setup.ranks)?;
        self.finish_save(state)?;
        let began = Instant::now();
        state.tick(setup)?;
        state.gather(&setup.ranks)?;
        if self.run.is_written() {
            let about = state.about(setup, self.run.set());
            let copy = Snapshot::new(&state.model, state.training_state())?;
            let save = self.run.save(about, copy, best);
            self.saving.start(move || save.write());
        }
        (self.last_save, self.last_sync) = (Instant::now(), Instant::now());
        self.save_took = began.elapsed();
        Ok(())
    }

    /// Waits for the save that is under way, if there is one.
    pub(super) fn finish_save(&mut self, state: &mut State) -> Result<()> {
        match self.saving.wait() {
            Some(saved) => self.note_saved(state, saved),
            None => Ok(()),
        }
    }

    /// Takes note of how a save has ended.
    fn note_saved(&mut self, state: &mut State, saved: Saved) -> Result<()> {
        state.at.best = saved.top1;
        self.save_took += saved.took;
        if let Some(best) = saved.best {
            self.tolerate(RunOutput::Best, best, saved.step)?;
        }
        self.tolerate(RunOutput::Figures, saved.metrics, saved.step)?;
        self.tolerate(RunOutput::Checkpoint, saved.last, saved.step)
    }

    /// Saves the checkpoint that a run which stops here goes on from. A failure to write it is an error.
    pub(super) fn save_stopped(&mut self, setup: &Setup, state: &mut State) -> Result<()> {
        self.save(setup, state, None)?;
        match self.saving.wait() {
            Some(Saved {
                last: Err(error), ..
            }) => Err(self.run.unsaved(error)),
            Some(saved) => self.note_saved(state, saved),
            None => Ok(()),
        }
    }

    /// Saves the weights at the end of the run, and returns their path.
    pub(super) fn save_final(&mut self, setup: &Setup, state: &State) -> Result<PathBuf> {
        let about = state.about_weights(setup, self.run.set());
        let saved = self.run.save_final(&about, &state.model);
        saved.map_err(|error| self.run.unsaved(error))
    }

    /// Saves `outputs` of `weights`, the final ones, for the validation split.
    pub(super) fn save_predictions(
        &mut self,
        setup: &Setup,
        state: &State,
        weights: &Path,
        outputs: &SplitOutputs,
    ) -> Result<()> {
        let Some(dir) = Run::predictions(self.run.dir()).filter(|_| self.run.is_written()) else {
            return Ok(());
        };
        let (data, precision) = (setup.val.data(), state.model.precision());
        let origin = Origin::new(data, weights, state.at.size, precision, Tta::None);
        let saved = origin.and_then(|origin| predictions::save(&dir, data, outputs, &origin));
        self.tolerate(RunOutput::Predictions, saved.map(drop), state.at.step)
    }

    /// Saves the margins of the epoch, which is at its end, if they are tracked.
    pub(super) fn save_margins(&mut self, setup: &Setup, state: &State) -> Result<()> {
        let Some(margins) = state.margins.as_ref().filter(|_| self.run.is_written()) else {
            return Ok(());
        };
        let path = Run::margins(self.run.dir(), state.at.epoch);
        let saved = margins.save(setup, state.at.epoch, &path);
        self.tolerate(RunOutput::Margins, saved, state.at.step)
    }

    fn tolerate(&mut self, output: RunOutput, written: Result<()>, step: u64) -> Result<()> {
        (self.failures).tolerate(output, written, step, self.watch)
    }
}
