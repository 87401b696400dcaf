//! Exports trained networks in the formats of other tools.
//!
//! TorchScript and ONNX files compute logits from pixels: normalisation is part of them. A safetensors file
//! has the tensors alone. The box head is not exported.

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
    /// The extension of its files. That of safetensors differs from the extension of a run's weights.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::TorchScript => "pt",
            Self::Safetensors => "torchvision.safetensors",
            Self::Onnx => "onnx",
        }
    }
}

/// The content of the file of format `to` with the network of `checkpoint`. `watch` gets a notice of what is
/// left out, and of what the reader has to do.
///
/// # Errors
/// [`Error::Weights`](crate::Error::Weights) if a tensor is missing or has another shape.
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
                    "torchvision's resnet18 has another stem than this network: before load_state_dict, run\n  {change}"
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

/// The description of the network in safetensors and ONNX files: JSON under one key of their metadata.
#[derive(Serialize)]
struct Model<'a> {
    /// The version of tinyres that wrote the file.
    tinyres: &'static str,
    /// The stem, the layers before the residual blocks.
    stem: Stem,
    /// Width and height of the images that it was trained on, in pixels.
    side: u32,
    /// Mean of the channels to normalise by, for inputs from 0 to 1.
    mean: [f64; 3],
    /// Standard deviation of the channels, likewise.
    std: [f64; 3],
    /// The class of each output, in order.
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
