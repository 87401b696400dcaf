//! Initial weights from a file: of torchvision, of an earlier run, or of any other ResNet18.
//!
//! Copies what fits of a file that `weights` has read into a network. Which layers are frozen or have another
//! learning rate is not decided here.

use std::path::Path;

use strum::IntoEnumIterator as _;
use tch::{Device, Tensor};
use tinyres::event::{Event, Observer};
use tinyres::text::counted;
use tinyres_format::{Class, Digest};

use crate::config::Config;
use crate::net::{BATCHES_TRACKED, BOX_HEAD, FIRST_WEIGHT, ResNet18, Stem};
use crate::weights::{Classifier, Place, Weights};
use crate::{Error, Result};

/// The tensors of a network, read from a file.
#[derive(Debug)]
pub struct Init {
    weights: Weights,
}

/// The parameters that a network did not get from a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitReport {
    /// Names of the parameters that keep their random initial values.
    pub new: Vec<String>,
    /// The same for people: layers, each with the reason.
    pub why: Vec<String>,
    /// The tensors of the file that are not used, for people.
    pub unused: Option<String>,
}

/// Checks that the file `config.init` fits the network, before a run is created, and records its absolute
/// path and its digest in `config`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Checkpoint`] if it is damaged or of another network.
pub fn settle(config: &mut Config, classes: &[Class]) -> Result<()> {
    if let Some(path) = &config.init {
        let mut place = Place::parse(path);
        let file = &mut place.file;
        *file = file.canonicalize().map_err(Error::io(file))?;
        let spec = config.spec(classes.len());
        let init = Init::expected(config, path)?;
        init.load_into(&mut ResNet18::new(spec, 0, Device::Cpu)?, classes)?;
        config.init_digest = Some(init.digest());
        config.init = Some(place.join());
    }
    Ok(())
}

/// Copies the weights of the file `config.init`, if there is one, into `network`. Returns the names of the
/// parameters that keep their random initial values.
///
/// # Errors
/// Those of [`settle`], and [`Error::Checkpoint`] if the file is not the one that was recorded.
pub(crate) fn begin(
    config: &Config,
    network: &mut ResNet18,
    classes: &[Class],
    watch: &mut dyn Observer,
) -> Result<Vec<String>> {
    let Some(path) = &config.init else {
        return Ok(Vec::new());
    };
    let report = Init::expected(config, path)?.load_into(network, classes)?;
    let mut notice = format!("starting from {}", path.display());
    if !report.why.is_empty() {
        notice += &format!("; new: {}", report.why.join("; "));
    }
    if let Some(unused) = &report.unused {
        notice += &format!("; {unused}");
    }
    watch.on(&Event::Notice(notice));
    Ok(report.new)
}

impl Init {
    /// Reads `path`, and checks it against the digest that `config` recorded, if there is one.
    fn expected(config: &Config, path: &Path) -> Result<Self> {
        let init = Self::read(path)?;
        match config.init_digest {
            Some(digest) if digest != init.digest() => Err(Error::Checkpoint {
                path: path.to_path_buf(),
                what: format!(
                    "has SHA-256 {}, but the run was created with a file of {digest}: put that file back, or start another run",
                    init.digest()
                ),
            }),
            _ => Ok(init),
        }
    }

    /// Reads a ResNet18 from `path`, `FILE` or `FILE#KEY`.
    ///
    /// # Errors
    /// As for [`Weights::read`].
    pub fn read(path: &Path) -> Result<Self> {
        let weights = Weights::read(path)?;
        Ok(Self { weights })
    }

    /// The SHA-256 of the file.
    pub fn digest(&self) -> Digest {
        self.weights.digest
    }

    /// Copies all tensors into `network`, whose outputs are `classes`. The classifier keeps its initial values
    /// if the file has other classes, and the box head if the file has none.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the file is of another stem or another network.
    pub fn load_into(&self, network: &mut ResNet18, classes: &[Class]) -> Result<InitReport> {
        let bad = |what| Error::Checkpoint {
            path: self.weights.path.clone(),
            what,
        };
        let mut state = network.state()?;
        self.expect_stem(network.spec().stem, &state).map_err(bad)?;
        let mut report = InitReport {
            unused: self.weights.unused(),
            ..InitReport::default()
        };
        let classifier = match self.classifier(classes) {
            Ok((weight, bias)) => vec![
                ("fc.weight".to_owned(), weight.shallow_clone()),
                ("fc.bias".to_owned(), bias.shallow_clone()),
            ],
            Err(why) => {
                report.why.push(format!("fc, since {why}"));
                Vec::new()
            }
        };
        let box_head = &self.weights.box_head;
        if box_head.is_empty() && state.iter().any(|(name, _)| name.starts_with(BOX_HEAD)) {
            report
                .why
                .push("box_head, which the file does not have".into());
        }
        let parts = [&self.weights.body[..], &classifier, box_head];
        for (name, into) in &mut state {
            let found = (parts.into_iter().flatten()).find(|(other, _)| other == name);
            let may_be_new = (name.starts_with("fc.") && classifier.is_empty())
                || (name.starts_with(BOX_HEAD) && box_head.is_empty());
            match found {
                Some((_, from)) if from.size() == into.size() => *into = from.shallow_clone(),
                Some((_, from)) => {
                    let (got, expected) = (from.size(), into.size());
                    return Err(bad(format!(
                        "has a {name} of shape {got:?}, expected {expected:?}: it is of another network"
                    )));
                }
                None if may_be_new => report.new.push(name.clone()),
                // PyTorch before 0.4.1 does not have this count, and no result depends on it.
                None if name.ends_with(BATCHES_TRACKED) => {}
                None => return Err(bad(format!("has no {name}: it is not of a ResNet18"))),
            }
        }
        network.load(&state)?;
        Ok(report)
    }

    /// Weight and bias of the file's classifier, or the reason why it does not fit `classes`.
    fn classifier(&self, classes: &[Class]) -> std::result::Result<(&Tensor, &Tensor), String> {
        let (weight, bias) = match &self.weights.classifier {
            Classifier::Linear { name, weight, bias } if name == "fc" => (weight, bias),
            Classifier::Linear { name, weight, .. } => {
                let classes = counted(weight.size()[0], "class");
                return Err(format!("the file's classifier is {name}, of {classes}"));
            }
            Classifier::Other(names) => {
                return Err(format!("the file has {} in its place", names.join(" and ")));
            }
            Classifier::None => return Err("the file has no classifier".into()),
        };
        let outputs = weight.size()[0].unsigned_abs();
        if outputs != classes.len() as u64 {
            let (own, classes) = (counted(outputs, "class"), classes.len());
            return Err(format!("it has {own}, and the data {classes}"));
        }
        let ids = |classes: &[Class]| -> Vec<_> {
            classes.iter().map(|class| class.id.clone()).collect()
        };
        match &self.weights.about {
            Some(about) if ids(&about.classes) != ids(classes) => {
                Err("its classes are not those of the data".into())
            }
            _ => Ok((weight, bias)),
        }
    }

    /// Checks that the file is of a network with `stem`. `state` is the state of such a network.
    fn expect_stem(
        &self,
        stem: Stem,
        state: &[(String, Tensor)],
    ) -> std::result::Result<(), String> {
        let shape = |state: &[(String, Tensor)]| {
            let first = state.iter().find(|(name, _)| name == FIRST_WEIGHT);
            first.map(|(_, weight)| weight.size())
        };
        let (Some(got), Some(expected)) = (shape(&self.weights.body), shape(state)) else {
            return Err(format!("has no {FIRST_WEIGHT}: it is not of a ResNet18"));
        };
        let said = self.weights.about.as_ref().map(|about| about.config.stem);
        let fits = match (said, &got[..]) {
            (Some(stem), _) => vec![stem],
            (None, [.., rows, columns]) => Stem::iter()
                .filter(|stem| [*rows, *columns] == [stem.kernel(); 2])
                .collect(),
            (None, _) => Vec::new(),
        };
        if fits.contains(&stem) || (fits.is_empty() && got == expected) {
            return Ok(());
        }
        let flags: Vec<_> = fits.iter().map(|fit| format!("--stem {fit}")).collect();
        let remedy = match flags.is_empty() {
            true => "it is not of a ResNet18 of tinyres".to_owned(),
            false => format!("train with {}", flags.join(" or ")),
        };
        Err(format!(
            "has a {FIRST_WEIGHT} of shape {got:?}, but stem {stem} has {expected:?}: {remedy}"
        ))
    }
}
