//! What a training is made of and does not change: configuration, device, feeds, loss and schedule.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use tch::Device;
use tinyres::text::counted;
use tinyres_load::{Batches, Rank, shuffled};

use super::data::Checked;
use super::groups;
use super::objective::Objective;
use crate::Result;
use crate::config::schedule::{self, Schedule};
use crate::config::{Config, EvalEvery};
use crate::input::{Feed, Pass, Pipeline};
use crate::libtorch::{Workers, device};
use crate::ranks::Ranks;
use crate::run::checkpoint::Position;

pub(super) struct Setup {
    pub config: Config,
    pub device: Device,
    pub train: Feed,
    pub val: Feed,
    pub objective: Objective,
    pub schedule: Schedule,
    /// Images of a step.
    pub batch: NonZeroUsize,
    /// Groups that they are divided into.
    pub groups: u32,
    /// Those who train together.
    pub ranks: Rc<Ranks>,
    /// The images of a batch that this rank gathers, as places in it.
    gathered: Range<usize>,
    pub workers: Workers,
    /// Steps of the run, unless its time is over before.
    pub steps: u64,
    /// Shorter side of the images in the shards, in pixels.
    pub side: u32,
}

impl Setup {
    pub(super) fn new(
        config: &Config,
        data: Checked,
        device: Device,
        ranks: Rc<Ranks>,
    ) -> Result<Self> {
        if let Some(threads) = config.threads {
            crate::set_threads(threads);
        }
        let train = Feed::new(data.train, data.train_targets, device, config.placement)?;
        let val = Feed::new(data.val, data.val_targets, device, config.placement)?;
        let batch = NonZeroUsize::new(config.batch as usize).unwrap_or(NonZeroUsize::MIN);
        let groups = super::groups_of(config, device, ranks.count());
        let own = groups::own_images(config.batch.into(), groups.into(), &ranks);
        let place = |at: i64| usize::try_from(at).unwrap_or(0);
        let gathered = match config.augment.mixes() {
            // What becomes of an image depends on another one of the batch.
            true => 0..batch.get(),
            false => place(own.start)..place(own.end),
        };
        let most = (groups as usize).div_ceil(ranks.count());
        let shape = train.data().shape();
        let steps = match config.length.time_budget {
            Some(_) => u64::MAX,
            None => u64::from(config.length.epochs) * (train.data().len() as usize / batch) as u64,
        };
        Ok(Self {
            config: config.clone(),
            device,
            objective: Objective::new(config),
            schedule: config.schedule,
            batch,
            groups,
            ranks,
            gathered,
            // As many on each rank, also if some have a group less: the optimizer's sums depend on their threads.
            workers: Workers::new(most),
            steps: config
                .length
                .max_steps
                .map_or(steps, |most| most.min(steps)),
            side: shape.height.min(shape.width),
            train,
            val,
        })
    }

    /// The images of a batch that this rank gathers.
    pub(super) fn gathered(&self) -> Range<i64> {
        let index = |at: usize| i64::try_from(at).unwrap_or(i64::MAX);
        index(self.gathered.start)..index(self.gathered.end)
    }

    /// One line that says how long the run is, and where it computes.
    pub(super) fn describe(&self) -> String {
        let length = match (self.config.length.time_budget, self.config.length.max_steps) {
            (Some(budget), _) => humantime::format_duration(budget).to_string(),
            (None, Some(steps)) => counted(steps, "step"),
            (None, None) => counted(self.config.length.epochs, "epoch"),
        };
        let (device, placement) = (device::describe(self.device), self.train.placement());
        let ranks = match self.ranks.count() {
            1 => String::new(),
            count => format!(" by {count} processes, each"),
        };
        format!("training for {length}{ranks} on {device}, pixels {placement}")
    }

    /// Fraction of the run that is done, from 0 to 1.
    pub(super) fn progress(&self, at: &Position) -> f64 {
        let of_steps = schedule::progress(at.step, self.steps);
        match self.config.length.time_budget {
            Some(budget) => of_steps.max(at.elapsed.div_duration_f64(budget)),
            None => of_steps,
        }
    }

    /// True if all steps are taken, or the time is over.
    pub(super) fn is_over(&self, at: &Position) -> bool {
        at.step >= self.steps || self.progress(at) >= 1.0
    }

    /// True if the validation split is to be scored after the epoch of `at`, which is at its end.
    pub(super) fn is_scoring_due(&self, at: &Position) -> bool {
        let since = at.elapsed.saturating_sub(at.scored);
        match self.config.eval_every {
            EvalEvery::Epochs(every) => (at.epoch + 1).is_multiple_of(every),
            EvalEvery::Time(time) => since >= time,
            EvalEvery::Auto => !self.is_budgeted() || is_cheap(at.scoring, since),
        }
    }

    /// True if the run ends with its time: the clock may decide what is done when.
    pub(super) fn is_budgeted(&self) -> bool {
        self.config.length.time_budget.is_some()
    }

    /// True if the run can have come to this position.
    pub(super) fn has(&self, at: &Position) -> bool {
        let batches = self.batches_per_epoch();
        // The last epoch may have been cut short.
        let most = u64::from(at.epoch) * batches as u64 + at.batch.min(batches) as u64;
        at.batch <= batches && at.step <= most && at.epoch < u32::MAX
    }

    /// Batches of one epoch. They leave out what remains after the last whole batch.
    pub(super) fn batches_per_epoch(&self) -> usize {
        self.train.data().len() as usize / self.batch
    }

    fn order(&self, epoch: u32) -> Vec<u32> {
        shuffled(self.train.data().len(), self.config.seed, u64::from(epoch))
    }

    /// Images of each batch of an epoch.
    pub(super) fn batches(&self, epoch: u32) -> Batches {
        Batches::new(self.order(epoch), self.batch, true, Rank::ONLY)
    }

    /// Pass over the batches of the epoch that are left at `at`, and in them over what this rank gathers.
    pub(super) fn pass(&self, at: &Position) -> Result<Pass<'_>> {
        let order = self.order(at.epoch);
        let Some(size) = NonZeroUsize::new(self.gathered.len()).filter(|&own| own < self.batch)
        else {
            return self.train.pass(order, self.batch, true, at.batch);
        };
        let own = order.chunks_exact(self.batch.get());
        let own = own.flat_map(|batch| &batch[self.gathered.clone()]);
        self.train
            .pass(own.copied().collect(), size, true, at.batch)
    }

    /// Pipeline for training on `images`, those that are left of the epoch at `at`, at `at.size` pixels.
    pub(super) fn training(&self, at: &Position, images: &[u32]) -> Result<Pipeline> {
        let shape = self.train.data().shape();
        Pipeline::training(&self.config, shape, at.size, at.epoch, images, self.device)
    }

    /// Pipeline for evaluation at `size` pixels.
    pub(super) fn evaluation(&self, size: u32) -> Result<Pipeline> {
        let (shape, normalize) = (self.val.data().shape(), self.config.normalize);
        Pipeline::evaluation(shape, size, normalize, self.device)
    }
}

/// True if work that took `took` the last time, which ended `since` ago, takes at most 2% of the time if it is done now.
pub(super) fn is_cheap(took: Duration, since: Duration) -> bool {
    took.saturating_mul(49) <= since
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_cheap_after_49_times_its_time() {
        for (took, since, cheap) in [
            (0, 0, true),
            (1, 48, false),
            (1, 49, true),
            (2, 97, false),
            (2, 98, true),
        ] {
            let [took, since] = [took, since].map(Duration::from_secs);
            assert_eq!(is_cheap(took, since), cheap, "{took:?}, {since:?}");
        }
    }
}
