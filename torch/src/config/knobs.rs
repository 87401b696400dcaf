//! The knobs of `train`: one row for each value of a configuration. Flags, help, defaults, the keys that a file
//! may hold and the checks of single values come from this table.
//!
//! To add a knob, add a row here and a field to [`Config`](super::Config). Checks that relate several values
//! stand there; recipes are in `recipes.toml`.

use std::time::Duration;

use strum::VariantNames;
use tinyres_load::Verify;
use toml::{Table, Value};

use super::schedule::Decay;
use super::sizes::Sizes;
use super::{Algorithm, EvalEvery, Normalize, recipes};
use crate::libtorch::device::{DeviceChoice, Placement, Precision};
use crate::net::{Layer, Stem};
use crate::{Error, Result};

/// One value of a configuration.
#[derive(Debug)]
pub struct Knob {
    /// Key in TOML and in checkpoints. The flag has `-` for `_`.
    pub key: &'static str,
    /// Heading of the help that the flag stands under.
    pub heading: &'static str,
    /// Placeholder of the value in the help.
    pub value_name: &'static str,
    /// Help text of the flag.
    pub help: &'static str,
    /// Value, as TOML, if neither flags nor file nor recipe state one. Empty: there need not be one.
    pub default: &'static str,
    /// Type and bounds.
    pub kind: Kind,
}

/// Type and bounds of a value.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// An integer, from the first to the second.
    Integer(u64, u64),
    /// A number for which the function holds, and the words for that.
    Number(fn(f64) -> bool, &'static str),
    /// `true` or `false`.
    Bool,
    /// `true` or `false`; the flag alone means `true`.
    Switch,
    /// One of these names.
    Name(&'static [&'static str]),
    /// A list of these names.
    Names(&'static [&'static str]),
    /// A file.
    File,
    /// Text that the function accepts.
    Text(fn(&str) -> Result<()>),
    /// An integer from 1, or text: what the function accepts.
    CountOrText(fn(&str) -> Result<()>),
    /// Text that tinyres writes; there is no flag for it.
    Recorded,
}

const COUNT: Kind = Kind::Integer(1, u32::MAX as u64);
const COUNT_OR_ZERO: Kind = Kind::Integer(0, u32::MAX as u64);
/// More threads than any machine has cores: they are started before anything is computed.
const THREADS: Kind = Kind::Integer(1, 4096);
/// TOML has no larger integers.
const LARGEST: u64 = i64::MAX.unsigned_abs();
const POSITIVE: Kind = Kind::Number(|x| x > 0.0 && x.is_finite(), "a number above 0");
const NOT_NEGATIVE: Kind = Kind::Number(|x| x >= 0.0 && x.is_finite(), "0 or above");
const BELOW_ONE: Kind = Kind::Number(|x| (0.0..1.0).contains(&x), "0 to below 1");
const PROBABILITY: Kind = Kind::Number(|x| (0.0..=1.0).contains(&x), "0 to 1");
/// Parameter of a Beta distribution. Above 8, its draws are nearly always about 0.5, and take ever longer.
const ALPHA: Kind = Kind::Number(|x| (0.0..=8.0).contains(&x), "0 to 8");

const LENGTH: &str = "Length of the run";
const NETWORK: &str = "Network and initial weights";
const OPTIMIZER: &str = "Optimizer";
const RATE: &str = "Learning rate";
const DATA: &str = "Images and augmentation";
const BOXES: &str = "Boxes";
const MACHINE: &str = "Where it runs";
const REPORTS: &str = "Scoring and reports";

/// Every knob, in the order of the help.
#[rustfmt::skip]
pub static KNOBS: &[Knob] = &[
    knob("recipe", LENGTH, "NAME", "\"default\"", Kind::Text(recipe),
        "Named set of values, which --config and flags override: seed is the blog's run, default is ours, \
         for an hour of a CPU or 30 epochs of a GPU"),
    knob("epochs", LENGTH, "N", "", COUNT,
        "Passes over the training split. Setting any of --epochs, --max-steps and --time-budget replaces \
         every run length of the recipe and the file"),
    knob("max_steps", LENGTH, "N", "", Kind::Integer(1, LARGEST),
        "Steps after which the run and its schedule end"),
    knob("time_budget", LENGTH, "TIME", "", Kind::Text(duration),
        "Time after which the run and its schedule end, such as 90s, 60m or 1h30m, regardless of --epochs. \
         It includes the scoring between epochs, but not the final scoring"),
    knob("batch", LENGTH, "N", "", COUNT,
        "Images in a step"),
    knob("ghost_batch", LENGTH, "N", "0", COUNT_OR_ZERO,
        "Ghost batch norm (Hoffer et al. 2017): divide a batch into equal groups of at most this many images, each \
         normalised by its own statistics and computed by one thread, so that busy neighbours cost less. 0 takes the \
         batch as a whole, as a GPU always does"),
    knob("seed", LENGTH, "N", "0", Kind::Integer(0, LARGEST),
        "Seed of initial weights, order and augmentation"),

    knob("stem", NETWORK, "STEM", "\"imagenet\"", Kind::Name(Stem::VARIANTS),
        "Layers before the residual blocks: imagenet is a 7x7 convolution with stride 2 and a pool, half is \
         3x3 with stride 2, small is 3x3 with stride 1"),
    knob("init", NETWORK, "WEIGHTS", "", Kind::File,
        "Weights to start from: any ResNet18 as .safetensors or .pth, found in a checkpoint's dictionaries, or \
         those of another run. FILE#KEY names one of several. The classifier is new if the classes differ"),
    knob("init_digest", NETWORK, "SHA256", "", Kind::Recorded,
        "SHA-256 of the file of --init"),
    knob("freeze", NETWORK, "LAYERS", "[]", Kind::Names(Layer::VARIANTS),
        "Layers that are not trained and keep their running statistics, separated by commas"),
    knob("zero_init_residual", NETWORK, "BOOL", "false", Kind::Bool,
        "Start every residual block as the identity"),

    knob("optimizer", OPTIMIZER, "NAME", "", Kind::Name(Algorithm::VARIANTS),
        "How gradients become steps. muon trains the convolutions except the first; sgd trains the rest"),
    knob("momentum", OPTIMIZER, "MOMENTUM", "0.0", BELOW_ONE,
        "Momentum of sgd"),
    knob("nesterov", OPTIMIZER, "BOOL", "false", Kind::Bool,
        "Use Nesterov momentum in sgd"),
    knob("muon_lr_factor", OPTIMIZER, "FACTOR", "0.4", POSITIVE,
        "Factor of the learning rate for the layers that muon trains"),
    knob("muon_momentum", OPTIMIZER, "MOMENTUM", "0.6", BELOW_ONE,
        "Momentum of muon"),
    knob("weight_decay", OPTIMIZER, "RATE", "0.0", NOT_NEGATIVE,
        "Weight decay, except on normalisation, biases and what muon trains"),
    knob("clip_grad", OPTIMIZER, "NORM", "0.0", NOT_NEGATIVE,
        "Scale gradients down so that their common norm is at most this; 0 turns it off"),
    knob("ema", OPTIMIZER, "DECAY", "0.0", BELOW_ONE,
        "Evaluate and save an exponential moving average of the weights with this decay, such as 0.999; 0 \
         turns it off"),

    knob("lr", RATE, "RATE", "", POSITIVE,
        "Peak learning rate"),
    knob("new_lr_factor", RATE, "FACTOR", "1.0", POSITIVE,
        "Factor of the learning rate for layers that --init did not give"),
    knob("schedule", RATE, "NAME", "", Kind::Name(Decay::VARIANTS),
        "How the rate falls: step by a factor every few epochs, cosine and linear to 0, a little at each step"),
    knob("step_epochs", RATE, "N", "1", COUNT,
        "Epochs between two falls of the step schedule"),
    knob("step_factor", RATE, "FACTOR", "1.0", POSITIVE,
        "Factor of the rate at each fall of the step schedule"),
    knob("warmup", RATE, "FRACTION", "0.0", BELOW_ONE,
        "Fraction of the run in which the rate rises from 0"),

    knob("normalize", DATA, "NAME", "", Kind::Name(Normalize::VARIANTS),
        "Normalise pixels by ImageNet's mean and std, or only scale them to 0..1"),
    knob("sizes", DATA, "SIZES", "\"full\"", Kind::Text(sizes),
        "Train on smaller images first, or on enlarged ones last: sides in pixels or percent, with or without a \
         fraction of the run, such as 32:0.35,48:0.2,64 or 50%,100%,150%; or full. Percents enlarge to 128 \
         pixels at most"),
    knob("flip", DATA, "BOOL", "false", Kind::Bool,
        "Mirror half of the training images"),
    knob("shift", DATA, "PIXELS", "0", COUNT_OR_ZERO,
        "Shift each training image by up to this many pixels in each direction, reflecting it at the edge"),
    knob("erasing", DATA, "PROBABILITY", "0.0", PROBABILITY,
        "Probability of erasing a rectangle from a training image (Zhong et al. 2017)"),
    knob("mixup", DATA, "ALPHA", "0.0", ALPHA,
        "Blend pairs of training images by a fraction drawn from Beta(ALPHA, ALPHA) (Zhang et al. 2017), such as \
         0.2; 0 turns it off"),
    knob("cutmix", DATA, "ALPHA", "0.0", ALPHA,
        "Paste a part of another training image, its area drawn from Beta(ALPHA, ALPHA) (Yun et al. 2019), such \
         as 1.0; 0 turns it off"),
    knob("mix_probability", DATA, "FRACTION", "0.5", PROBABILITY,
        "Fraction of the batches that --mixup and --cutmix change, half of them each if both are on. Boxes are \
         learnt from the other batches"),
    knob("label_smoothing", DATA, "FRACTION", "0.0", BELOW_ONE,
        "Fraction of the target that is spread over all classes"),

    knob("boxes", BOXES, "BOOL", "false", Kind::Switch,
        "Learn the images' boxes, too, by a second head on the last feature map"),
    knob("box_smooth_l1", BOXES, "WEIGHT", "1.0", NOT_NEGATIVE,
        "Weight of the smooth L1 loss of the boxes; the cross-entropy has weight 1"),
    knob("box_giou", BOXES, "WEIGHT", "2.0", NOT_NEGATIVE,
        "Weight of the GIoU loss of the boxes; the cross-entropy has weight 1"),

    knob("device", MACHINE, "DEVICE", "\"auto\"", Kind::Text(device),
        "Device that computes: auto, cpu, cuda or cuda:N"),
    knob("precision", MACHINE, "NAME", "\"auto\"", Kind::Name(Precision::VARIANTS),
        "Number format of forward passes: bf16 is bfloat16 with f32 weights, faster on a GPU and on a CPU with AMX \
         or avx512_bf16, and auto takes it there"),
    knob("threads", MACHINE, "N", "", THREADS,
        "Threads that compute [default: libtorch's choice]"),
    knob("placement", MACHINE, "NAME", "\"auto\"", Kind::Name(Placement::VARIANTS),
        "Where the pixels are kept; batches are the same"),
    knob("verify", MACHINE, "NAME", "\"lazy\"", Kind::Name(&Verify::NAMES),
        "When pixels are compared with their checksums: never, when first read, or all at the start"),

    knob("eval_every", REPORTS, "EPOCHS|TIME", "\"auto\"", Kind::CountOrText(eval_every),
        "When the validation split is scored: every so many epochs, such as 2, or at the first end of an epoch after \
         so much time, such as 5m, in a run with a --time-budget. auto is every epoch, and with a --time-budget the \
         first one, and then as often as it takes at most 2% of the time. The last epoch is always scored"),
    knob("track", REPORTS, "BOOL", "false", Kind::Switch,
        "Write the margin of each training image at each epoch to the run's directory: its label's logit minus the \
         largest other one. Images whose mean is lowest are the likeliest to be labelled wrongly (Pleiss et al. 2020)"),
    knob("tensorboard", REPORTS, "BOOL", "true", Kind::Bool,
        "Write event files to the run's directory, for `tensorboard --logdir`"),
];

const fn knob(
    key: &'static str,
    heading: &'static str,
    value_name: &'static str,
    default: &'static str,
    kind: Kind,
    help: &'static str,
) -> Knob {
    Knob {
        key,
        heading,
        value_name,
        help,
        default,
        kind,
    }
}

impl Knob {
    fn refused(&self, got: &Value, expected: impl Into<String>) -> Error {
        Error::Value {
            key: self.key,
            got: got.as_str().map_or_else(|| got.to_string(), str::to_owned),
            expected: expected.into(),
        }
    }

    /// Checks the type and the bounds of `value`.
    ///
    /// # Errors
    /// [`Error::Value`] says what this knob accepts.
    pub fn check(&self, value: &Value) -> Result<()> {
        let one_of = |names: &[&str]| format!("one of {}", names.join(", "));
        let expected = match (self.kind, value) {
            (Kind::Integer(least, most), Value::Integer(n)) => match u64::try_from(*n) {
                Ok(n) if (least..=most).contains(&n) => return Ok(()),
                Ok(n) if n > most => format!("at most {most}"),
                _ => format!("at least {least}"),
            },
            (Kind::Integer(..), _) => "an integer".to_owned(),
            (Kind::Number(holds, words), _) => {
                let number = value
                    .as_float()
                    .or_else(|| value.as_integer().map(|n| n as f64));
                match number {
                    Some(x) if holds(x) => return Ok(()),
                    // `Value` would print -1 as -1.0.
                    Some(x) => return Err(self.refused(&x.to_string().into(), words)),
                    None => words.to_owned(),
                }
            }
            (Kind::Bool | Kind::Switch, Value::Boolean(_)) => return Ok(()),
            (Kind::Bool | Kind::Switch, _) => "true or false".to_owned(),
            (Kind::Name(names), Value::String(name)) if names.contains(&name.as_str()) => {
                return Ok(());
            }
            (Kind::Name(names), _) => one_of(names),
            (Kind::Names(names), Value::Array(list)) => {
                let unknown = |name: &&Value| !name.as_str().is_some_and(|n| names.contains(&n));
                match list.iter().find(unknown) {
                    None => return Ok(()),
                    Some(name) => return Err(self.refused(name, one_of(names))),
                }
            }
            (Kind::Names(names), _) => format!("a list of {}", names.join(", ")),
            (Kind::Text(accepts) | Kind::CountOrText(accepts), Value::String(text)) => {
                return accepts(text);
            }
            (Kind::CountOrText(accepts), Value::Integer(n)) => return accepts(&n.to_string()),
            (Kind::CountOrText(_), _) => "a number or text".to_owned(),
            (Kind::File | Kind::Recorded, Value::String(_)) => return Ok(()),
            (Kind::Text(_) | Kind::File | Kind::Recorded, _) => "text".to_owned(),
        };
        Err(self.refused(value, expected))
    }
}

/// Checks every key of `values`, and its value by itself.
pub(super) fn check(values: &Table) -> Result<()> {
    values.iter().try_for_each(|(key, value)| {
        let knob = KNOBS.iter().find(|knob| knob.key == key);
        let knob = knob.ok_or_else(|| {
            let keys: Vec<_> = KNOBS.iter().map(|knob| knob.key).collect();
            Error::Config(format!(
                "unknown key {key}, expected one of {}",
                keys.join(", ")
            ))
        })?;
        knob.check(value)
    })
}

/// The value of every knob that has a default.
pub(super) fn defaults() -> Table {
    let stated = KNOBS.iter().filter(|knob| !knob.default.is_empty());
    let lines: String = stated
        .map(|knob| format!("{} = {}\n", knob.key, knob.default))
        .collect();
    toml::from_str(&lines).expect("a test reads all defaults")
}

fn bad(key: &'static str, got: &str, expected: impl Into<String>) -> Result<()> {
    Err(Error::Value {
        key,
        got: got.to_owned(),
        expected: expected.into(),
    })
}

fn recipe(name: &str) -> Result<()> {
    let recipes = recipes();
    match recipes.iter().any(|recipe| recipe == name) {
        true => Ok(()),
        false => bad("recipe", name, format!("one of {}", recipes.join(", "))),
    }
}

fn duration(text: &str) -> Result<()> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => bad("time_budget", text, "more than no time"),
        Ok(_) => Ok(()),
        Err(_) => bad("time_budget", text, "a time such as 90s, 60m or 1h30m"),
    }
}

fn eval_every(text: &str) -> Result<()> {
    match text.parse::<EvalEvery>() {
        Ok(_) => Ok(()),
        Err(_) => bad(
            "eval_every",
            text,
            "auto, a number of epochs from 1, or a time such as 5m",
        ),
    }
}

fn sizes(text: &str) -> Result<()> {
    text.parse::<Sizes>().map(drop).map_err(Error::Config)
}

fn device(text: &str) -> Result<()> {
    match text.parse::<DeviceChoice>() {
        Ok(_) => Ok(()),
        Err(_) => bad("device", text, "auto, cpu, cuda or cuda:N"),
    }
}
