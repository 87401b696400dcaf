//! `tinyres train`: its flags, and how the result of a run is shown.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::builder::{
    BoolValueParser, PossibleValuesParser, StringValueParser, TypedValueParser as _,
};
use clap::{
    Arg, ArgAction, ArgGroup, ArgMatches, Command, FromArgMatches, ValueHint, value_parser,
};
use serde::Serialize;
use tch::Device;
use tinyres::cache;
use tinyres::event::{Event, Observer};
use tinyres::text::{counted, shell_word};
use tinyres::ui::Ui;
use tinyres_format::{MANIFEST, Split};
use tinyres_load::Verify;
use tinyres_torch::Error;
use tinyres_torch::config::knobs::{KNOBS, Kind, Knob};
use tinyres_torch::config::{Config, Layers, in_recipes};
use tinyres_torch::infer::evaluate::Score;
use tinyres_torch::libtorch::device;
use tinyres_torch::ranks::{Launch, RankError, Ranks};
use tinyres_torch::run::checkpoint::Checkpoint;
use tinyres_torch::run::{Run, SetId};
use tinyres_torch::train::init;
use tinyres_torch::train::{
    Checked, Epoch, Outcome, Splits, Step, TrainingObserver, check, groups_of, train_over,
};
use toml::{Table, Value};

use super::pictures::Pictures;
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

/// The values of a configuration that were given as flags, under their keys: one flag for each of [`KNOBS`].
#[derive(Clone)]
struct Flags(Table);

impl Flags {
    /// Every knob that has a flag.
    fn knobs() -> impl Iterator<Item = &'static Knob> {
        KNOBS
            .iter()
            .filter(|knob| !matches!(knob.kind, Kind::Recorded))
    }
}

impl clap::Args for Flags {
    fn group_id() -> Option<clap::Id> {
        Some("Flags".into())
    }

    fn augment_args(command: Command) -> Command {
        let keys = Self::knobs().map(|knob| knob.key);
        let group = ArgGroup::new("Flags").multiple(true).args(keys);
        Self::knobs()
            .fold(command, |command, knob| command.arg(flag(knob)))
            .group(group)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self(Table::new());
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for knob in Self::knobs() {
            let Some(mut values) = matches.get_many::<Value>(knob.key) else {
                continue;
            };
            let value = match knob.kind {
                Kind::Names(_) => Some(Value::Array(values.cloned().collect())),
                _ => values.next_back().cloned(),
            };
            self.0
                .extend(value.map(|value| (knob.key.to_owned(), value)));
        }
        Ok(())
    }
}

/// The flag of `knob`. It checks the type of a value; [`Layers::read`] checks the bounds, as for a file.
fn flag(knob: &'static Knob) -> Arg {
    let mut help = knob.help.to_owned();
    // A default that a recipe overrides would mislead.
    if !knob.default.is_empty() && !in_recipes(knob.key) {
        let default = knob.default.trim_matches(['"', '[', ']']);
        let default = if default.is_empty() { "none" } else { default };
        help += &format!(" [default: {default}]");
    }
    let flag = Arg::new(knob.key)
        .long(knob.key.replace('_', "-"))
        .value_name(knob.value_name)
        .help(help)
        .help_heading(knob.heading);
    match knob.kind {
        Kind::Integer(_, most) => {
            let range = value_parser!(u64).range(..=most);
            flag.value_parser(range.map(|n| Value::Integer(n.cast_signed())))
        }
        Kind::Number(..) => flag.value_parser(|text: &str| text.parse().map(Value::Float)),
        Kind::Bool => flag.value_parser(BoolValueParser::new().map(Value::Boolean)),
        Kind::Switch => flag
            .value_parser(BoolValueParser::new().map(Value::Boolean))
            .num_args(0..=1)
            .default_missing_value("true"),
        Kind::Name(names) => flag.value_parser(PossibleValuesParser::new(names).map(Value::String)),
        Kind::Names(names) => flag
            .value_parser(PossibleValuesParser::new(names).map(Value::String))
            .value_delimiter(',')
            .action(ArgAction::Append),
        Kind::File => flag
            .value_parser(StringValueParser::new().map(Value::String))
            .value_hint(ValueHint::FilePath),
        Kind::Text(accepts) | Kind::CountOrText(accepts) => {
            // clap names the flag and its value.
            let expected = |error| match error {
                Error::Value { expected, .. } => format!("expected {expected}"),
                other => other.to_string(),
            };
            flag.value_parser(move |text: &str| {
                accepts(text).map(|()| Value::from(text)).map_err(expected)
            })
        }
        Kind::Recorded => flag.hide(true),
    }
}

pub fn run(args: Args, ui: &mut Ui) -> anyhow::Result<ExitCode> {
    if let Some(launch) = Launch::from_env()? {
        return ranked::run(args, &launch, ui);
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

    /// What several processes must be given alike: flags and their values.
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
    if device.is_cuda() {
        return Err(RankError::Gpu);
    }
    let groups = groups_of(config, device);
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

/// The threads to start: those that were asked for, or an equal part of the host's for each process on it.
fn threads(wanted: Option<usize>, launch: Option<&Launch>) -> Option<NonZeroUsize> {
    let chosen = wanted.and_then(NonZeroUsize::new);
    chosen.or_else(|| launch.and_then(Launch::threads))
}

/// Where a run is to be.
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
    let device = device::open(layers.device())?;
    let [batch_is_given, threads_are_given] = ["batch", "threads"].map(|key| layers.sets(key));
    let mut config = layers.config(device.is_cuda())?;
    tinyres_torch::start_threads(threads(config.threads, launch))?;
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
            if !threads_are_given {
                config.threads = run.config().threads;
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
    let device = device::open(run.config().device)?;
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

/// The terminal, and what it was warned of.
struct Watch<'a> {
    ui: &'a mut Ui,
    warnings: Vec<String>,
    /// The loss since the start.
    curve: Sparkline,
    /// True if this process reports: rank 0 for several.
    is_first: bool,
}

impl Observer for Watch<'_> {
    fn on(&mut self, event: &Event) {
        if let Event::Warning(text) = event {
            self.warnings.push(text.clone());
        }
        if self.is_first {
            self.ui.on(event);
        }
    }
}

impl TrainingObserver for Watch<'_> {
    fn on_step(&mut self, step: &Step) {
        if !self.is_first {
            return;
        }
        self.curve.push(step.loss);
        // Short enough to stand after a progress bar in 80 columns.
        let Step { loss, lr, .. } = step;
        let status = format!("loss {loss:.3} {}  lr {lr:.2e}", self.curve);
        self.ui.on(&Event::Status(status));
    }

    fn on_epoch(&mut self, epoch: &Epoch) {
        // If the reader of stdout has gone away, this is reported when the result is written.
        if self.is_first {
            let _ = self.ui.result(epoch);
        }
    }
}

/// How the run ended.
#[derive(Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum Summary {
    Complete {
        #[serde(serialize_with = "tinyres::text::path")]
        run: PathBuf,
        #[serde(serialize_with = "tinyres::text::path")]
        weights: PathBuf,
        #[serde(flatten)]
        score: Option<Score>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    },
    Stopped {
        #[serde(serialize_with = "tinyres::text::path")]
        run: PathBuf,
        step: u64,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    },
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete { weights, score, .. } => {
                if let Some(score) = score {
                    let (top1, top5) = (100.0 * score.top1, 100.0 * score.top5);
                    write!(f, "top-1 {top1:.2}%, top-5 {top5:.2}%")?;
                    if let Some(boxes) = score.boxes {
                        write!(f, ", mean IoU {:.3}", boxes.mean_iou)?;
                    }
                    write!(f, ": ")?;
                }
                write!(f, "{}", weights.display())
            }
            Self::Stopped { run, step, .. } => write!(
                f,
                "stopped after step {step}: continue with `tinyres train --resume {}`",
                shell_word(run)
            ),
        }
    }
}
