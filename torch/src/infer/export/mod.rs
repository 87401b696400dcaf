//! Trained networks in the formats of other tools.
//!
//! TorchScript and ONNX hold the whole way from pixels to logits, normalisation included, so that who
//! runs them need know nothing of the training; safetensors holds the tensors alone.

mod graph;
mod onnx;
mod torchscript;

use std::collections::HashMap;

use serde::Serialize;
use strum::{Display, EnumString, VariantNames};
use tinyres::event::{Event, Observer};
use tinyres_format::Class;

use crate::Result;
use crate::libtorch::tensors;
use crate::net::{BOX_HEAD, Stem};
use crate::run::checkpoint::{About, Checkpoint};

pub use onnx::OPSET;

/// A format to export to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, VariantNames, Serialize)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Target {
    /// A module for `torch.jit.load`. Takes `[B, 3, H, W]` RGB, `u8` or floating point in 0..1, and gives
    /// logits `f32 [B, classes]`. Its parameters have torchvision's names and can be trained; `side`,
    /// `class_ids` and `class_names` are attributes.
    TorchScript,
    /// Tensors for `torchvision.models.resnet18(num_classes=N).load_state_dict`, strictly.
    Safetensors,
    /// A model of opset [`OPSET`]. Takes `images`, `u8 [batch, 3, side, side]` RGB, and gives `logits`,
    /// `f32 [batch, classes]`.
    Onnx,
}

impl Target {
    /// What its files' names end in; with a mark where weights of a run are called alike.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::TorchScript => "pt",
            Self::Safetensors => "torchvision.safetensors",
            Self::Onnx => "onnx",
        }
    }
}

/// The file of format `to` that holds the network of `checkpoint`. What it leaves out, or what its reader
/// has to know, is told to `watch`.
///
/// # Errors
/// Weights that are not whole, or libtorch's.
pub fn export(checkpoint: &Checkpoint, to: Target, watch: &mut dyn Observer) -> Result<Vec<u8>> {
    let network = checkpoint.network(tch::Device::Cpu)?;
    let (about, state) = (&checkpoint.about, network.state()?);
    let (beyond, state) =
        (state.into_iter()).partition::<Vec<_>, _>(|(name, _)| name.starts_with(BOX_HEAD));
    if !beyond.is_empty() {
        watch.on(&Event::Notice(
            "the box head is left out: torchvision's network has none".to_owned(),
        ));
    }
    match to {
        Target::TorchScript => torchscript::encode(about, &network, &state),
        Target::Onnx => onnx::encode(about, &network),
        Target::Safetensors => {
            if let Some(change) = stem_in_torchvision(about.config.stem) {
                watch.on(&Event::Notice(format!(
                    "torchvision's resnet18 has another stem than this network; before load_state_dict say\n  {change}"
                )));
            }
            let metadata = HashMap::from([(Model::KEY.to_owned(), Model::of(about).json())]);
            tensors::encode(&state, metadata)
        }
    }
}

/// Python code that gives `model`, torchvision's resnet18, this stem. `None` for the stem that it has.
fn stem_in_torchvision(stem: Stem) -> Option<String> {
    let (kernel, stride, padding) = (stem.kernel(), stem.stride(), stem.kernel() / 2);
    (stem != Stem::Imagenet).then(|| {
        format!(
            "model.conv1 = torch.nn.Conv2d(3, 64, {kernel}, stride={stride}, padding={padding}, bias=False); \
             model.maxpool = torch.nn.Identity()"
        )
    })
}

/// What safetensors and ONNX files say of the network: JSON under one key of their metadata.
#[derive(Serialize)]
struct Model<'a> {
    /// The version of tinyres that wrote it.
    tinyres: &'static str,
    /// What comes before the residual blocks.
    stem: Stem,
    /// Width and height of the images that it was trained on, in pixels.
    side: u32,
    /// Of the channels, with 255 taken as 1: what inputs in 0..1 are normalised by.
    mean: [f64; 3],
    std: [f64; 3],
    /// What the outputs mean, in order.
    classes: &'a [Class],
}

impl<'a> Model<'a> {
    const KEY: &'static str = "model";

    fn of(about: &'a About) -> Self {
        let (mean, std) = about.config.normalize.statistics();
        Self {
            tinyres: env!("CARGO_PKG_VERSION"),
            stem: about.config.stem,
            side: about.position.size,
            mean,
            std,
            classes: &about.classes,
        }
    }

    fn json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers that are finite")
    }
}
