//! Weights and checkpoints: safetensors files that say what they are.
//!
//! The network's tensors stand under torchvision's names, so that
//! `torchvision.models.resnet18(num_classes=N).load_state_dict` takes a file of weights as it is. A
//! checkpoint holds the optimizer's state beside them, and where the run stands, in the same file:
//! so it is replaced as a whole.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use tinyres_format::{Class, Digest, Shape};

use crate::config::Config;
use crate::inputs::Inputs;
use crate::model::{ResNet18, Spec};
use crate::optim::{Optimizer, PREFIX};
use crate::{Error, Result};

/// The key of the file's metadata that holds [`About`], as JSON.
const KEY: &str = "tinyres";

/// What a file of weights says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The version that wrote it.
    pub version: String,
    /// What the outputs mean, in order.
    pub classes: Vec<Class>,
    /// Of the data set that it was trained on.
    pub fingerprint: Digest,
    /// What decided the run.
    pub config: Config,
    /// Where the run stood.
    pub position: Position,
}

impl About {
    /// What the network takes of images of `shape`: scaled to the side that it was last trained at.
    ///
    /// # Errors
    /// Only where libtorch fails.
    pub fn inputs(&self, shape: Shape, device: Device) -> Result<Inputs> {
        let sides = (shape.height, shape.width);
        Inputs::new(sides, self.position.size, self.config.normalize, device)
    }
}

/// Where a run stands: with configuration and data, all that decides what comes next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// The epoch, from 0.
    pub epoch: u32,
    /// Batches of it that are done.
    pub batch: usize,
    /// Steps that are done.
    pub step: u64,
    /// The learning rate of the last step.
    pub rate: f64,
    /// Sum of the losses of the epoch's steps.
    pub losses: f64,
    /// Time spent on the epoch's steps.
    pub took: Duration,
    /// Time of that spent waiting for data.
    pub waited: Duration,
    /// Time spent on the run, scoring included.
    pub elapsed: Duration,
    /// Side of the images of the last step, in pixels.
    pub size: u32,
    /// Best top-1 on the validation split.
    pub best: Option<f64>,
}

/// A file of weights, or a checkpoint, in memory.
#[derive(Debug)]
pub struct Checkpoint {
    /// What it says of itself.
    pub about: About,
    network: Vec<(String, Tensor)>,
    optimizer: Vec<(String, Tensor)>,
}

impl Checkpoint {
    /// Reads a file that [`save`] wrote.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] says what is wrong with the file.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let bad = |what: String| Error::Checkpoint {
            path: path.to_path_buf(),
            what,
        };
        let damaged = |error| bad(format!("is no safetensors file, or is damaged: {error}"));
        let (_, head) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        let about = (head.metadata().as_ref())
            .and_then(|metadata| metadata.get(KEY))
            .ok_or_else(|| bad("does not say that tinyres wrote it".to_owned()))?;
        let about = serde_json::from_str(about).map_err(|error| {
            bad(format!(
                "was written by another version of tinyres: {error}"
            ))
        })?;
        let mut checkpoint = Self {
            about,
            network: Vec::new(),
            optimizer: Vec::new(),
        };
        for (name, view) in SafeTensors::deserialize(&bytes).map_err(damaged)?.iter() {
            let kind = match view.dtype() {
                Dtype::F32 => Kind::Float,
                Dtype::I64 => Kind::Int64,
                other => return Err(bad(format!("holds {name} as {other:?}"))),
            };
            let dims: Vec<i64> = view
                .shape()
                .iter()
                .map(|&d| d.cast_signed() as i64)
                .collect();
            // safetensors has checked that the bytes are as many as shape and type ask for.
            let tensor = Tensor::f_from_data_size(view.data(), &dims, kind)?;
            let into = if name.starts_with(PREFIX) {
                &mut checkpoint.optimizer
            } else {
                &mut checkpoint.network
            };
            into.push((name.to_owned(), tensor));
        }
        Ok(checkpoint)
    }

    /// The network that the weights are of.
    ///
    /// # Errors
    /// A tensor is missing, unknown or of another shape.
    pub fn network(&self, device: Device) -> Result<ResNet18> {
        let spec = Spec {
            stem: self.about.config.stem,
            classes: i64::try_from(self.about.classes.len()).unwrap_or(i64::MAX),
        };
        let mut network =
            ResNet18::new(spec, 0, device)?.with_precision(self.about.config.precision);
        network.load(&self.network)?;
        Ok(network)
    }

    /// Gives `network` and `optimizer` the state that was saved.
    ///
    /// # Errors
    /// A tensor is missing or of another shape, as in a file of weights alone.
    pub fn restore(&self, network: &mut ResNet18, optimizer: &mut Optimizer) -> Result<()> {
        network.load(&self.network)?;
        optimizer.load(&self.optimizer)
    }

    /// Refuses data whose classes are not those of the weights, in the same order.
    ///
    /// # Errors
    /// [`Error::Classes`] names the first label that differs.
    pub fn expect_classes(&self, classes: &[Class]) -> Result<()> {
        let own = &self.about.classes;
        let name = |classes: &[Class], label: usize| {
            classes
                .get(label)
                .map_or("nothing".to_owned(), |class| class.id.clone())
        };
        let longest = own.len().max(classes.len());
        match (0..longest).find(|&label| name(own, label) != name(classes, label)) {
            None => Ok(()),
            Some(label) => Err(Error::Classes {
                label,
                weights: name(own, label),
                data: name(classes, label),
            }),
        }
    }
}

/// Writes `network` to `path`, and with `optimizer` all that a run needs to go on from there. Either
/// all of it replaces what was there, or nothing does.
///
/// # Errors
/// The file could not be written.
pub fn save(
    path: &Path,
    about: &About,
    network: &ResNet18,
    optimizer: Option<&Optimizer>,
) -> Result<()> {
    let mut state = network.state()?;
    if let Some(optimizer) = optimizer {
        state.extend(optimizer.state());
    }
    let bad = |what: String| Error::Checkpoint {
        path: path.to_path_buf(),
        what,
    };
    let about = serde_json::to_string(about).map_err(|error| bad(error.to_string()))?;
    let metadata = HashMap::from([(KEY.to_owned(), about)]);
    let file = encode(&state, metadata)?;
    tinyres_format::publish::write(path, &file).map_err(Error::io(path))
}

/// The safetensors file of `state`, with `metadata`, of which more than one entry would stand in any order.
pub(crate) fn encode(
    state: &[(String, Tensor)],
    metadata: HashMap<String, String>,
) -> Result<Vec<u8>> {
    let mut contents = Vec::new();
    for (name, tensor) in state {
        let dtype = match tensor.kind() {
            Kind::Int64 => Dtype::I64,
            _ => Dtype::F32,
        };
        let shape: Vec<_> = tensor.size().iter().map(|d| d.unsigned_abs()).collect();
        let shape = shape
            .into_iter()
            .map(|d| usize::try_from(d).unwrap_or(0))
            .collect();
        contents.push((name.as_str(), dtype, shape, bytes(tensor)?));
    }
    let views = contents
        .iter()
        .map(|(name, dtype, shape, bytes): &(_, _, Vec<usize>, _)| {
            TensorView::new(*dtype, shape.clone(), bytes).map(|view| (*name, view))
        });
    let views = views.collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(serialize(views, Some(metadata))?)
}

/// The elements of `tensor` in row-major order, little-endian.
pub(crate) fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    const {
        assert!(
            cfg!(target_endian = "little"),
            "libtorch runs on little-endian hosts"
        )
    };
    let host = tensor
        .f_detach()?
        .f_to_device(Device::Cpu)?
        .f_contiguous()?;
    let mut bytes = vec![0; host.numel() * host.kind().elt_size_in_bytes()];
    host.f_copy_data_u8(&mut bytes, host.numel())?;
    Ok(bytes)
}
