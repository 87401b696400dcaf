//! Initial weights from a file: of torchvision, of an earlier run, or of any ResNet18 with torchvision's
//! names.
//!
//! Reads safetensors files and state dicts of `torch.save`, and copies what fits into a network. Which layers
//! are frozen or have another learning rate is not decided here.

mod pickle;
mod pth;

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use strum::IntoEnumIterator as _;
use tch::{Device, Kind, Tensor};
use tinyres::event::{Event, Observer};
use tinyres_format::{Class, Digest};

use crate::config::Config;
use crate::net::{BATCHES_TRACKED, BOX_HEAD, FIRST_WEIGHT, ResNet18, Stem};
use crate::run::checkpoint::{self, About};
use crate::{Error, Result};

/// The tensors of a network, read from a file.
#[derive(Debug)]
pub struct Init {
    path: PathBuf,
    digest: Digest,
    tensors: Vec<(String, Tensor)>,
    /// The description, if tinyres wrote the file.
    about: Option<About>,
}

/// The parameters that a network did not get from a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitReport {
    /// Names of the parameters that keep their random initial values.
    pub new: Vec<String>,
    /// The same for people: layers, each with the reason.
    pub why: Vec<String>,
}

/// The prefix that `torch.nn.DataParallel` and `DistributedDataParallel` add to every name.
const DATA_PARALLEL: &str = "module.";

/// Checks that the file `config.init` fits the network, before a run is created, and records its absolute
/// path and its digest in `config`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Checkpoint`] if it is damaged or of another network.
pub fn settle(config: &mut Config, classes: &[Class]) -> Result<()> {
    if let Some(path) = &config.init {
        let whole = path.canonicalize().map_err(Error::io(path))?;
        let spec = config.spec(classes.len());
        let init = Init::expected(config, path)?;
        init.load_into(&mut ResNet18::new(spec, 0, Device::Cpu)?, classes)?;
        config.init_digest = Some(init.digest);
        config.init = Some(whole);
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
    watch.on(&Event::Notice(notice));
    Ok(report.new)
}

impl Init {
    /// Reads `path`, and checks it against the digest that `config` recorded, if there is one.
    fn expected(config: &Config, path: &Path) -> Result<Self> {
        let init = Self::read(path)?;
        match config.init_digest {
            Some(digest) if digest != init.digest => Err(Error::Checkpoint {
                path: path.to_path_buf(),
                what: format!(
                    "has SHA-256 {}, but the run was created with a file of {digest}: put that file back, or start another run",
                    init.digest
                ),
            }),
            _ => Ok(init),
        }
    }

    /// Reads the network's tensors from `path`: a safetensors file of tinyres or another program, or a state
    /// dict of `torch.save`. Nothing that a pickle names is imported or run.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Checkpoint`] if it is damaged, has another format or
    /// has values that are not finite.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let bad = |what| Error::Checkpoint {
            path: path.to_path_buf(),
            what,
        };
        let (mut tensors, about) = if pth::is_pth(&bytes) {
            (pth::read(&bytes).map_err(bad)?, None)
        } else {
            checkpoint::check(&bytes).map_err(bad)?;
            // The description of another version is of no use, but the tensors are.
            let about = checkpoint::about(&bytes).ok().flatten();
            (safetensors(&bytes).map_err(bad)?, about)
        };
        if tensors
            .iter()
            .all(|(name, _)| name.starts_with(DATA_PARALLEL))
        {
            for (name, _) in &mut tensors {
                name.drain(..DATA_PARALLEL.len());
            }
        }
        for (name, tensor) in &tensors {
            if tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
                return Err(bad(format!("has a {name} with values that are not finite")));
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
            digest: Digest::of(&bytes),
            tensors,
            about,
        })
    }

    /// The tensors with their names, without the optimizer's state.
    pub fn tensors(&self) -> &[(String, Tensor)] {
        &self.tensors
    }

    /// Copies all tensors into `network`, whose outputs are `classes`. The classifier keeps its initial values
    /// if the file has other classes, and the box head if the file has none.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the file is of another stem or another network.
    pub fn load_into(&self, network: &mut ResNet18, classes: &[Class]) -> Result<InitReport> {
        let bad = |what| Error::Checkpoint {
            path: self.path.clone(),
            what,
        };
        let mut state = network.state()?;
        self.expect_stem(network.spec().stem, &state).map_err(bad)?;
        let known = |name: &String| state.iter().any(|(own, _)| own == name);
        let unknown = |name: &&String| !known(name) && !name.starts_with(BOX_HEAD);
        if let Some(name) = self.tensors.iter().map(|(name, _)| name).find(unknown) {
            return Err(bad(format!("holds {name}, which a ResNet18 does not have")));
        }
        let mut report = InitReport::default();
        let of_classifier = |name: &str| name.starts_with("fc.");
        let why_new = self.other_classes(classes);
        if let Some(why) = &why_new {
            report.why.push(format!("fc, since {why}"));
        }
        let head = self
            .tensors
            .iter()
            .any(|(name, _)| name.starts_with(BOX_HEAD));
        if !head && state.iter().any(|(name, _)| name.starts_with(BOX_HEAD)) {
            report
                .why
                .push("box_head, which the file does not have".into());
        }
        for (name, into) in &mut state {
            let found = self.tensors.iter().find(|(other, _)| other == name);
            let keep = match found {
                _ if of_classifier(name) && why_new.is_some() => true,
                None if name.starts_with(BOX_HEAD) && !head => true,
                // PyTorch before 0.4.1 does not have this count, and no result depends on it.
                None if name.ends_with(BATCHES_TRACKED) => continue,
                None => return Err(bad(format!("has no {name}: it is not of a ResNet18"))),
                Some(_) => false,
            };
            match found {
                Some((_, from)) if !keep => {
                    if from.size() != into.size() {
                        let (got, expected) = (from.size(), into.size());
                        return Err(bad(format!(
                            "has a {name} of shape {got:?}, expected {expected:?}: it is of another network"
                        )));
                    }
                    *into = from.shallow_clone();
                }
                _ => report.new.push(name.clone()),
            }
        }
        network.load(&state)?;
        Ok(report)
    }

    /// The reason why the file's classifier does not fit `classes`, if there is one.
    fn other_classes(&self, classes: &[Class]) -> Option<String> {
        let own = self.tensors.iter().find(|(name, _)| name == "fc.weight");
        let own = own.and_then(|(_, weight)| weight.size().first().copied());
        let outputs = own.map_or(0, i64::unsigned_abs);
        if outputs != classes.len() as u64 {
            let classes = classes.len();
            return Some(format!("it has {outputs} classes, and the data {classes}"));
        }
        let about = self.about.as_ref()?;
        let ids = |classes: &[Class]| -> Vec<_> {
            classes.iter().map(|class| class.id.clone()).collect()
        };
        (ids(&about.classes) != ids(classes))
            .then(|| "its classes are not those of the data".into())
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
        let (Some(got), Some(expected)) = (shape(&self.tensors), shape(state)) else {
            return Err(format!("has no {FIRST_WEIGHT}: it is not of a ResNet18"));
        };
        let said = self.about.as_ref().map(|about| about.config.stem);
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

/// The tensors of a safetensors file, without those of the optimizer and the average, whose names have a
/// slash.
fn safetensors(bytes: &[u8]) -> std::result::Result<Vec<(String, Tensor)>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| {
        format!("is neither a safetensors file nor one of torch.save, or is damaged: {error}")
    })?;
    let mut found = Vec::new();
    for (name, view) in file.iter().filter(|(name, _)| !name.contains('/')) {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            other => return Err(format!("holds {name} as {other:?}, which no ResNet18 has")),
        };
        let dims: Vec<i64> = (view.shape().iter())
            .map(|&side| i64::try_from(side).unwrap_or(i64::MAX))
            .collect();
        // safetensors has checked that the number of bytes agrees with shape and type.
        let tensor = Tensor::f_from_data_size(view.data(), &dims, kind);
        found.push((name.to_owned(), tensor.map_err(|error| error.to_string())?));
    }
    Ok(found)
}
