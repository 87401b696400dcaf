//! The training loop. A `Trainer` has three parts: `setup` (what never changes), `state` (what a checkpoint
//! holds) and `report` (what leaves the run). The loop itself decides only the order of things.

mod data;
mod ema;
mod groups;
mod guard;
pub mod init;
mod losses;
mod margins;
mod metrics;
mod objective;
pub mod optim;
mod preview;
mod report;
mod setup;
mod state;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use tch::Device;
use tinyres::background::BackgroundJob;
use tinyres::event::Event;

use crate::Result;
use crate::config::Config;
use crate::infer::evaluate::{Score, SplitOutputs};
use crate::ranks::Ranks;
use crate::run::Run;
use crate::run::checkpoint::Checkpoint;
use crate::run::save::{Best, Saved};

pub use data::{Checked, Splits, check};
pub use metrics::{Epoch, Step, TrainingObserver};

use losses::Losses;
use report::Reporter;
use setup::Setup;
use state::State;

/// The number of groups that a batch has on `device`, of which each of `ranks` processes computes whole ones.
#[must_use]
pub fn groups_of(config: &Config, device: Device, ranks: usize) -> u32 {
    groups::count(config.batch, config.ghost_batch, device, ranks)
}

/// How a training ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The whole run is done.
    Complete {
        /// Path of the final weights.
        weights: PathBuf,
        /// Their scores on the validation split; `None` if the run was complete already.
        score: Option<Score>,
    },
    /// `stop` was set. The run can be resumed.
    Stopped {
        /// Steps that are done.
        step: u64,
    },
}

/// Trains the network of `run` on `device`, from the checkpoint `from` on if there is one. `data` comes from
/// [`check`] with the run's configuration. When `stop` is set, finishes the step, saves and returns.
///
/// # Errors
/// Data are damaged, libtorch fails, or the end of the run cannot be saved;
/// [`Error::NotFinite`](crate::Error::NotFinite) if a loss or a weight is no longer finite.
pub fn train(
    run: &mut Run,
    from: Option<&Checkpoint>,
    data: Checked,
    device: Device,
    watch: &mut dyn TrainingObserver,
    stop: &AtomicBool,
) -> Result<Outcome> {
    train_over(
        &Rc::new(Ranks::alone()),
        run,
        from,
        data,
        device,
        watch,
        stop,
    )
}

/// Trains as [`train`] does, with the other `ranks`. Each has the same data and the same configuration; `run` is a
/// [`Run::follower`], without a checkpoint, on all but rank 0. When `stop` is set on one of them, all stop.
///
/// # Errors
/// Those of [`train`], and [`Error::Ranks`](crate::Error::Ranks) if a rank fails.
pub fn train_over(
    ranks: &Rc<Ranks>,
    run: &mut Run,
    from: Option<&Checkpoint>,
    data: Checked,
    device: Device,
    watch: &mut dyn TrainingObserver,
    stop: &AtomicBool,
) -> Result<Outcome> {
    thread::scope(|scope| {
        let saving = BackgroundJob::new(scope);
        let setup = Setup::new(run.config(), data, device, Rc::clone(ranks))?;
        let mut trainer = Trainer::new(run, from, setup, watch, saving)?;
        let ended = trainer.run(stop);
        // After an error there may be one of an earlier step.
        trainer.reporter.finish_save(&mut trainer.state)?;
        ended
    })
}

/// Why the steps of an epoch ended.
#[derive(PartialEq)]
enum EpochEnd {
    /// The epoch, or the run, is at its end.
    Complete,
    /// `stop` was set.
    Stopped,
}

struct Trainer<'a, 'scope, 'env> {
    setup: Setup,
    state: State,
    reporter: Reporter<'a, 'scope, 'env>,
}

impl<'a, 'scope, 'env> Trainer<'a, 'scope, 'env> {
    fn new(
        run: &'a mut Run,
        from: Option<&Checkpoint>,
        setup: Setup,
        watch: &'a mut dyn TrainingObserver,
        saving: BackgroundJob<'scope, 'env, Saved>,
    ) -> Result<Self> {
        if let Some(from) = from
            && !setup.has(&from.about.position)
        {
            return Err(run.no_such_position());
        }
        watch.on(&Event::Notice(setup.describe()));
        if !run.is_locked() {
            let dir = run.dir().display();
            watch.on(&Event::Notice(format!(
                "{dir}: its file system has no locks: start no other training there before this one has ended"
            )));
        }
        let state = State::new(&setup, from, watch)?;
        let is_new = setup.ranks.decide(from.is_none())?;
        let losses = Losses::new(setup.device)?;
        let reporter = Reporter::new(run, watch, losses, saving);
        let mut trainer = Self {
            setup,
            state,
            reporter,
        };
        if !trainer.is_over()? {
            (trainer.reporter).open_events(&trainer.setup, &trainer.state)?;
        }
        if is_new && trainer.setup.config.init.is_some() {
            // From here on the run does not depend on the file of initial weights.
            (trainer.reporter).save(&trainer.setup, &mut trainer.state, None)?;
        }
        Ok(trainer)
    }

    fn run(&mut self, stop: &AtomicBool) -> Result<Outcome> {
        let mut scored = None;
        let mut over = self.is_over()?;
        while !over {
            if self.setup.ranks.any(stop.load(Ordering::Relaxed))?
                || self.epoch(stop)? == EpochEnd::Stopped
            {
                return self.stop();
            }
            (scored, over) = self.finish_epoch()?;
        }
        self.finish(scored)
    }

    fn is_over(&mut self) -> Result<bool> {
        self.state.is_over(&self.setup)
    }

    /// Trains on what is left of the epoch.
    fn epoch(&mut self, stop: &AtomicBool) -> Result<EpochEnd> {
        let Self {
            setup,
            state,
            reporter,
        } = self;
        let mut pass = setup.pass(&state.at)?;
        let mut pipeline = None;
        reporter.begin_epoch(setup, state);
        let waited = state.at.waited;
        let end = loop {
            let progress = state.progress(setup)?;
            state.at.rate = setup.schedule.rate(progress, state.at.epoch);
            let size = setup.config.sizes.at(progress, setup.side);
            // Made again when the size changes.
            let pipeline = match &pipeline {
                Some(pipeline) if size == state.at.size => pipeline,
                _ => {
                    reporter.note_size(&state.at, size);
                    state.at.size = size;
                    pipeline.insert(setup.training(&state.at, pass.images())?)
                }
            };
            let Some(loss) = pass.next_batch(|batch| state.step(setup, &batch, pipeline)) else {
                break EpochEnd::Complete;
            };
            state.at.waited = waited + pass.waited();
            reporter.push_loss(setup, state, &loss?)?;
            for warning in setup.ranks.warnings() {
                reporter.watch.on(&Event::Warning(warning));
            }
            if state.is_over(setup)? {
                break EpochEnd::Complete;
            }
            let stops = stop.load(Ordering::Relaxed);
            let (due, stops) = setup
                .ranks
                .agree(as_number(reporter.is_save_old()), as_number(stops))?;
            if stops > 0.0 {
                break EpochEnd::Stopped;
            }
            if due > 0.0 {
                reporter.save(setup, state, None)?;
            }
        };
        reporter.end_steps(setup, state)?;
        Ok(end)
    }

    /// Evaluates the network if that is due, reports the epoch, saves, and moves on to the next one. Returns
    /// the scores with the outputs, and whether the run is over: decided once, since time may end it, so that the
    /// last epoch of a run is always evaluated.
    fn finish_epoch(&mut self) -> Result<(Option<(Score, SplitOutputs)>, bool)> {
        let Self {
            setup,
            state,
            reporter,
        } = self;
        let over = state.is_over(setup)?;
        let due = over || setup.is_scoring_due(&state.at);
        let (scored, best) = state.averaged(|state| {
            let began = Instant::now();
            let scored = match due {
                true => Some(state.evaluate(setup, reporter.watch)?),
                false => None,
            };
            let score = scored.as_ref().map(|(score, _)| *score);
            // Only now are the best weights so far known.
            reporter.finish_save(state)?;
            reporter.epoch(setup, state, score)?;
            if due {
                reporter.preview(setup, state)?;
                state.note_scoring(setup, began.elapsed())?;
            }
            let best = score.filter(|score| state.is_best(score));
            let best = best.map(|score| Best {
                about: state.about_weights(setup, reporter.run.set()),
                top1: score.top1,
            });
            Ok((scored, best))
        })?;
        reporter.save_margins(setup, state)?;
        state.finish_epoch()?;
        // The clock of rank 0, and whether it could write the best weights before, decide.
        let due = over || best.is_some() || reporter.is_save_due(setup);
        if setup.ranks.decide(due)? {
            reporter.save(setup, state, best)?;
        }
        Ok((scored, over))
    }

    /// Saves what a resumed run needs.
    fn stop(&mut self) -> Result<Outcome> {
        self.reporter.save_stopped(&self.setup, &mut self.state)?;
        let step = self.state.at.step;
        Ok(Outcome::Stopped { step })
    }

    /// Saves the final weights, and their predictions if they were evaluated.
    fn finish(&mut self, scored: Option<(Score, SplitOutputs)>) -> Result<Outcome> {
        let (setup, reporter) = (&self.setup, &mut self.reporter);
        reporter.finish_save(&mut self.state)?;
        let weights = (self.state).averaged(|state| reporter.save_final(setup, state))?;
        if let Some((_, outputs)) = &scored {
            reporter.save_predictions(setup, &self.state, &weights, outputs)?;
        }
        // None ends before rank 0 has saved.
        setup.ranks.any(false)?;
        let score = scored.map(|(score, _)| score);
        Ok(Outcome::Complete { weights, score })
    }
}

fn as_number(flag: bool) -> f64 {
    f64::from(u8::from(flag))
}
