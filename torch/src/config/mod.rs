//! What decides a run. Values come in layers, each over the one before: defaults, a recipe, a file, flags.
//!
//! `knobs` is the table of all values, and checks each by itself. [`Config`] holds them typed, in groups, and
//! checks how they relate. In TOML and in checkpoints all keys are flat. Nothing here opens a device or data.

mod eval_every;
pub mod knobs;
mod recipe;
pub mod schedule;
pub mod sizes;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use strum::{Display, EnumString, IntoEnumIterator as _, VariantNames};
use tinyres_format::Digest;
use tinyres_load::Verify;
use toml::{Table, Value};

pub use eval_every::EvalEvery;
pub(crate) use recipe::recipes;
pub use recipe::{Machine, in_recipes};

use crate::config::schedule::Schedule;
use crate::config::sizes::Sizes;
use crate::libtorch::device::{DeviceChoice, Placement, Precision};
use crate::net::{Layer, Spec, Stem};
use crate::{Error, Result};

/// Key of a run's `config.toml` for the table that says what the run was made of.
pub(crate) const RUN_KEY: &str = "run";

/// Everything that decides a run, except the data. `knobs` says what each value means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The recipe that gave the values not set otherwise.
    pub recipe: String,
    /// How long the run is.
    #[serde(flatten)]
    pub length: Length,
    /// Images in a step.
    pub batch: u32,
    /// Images of a batch that a CPU normalises together, at most; 0 for all.
    pub ghost_batch: u32,
    /// Seed of initial weights, order and augmentation.
    pub seed: u64,
    /// The layers before the residual blocks.
    pub stem: Stem,
    /// True if every residual block starts as the identity.
    pub zero_init_residual: bool,
    /// Layers that are not trained and keep their running statistics.
    pub freeze: Vec<Layer>,
    /// File of weights to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// SHA-256 of that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_digest: Option<Digest>,
    /// How gradients become steps.
    #[serde(flatten)]
    pub optimizer: Algorithm,
    /// Weight decay, except on normalisation, biases and what Muon trains.
    pub weight_decay: f64,
    /// Upper bound of the norm of all gradients together; 0 for none.
    pub clip_grad: f64,
    /// Decay of the moving average of the weights; 0 for no average.
    pub ema: f64,
    /// The learning rate over the run.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// Factor of the learning rate for layers that `init` did not give.
    pub new_lr_factor: f64,
    /// How pixel values are normalised.
    pub normalize: Normalize,
    /// Sides that the images are scaled to in the course of the run.
    pub sizes: Sizes,
    /// How training images are changed.
    #[serde(flatten)]
    pub augment: Augment,
    /// Fraction of the target that is spread over all classes.
    pub label_smoothing: f64,
    /// Whether boxes are learnt, and their weight in the loss.
    #[serde(flatten)]
    pub boxes: Boxes,
    /// Device that computes.
    pub device: DeviceChoice,
    /// Number format of forward passes.
    pub precision: Precision,
    /// Threads that compute; `None` for libtorch's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Where the pixels are kept.
    pub placement: Placement,
    /// When the shards' pixels are compared with their checksums.
    pub verify: Verify,
    /// The epochs after which the validation split is scored.
    pub eval_every: EvalEvery,
    /// True if the margin of each training image at each epoch is written.
    #[serde(default)]
    pub track: bool,
    /// True if event files are written for TensorBoard.
    pub tensorboard: bool,
}

/// How long a run is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Length {
    /// Passes over the training split.
    pub epochs: u32,
    /// Steps after which the run and its schedule end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Time after which the run and its schedule end, regardless of `epochs`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "human_duration"
    )]
    pub time_budget: Option<Duration>,
}

/// How gradients become steps.
#[derive(Clone, Copy, Debug, PartialEq, VariantNames, Serialize, Deserialize)]
#[serde(tag = "optimizer", rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Algorithm {
    /// Stochastic gradient descent with momentum.
    Sgd(Sgd),
    /// Kingma and Ba 2015, with its usual constants.
    Adam,
    /// Jordan et al. 2024 for convolutions except the first, SGD for the rest.
    Muon {
        /// SGD for the rest.
        #[serde(flatten)]
        sgd: Sgd,
        /// Factor of the learning rate for the layers that Muon trains.
        #[serde(rename = "muon_lr_factor")]
        lr_factor: f64,
        /// Momentum of Muon.
        #[serde(rename = "muon_momentum")]
        momentum: f64,
    },
}

/// Values of stochastic gradient descent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sgd {
    /// Momentum, from 0 to below 1.
    pub momentum: f64,
    /// True for Nesterov momentum.
    pub nesterov: bool,
}

/// How training images are changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Augment {
    /// True if half of the images are mirrored.
    pub flip: bool,
    /// Largest shift in each direction, in pixels of the full-size image.
    pub shift: u32,
    /// Probability of erasing a rectangle.
    pub erasing: f64,
    /// Parameter of mixup's Beta distribution; 0 for none.
    pub mixup: f64,
    /// Parameter of CutMix's Beta distribution; 0 for none.
    pub cutmix: f64,
    /// Fraction of the batches that are mixed, if mixup or CutMix is on.
    pub mix_probability: f64,
}

impl Augment {
    /// True if images of a batch may be mixed with each other.
    #[must_use]
    pub fn mixes(&self) -> bool {
        self.mixup > 0.0 || self.cutmix > 0.0
    }
}

/// Whether boxes are learnt, and their weight in the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Boxes {
    /// True if a second head learns boxes.
    #[serde(rename = "boxes")]
    pub learn: bool,
    /// Weight of the smooth L1 loss; the cross-entropy has weight 1.
    #[serde(rename = "box_smooth_l1")]
    pub smooth_l1: f64,
    /// Weight of the GIoU loss.
    #[serde(rename = "box_giou")]
    pub giou: f64,
}

/// How pixel values are normalised.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, VariantNames, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Normalize {
    /// By ImageNet's mean and std, as torchvision's models expect.
    Imagenet,
    /// Only scaled to 0..1.
    None,
}

/// Values from a file and from flags, each checked by itself. They name the device to open, which decides what
/// the recipe says.
#[derive(Debug)]
pub struct Layers {
    file: Table,
    flags: Table,
}

impl Layers {
    /// Reads `file`, a TOML file that sets some of the values, such as a run's `config.toml`. `flags` override it.
    ///
    /// # Errors
    /// The file cannot be read or has an unknown key, or a value is out of its bounds.
    pub fn read(file: Option<&Path>, flags: Table) -> Result<Self> {
        let file = match file {
            Some(path) => {
                let values = read(path)?;
                knobs::check(&values).map_err(|error| error.in_file(path))?;
                values
            }
            None => Table::new(),
        };
        knobs::check(&flags)?;
        Ok(Self { file, flags })
    }

    /// The device to open.
    #[must_use]
    pub fn device(&self) -> DeviceChoice {
        let name = self.text("device").and_then(|name| name.parse().ok());
        name.unwrap_or_default()
    }

    /// Threads of each process, if they say how many.
    #[must_use]
    pub fn threads(&self) -> Option<NonZeroUsize> {
        let threads = self.value("threads")?.as_integer()?;
        NonZeroUsize::new(usize::try_from(threads).ok()?)
    }

    /// The configuration on `machine`: the recipe's values there, the file's over them, and the flags' over both.
    ///
    /// # Errors
    /// Values that contradict each other.
    pub fn config(self, machine: Machine) -> Result<Config> {
        let name = self.text("recipe").unwrap_or(recipe::DEFAULT_RECIPE);
        let mut values = recipe::values(name, machine == Machine::Gpu)?;
        let mut parts = recipe::parts(&mut values);
        recipe::put(&mut values, self.file.clone());
        if self.flags.contains_key("init") {
            // The file's digest belongs to another file of weights.
            values.remove("init_digest");
        }
        recipe::put(&mut values, self.flags.clone());
        let part = recipe::part(&values, machine).and_then(|name| parts.remove(name));
        if let Some(Value::Table(part)) = part {
            values.extend(part.into_iter().filter(|(key, _)| !self.sets(key)));
        }
        Config::from_values(values)
    }

    /// True if the file or a flag gives the value `key`, so that it is not the recipe's or a default.
    #[must_use]
    pub fn sets(&self, key: &str) -> bool {
        self.flags.contains_key(key) || self.file.contains_key(key)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.value(key)?.as_str()
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.flags.get(key).or_else(|| self.file.get(key))
    }
}

impl Config {
    /// The values of the recipe that `flags` or `file` name, on a GPU if `cuda` and else on [`Machine::TWO_CORES`], with
    /// `file` over them and `flags` over both. A caller that does not know the machine yet takes [`Layers`].
    ///
    /// # Errors
    /// As for [`Layers::read`] and [`Layers::config`].
    pub fn layered(file: Option<&Path>, flags: Table, cuda: bool) -> Result<Self> {
        let machine = if cuda {
            Machine::Gpu
        } else {
            Machine::TWO_CORES
        };
        Layers::read(file, flags)?.config(machine)
    }

    /// Adds the defaults to `values`, of which each was checked by itself, and checks how they relate.
    fn from_values(values: Table) -> Result<Self> {
        let mut all = knobs::defaults();
        all.extend(values);
        let config: Self = all.try_into().map_err(|error| Error::config(&error))?;
        config.check()?;
        Ok(config)
    }

    /// Reads the configuration in a run's `config.toml`.
    pub(crate) fn from_run(path: &Path) -> Result<Self> {
        let values = read(path)?;
        let config = knobs::check(&values).and_then(|()| Self::from_values(values));
        config.map_err(|error| error.in_file(path))
    }

    /// Reads a configuration, with every check, for serde's `deserialize_with`.
    pub(crate) fn checked<'de, D: Deserializer<'de>>(
        from: D,
    ) -> std::result::Result<Self, D::Error> {
        let values = Table::deserialize(from)?;
        let config = knobs::check(&values).and_then(|()| Self::from_values(values));
        config.map_err(D::Error::custom)
    }

    /// The first value that differs from that of `other`, in words.
    #[must_use]
    pub fn differs(&self, other: &Self) -> Option<String> {
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
            boxes: self.boxes.learn,
        }
    }

    /// Checks how values relate. `knobs` checks each by itself.
    fn check(&self) -> Result<()> {
        let bad = |key, got: &dyn ToString, expected: &str| {
            Err(Error::Value {
                key,
                got: got.to_string(),
                expected: expected.to_owned(),
            })
        };
        if self.new_lr_factor != 1.0 && self.init.is_none() {
            let expected = "1 where no layer comes from --init";
            return bad("new_lr_factor", &self.new_lr_factor, expected);
        }
        if Layer::iter().all(|layer| self.freeze.contains(&layer)) {
            return bad("freeze", &"every layer", "at least one layer to be trained");
        }
        if let Algorithm::Sgd(sgd) | Algorithm::Muon { sgd, .. } = self.optimizer
            && sgd.nesterov
            && sgd.momentum == 0.0
        {
            return bad("nesterov", &true, "false where momentum is 0");
        }
        let mix = &self.augment;
        if self.boxes.learn && mix.mixup + mix.cutmix > 0.0 && mix.mix_probability == 1.0 {
            let expected = "below 1 to learn boxes, because mixed images have none";
            return bad("mix_probability", &mix.mix_probability, expected);
        }
        if matches!(self.eval_every, EvalEvery::Time(_)) && self.length.time_budget.is_none() {
            let expected = "a number of epochs, or auto, where the run has no time_budget";
            return bad("eval_every", &self.eval_every, expected);
        }
        Ok(())
    }
}

/// Reads a file of values, without the table [`RUN_KEY`] of a run's `config.toml`.
fn read(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let mut values: Table = toml::from_str(&text)
        .map_err(|error| Error::config(&error))
        .map_err(|error| error.in_file(path))?;
    values.remove(RUN_KEY);
    Ok(values)
}

/// A duration as text such as `60m`.
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
            .map_err(|error| D::Error::custom(format!("{text:?} is not a duration: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(text: &str) -> Table {
        toml::from_str(text).expect("valid TOML")
    }

    #[test]
    fn what_says_how_long_a_run_is_says_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.toml");
        std::fs::write(&path, "max_steps = 9\ndevice = 'cpu'\n").unwrap();
        let length = |file: Option<&Path>, set| {
            let length = Config::layered(file, flags(set), false).unwrap().length;
            let budget = length.time_budget.map(|budget| budget.as_secs());
            (length.epochs, length.max_steps, budget)
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
        let config = Config::layered(None, flags("recipe = 'seed'"), false).unwrap();
        assert_eq!((config.batch, config.length.epochs), (200, 20));
        for (epoch, rate) in [(0, 0.01), (1, 0.01), (2, 0.001), (3, 0.001), (7, 1e-5)] {
            assert!((config.schedule.rate(0.3, epoch) / rate - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn flags_go_over_the_file_and_the_file_over_the_recipe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.toml");
        std::fs::write(&path, "recipe = 'seed'\nbatch = 50\nlr = 0.5\n").unwrap();
        let config = Config::layered(Some(&path), flags("lr = 0.25"), false).unwrap();
        assert_eq!(config.optimizer, Algorithm::Adam); // the recipe's
        assert_eq!(config.batch, 50); // the file's
        assert!((config.schedule.peak - 0.25).abs() < 1e-15); // the flag's
    }

    /// A file that states every value, as runs did before values were grouped.
    #[test]
    fn values_that_are_not_used_are_read_and_ignored() {
        let unused = "momentum = 0.5\nnesterov = true\nmuon_lr_factor = 3.0\nstep_epochs = 7\n";
        let seed = "recipe = 'seed'\nschedule = 'linear'\n";
        let config = |text: &str| Config::layered(None, flags(text), false).unwrap();
        assert_eq!(config(&format!("{seed}{unused}")), config(seed));
    }

    #[test]
    fn each_knob_has_a_field_and_each_field_a_knob() {
        let optional = "init = 'w.pth'\nmax_steps = 1\ntime_budget = '1s'\nthreads = 1\n";
        let digest = format!("init_digest = '{}'\n", "00".repeat(32));
        let mut fields = Table::new();
        for (optimizer, schedule) in [("adam", "linear"), ("sgd", "cosine"), ("muon", "step")] {
            let kinds = format!("optimizer = '{optimizer}'\nschedule = '{schedule}'");
            let text = format!("{optional}{digest}{kinds}");
            let config = Config::layered(None, flags(&text), false).unwrap();
            fields.extend(Table::try_from(&config).unwrap());
        }
        let mut keys = knobs::KNOBS.iter().map(|knob| knob.key).collect::<Vec<_>>();
        keys.sort_unstable();
        assert_eq!(fields.keys().collect::<Vec<_>>(), keys);
    }

    #[test]
    fn a_checkpoint_with_an_unknown_value_is_refused_by_name() {
        let config = Config::layered(None, Table::new(), false).unwrap();
        let mut json = serde_json::to_value(&config).unwrap();
        assert_eq!(Config::checked(json.clone()).unwrap(), config);
        json["sharpness"] = 1.into();
        let error = Config::checked(json).unwrap_err().to_string();
        assert!(error.contains("sharpness"), "{error}");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut set = flags("time_budget = '1h 30m'\nmax_steps = 7\nthreads = 2");
        set.insert("recipe".into(), "seed".into());
        let config = Config::layered(None, set, false).unwrap();
        assert_eq!(config.length.time_budget, Some(Duration::from_secs(5400)));
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
            ("eval_every = 'soon'", "eval_every"),
            ("eval_every = true", "eval_every"),
            ("epochs = 3\neval_every = '5m'", "eval_every"),
            ("threads = 0", "threads"),
            ("threads = 4097", "threads"),
            ("max_steps = 0", "max_steps"),
            ("time_budget = '0s'", "time_budget"),
            ("recipe = 'none'", "recipe"),
            ("freeze = ['stem', 'layer9']", "freeze"),
            ("flip = 1", "flip"),
            ("device = 'gpu'", "device"),
        ] {
            match Config::layered(None, flags(set), false) {
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
            let message = Config::layered(Some(&path), Table::new(), false)
                .unwrap_err()
                .to_string();
            assert!(message.contains("own.toml"), "{message}");
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
