//! Weights and checkpoints: safetensors files that say what they are.
//!
//! The network's tensors stand under torchvision's names, so that
//! `torchvision.models.resnet18(num_classes=N).load_state_dict` takes a file of weights as it is. A
//! checkpoint holds the optimizer's state beside them, and where the run stands, in the same file:
//! so it is replaced as a whole.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use tinyres_format::{Class, Digest, Shape};

use crate::config::Config;
use crate::input::inputs::Inputs;
use crate::libtorch::tensors;
use crate::net::ResNet18;
use crate::{Error, Result};

/// The key of the file's metadata that holds the [`Head`], as JSON. There is no other key: their order
/// in the file would be left to chance.
const KEY: &str = "tinyres";
/// What the names of the other tensors of a checkpoint have, and those of a network have not.
const NOT_OF_THE_NETWORK: char = '/';
/// The format of what stands there and of the optimizer's tensors. It changes when an older tinyres
/// would go wrong with a file, or a newer one with an older file.
const FORMAT: u32 = 1;

/// What a file of ours begins with.
#[derive(Serialize)]
struct Head<'a> {
    /// [`FORMAT`].
    format: u32,
    /// CRC-32 of the whole file, taken with [`BLANK`] in this place.
    crc32: &'a str,
    about: &'a About,
}

/// Bytes of the file, after the first eight, that the checksum is in: metadata comes first.
const HEAD_BEGINS_WITHIN: usize = 256;
const BLANK: &str = "00000000";
/// What stands before the checksum in the file: JSON in a string of JSON.
const BEFORE_CRC: &[u8] = br#"\"crc32\":\""#;

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
    /// The parameters that `config.init` did not give.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new: Vec<String>,
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
    /// What a run needs beside: the state of the optimizer, and of the average.
    rest: Vec<(String, Tensor)>,
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
        check(&bytes).map_err(bad)?;
        let about = about(&bytes).map_err(bad)?;
        let mut checkpoint = Self {
            about: about.ok_or_else(|| {
                bad("is not of tinyres: train from it, with --init, first".to_owned())
            })?,
            network: Vec::new(),
            rest: Vec::new(),
        };
        for (name, view) in SafeTensors::deserialize(&bytes)
            .map_err(|error| bad(damaged(&error)))?
            .iter()
        {
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
            let into = if name.contains(NOT_OF_THE_NETWORK) {
                &mut checkpoint.rest
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
        let spec = self.about.config.spec(self.about.classes.len());
        let mut network =
            ResNet18::new(spec, 0, device)?.with_precision(self.about.config.precision);
        network.load(&self.network)?;
        Ok(network)
    }

    /// The network's tensors, by name.
    pub(crate) fn weights(&self) -> &[(String, Tensor)] {
        &self.network
    }

    /// The state of the optimizer and of the moving average, by name. Empty in a file of weights.
    pub(crate) fn training_state(&self) -> &[(String, Tensor)] {
        &self.rest
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

/// Writes `network` to `path`, and `rest`, what a run needs beside it to go on from there. Either all
/// of it replaces what was there, or nothing does.
///
/// # Errors
/// The file could not be written.
pub fn save(
    path: &Path,
    about: &About,
    network: &ResNet18,
    rest: Vec<(String, Tensor)>,
) -> Result<()> {
    let mut state = network.state()?;
    state.extend(rest);
    let bad = |what: String| Error::Checkpoint {
        path: path.to_path_buf(),
        what,
    };
    let head = Head {
        format: FORMAT,
        crc32: BLANK,
        about,
    };
    let head = serde_json::to_string(&head).map_err(|error| bad(error.to_string()))?;
    let metadata = HashMap::from([(KEY.to_owned(), head)]);
    let mut file = tensors::encode(&state, metadata)?;
    let crc = format!("{:08x}", crc32fast::hash(&file));
    let at = crc_place(&file).ok_or_else(|| bad("has no place for its checksum".to_owned()))?;
    file[at].copy_from_slice(crc.as_bytes());
    tinyres_format::publish::write(path, &file).map_err(Error::io(path))
}

/// Compares a safetensors file of ours with its checksum. A file of others has none.
pub(crate) fn check(bytes: &[u8]) -> std::result::Result<(), String> {
    let Some(at) = crc_place(bytes) else {
        return Ok(());
    };
    let mut crc = crc32fast::Hasher::new();
    for part in [&bytes[..at.start], BLANK.as_bytes(), &bytes[at.end..]] {
        crc.update(part);
    }
    let (got, expected) = (format!("{:08x}", crc.finalize()), &bytes[at]);
    if got.as_bytes() == expected {
        return Ok(());
    }
    Err(format!(
        "is damaged: it has checksum {got}, expected {}: copy it again, or go on from another one",
        String::from_utf8_lossy(expected)
    ))
}

/// What a safetensors file of ours says of itself; none for a file of others.
pub(crate) fn about(bytes: &[u8]) -> std::result::Result<Option<About>, String> {
    /// A head of any format.
    #[derive(Deserialize)]
    struct Any {
        format: u32,
        /// That it is there: else nothing has been compared.
        #[serde(rename = "crc32")]
        _crc32: String,
        about: serde_json::Value,
    }
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| damaged(&error))?;
    let Some(head) = (header.metadata().as_ref()).and_then(|metadata| metadata.get(KEY)) else {
        return Ok(None);
    };
    let other = |what: &str| {
        format!(
            "is of another version of tinyres than this {}: {what}: go on with that one, or begin a \
             run from its weights with --init",
            env!("CARGO_PKG_VERSION")
        )
    };
    let unknown = |error: serde_json::Error| other(&error.to_string());
    let any: Any = serde_json::from_str(head).map_err(unknown)?;
    if any.format != FORMAT {
        let version = any.about["version"].as_str().unwrap_or("unknown");
        let format = any.format;
        return Err(other(&format!(
            "{version}, in format {format}, expected {FORMAT}"
        )));
    }
    About::deserialize(any.about).map(Some).map_err(unknown)
}

fn damaged(error: &safetensors::SafeTensorError) -> String {
    format!("is no safetensors file, or is damaged: {error}")
}

/// Where the checksum stands in a file.
fn crc_place(file: &[u8]) -> Option<Range<usize>> {
    let head = file.get(8..)?;
    let head = head.get(..HEAD_BEGINS_WITHIN).unwrap_or(head);
    let before = head
        .windows(BEFORE_CRC.len())
        .position(|part| part == BEFORE_CRC)?;
    let at = 8 + before + BEFORE_CRC.len();
    (at + BLANK.len() <= file.len()).then_some(at..at + BLANK.len())
}
