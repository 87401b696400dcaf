//! `tinyres train`: its flags, and how the result of a run is shown.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use tch::Device;
use tinyres::cache;
use tinyres::event::{Event, Observer};
use tinyres::text::{counted, shell_word};
use tinyres::ui::Ui;
use tinyres_format::{MANIFEST, Split};
use tinyres_load::Verify;
use tinyres_torch::config::{Config, Layers, Machine};
use tinyres_torch::libtorch::device::{self, DeviceChoice, Precision};
use tinyres_torch::ranks::{Launch, RankError, Ranks};
use tinyres_torch::run::checkpoint::Checkpoint;
use tinyres_torch::run::{Run, SetId};
use tinyres_torch::train::init;
use tinyres_torch::train::{Checked, Outcome, Splits, check, groups_of, train_over};
use toml::Table;

use super::flags::Flags;
use super::pictures::Pictures;
use super::progress::{Summary, Watch};
use super::sparkline::Sparkline;
use super::{ranked, stop};

/// Train ResNet18 from shards, or from any source that `tinyres pack` reads
///
/// A recipe gives the values, a file given with --config overrides it, and flags override both. The run's
/// directory gets config.toml (everything that decided the run), metrics.jsonl, last.safetensors (the
/// checkpoint that --resume continues from), best.safetensors and final.safetensors. These are weights
/// under torchvision's names, which torchvision.models.resnet18(num_classes=N).load_state_dict takes as
/// they are (with strict=False if there is a box head). Event files for TensorBoard hold the figures and a
/// sheet of validation images. At its end, eval/ gets the predictions for each validation image, and eval/val/ pictures:
/// curves, confusions, accuracy by class, calibration, mistakes, labels that seem wrong, duplicates, boxes; `tinyres
/// report` makes one page of them. Ctrl-C finishes the step and saves; a second one stops at once.
///
/// Several processes train one run together on CPUs, started by torchrun, srun, or with RANK, WORLD_SIZE,
/// MASTER_ADDR and MASTER_PORT set. --batch is that of all; each process computes some of its groups of
/// --ghost-batch images. Rank 0 writes the run. The ranks trust each other: use a network of your own.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{}\n\n{EXAMPLES}", super::MAPPED))]
pub struct Args {
    /// Directory of shards, or any source that `tinyres pack` reads
    ///
    /// A source (directory, zip, tar, Parquet, CIFAR, npz) is packed as by `tinyres pack` without flags, to a
    /// cache, and found there until it changes; `tinyres cache` lists and empties that. Compressed shards are
    /// expanded to it.
    #[arg(value_name = "SHARDS|SOURCE", required_unless_present = "resume")]
    shards: Option<PathBuf>,
    /// Directory for the run, created if missing [default: runs/RECIPE-N]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Continue the run in this directory, on the CPU as if it had never stopped
    #[arg(long, value_name = "RUN", conflicts_with_all = ["output", "config", "Flags"])]
    resume: Option<PathBuf>,
    /// TOML file of values, named like the flags with `_` for `-`, such as a run's config.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Draw pictures of the result at the end: on or off
    #[arg(
        long,
        value_name = "on|off",
        default_value = "on",
        hide_possible_values = true
    )]
    pictures: Pictures,
    /// Go on with the run in --output if it is there, begun with the same flags and data, and else begin it
    ///
    /// For whoever starts the same command again after a failure. Implied if torchrun or Slurm says that it does.
    #[arg(long = "continue", requires = "output", conflicts_with = "resume")]
    goes_on: bool,
    /// With several processes, the time that one waits for the others
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    rank_timeout: Duration,
    #[command(flatten)]
    flags: Flags,
}

const EXAMPLES: &str = "\
Examples:
  tinyres train shards                                   as good as an hour of a CPU makes it
  tinyres train tiny-imagenet-200.zip                    the same, packed once to the cache
  tinyres train shards --time-budget 12m                 as good as twelve minutes make it
  tinyres train shards --recipe seed --epochs 8          the blog's run
  tinyres train shards --init resnet18.pth --freeze stem,layer1 --new-lr-factor 10
  tinyres train shards --optimizer sgd --lr 0.1 --batch 256 --schedule cosine
  tinyres train --resume runs/default-1                  go on after Ctrl-C
  torchrun --nproc-per-node 2 --no-python tinyres train shards     as two processes";

pub fn run(args: Args, ui: &mut Ui) -> anyhow::Result<ExitCode> {
    if let Some(launch) = Launch::from_env()? {
        ranked::train(args, &launch, ui);
    }
    let pictures = args.pictures;
    let begun = begin(args, None, ui)?;
    conclude(begun, pictures, &Rc::new(Ranks::alone()), ui)
}

/// Makes the run ready, or the run that is resumed. With a `launch` it is for several processes.
pub(super) fn begin(args: Args, launch: Option<&Launch>, ui: &mut Ui) -> anyhow::Result<Begun> {
    match (args.resume, args.shards) {
        (Some(dir), shards) => resume(&dir, shards, launch, ui),
        (None, Some(shards)) => {
            let restarts = launch.is_some_and(|launch| launch.restarts > 0);
            let place = Place {
                output: args.output,
                goes_on: args.goes_on || restarts,
            };
            if place.output.is_none() && launch.is_some_and(|launch| launch.may_restart) {
                return Err(RankError::NoOutput.into());
            }
            let config = args.config.as_deref();
            create(&shards, place, config, args.flags.0, launch, ui)
        }
        (None, None) => unreachable!("clap asks for one of them"),
    }
}

/// Trains, and shows the result.
pub(super) fn conclude(
    mut begun: Begun,
    pictures: Pictures,
    ranks: &Rc<Ranks>,
    ui: &mut Ui,
) -> anyhow::Result<ExitCode> {
    let mut watch = Watch {
        ui,
        warnings: Vec::new(),
        curve: Sparkline::default(),
        is_first: ranks.is_first(),
    };
    let splits = begun.splits;
    let outcome = train_over(
        ranks,
        &mut begun.run,
        begun.from.as_ref(),
        begun.data,
        begun.device,
        &mut watch,
        stop::on_signal()?,
    )
    .and_then(|outcome| ranks.finish().map(|()| outcome));
    let warnings = watch.warnings;
    // Once more: what was said in the course of hours may not be on the screen any more.
    warnings.iter().for_each(|warning| ui.warn(warning));
    let dir = begun.run.dir().to_path_buf();
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            begun.run.abandon();
            return Err(error.into());
        }
    };
    let (summary, code) = match outcome {
        Outcome::Complete { weights, score } => {
            let predictions = Run::predictions(&dir).map(|dir| dir.join("val.parquet"));
            // Those of a run that was not evaluated, or whose disk is full, are not there.
            let drawn = predictions.filter(|table| ranks.is_first() && table.exists());
            if let Some(table) = drawn {
                let sets = [splits.train, splits.val.clone()];
                pictures.draw(&table, Some(&dir), &splits.val, &sets, ui);
            }
            let summary = Summary::Complete {
                run: dir,
                weights,
                score,
                warnings,
            };
            (summary, ExitCode::SUCCESS)
        }
        Outcome::Stopped { step } => (
            Summary::Stopped {
                run: dir,
                step,
                warnings,
            },
            ExitCode::from(stop::STOPPED),
        ),
    };
    if ranks.is_first() {
        ui.result(&summary)?;
    }
    Ok(code)
}

/// A run that is ready to be trained.
pub(super) struct Begun {
    pub run: Run,
    pub from: Option<Checkpoint>,
    pub splits: Splits,
    pub data: Checked,
    pub device: Device,
}

impl Args {
    /// The directory or source of shards, if it was given.
    pub(super) fn shards(&self) -> Option<&Path> {
        self.shards.as_deref()
    }

    /// The flag that says if the result is drawn.
    pub(super) fn pictures(&self) -> Pictures {
        self.pictures
    }

    /// The time that one process waits for others.
    pub(super) fn rank_timeout(&self) -> Duration {
        self.rank_timeout
    }

    /// Flags and their values that several processes must be given alike.
    pub(super) fn common(&self) -> BTreeMap<String, String> {
        let mut flags: BTreeMap<_, _> = (self.flags.0.iter())
            .map(|(key, value)| (key.replace('_', "-"), value.to_string()))
            .collect();
        let path = |path: &Path| path.display().to_string();
        flags.extend(
            self.resume
                .as_deref()
                .map(|run| ("resume".to_owned(), path(run))),
        );
        flags.extend(
            self.config
                .as_deref()
                .map(|file| ("config".to_owned(), path(file))),
        );
        flags
    }
}

/// Checks that `config` can be trained on `device` by the processes of `launch`.
fn expect_trainable(
    config: &Config,
    device: Device,
    launch: Option<&Launch>,
) -> Result<(), RankError> {
    let Some(&Launch { size, .. }) = launch else {
        return Ok(());
    };
    let groups = groups_of(config, device, size);
    if (groups as usize) < size {
        return Err(RankError::Groups {
            size,
            groups,
            batch: config.batch,
            ghost_batch: config.ghost_batch,
        });
    }
    Ok(())
}

/// The device of `choice` for this process, which may be one of several.
fn device(choice: DeviceChoice, launch: Option<&Launch>) -> tinyres_torch::Result<Device> {
    launch.map_or_else(|| device::open(choice), |launch| launch.device(choice))
}

/// The threads to start: those that were asked for, or an equal part of the host's for each process on it.
fn threads(wanted: Option<NonZeroUsize>, launch: Option<&Launch>) -> Option<NonZeroUsize> {
    wanted.or_else(|| launch.and_then(Launch::threads))
}

/// The machine of all processes of `launch`. The threads of this one were started.
fn machine(device: Device, launch: Option<&Launch>) -> Machine {
    if device.is_cuda() {
        return Machine::Gpu;
    }
    Machine::Cpu {
        cores: tinyres_torch::threads() * launch.map_or(1, |launch| launch.size),
        bf16: Precision::default().on(device) == Precision::Bf16,
    }
}

/// Place of a run that begins.
struct Place {
    output: Option<PathBuf>,
    /// True if one that is there already goes on.
    goes_on: bool,
}

fn create(
    shards: &Path,
    place: Place,
    file: Option<&Path>,
    flags: Table,
    launch: Option<&Launch>,
    ui: &mut Ui,
) -> anyhow::Result<Begun> {
    let layers = Layers::read(file, flags)?;
    let device = device(layers.device(), launch)?;
    let [batch_is_given, threads_are_given, sizes_are_given] =
        ["batch", "threads", "sizes"].map(|key| layers.sets(key));
    tinyres_torch::start_threads(threads(layers.threads(), launch))?;
    let mut config = layers.config(machine(device, launch))?;
    // The weights depend on these to the bit, so the run's record must hold them.
    config.threads.get_or_insert_with(tinyres_torch::threads);
    config.precision = config.precision.on(device);
    let splits = splits(shards, config.verify, ui)?;
    let images = splits.train.len();
    if images < config.batch && !batch_is_given {
        ui.on(&Event::Notice(format!(
            "batches of {} instead of {}: the training split has no more",
            counted(images, "image"),
            config.batch
        )));
        config.batch = images;
    }
    let data = check(&config, &splits, device)?;
    expect_trainable(&config, device, launch)?;
    init::settle(&mut config, splits.train.classes())?;
    let mut from = None;
    let run = match place.output {
        Some(output) if place.goes_on && Run::is_at(&output) => {
            let (run, last) = Run::resume(&output)?;
            // Those that the machine decided were perhaps decided by another one.
            if !threads_are_given {
                config.threads = run.config().threads;
            }
            if !sizes_are_given {
                config.sizes.clone_from(&run.config().sizes);
            }
            let other = (run.config().differs(&config))
                .or_else(|| (!run.set().agrees(&splits.id())).then(|| "data set".to_owned()));
            if let Some(other) = other {
                bail!(
                    "{} holds a run with another {other}: give it the same again, or name another directory with --output",
                    output.display()
                );
            }
            from = last;
            run
        }
        Some(output) => Run::create(&output, config, shards, splits.id())?,
        None => Run::create_next(config, shards, splits.id())?,
    };
    Ok(Begun {
        run,
        from,
        splits,
        data,
        device,
    })
}

fn resume(
    dir: &Path,
    shards: Option<PathBuf>,
    launch: Option<&Launch>,
    ui: &mut Ui,
) -> anyhow::Result<Begun> {
    // Reading a checkpoint takes them already.
    tinyres_torch::start_threads(None)?;
    let (run, from) = Run::resume(dir)?;
    tinyres_torch::start_threads(run.config().threads.and_then(NonZeroUsize::new))?;
    let (own, verify) = (run.set(), run.config().verify);
    let (shards, splits) = match shards {
        Some(moved) => {
            let splits = splits(&moved, verify, ui)?;
            (moved, splits)
        }
        None => {
            let data = Run::provenance(dir)?.data;
            let splits = match cached(&data, own, verify, ui) {
                Some(cached) => cached,
                None => splits(&data, verify, ui)?,
            };
            (data, splits)
        }
    };
    let set = splits.id();
    ensure!(
        set.fingerprint == own.fingerprint,
        "{} holds another data set than the run in {} was begun with: name that one, --resume {} SHARDS",
        shards.display(),
        dir.display(),
        shell_word(dir)
    );
    ensure!(
        set.agrees(&own),
        "{} holds other images than the run in {} was begun with, under the same names and labels: put those back, or start another run, with --init {} to begin from its weights",
        shards.display(),
        dir.display(),
        shell_word(&dir.join("last.safetensors"))
    );
    let device = device(run.config().device, launch)?;
    expect_trainable(run.config(), device, launch)?;
    let data = check(run.config(), &splits, device)?;
    Ok(Begun {
        run,
        from,
        splits,
        data,
        device,
    })
}

pub(super) fn splits(shards: &Path, verify: Verify, ui: &mut Ui) -> anyhow::Result<Splits> {
    let shards = super::ready(shards, &[Split::Train, Split::Val], ui)?;
    Ok(open(&shards, verify)?)
}

/// The set `own` in the cache, of a run that was begun with the source `data`: also if that has changed since.
fn cached(data: &Path, own: SetId, verify: Verify, ui: &mut Ui) -> Option<Splits> {
    if data.join(MANIFEST).exists() {
        return None;
    }
    let is_own = |dir: &Path| {
        let splits = open(dir, verify).ok()?;
        (splits.id() == own).then_some(splits)
    };
    cache::find(&cache::cache_dir()?, own.fingerprint, is_own, ui)
}

fn open(dir: &Path, verify: Verify) -> tinyres_load::Result<Splits> {
    let open = |split| super::open(dir, split, verify).map(Arc::new);
    Ok(Splits {
        train: open(Split::Train)?,
        val: open(Split::Val)?,
    })
}
