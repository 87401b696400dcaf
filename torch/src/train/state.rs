//! What training changes: network, optimizer, moving average, and the position in the run. With the [`Setup`]
//! it decides everything that comes next, so a checkpoint is this state in a file.

use std::time::{Duration, Instant};

use tch::Tensor;
use tinyres::event::Observer;

use super::ema::Ema;
use super::groups::Groups;
use super::init;
use super::margins::Margins;
use super::optim::Optimizer;
use super::setup::Setup;
use crate::Result;
use crate::infer::evaluate::{Score, SplitOutputs, Wanted, outputs, score};
use crate::input::{Batch, Pipeline};
use crate::net::ResNet18;
use crate::ranks::{RankError, Ranks};
use crate::run::SetId;
use crate::run::checkpoint::{About, Checkpoint, Position};

pub(super) struct State {
    pub model: ResNet18,
    groups: Groups,
    optimizer: Optimizer,
    ema: Option<Ema>,
    /// Those of the epoch's images so far, if they are tracked.
    pub margins: Option<Margins>,
    /// Names of the parameters that `config.init` did not give.
    new: Vec<String>,
    pub at: Position,
    /// When `at.elapsed` was brought up to date.
    clock: Instant,
}

impl State {
    /// The state at the beginning of a run, or that of the checkpoint `from`.
    pub(super) fn new(
        setup: &Setup,
        from: Option<&Checkpoint>,
        watch: &mut dyn Observer,
    ) -> Result<Self> {
        let (config, data) = (&setup.config, setup.train.data());
        let spec = config.spec(data.classes().len());
        let mut model = ResNet18::new(spec, config.seed, setup.device)?;
        model = model.with_precision(config.precision);
        if config.zero_init_residual {
            model.zero_init_residual()?;
        }
        if let Some(mean) = setup.train.targets().mean_box() {
            model.start_boxes_at(mean)?;
        }
        let ranks = &setup.ranks;
        let new = match from {
            Some(from) => from.about.new.clone(),
            // The others get what rank 0 begins with.
            None if !ranks.is_first() => Vec::new(),
            None => init::begin(config, &mut model, data.classes(), watch)?,
        };
        let new = ranks.share(new)?;
        model.freeze(&config.freeze)?;
        let average = |model: &ResNet18| Ema::new(config.ema, model.named());
        let mut state = Self {
            optimizer: Optimizer::new(config, model.named(), &new)?,
            ema: (config.ema > 0.0).then(|| average(&model)).transpose()?,
            margins: config.track.then(|| Margins::new(setup)).transpose()?,
            groups: Groups::new(
                config.batch.into(),
                setup.groups.into(),
                &setup.gathered(),
                ranks,
                &model,
                &setup.workers,
            )?,
            model,
            new,
            at: Position {
                size: config.sizes.at(0.0, setup.side),
                ..Position::default()
            },
            clock: Instant::now(),
        };
        if let Some(from) = from {
            state.restore(from)?;
        }
        if ranks.count() > 1 {
            state.take_over(ranks)?;
            state.optimizer.deal(ranks, &setup.workers)?;
        }
        Ok(state)
    }

    /// Takes over the state of rank 0.
    fn take_over(&mut self, ranks: &Ranks) -> Result<()> {
        let own = |state: Vec<(String, Tensor)>| {
            let copy = |(name, mut tensor): (String, Tensor)| {
                ranks.copy(&mut tensor)?;
                Ok((name, tensor))
            };
            state.into_iter().map(copy).collect::<Result<Vec<_>>>()
        };
        self.model.load(&own(self.model.state()?)?)?;
        self.optimizer.load(&own(self.optimizer.state())?)?;
        if let Some(ema) = &mut self.ema {
            ema.load(&own(ema.state())?)?;
        }
        if let Some(margins) = &mut self.margins {
            margins.load(&own(vec![margins.state()])?)?;
        }
        self.at = ranks.share(self.at.clone())?;
        Ok(())
    }

    /// Takes over a checkpoint of the same configuration.
    fn restore(&mut self, from: &Checkpoint) -> Result<()> {
        self.model.load(from.weights())?;
        self.optimizer.load(from.training_state())?;
        if let Some(ema) = &mut self.ema {
            ema.load(from.training_state())?;
        }
        if let Some(margins) = &mut self.margins {
            margins.load(from.training_state())?;
        }
        self.at = from.about.position.clone();
        Ok(())
    }

    /// Fails on a rank whose weights are not those of rank 0: each computes them for itself.
    pub(super) fn expect_equal(&self, ranks: &Ranks) -> Result<()> {
        if ranks.count() == 1 {
            return Ok(());
        }
        let own = f64::from(self.model.checksum()?);
        match ranks.settle(own)?.to_bits() == own.to_bits() {
            true => Ok(()),
            false => Err(RankError::Diverged { step: self.at.step }.into()),
        }
    }

    /// Brings together on all ranks what each has of the state.
    pub(super) fn gather(&self, ranks: &Ranks) -> Result<()> {
        self.optimizer.gather(ranks)
    }

    /// Tensors that a checkpoint holds next to the network's: those of the optimizer and the average, and the margins.
    pub(super) fn training_state(&self) -> Vec<(String, Tensor)> {
        let mut tensors = self.optimizer.state();
        tensors.extend(self.ema.iter().flat_map(Ema::state));
        tensors.extend(self.margins.iter().map(Margins::state));
        tensors
    }

    /// Description of this state for a checkpoint.
    pub(super) fn about(&self, setup: &Setup, set: SetId) -> About {
        About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            classes: setup.train.data().classes().to_vec(),
            fingerprint: set.fingerprint,
            shards: set.shards,
            side: Some(setup.side),
            config: setup.config.clone(),
            new: self.new.clone(),
            position: self.at.clone(),
        }
    }

    /// The same for a file of weights: without the times, so that equal runs write equal files.
    pub(super) fn about_weights(&self, setup: &Setup, set: SetId) -> About {
        let mut about = self.about(setup, set);
        about.position = Position {
            took: Duration::ZERO,
            waited: Duration::ZERO,
            elapsed: Duration::ZERO,
            scored: Duration::ZERO,
            scoring: Duration::ZERO,
            ..about.position
        };
        about
    }

    /// Adds the time since the last call to the time spent on the run. The clock of rank 0 is that of all.
    pub(super) fn tick(&mut self, setup: &Setup) -> Result<()> {
        self.at.elapsed += self.clock.elapsed();
        self.clock = Instant::now();
        if setup.ranks.count() > 1 {
            let elapsed = setup.ranks.settle(self.at.elapsed.as_secs_f64())?;
            self.at.elapsed = Duration::from_secs_f64(elapsed);
        }
        Ok(())
    }

    /// Fraction of the run that is done now, from 0 to 1.
    pub(super) fn progress(&mut self, setup: &Setup) -> Result<f64> {
        self.tick(setup)?;
        Ok(setup.progress(&self.at))
    }

    /// Updates the time spent on the run. True if the run is at its end now.
    pub(super) fn is_over(&mut self, setup: &Setup) -> Result<bool> {
        self.tick(setup)?;
        Ok(setup.is_over(&self.at))
    }

    /// Takes note of a scoring that took this time and ends now.
    pub(super) fn note_scoring(&mut self, setup: &Setup, took: Duration) -> Result<()> {
        self.tick(setup)?;
        let took = setup.ranks.settle(took.as_secs_f64())?;
        (self.at.scored, self.at.scoring) = (self.at.elapsed, Duration::from_secs_f64(took));
        Ok(())
    }

    /// Takes one step of the optimizer on `batch`. Returns its loss, which is still on the device.
    pub(super) fn step(
        &mut self,
        setup: &Setup,
        batch: &Batch<'_>,
        pipeline: &Pipeline,
    ) -> Result<Tensor> {
        let (objective, workers) = (&setup.objective, &setup.workers);
        let examples = self.groups.examples(batch, pipeline, workers)?;
        let ranks = &setup.ranks;
        let owner = |param: &Tensor| self.optimizer.owner(param);
        let (sums, own) =
            (self.groups).backward(&self.model, objective, examples, workers, ranks, owner)?;
        (self.optimizer).step_over(ranks, sums, self.at.rate, workers)?;
        let found = self.groups.found(&self.model, ranks, &own)?;
        if let (Some(all), Some(own)) = (&mut self.margins, &found.margins) {
            all.put(batch.number, own)?;
        }
        if let Some(ema) = &mut self.ema {
            ema.update(self.model.named(), self.at.step)?;
        }
        self.at.batch += 1;
        self.at.step += 1;
        ranks.at_step(self.at.step, self.groups.images());
        Ok(found.loss)
    }

    /// Runs `work` with the moving average in the network, if there is one, and puts the network's own
    /// weights back.
    pub(super) fn averaged<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let Some(mut ema) = self.ema.take() else {
            return work(self);
        };
        ema.swap(&self.model)?;
        let done = work(self);
        ema.swap(&self.model)?;
        self.ema = Some(ema);
        done
    }

    /// Scores the network on the validation split. Returns its outputs, too.
    pub(super) fn evaluate(
        &self,
        setup: &Setup,
        watch: &mut dyn Observer,
    ) -> Result<(Score, SplitOutputs)> {
        let pipeline = setup.evaluation(self.at.size)?;
        let (model, val) = (&self.model, &setup.val);
        let (wanted, ranks) = (Wanted::default(), &setup.ranks);
        let outputs = outputs(ranks, model, val, &pipeline, wanted, setup.batch, watch)?;
        Ok((score(val, &outputs)?.score(), outputs))
    }

    /// True if `score` is better than that of the best weights that were saved.
    pub(super) fn is_best(&self, score: &Score) -> bool {
        self.at.best.is_none_or(|best| score.top1 > best)
    }

    /// Moves on to the next epoch.
    pub(super) fn finish_epoch(&mut self) -> Result<()> {
        if let Some(margins) = &mut self.margins {
            margins.clear()?;
        }
        self.at = Position {
            epoch: self.at.epoch + 1,
            batch: 0,
            losses: 0.0,
            took: Duration::ZERO,
            waited: Duration::ZERO,
            ..self.at.clone()
        };
        Ok(())
    }
}
