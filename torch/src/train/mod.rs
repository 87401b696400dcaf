//! The training loop.

mod board;
mod data;
pub mod ema;
mod examples;
pub mod init;
mod losses;
mod objective;
pub mod optim;
mod trust;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tch::{Device, Tensor};
use tinyres::event::{Epoch, Event, Observer, Score, Step};
use tinyres_format::{Draws, Stream};
use tinyres_load::{Dataset, shuffled};

use crate::Result;
use crate::config::Config;
use crate::config::schedule::{Schedule, progress};
use crate::infer::evaluate::evaluate;
use crate::infer::tta::Tta;
use crate::input::augment::Augment;
use crate::input::feed::{Batch, Feed};
use crate::input::inputs::{Inputs, scaled};
use crate::libtorch::device;
use crate::net::ResNet18;
use crate::net::boxes;
use crate::run::Run;
use crate::run::checkpoint::{About, Checkpoint, Position};
use crate::run::tensorboard::EventFile;
use crate::train::ema::Ema;
use crate::train::optim::Optimizer;

pub use data::{Splits, check};

use examples::Changes;
use losses::Losses;
use objective::Objective;
use trust::{Failing, Output};

/// A long epoch is saved this often, so that a crash costs no more.
const SAVE_EVERY: Duration = Duration::from_secs(600);

/// How a training ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All of the run is done.
    Complete {
        /// The final weights.
        weights: PathBuf,
        /// Their scores on the validation split; none where the run was complete already.
        score: Option<Score>,
    },
    /// `stop` was set: the run can go on from here.
    Stopped {
        /// Steps that are done.
        step: u64,
    },
}

/// Trains as `run` says, from `from` on if that is given, and reports to `watch`. Finishes the step
/// and saves when `stop` is set.
///
/// # Errors
/// Those of data, libtorch and the run's directory, and [`Error::NotFinite`](crate::Error::NotFinite).
pub fn train(
    run: &mut Run,
    from: Option<&Checkpoint>,
    data: &Splits,
    watch: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let mut trainer = Trainer::new(run, from, data, watch)?;
    if !trainer.over() {
        trainer.open_board()?;
    }
    if from.is_none() && trainer.config.init.is_some() {
        // From here on the run does not depend on that file.
        trainer.save()?;
    }
    let mut score = None;
    while !trainer.over() {
        if stop.load(Ordering::Relaxed) || trainer.epoch(stop)? == Went::Stopped {
            trainer
                .try_save()
                .map_err(|error| trainer.run.unsaved(error))?;
            let step = trainer.at.step;
            return Ok(Outcome::Stopped { step });
        }
        score = trainer.averaged(Trainer::finish_epoch)?;
        trainer.save()?;
    }
    let weights = trainer.averaged(|trainer| {
        let about = trainer.about_weights();
        let saved = trainer.run.save_final(&about, &trainer.model);
        saved.map_err(|error| trainer.run.unsaved(error))
    })?;
    Ok(Outcome::Complete { weights, score })
}

/// How far an epoch went.
#[derive(PartialEq)]
enum Went {
    /// To its end, or to the end of the run.
    Through,
    /// To where it was told to stop.
    Stopped,
}

struct Trainer<'a> {
    run: &'a mut Run,
    watch: &'a mut dyn Observer,
    config: Config,
    device: Device,
    train: Rc<Feed>,
    val: Feed,
    objective: Objective,
    model: ResNet18,
    optimizer: Optimizer,
    ema: Option<Ema>,
    /// The parameters that no file gave.
    new: Vec<String>,
    schedule: Schedule,
    /// Steps of the run, unless its time is over before.
    steps: u64,
    batch: NonZeroUsize,
    /// The images' own shorter side, in pixels.
    side: u32,
    at: Position,
    losses: Losses,
    failing: Failing,
    board: Option<EventFile>,
    /// When `at.elapsed` was brought up to date.
    clock: Instant,
    /// When the losses were last looked at, or a pause in training ended.
    looked: Instant,
    saved: Instant,
}

impl<'a> Trainer<'a> {
    fn new(
        run: &'a mut Run,
        from: Option<&Checkpoint>,
        data: &Splits,
        watch: &'a mut dyn Observer,
    ) -> Result<Self> {
        let config = run.config().clone();
        check(&config, data)?;
        if let Some(threads) = config.threads {
            crate::set_threads(threads);
        }
        let device = device::open(config.device)?;
        let feed = |data: &Arc<Dataset>| {
            let feed = Feed::new(Arc::clone(data), device, config.placement)?;
            match config.boxes {
                true => feed.with_boxes(),
                false => Ok(feed),
            }
        };
        let (train, val) = (feed(&data.train)?, feed(&data.val)?);
        let length = match (config.time_budget, config.max_steps) {
            (Some(budget), _) => humantime::format_duration(budget).to_string(),
            (None, Some(steps)) => format!("{steps} steps"),
            (None, None) => format!("{} epochs", config.epochs),
        };
        watch.on(&Event::Notice(format!(
            "training for {length} on {}, pixels {}",
            device::describe(device),
            train.placement()
        )));
        let spec = config.spec(data.train.classes().len());
        let mut model = ResNet18::new(spec, config.seed, device)?.with_precision(config.precision);
        if config.zero_init_residual {
            model.zero_init_residual()?;
        }
        if config.boxes
            && let Some(mean) = boxes::mean(&boxes::of(&data.train)?)
        {
            model.start_boxes_at(mean)?;
        }
        let new = match from {
            Some(from) => from.about.new.clone(),
            None => init::begin(&config, &mut model, data.train.classes(), watch)?,
        };
        model.freeze(&config.freeze)?;
        let mut optimizer = Optimizer::new(&config, model.named(), &new)?;
        let mut ema = match config.ema > 0.0 {
            true => Some(Ema::new(config.ema, model.named())?),
            false => None,
        };
        let mut at = Position::default();
        if let Some(from) = from {
            model.load(from.weights())?;
            optimizer.load(from.training_state())?;
            if let Some(ema) = &mut ema {
                ema.load(from.training_state())?;
            }
            at = from.about.position.clone();
        }
        let batch = batch_size(&config);
        let steps_per_epoch = (data.train.len() as usize / batch) as u64;
        let steps = match config.time_budget {
            Some(_) => u64::MAX,
            None => u64::from(config.epochs) * steps_per_epoch,
        };
        Ok(Self {
            objective: Objective::new(&config),
            schedule: config.lr_schedule(),
            steps: config.max_steps.map_or(steps, |most| most.min(steps)),
            losses: Losses::new(device)?,
            failing: Failing::default(),
            board: None,
            train: Rc::new(train),
            run,
            watch,
            config,
            device,
            val,
            model,
            optimizer,
            ema,
            new,
            batch,
            side: data.train.shape().height.min(data.train.shape().width),
            at,
            clock: Instant::now(),
            looked: Instant::now(),
            saved: Instant::now(),
        })
    }

    /// Trains on what is left of the epoch.
    fn epoch(&mut self, stop: &AtomicBool) -> Result<Went> {
        let feed = Rc::clone(&self.train);
        let images = feed.data().len();
        let (seed, epoch) = (self.config.seed, u64::from(self.at.epoch));
        let order = shuffled(images, seed, epoch);
        let mut pass = feed.pass(order, self.batch, true, self.at.batch)?;
        let mut changes = None;
        self.begin(images as usize);
        let waited = self.at.waited;
        let went = loop {
            let share = self.share();
            self.at.rate = self.schedule.rate(share, self.at.epoch);
            let size = self.config.sizes.at(share, self.side);
            let changes = match &changes {
                Some(changes) if size == self.at.size => changes,
                _ => changes.insert(self.changes(size, pass.images())?),
            };
            let Some(loss) = pass.next_batch(|batch| self.step(&batch, changes)) else {
                break Went::Through;
            };
            self.losses.push(&loss?)?;
            self.at.batch += 1;
            self.at.step += 1;
            self.at.waited = waited + pass.waited();
            if self.losses.full() {
                self.look()?;
            }
            if self.over() {
                break Went::Through;
            }
            if stop.load(Ordering::Relaxed) {
                break Went::Stopped;
            }
            if self.saved.elapsed() >= SAVE_EVERY {
                self.save()?;
            }
        };
        self.look()?;
        self.expect_finite_weights()?;
        self.watch.on(&Event::End);
        Ok(went)
    }

    /// What is done to `images`, the rest of the epoch, at `size` pixels.
    fn changes(&mut self, size: u32, images: &[u32]) -> Result<Changes> {
        if size != self.at.size && self.at.step > 0 {
            self.watch
                .on(&Event::Notice(format!("from here on {size} pixels")));
        }
        self.at.size = size;
        let shape = self.train.data().shape();
        let sides = (shape.height, shape.width);
        let (config, epoch) = (&self.config, u64::from(self.at.epoch));
        let draws = Draws::new(config.seed, Stream::Augment, epoch);
        let augment = Augment::new(
            config.flip,
            config.shift * size / self.side,
            draws,
            images,
            scaled(sides, size),
            self.device,
        )?;
        let inputs = Inputs::new(sides, size, config.normalize, self.device)?.augmented(augment);
        Changes::new(inputs, config, epoch, images, sides, self.device)
    }

    /// One step of the optimizer; returns the batch's loss, still on the device.
    fn step(&mut self, batch: &Batch<'_>, changes: &Changes) -> Result<Tensor> {
        let examples = changes.apply(batch, self.at.batch)?;
        let outputs = self.model.outputs(&examples.images, true)?;
        let loss = self.objective.loss(&outputs, &examples)?;
        loss.f_backward()?;
        self.optimizer.step(self.at.rate)?;
        if let Some(ema) = &mut self.ema {
            ema.update(self.model.named(), self.at.step)?;
        }
        Ok(loss.f_detach()?)
    }

    /// Does `work` with the moving average in the network, where there is one.
    fn averaged<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let Some(mut ema) = self.ema.take() else {
            return work(self);
        };
        ema.swap(&self.model)?;
        let done = work(self);
        ema.swap(&self.model)?;
        self.ema = Some(ema);
        done
    }

    /// Scores the network where that is due, reports the epoch and goes on to the next.
    fn finish_epoch(&mut self) -> Result<Option<Score>> {
        let due = (self.at.epoch + 1).is_multiple_of(self.config.eval_every) || self.over();
        let score = if due { Some(self.score()?) } else { None };
        let took = self.at.took.as_secs_f64();
        self.report(&Event::Epoch(Epoch {
            epoch: self.at.epoch,
            step: self.at.step,
            size: self.at.size,
            train_loss: self.at.losses / self.at.batch as f64,
            lr: self.at.rate,
            images_per_second: (self.at.batch * self.batch.get()) as f64 / took,
            wait_share: self.at.waited.as_secs_f64() / took,
            took: self.at.took,
            val: score,
        }))?;
        if due {
            self.show_sheet(self.at.step)?;
        }
        let better = score.filter(|score| self.at.best.is_none_or(|best| score.top1 > best));
        self.at = Position {
            epoch: self.at.epoch + 1,
            step: self.at.step,
            rate: self.at.rate,
            size: self.at.size,
            elapsed: self.at.elapsed,
            best: better.map(|score| score.top1).or(self.at.best),
            ..Position::default()
        };
        if better.is_some() {
            let saved = self.run.save_best(&self.about_weights(), &self.model);
            self.failing
                .pass(Output::Best, saved, self.at.step, self.watch)?;
        }
        Ok(score)
    }

    fn score(&mut self) -> Result<Score> {
        let (model, feed) = (&self.model, &self.val);
        let inputs = self.about().inputs(feed.data().shape(), self.device)?;
        let scores = evaluate(model, feed, &inputs, Tta::None, self.batch, self.watch)?;
        Ok(scores.score())
    }

    /// Reads the losses since the last look, which waits for a GPU, and reports the last one.
    fn look(&mut self) -> Result<()> {
        let losses = self.losses.take()?;
        let Some(&last) = losses.last() else {
            return Ok(());
        };
        self.expect_finite(&losses)?;
        self.at.losses += losses.iter().sum::<f64>();
        let took = self.looked.elapsed();
        self.looked = Instant::now();
        self.at.took += took;
        let images = (self.at.batch * self.batch.get()) as u64;
        self.watch.on(&Event::Advance { done: images });
        self.report(&Event::Step(Step {
            step: self.at.step,
            epoch: self.at.epoch,
            images,
            loss: last,
            lr: self.at.rate,
            images_per_second: (losses.len() * self.batch.get()) as f64 / took.as_secs_f64(),
        }))
    }

    /// Saves all that the run needs to go on from here, if the disk lets it.
    fn save(&mut self) -> Result<()> {
        let saved = self.try_save();
        self.failing
            .pass(Output::Checkpoint, saved, self.at.step, self.watch)
    }

    fn try_save(&mut self) -> Result<()> {
        // What is not finite must not replace what is.
        self.look()?;
        if self.at.batch > 0 {
            self.expect_finite_weights()?;
        }
        self.tick();
        let mut rest = self.optimizer.state();
        rest.extend(self.ema.iter().flat_map(Ema::state));
        let saved = (self.run).save_last(&self.about(), &self.model, rest);
        (self.saved, self.looked) = (Instant::now(), Instant::now());
        saved
    }

    fn about(&self) -> About {
        About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            classes: self.train.data().classes().to_vec(),
            fingerprint: self.run.fingerprint(),
            config: self.config.clone(),
            new: self.new.clone(),
            position: self.at.clone(),
        }
    }

    /// Without what a clock gave: the same run gives the same file.
    fn about_weights(&self) -> About {
        let mut about = self.about();
        about.position = Position {
            took: Duration::ZERO,
            waited: Duration::ZERO,
            elapsed: Duration::ZERO,
            ..about.position
        };
        about
    }

    fn begin(&mut self, images: usize) {
        let epochs = match self.config.time_budget {
            Some(_) => String::new(),
            None => format!("/{}", self.config.epochs),
        };
        self.watch.on(&Event::Begin {
            task: format!("epoch {}{epochs}", self.at.epoch + 1),
            unit: "img",
            total: (images / self.batch * self.batch.get()) as u64,
        });
        self.looked = Instant::now();
    }

    fn report(&mut self, event: &Event) -> Result<()> {
        self.watch.on(event);
        let noted = self.run.note(event);
        self.failing
            .pass(Output::Figures, noted, self.at.step, self.watch)?;
        let shown = self.board.as_mut().map_or(Ok(()), |board| board.on(event));
        self.failing
            .pass(Output::Events, shown, self.at.step, self.watch)
    }

    /// Brings the time spent on the run up to date.
    fn tick(&mut self) {
        self.at.elapsed += self.clock.elapsed();
        self.clock = Instant::now();
    }

    /// The share of the run that is done, from 0 to 1.
    fn share(&mut self) -> f64 {
        self.tick();
        let of_steps = progress(self.at.step, self.steps);
        match self.config.time_budget {
            Some(budget) => of_steps.max(self.at.elapsed.div_duration_f64(budget)),
            None => of_steps,
        }
    }

    fn over(&mut self) -> bool {
        self.at.step >= self.steps || self.share() >= 1.0
    }
}

fn batch_size(config: &Config) -> NonZeroUsize {
    NonZeroUsize::new(config.batch as usize).unwrap_or(NonZeroUsize::MIN)
}
