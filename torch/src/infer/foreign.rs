//! Opens weights for inference. Those of tinyres say what they are; for those of other programs, classes, size
//! and normalisation are assumed, and the assumptions are said.

use std::path::Path;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use tinyres::event::{Event, Observer};
use tinyres::text::counted;
use tinyres_format::{Class, Digest};
use toml::Table;

use crate::config::{Config, Normalize};
use crate::net::{BATCHES_TRACKED, FIRST_WEIGHT, ResNet18, Stem};
use crate::run::checkpoint::{About, Checkpoint, MAX_SIZE, Position};
use crate::weights::{self, Classifier, Place, Weights};
use crate::{Error, Result};

/// Side of the images that weights of other programs are taken to be for, in pixels.
pub const ASSUMED_SIDE: u32 = 64;

/// Trained weights of any program.
#[derive(Debug)]
pub enum AnyWeights {
    /// Those of tinyres.
    Own(Box<Checkpoint>),
    /// Those of another program.
    Foreign(Box<Weights>),
}

/// What a file of another program does not say.
#[derive(Clone, Debug, Default)]
pub struct Assumed {
    /// The class of each output, and where they are from, as in `the classes are WHERE`. `None` for numbers.
    pub classes: Option<(Vec<Class>, String)>,
    /// Side of the images, in pixels; `None` for [`ASSUMED_SIDE`].
    pub side: Option<u32>,
}

/// The part that is read of the description in a file that `tinyres export` wrote.
#[derive(Deserialize)]
struct Exported {
    stem: Stem,
    side: u32,
    mean: [f64; 3],
    classes: Vec<Class>,
}

impl AnyWeights {
    /// Reads `path`, `FILE` or `FILE#KEY`.
    ///
    /// # Errors
    /// As for [`Checkpoint::load`] and [`Weights::read`].
    pub fn read(path: &Path) -> Result<Self> {
        let place = Place::parse(path);
        let own = match place.key.is_empty() && !weights::is_of_torch_save(&place.file)? {
            true => Checkpoint::load_own(&place.file)?,
            false => None,
        };
        Ok(match own {
            Some(own) => Self::Own(Box::new(own)),
            None => Self::Foreign(Box::new(Weights::read(path)?)),
        })
    }

    /// The network, described. `watch` gets a notice of what was assumed.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the file has no single linear layer as its classifier, or another number of
    /// classes than `assumed`.
    pub fn describe(self, assumed: Assumed, watch: &mut dyn Observer) -> Result<Checkpoint> {
        match self {
            Self::Own(own) => Ok(*own),
            Self::Foreign(weights) => describe(*weights, assumed, watch),
        }
    }
}

fn describe(weights: Weights, assumed: Assumed, watch: &mut dyn Observer) -> Result<Checkpoint> {
    let unused = weights.unused();
    let path = weights.path;
    let bad = |what: String| Error::Checkpoint {
        path: path.clone(),
        what,
    };
    let first = weights.body.iter().find(|(name, _)| name == FIRST_WEIGHT);
    let kernel = first.map_or_else(Vec::new, |(_, weight)| weight.size());
    let stem = match &kernel[..] {
        [_, _, 7, 7] => Stem::Imagenet,
        // The networks for CIFAR; tinyres's stem `half` has the same kernel.
        [_, _, 3, 3] => Stem::Small,
        _ => {
            return Err(bad(
                "has a first convolution that is neither 7x7 nor 3x3".into()
            ));
        }
    };
    let remedy = format!(
        "start a run from it with --init and --stem {stem}, and use the weights of that run"
    );
    let (name, weight, bias) = match weights.classifier {
        Classifier::Linear { name, weight, bias } => (name, weight, bias),
        Classifier::None => return Err(bad(format!("has no classifier: {remedy}"))),
        Classifier::Other(names) => {
            let names = names.join(" and ");
            return Err(bad(format!(
                "has {names} for a classifier, expected one linear layer on 512 features: {remedy}"
            )));
        }
    };
    let outputs = usize::try_from(weight.size()[0]).unwrap_or(0);
    let exported = (weights.exported.as_deref())
        .and_then(|text| serde_json::from_str::<Exported>(text).ok())
        .filter(|exported| exported.classes.len() == outputs);
    // Memory depends on it.
    if let Some(Exported { side, .. }) = &exported
        && !(1..=MAX_SIZE).contains(side)
    {
        return Err(bad(format!(
            "is for images of {side} pixels, expected 1 to {MAX_SIZE}: it is damaged, export it again"
        )));
    }
    let stem = exported.as_ref().map_or(stem, |exported| exported.stem);
    let normalize = match &exported {
        Some(exported) if exported.mean == [0.0; 3] => Normalize::None,
        _ => Normalize::Imagenet,
    };
    let side = match &exported {
        Some(exported) => exported.side,
        None => assumed.side.unwrap_or(ASSUMED_SIDE),
    };
    let (classes, origin) = match (assumed.classes, &exported) {
        (_, Some(exported)) => (exported.classes.clone(), String::new()),
        (Some((classes, origin)), None) if classes.len() == outputs => (classes, origin),
        (Some((classes, origin)), None) => {
            return Err(bad(format!(
                "has a classifier of {}, expected {}: its classes are to be {origin}",
                counted(outputs, "class"),
                classes.len()
            )));
        }
        (None, None) => (numbered(outputs), "numbers".to_owned()),
    };
    if exported.is_none() {
        let classifier = match name.as_str() {
            "fc" => String::new(),
            name => format!(" (classifier {name})"),
        };
        let are = if outputs == 1 { "is" } else { "are" };
        let mut notice = format!(
            "{} is of another program: taken as a ResNet18 with stem {stem} for {side}x{side} pixels normalised by \
             ImageNet's mean and std; its {}{classifier} {are} {origin}",
            path.display(),
            counted(outputs, "class")
        );
        if let Some(unused) = unused {
            notice += &format!("; {unused}");
        }
        watch.on(&Event::Notice(notice));
    }
    let mut network = weights.body;
    network.push(("fc.weight".to_owned(), weight));
    network.push(("fc.bias".to_owned(), bias));
    let mut values = Table::new();
    for (key, value) in [
        ("stem", stem.to_string()),
        ("normalize", normalize.to_string()),
        ("precision", "f32".to_owned()),
    ] {
        values.insert(key.to_owned(), value.into());
    }
    let config = Config::layered(None, values, false)?;
    // PyTorch before 0.4.1 does not have counts of batches, and no result depends on them.
    for (name, _) in ResNet18::new(config.spec(outputs), 0, Device::Cpu)?.state()? {
        if name.ends_with(BATCHES_TRACKED) && !network.iter().any(|(own, _)| *own == name) {
            network.push((
                name,
                Tensor::f_zeros([0_i64; 0], (Kind::Int64, Device::Cpu))?,
            ));
        }
    }
    let about = About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        classes,
        fingerprint: Digest::of(&[]),
        shards: None,
        side: None,
        config,
        new: Vec::new(),
        position: Position {
            size: side,
            ..Position::default()
        },
    };
    Ok(Checkpoint::of(about, network))
}

fn numbered(outputs: usize) -> Vec<Class> {
    let class = |number: usize| Class {
        id: number.to_string(),
        name: number.to_string(),
    };
    (0..outputs).map(class).collect()
}

/// Reads a file of classes, one a line in the order of the outputs: `ID`, or `ID`, a tab and `NAME`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read.
pub fn read_classes(path: &Path) -> Result<Vec<Class>> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let class = |line: &str| {
        let (id, name) = line.split_once('\t').unwrap_or((line, line));
        Class {
            id: id.trim().to_owned(),
            name: name.trim().to_owned(),
        }
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    Ok(lines.map(class).collect())
}
