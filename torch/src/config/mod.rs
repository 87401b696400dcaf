//! What decides a run: one flat set of values, from a recipe, a file and flags, each over the one
//! before.

pub mod schedule;
pub mod sizes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoEnumIterator as _, VariantNames};
use tch::Device;
use tinyres_format::Digest;
use tinyres_load::Verify;
use toml::{Table, Value};

use crate::config::schedule::{Decay, Schedule};
use crate::config::sizes::Sizes;
use crate::libtorch::device::{self, DeviceChoice, Placement, Precision};
use crate::net::{Layer, Spec, Stem};
use crate::{Error, Result};

/// The recipes, as they stand in `recipes.toml`.
const RECIPES: &str = include_str!("../../recipes.toml");

/// The recipe taken where none is named.
pub const DEFAULT_RECIPE: &str = "default";

/// The names of the recipes.
#[must_use]
pub fn recipes() -> Vec<String> {
    let recipes = toml::from_str(RECIPES).map(|recipes: Table| recipes.keys().cloned().collect());
    recipes.expect("recipes.toml is TOML: a test reads all of it")
}

/// Everything that decides a run, beside the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The recipe that gave the values not set otherwise.
    pub recipe: String,
    /// What comes before the residual blocks.
    pub stem: Stem,
    /// Whether every block starts as the identity.
    pub zero_init_residual: bool,
    /// Layers that are not trained, their statistics left as they are.
    pub freeze: Vec<Layer>,
    /// Passes over the training split.
    pub epochs: u32,
    /// Images of a step.
    pub batch: u32,
    /// What turns gradients into steps.
    pub optimizer: Algorithm,
    /// The highest learning rate.
    pub lr: f64,
    /// What the rate is multiplied by for layers that `init` did not give.
    pub new_lr_factor: f64,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Whether SGD looks ahead along its momentum.
    pub nesterov: bool,
    /// What the rate is multiplied by for what Muon trains.
    pub muon_lr_factor: f64,
    /// Momentum of Muon.
    pub muon_momentum: f64,
    /// Decay of weights, but not of normalisation and biases, nor of what Muon trains.
    pub weight_decay: f64,
    /// The largest norm of all gradients together; 0 for any.
    pub clip_grad: f64,
    /// Share that the moving average of the weights keeps at a step; 0 for no average.
    pub ema: f64,
    /// How the learning rate falls.
    pub schedule: Decay,
    /// Epochs between two falls of the step schedule.
    pub step_epochs: u32,
    /// What each fall of the step schedule multiplies the rate by.
    pub step_factor: f64,
    /// Share of the run in which the rate rises.
    pub warmup: f64,
    /// Share of the target that is spread over all classes.
    pub label_smoothing: f64,
    /// Whether half the training images are mirrored.
    pub flip: bool,
    /// Largest shift of a training image, in pixels each way; less where it is scaled down.
    pub shift: u32,
    /// The sides that the images are scaled to in the course of the run.
    pub sizes: Sizes,
    /// Share of the training images from which a rectangle is erased.
    pub erasing: f64,
    /// Parameter of mixup's Beta distribution; 0 for none.
    pub mixup: f64,
    /// Parameter of CutMix's Beta distribution; 0 for none.
    pub cutmix: f64,
    /// Share of the batches that are mixed, where mixup or CutMix is on.
    pub mix_probability: f64,
    /// What is done to pixel values.
    pub normalize: Normalize,
    /// Whether a head beside the classifier learns boxes.
    pub boxes: bool,
    /// Weight of the boxes' smooth L1 loss, beside a cross-entropy of weight 1.
    pub box_smooth_l1: f64,
    /// Weight of the boxes' GIoU loss.
    pub box_giou: f64,
    /// File of weights to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// SHA-256 of that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_digest: Option<Digest>,
    /// Decides the initial weights, the order and the augmentation.
    #[serde(default)]
    pub seed: u64,
    /// Threads that compute; those of the machine where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Where to compute.
    #[serde(default)]
    pub device: DeviceChoice,
    /// What a forward pass computes in.
    #[serde(default)]
    pub precision: Precision,
    /// Where the pixels are kept.
    #[serde(default)]
    pub placement: Placement,
    /// When the shards' pixels are checked.
    #[serde(default)]
    pub verify: Verify,
    /// Whether event files are written for TensorBoard.
    #[serde(default = "yes")]
    pub tensorboard: bool,
    /// Epochs from one scoring to the next; the last epoch is always scored.
    #[serde(default = "one")]
    pub eval_every: u32,
    /// Steps after which the run ends, and its schedule with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Time after which the run ends, and its schedule with it, however many epochs that makes.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "human_duration"
    )]
    pub time_budget: Option<Duration>,
}

/// What turns gradients into steps.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, VariantNames, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Algorithm {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Kingma and Ba 2015, with its usual constants.
    Adam,
    /// Jordan et al. 2024 for convolutions but the first, SGD for the rest.
    Muon,
}

/// What is done to pixel values.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, VariantNames, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Normalize {
    /// By ImageNet's mean and deviation, as torchvision's models expect.
    Imagenet,
    /// Only to 0..1.
    None,
}

impl Config {
    /// The values of the recipe that `flags` or `file` names, with `file` over it and `flags` over
    /// both. `file` is a TOML file that sets some of the values; a run's `config.toml` is one.
    ///
    /// # Errors
    /// A file that cannot be read or says something unknown, no such recipe, or a value out of its
    /// bounds.
    pub fn layered(file: Option<&Path>, flags: Table) -> Result<Self> {
        let set = match file {
            Some(path) => read(path)?,
            None => Table::new(),
        };
        let named = |key| flags.get(key).or_else(|| set.get(key))?.as_str();
        let recipe = named("recipe").unwrap_or(DEFAULT_RECIPE).to_owned();
        // What is no device is refused with the other values.
        let device = named("device").and_then(|device| device.parse().ok());
        let mut values = Self::recipe(&recipe, device::open(device.unwrap_or_default())?)?;
        values.insert("recipe".into(), recipe.into());
        put(&mut values, set);
        if let Some(path) = file {
            // Now, while what is wrong can only have come from the file.
            Self::from_values(values.clone()).map_err(|error| error.in_file(path))?;
        }
        if flags.contains_key("init") {
            // The file's was of another one.
            values.remove("init_digest");
        }
        put(&mut values, flags);
        Self::from_values(values)
    }

    /// The values of a recipe, as they are for `device`.
    fn recipe(name: &str, device: Device) -> Result<Table> {
        let mut recipes: Table = toml::from_str(RECIPES).map_err(|error| Error::config(&error))?;
        let Some(Value::Table(mut values)) = recipes.remove(name) else {
            return Err(Error::Value {
                key: "recipe",
                got: name.to_owned(),
                expected: self::recipes().join(" or "),
            });
        };
        let [cpu, cuda] = ["cpu", "cuda"].map(|kind| values.remove(kind));
        let own = if device.is_cuda() { cuda } else { cpu };
        values.extend(
            own.and_then(|own| Table::try_from(own).ok())
                .into_iter()
                .flatten(),
        );
        Ok(values)
    }

    fn from_values(values: Table) -> Result<Self> {
        let config: Self = values.try_into().map_err(|error| Error::config(&error))?;
        config.check()?;
        Ok(config)
    }

    /// Reads the configuration of a run, and the rest of its `config.toml`.
    pub(crate) fn from_run(path: &Path) -> Result<Self> {
        Self::from_values(read(path)?).map_err(|error| error.in_file(path))
    }

    /// The first value that differs from that of `other`, with both.
    pub(crate) fn differs(&self, other: &Self) -> Option<String> {
        if self == other {
            return None;
        }
        let values = |config: &Self| Table::try_from(config).unwrap_or_default();
        let (own, other) = (values(self), values(other));
        let show = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
        let mut keys = own.keys().chain(other.keys());
        let key = keys.find(|&key| own.get(key) != other.get(key));
        Some(key.map_or("value".into(), |key| {
            format!("{key} ({})", show(own.get(key)))
        }))
    }

    /// The network for `classes` classes.
    #[must_use]
    pub fn spec(&self, classes: usize) -> Spec {
        Spec {
            stem: self.stem,
            classes: i64::try_from(classes).unwrap_or(i64::MAX),
            boxes: self.boxes,
        }
    }

    /// The learning rate over the run.
    #[must_use]
    pub fn lr_schedule(&self) -> Schedule {
        Schedule {
            peak: self.lr,
            warmup: self.warmup,
            decay: self.schedule,
            step_epochs: self.step_epochs,
            step_factor: self.step_factor,
        }
    }

    fn check(&self) -> Result<()> {
        let share = |x: f64| (0.0..1.0).contains(&x);
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let weight = |x: f64| x >= 0.0 && x.is_finite();
        let probability = |x: f64| (0.0..=1.0).contains(&x);
        // Beyond, shares are nearly always a half, and take ever more draws.
        let alpha = |x: f64| (0.0..=8.0).contains(&x);
        let bad = |key, got: &dyn ToString, expected: &str| {
            Err(Error::Value {
                key,
                got: got.to_string(),
                expected: expected.to_owned(),
            })
        };
        match self {
            _ if self.epochs == 0 => bad("epochs", &self.epochs, "at least 1"),
            _ if self.batch == 0 => bad("batch", &self.batch, "at least 1"),
            _ if !positive(self.lr) => bad("lr", &self.lr, "a number above 0"),
            _ if !positive(self.new_lr_factor) => {
                bad("new_lr_factor", &self.new_lr_factor, "a number above 0")
            }
            _ if self.new_lr_factor != 1.0 && self.init.is_none() => bad(
                "new_lr_factor",
                &self.new_lr_factor,
                "1 where no layer comes from --init",
            ),
            _ if Layer::iter().all(|layer| self.freeze.contains(&layer)) => {
                bad("freeze", &"every layer", "one at least that is trained")
            }
            _ if !share(self.momentum) => bad("momentum", &self.momentum, "0 to below 1"),
            _ if self.nesterov && self.momentum == 0.0 => {
                bad("nesterov", &true, "false where momentum is 0")
            }
            _ if !positive(self.muon_lr_factor) => {
                bad("muon_lr_factor", &self.muon_lr_factor, "a number above 0")
            }
            _ if !share(self.muon_momentum) => {
                bad("muon_momentum", &self.muon_momentum, "0 to below 1")
            }
            _ if !weight(self.weight_decay) => {
                bad("weight_decay", &self.weight_decay, "0 or above")
            }
            _ if !weight(self.clip_grad) => bad("clip_grad", &self.clip_grad, "0 or above"),
            _ if !share(self.ema) => bad("ema", &self.ema, "0 to below 1"),
            _ if self.step_epochs == 0 => bad("step_epochs", &self.step_epochs, "at least 1"),
            _ if !positive(self.step_factor) => {
                bad("step_factor", &self.step_factor, "a number above 0")
            }
            _ if !share(self.warmup) => bad("warmup", &self.warmup, "0 to below 1"),
            _ if !share(self.label_smoothing) => {
                bad("label_smoothing", &self.label_smoothing, "0 to below 1")
            }
            _ if !probability(self.erasing) => bad("erasing", &self.erasing, "0 to 1"),
            _ if !alpha(self.mixup) => bad("mixup", &self.mixup, "0 to 8"),
            _ if !alpha(self.cutmix) => bad("cutmix", &self.cutmix, "0 to 8"),
            _ if !probability(self.mix_probability) => {
                bad("mix_probability", &self.mix_probability, "0 to 1")
            }
            _ if self.boxes && self.mixup + self.cutmix > 0.0 && self.mix_probability == 1.0 => {
                let expected = "below 1 where boxes are learnt, which mixed images have none of";
                bad("mix_probability", &self.mix_probability, expected)
            }
            _ if !weight(self.box_smooth_l1) => {
                bad("box_smooth_l1", &self.box_smooth_l1, "0 or above")
            }
            _ if !weight(self.box_giou) => bad("box_giou", &self.box_giou, "0 or above"),
            _ if self.eval_every == 0 => bad("eval_every", &self.eval_every, "at least 1"),
            _ if self.threads == Some(0) => bad("threads", &0, "at least 1"),
            _ if self.max_steps == Some(0) => bad("max_steps", &0, "at least 1"),
            _ if self.time_budget == Some(Duration::ZERO) => {
                bad("time_budget", &"0s", "more than no time")
            }
            _ => Ok(()),
        }
    }
}

/// Puts `over` over `values`. Whatever it says of how long the run is, is all that holds of that.
fn put(values: &mut Table, over: Table) {
    let length = ["epochs", "max_steps", "time_budget"];
    if length.iter().any(|key| over.contains_key(*key)) {
        values.remove("max_steps");
        values.remove("time_budget");
    }
    values.extend(over);
}

/// Reads a file of values, without the part of a run's `config.toml` that is no configuration.
fn read(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let mut values: Table = toml::from_str(&text)
        .map_err(|error| Error::config(&error))
        .map_err(|error| error.in_file(path))?;
    values.remove(RUN_KEY);
    Ok(values)
}

/// The table of a run's `config.toml` that says what the run was made of.
pub(crate) const RUN_KEY: &str = "run";

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

/// `60m` in a file, a duration here.
mod human_duration {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => to.collect_str(&humantime::format_duration(*duration)),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text)
            .map(Some)
            .map_err(|error| D::Error::custom(format!("{text:?} is no duration: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(text: &str) -> Table {
        toml::from_str(text).expect("valid TOML")
    }

    #[test]
    fn every_recipe_is_whole_and_sound() {
        assert!(recipes().len() >= 2);
        for name in recipes() {
            for device in [Device::Cpu, Device::Cuda(0)] {
                let mut values = Config::recipe(&name, device).unwrap();
                values.insert("recipe".into(), name.as_str().into());
                assert_eq!(Config::from_values(values).unwrap().recipe, name);
            }
        }
    }

    #[test]
    fn the_default_recipe_is_an_hour_of_a_cpu_or_thirty_epochs_of_a_gpu() {
        let on = |device| Config::recipe(DEFAULT_RECIPE, device).unwrap();
        let (cpu, gpu) = (on(Device::Cpu), on(Device::Cuda(0)));
        assert_eq!(cpu["time_budget"].as_str(), Some("60m"));
        assert_eq!(cpu["stem"].as_str(), Some("imagenet"));
        assert!(!gpu.contains_key("time_budget"));
        assert_eq!(gpu["epochs"].as_integer(), Some(30));
        assert_eq!(gpu["stem"].as_str(), Some("small"));
    }

    #[test]
    fn what_says_how_long_a_run_is_says_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.toml");
        std::fs::write(&path, "max_steps = 9\ndevice = 'cpu'\n").unwrap();
        let length = |file: Option<&Path>, set| {
            let config = Config::layered(file, flags(set)).unwrap();
            let budget = config.time_budget.map(|budget| budget.as_secs());
            (config.epochs, config.max_steps, budget)
        };
        assert_eq!(length(None, "device = 'cpu'"), (30, None, Some(3600)));
        assert_eq!(length(None, "device = 'cpu'\nepochs = 2"), (2, None, None));
        assert_eq!(length(Some(&path), ""), (30, Some(9), None));
        assert_eq!(length(Some(&path), "epochs = 2"), (2, None, None));
        let both = "time_budget = '5s'\nmax_steps = 3";
        assert_eq!(length(Some(&path), both), (30, Some(3), Some(5)));
    }

    #[test]
    fn the_seed_recipe_is_the_log_of_the_blog() {
        let config = Config::layered(None, flags("recipe = 'seed'")).unwrap();
        assert_eq!((config.batch, config.epochs), (200, 20));
        let schedule = config.lr_schedule();
        for (epoch, rate) in [(0, 0.01), (1, 0.01), (2, 0.001), (3, 0.001), (7, 1e-5)] {
            assert!((schedule.rate(0.3, epoch) / rate - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn flags_go_over_the_file_and_the_file_over_the_recipe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.toml");
        std::fs::write(&path, "recipe = 'seed'\nbatch = 50\nlr = 0.5\n").unwrap();
        let config = Config::layered(Some(&path), flags("lr = 0.25")).unwrap();
        assert_eq!(config.optimizer, Algorithm::Adam); // the recipe's
        assert_eq!(config.batch, 50); // the file's
        assert!((config.lr - 0.25).abs() < 1e-15); // the flag's
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut set = flags("time_budget = '1h 30m'\nmax_steps = 7\nthreads = 2");
        set.insert("recipe".into(), "seed".into());
        let config = Config::layered(None, set).unwrap();
        assert_eq!(config.time_budget, Some(Duration::from_secs(5400)));
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
    }

    #[test]
    fn each_wrong_value_is_named() {
        for (set, key) in [
            ("epochs = 0", "epochs"),
            ("batch = 0", "batch"),
            ("lr = 0.0", "lr"),
            ("lr = nan", "lr"),
            ("momentum = 1.0", "momentum"),
            ("momentum = 0.0", "nesterov"),
            ("muon_lr_factor = 0.0", "muon_lr_factor"),
            ("muon_momentum = 1.0", "muon_momentum"),
            ("weight_decay = -1.0", "weight_decay"),
            ("clip_grad = -1.0", "clip_grad"),
            ("ema = 1.0", "ema"),
            ("step_epochs = 0", "step_epochs"),
            ("step_factor = 0.0", "step_factor"),
            ("warmup = 1.0", "warmup"),
            ("label_smoothing = 1.5", "label_smoothing"),
            ("erasing = 1.5", "erasing"),
            ("mixup = -0.1", "mixup"),
            ("cutmix = nan", "cutmix"),
            ("mix_probability = 2.0", "mix_probability"),
            (
                "boxes = true\ncutmix = 1.0\nmix_probability = 1.0",
                "mix_probability",
            ),
            ("box_smooth_l1 = -1.0", "box_smooth_l1"),
            ("box_giou = nan", "box_giou"),
            ("eval_every = 0", "eval_every"),
            ("threads = 0", "threads"),
            ("max_steps = 0", "max_steps"),
            ("time_budget = '0s'", "time_budget"),
            ("recipe = 'none'", "recipe"),
        ] {
            match Config::layered(None, flags(set)) {
                Err(Error::Value { key: named, .. }) => assert_eq!(named, key, "{set}"),
                other => panic!("{set}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_wrong_file_is_named_with_what_is_wrong_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.toml");
        for (text, part) in [
            ("bacth = 5", "bacth"),
            ("batch = 'five'", "batch"),
            ("batch = -5", "-5"),
            ("time_budget = 'soon'", "soon"),
            ("lr =", "line 1"),
            ("lr = -1.0", "lr"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = Config::layered(Some(&path), Table::new())
                .unwrap_err()
                .to_string();
            assert!(message.contains("own.toml"), "{message}");
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
