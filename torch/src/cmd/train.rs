use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use tch::Device;
use tinyres::event::{Event, Observer};
use tinyres::ui::Ui;
use tinyres_format::Split;
use tinyres_load::Verify;
use tinyres_torch::config::sizes::Sizes;
use tinyres_torch::config::{Config, recipes};
use tinyres_torch::exit_at_once;
use tinyres_torch::infer::evaluate::Score;
use tinyres_torch::libtorch::device::{self, DeviceChoice};
use tinyres_torch::run::Run;
use tinyres_torch::run::checkpoint::Checkpoint;
use tinyres_torch::train::init;
use tinyres_torch::train::{Checked, Epoch, Outcome, Splits, Step, TrainingObserver, check, train};

/// Train ResNet18 from shards
///
/// A recipe gives every value, a file given with --config goes over it, and flags over both. The
/// run's directory gets config.toml (all that decided the run), metrics.jsonl, last.safetensors (the
/// checkpoint that --resume continues from), best.safetensors and final.safetensors: weights under
/// torchvision's names, which torchvision.models.resnet18(num_classes=N).load_state_dict takes as
/// they are (with strict=False where there is a box head); and event files with the figures and a sheet
/// of validation images, for TensorBoard. Ctrl-C finishes the step and saves; a second one stops at once.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{}\n\n{EXAMPLES}", super::MAPPED))]
pub struct Args {
    /// Directory of shards, as `tinyres pack` wrote it; compressed ones are expanded once, to a cache
    #[arg(required_unless_present = "resume")]
    shards: Option<PathBuf>,
    /// Directory for the run, created if missing [default: runs/RECIPE-N]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Continue the run in this directory, on the CPU as if it had never stopped
    #[arg(long, value_name = "RUN", conflicts_with_all = ["output", "config", "Flags"])]
    resume: Option<PathBuf>,
    /// TOML file of values, under the flags' names with `_` for `-`; a run's config.toml is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

const EXAMPLES: &str = "\
Examples:
  tinyres train shards                                   as good as an hour of a CPU makes it
  tinyres train shards --time-budget 12m                 as good as twelve minutes make it
  tinyres train shards --recipe seed --epochs 8          the blog's run
  tinyres train shards --init resnet18.pth --freeze stem,layer1 --new-lr-factor 10
  tinyres train shards --optimizer sgd --lr 0.1 --batch 256 --schedule cosine
  tinyres train --resume runs/default-1                  go on after Ctrl-C";

/// The values of a configuration that were typed, under its names.
#[derive(clap::Args, Serialize)]
#[command(next_help_heading = "What decides the run")]
struct Flags {
    /// Named set of values that the others go over: seed is the blog's, default ours, an hour of a CPU or
    /// 30 epochs of a GPU [default: default]
    #[arg(long, value_name = "NAME", value_parser = recipe)]
    recipe: Option<String>,
    /// Passes over the training split. This, --time-budget and --max-steps go over all that recipe and file
    /// say of how long the run is
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// Images of a step
    #[arg(long, value_name = "N")]
    batch: Option<u32>,
    /// Time after which the run ends, its schedule with it, whatever the epochs; as 90s, 60m, 1h30m.
    /// Scoring between epochs counts, scoring at the end comes on top
    #[arg(long, value_name = "TIME", value_parser = duration)]
    time_budget: Option<String>,
    /// Steps after which the run ends, its schedule with it
    #[arg(long, value_name = "N")]
    max_steps: Option<u64>,
    /// Decides initial weights, order and augmentation [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX.unsigned_abs()))]
    seed: Option<u64>,
    /// What comes before the residual blocks: imagenet is 7x7 by 2 and a pool, half 3x3 by 2, small
    /// 3x3 by 1
    #[arg(long, value_parser = PossibleValuesParser::new(["imagenet", "half", "small"]))]
    stem: Option<String>,
    /// Weights to start from, for all layers that fit: torchvision's ResNet18 as .safetensors or .pth, or
    /// those of another run. The classifier is new where the classes are others
    #[arg(long, value_name = "WEIGHTS")]
    init: Option<PathBuf>,
    /// Layers that are not trained, and whose statistics stay: stem, layer1 to layer4, fc
    #[arg(long, value_name = "LAYERS", value_delimiter = ',', value_parser = PossibleValuesParser::new(["stem", "layer1", "layer2", "layer3", "layer4", "fc"]))]
    freeze: Option<Vec<String>>,
    /// Start every block as the identity
    #[arg(long, value_name = "BOOL")]
    zero_init_residual: Option<bool>,
    /// What turns gradients into steps; muon for convolutions, with sgd for the rest
    #[arg(long, value_parser = PossibleValuesParser::new(["sgd", "adam", "muon"]))]
    optimizer: Option<String>,
    /// Highest learning rate
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// What the rate is multiplied by for the layers that --init did not give
    #[arg(long, value_name = "FACTOR")]
    new_lr_factor: Option<f64>,
    /// Momentum of SGD
    #[arg(long, value_name = "SHARE")]
    momentum: Option<f64>,
    /// Nesterov's momentum for SGD
    #[arg(long, value_name = "BOOL")]
    nesterov: Option<bool>,
    /// What the rate is multiplied by for what muon trains
    #[arg(long, value_name = "FACTOR")]
    muon_lr_factor: Option<f64>,
    /// Momentum of muon
    #[arg(long, value_name = "SHARE")]
    muon_momentum: Option<f64>,
    /// Weight decay; not on normalisation and biases, nor on what muon trains
    #[arg(long, value_name = "RATE")]
    weight_decay: Option<f64>,
    /// Scale gradients so that their norm is at most this; 0 for never
    #[arg(long, value_name = "NORM")]
    clip_grad: Option<f64>,
    /// Score and keep a moving average of the weights that keeps this share at each step, as 0.999; 0
    /// for the weights themselves
    #[arg(long, value_name = "SHARE")]
    ema: Option<f64>,
    /// How the rate falls: by a factor every few epochs, or to zero, anew at every step
    #[arg(long, value_parser = PossibleValuesParser::new(["step", "cosine", "linear"]))]
    schedule: Option<String>,
    /// Epochs between two falls of the step schedule
    #[arg(long, value_name = "N")]
    step_epochs: Option<u32>,
    /// What each fall of the step schedule multiplies the rate by
    #[arg(long, value_name = "FACTOR")]
    step_factor: Option<f64>,
    /// Share of the run in which the rate rises from zero
    #[arg(long, value_name = "SHARE")]
    warmup: Option<f64>,
    /// Share of the target that is spread over all classes
    #[arg(long, value_name = "SHARE")]
    label_smoothing: Option<f64>,
    /// Mirror half the training images
    #[arg(long, value_name = "BOOL")]
    flip: Option<bool>,
    /// Shift each training image by up to so many pixels, reflecting it at the edge
    #[arg(long, value_name = "PIXELS")]
    shift: Option<u32>,
    /// Train on smaller images first: sides in pixels or percent, each with its share of the run or
    /// without, as in 32:0.35,48:0.2,64 or 50%,100%; or full
    #[arg(long, value_name = "SIZES", value_parser = sizes)]
    sizes: Option<String>,
    /// Erase a rectangle from each training image with this probability (Zhong et al. 2017)
    #[arg(long, value_name = "PROBABILITY")]
    erasing: Option<f64>,
    /// Blend pairs of training images by shares from Beta(ALPHA, ALPHA) (Zhang et al. 2017); 0.2, say
    #[arg(long, value_name = "ALPHA")]
    mixup: Option<f64>,
    /// Paste a part of another training image, its share from Beta(ALPHA, ALPHA) (Yun et al. 2019);
    /// 1.0, say
    #[arg(long, value_name = "ALPHA")]
    cutmix: Option<f64>,
    /// Share of the batches that --mixup and --cutmix mix, each half of them where both are on. Boxes
    /// are learnt from the others
    #[arg(long, value_name = "SHARE")]
    mix_probability: Option<f64>,
    /// Pixel values by ImageNet's mean and deviation, or only to 0..1
    #[arg(long, value_parser = PossibleValuesParser::new(["imagenet", "none"]))]
    normalize: Option<String>,
    /// Learn the images' boxes beside their classes, by a head on the last feature map
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    boxes: Option<bool>,
    /// Weight of the boxes' smooth L1 loss, beside a cross-entropy of weight 1
    #[arg(long, value_name = "WEIGHT")]
    box_smooth_l1: Option<f64>,
    /// Weight of the boxes' GIoU loss
    #[arg(long, value_name = "WEIGHT")]
    box_giou: Option<f64>,
    /// Write event files to the run's directory, for `tensorboard --logdir` [default: true]
    #[arg(long, value_name = "BOOL")]
    tensorboard: Option<bool>,
    /// Epochs from one scoring to the next; the last epoch is always scored [default: 1]
    #[arg(long, value_name = "N")]
    eval_every: Option<u32>,
    /// Where to compute: auto, cpu, cuda or cuda:N [default: auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// What forward passes compute in: bf16 is bfloat16 with f32 weights, several times as fast on a
    /// GPU, or a CPU with AMX [default: auto, bf16 on those]
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "f32", "bf16"]))]
    precision: Option<String>,
    /// Threads that compute [default: libtorch's choice]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Where the pixels are kept; batches are the same [default: auto]
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "mapped", "pinned", "resident"]))]
    placement: Option<String>,
    /// When pixels are checked against their checksums [default: lazy, when first touched]
    #[arg(long, value_parser = PossibleValuesParser::new(["off", "lazy", "full"]))]
    verify: Option<String>,
}

fn recipe(name: &str) -> Result<String, String> {
    let recipes = recipes();
    let known = recipes.iter().any(|recipe| recipe == name);
    known
        .then(|| name.to_owned())
        .ok_or_else(|| format!("expected {}", recipes.join(" or ")))
}

fn sizes(text: &str) -> Result<String, String> {
    text.parse::<Sizes>().map(|_| text.to_owned())
}

fn duration(text: &str) -> Result<String, humantime::DurationError> {
    humantime::parse_duration(text).map(|_| text.to_owned())
}

pub fn run(args: Args, ui: &mut Ui) -> anyhow::Result<ExitCode> {
    let mut begun = match (args.resume, args.shards) {
        (Some(dir), shards) => resume(&dir, shards, ui)?,
        (None, Some(shards)) => {
            let config = args.config.as_deref();
            create(&shards, args.output, config, &args.flags, ui)?
        }
        (None, None) => unreachable!("clap asks for one of them"),
    };
    let mut watch = Watch {
        ui,
        warnings: Vec::new(),
    };
    let outcome = train(
        &mut begun.run,
        begun.from.as_ref(),
        begun.data,
        begun.device,
        &mut watch,
        stop_on_signal()?,
    );
    let warnings = watch.warnings;
    // Once more: what was said in the course of hours may not be on the screen any more.
    warnings.iter().for_each(|warning| ui.warn(warning));
    let outcome = outcome?;
    let dir = begun.run.dir().to_path_buf();
    let (summary, code) = match outcome {
        Outcome::Complete { weights, score } => (
            Summary::Complete {
                run: dir,
                weights,
                score,
                warnings,
            },
            ExitCode::SUCCESS,
        ),
        Outcome::Stopped { step } => (
            Summary::Stopped {
                run: dir,
                step,
                warnings,
            },
            ExitCode::from(STOPPED),
        ),
    };
    ui.result(&summary)?;
    Ok(code)
}

/// What a shell takes for a program that Ctrl-C ended.
const STOPPED: u8 = 130;

/// A run that is ready to be trained.
struct Begun {
    run: Run,
    from: Option<Checkpoint>,
    data: Checked,
    device: Device,
}

fn create(
    shards: &Path,
    output: Option<PathBuf>,
    file: Option<&Path>,
    flags: &Flags,
    ui: &mut Ui,
) -> anyhow::Result<Begun> {
    let mut config = Config::layered(file, toml::Table::try_from(flags)?)?;
    // The weights depend on these to the bit, so the run's record must hold them.
    config.threads.get_or_insert_with(tinyres_torch::threads);
    let device = device::open(config.device)?;
    config.precision = config.precision.on(device);
    let splits = splits(shards, config.verify, ui)?;
    let data = check(&config, &splits, device)?;
    init::settle(&mut config, splits.train.classes())?;
    let output = output.unwrap_or_else(|| free_name(&config.recipe));
    let run = Run::create(&output, config, shards, splits.train.fingerprint())?;
    Ok(Begun {
        run,
        from: None,
        data,
        device,
    })
}

fn resume(dir: &Path, shards: Option<PathBuf>, ui: &mut Ui) -> anyhow::Result<Begun> {
    let (run, from) = Run::resume(dir)?;
    let shards = match shards {
        Some(moved) => moved,
        None => Run::provenance(dir)?.data,
    };
    let splits = splits(&shards, run.config().verify, ui)?;
    ensure!(
        splits.train.fingerprint() == run.fingerprint(),
        "{} holds another data set than the run in {} was begun with: name the directory of that one, --resume {} SHARDS",
        shards.display(),
        dir.display(),
        dir.display()
    );
    let device = device::open(run.config().device)?;
    let data = check(run.config(), &splits, device)?;
    Ok(Begun {
        run,
        from,
        data,
        device,
    })
}

fn splits(shards: &Path, verify: Verify, ui: &mut Ui) -> anyhow::Result<Splits> {
    let shards = super::ready(shards, ui)?;
    let open = |split| super::open(&shards, split, verify).map(Arc::new);
    Ok(Splits {
        train: open(Split::Train)?,
        val: open(Split::Val)?,
    })
}

/// The first of `runs/RECIPE-1`, `runs/RECIPE-2` and so on that is not there.
fn free_name(recipe: &str) -> PathBuf {
    (1_u64..)
        .map(|number| Path::new("runs").join(format!("{recipe}-{number}")))
        .find(|path| !path.exists())
        .unwrap_or_else(|| unreachable!("fewer than 2^64 runs"))
}

/// A flag that the first Ctrl-C, or the system's wish that this ends, sets. The second one ends it.
fn stop_on_signal() -> anyhow::Result<&'static AtomicBool> {
    static STOP: AtomicBool = AtomicBool::new(false);
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            exit_at_once(STOPPED);
        }
        eprintln!("\nstopping after this step; once more to stop at once, without saving");
    })
    .context("watching for Ctrl-C")?;
    Ok(&STOP)
}

/// The terminal, and what it was warned of.
struct Watch<'a> {
    ui: &'a mut Ui,
    warnings: Vec<String>,
}

impl Observer for Watch<'_> {
    fn on(&mut self, event: &Event) {
        if let Event::Warning(text) = event {
            self.warnings.push(text.clone());
        }
        self.ui.on(event);
    }
}

impl TrainingObserver for Watch<'_> {
    fn on_step(&mut self, step: &Step) {
        self.ui.on(&Event::Status(step.to_string()));
    }

    fn on_epoch(&mut self, epoch: &Epoch) {
        // If the reader of stdout has gone away, this is reported when the result is written.
        let _ = self.ui.result(epoch);
    }
}

/// How the run ended.
#[derive(Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum Summary {
    Complete {
        run: PathBuf,
        weights: PathBuf,
        #[serde(flatten)]
        score: Option<Score>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    },
    Stopped {
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
                run.display()
            ),
        }
    }
}
