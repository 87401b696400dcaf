//! ResNet18 as torchvision has it: the same names, shapes and initial values.

mod box_head;
pub mod boxes;
mod layers;

use std::cell::Cell;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::libtorch::device::{self, Precision};
use crate::{Error, Result};

use box_head::BoxHead;
use layers::{BatchNorm, Block, Conv, Maker};
pub(crate) use layers::{EPSILON, STATISTICS_MOMENTUM};

/// What comes before the residual blocks, and so how large a map they see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stem {
    /// torchvision's: 7x7 by 2 and a pool by 2, so 64 pixels become 16
    Imagenet,
    /// 3x3 by 2, so 64 pixels become 32
    Half,
    /// 3x3 by 1, no pool: 64 pixels stay 64
    Small,
}

impl fmt::Display for Stem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Imagenet => "imagenet",
            Self::Half => "half",
            Self::Small => "small",
        })
    }
}

/// A part of a network that may be frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The first convolution and its normalisation.
    Stem,
    /// The first two blocks.
    Layer1,
    /// The next two.
    Layer2,
    /// The next two.
    Layer3,
    /// The last two.
    Layer4,
    /// The classifier.
    Fc,
}

impl Layer {
    /// The layer that the tensor of that name belongs to.
    fn of(name: &str) -> Option<Self> {
        match name.split('.').next()? {
            "conv1" | "bn1" => Some(Self::Stem),
            "layer1" => Some(Self::Layer1),
            "layer2" => Some(Self::Layer2),
            "layer3" => Some(Self::Layer3),
            "layer4" => Some(Self::Layer4),
            "fc" => Some(Self::Fc),
            _ => None,
        }
    }

    /// In the order of a forward pass.
    pub const ALL: [Self; 6] = [
        Self::Stem,
        Self::Layer1,
        Self::Layer2,
        Self::Layer3,
        Self::Layer4,
        Self::Fc,
    ];
    /// Those of the blocks, each with two.
    const BLOCKS: [Self; 4] = [Self::Layer1, Self::Layer2, Self::Layer3, Self::Layer4];
}

/// What a network looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What comes before the residual blocks.
    pub stem: Stem,
    /// Outputs of the classifier.
    pub classes: i64,
    /// Whether there is a head that predicts boxes, whose tensors are named `box_head.*`.
    pub boxes: bool,
}

/// What a tensor of a network is, which decides how it is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Trained, and subject to weight decay: the weights of convolutions and of the classifier.
    Weight,
    /// Trained without weight decay: scales and biases.
    Plain,
    /// Not trained: running statistics, and what is frozen.
    Buffer,
}

/// A tensor of a network, under torchvision's name.
#[derive(Debug)]
pub struct Named {
    /// Such as `layer1.0.bn1.running_mean`.
    pub name: String,
    /// Its value; a handle to the one that the network uses.
    pub tensor: Tensor,
    /// How it is trained.
    pub role: Role,
}

/// What a network predicts.
#[derive(Debug)]
pub struct Outputs {
    /// `f32 [B, classes]`.
    pub logits: Tensor,
    /// Centre, width and height of each image's box, in shares of its sides: `f32 [B, 4]`. `None`
    /// without a box head.
    pub boxes: Option<Tensor>,
}

/// ResNet18. Weights and maps are channels-last throughout.
#[derive(Debug)]
pub struct ResNet18 {
    spec: Spec,
    precision: Precision,
    named: Vec<Named>,
    conv1: Conv,
    bn1: BatchNorm,
    blocks: Vec<Block>,
    fc: (Tensor, Tensor),
    box_head: Option<BoxHead>,
    /// Batches seen in training: `num_batches_tracked` of every normalisation.
    batches: Cell<i64>,
    frozen: Vec<Layer>,
}

pub(crate) const BATCHES_TRACKED: &str = "num_batches_tracked";

impl ResNet18 {
    /// A network with torchvision's initial values, drawn from `seed` on the CPU, so that they are
    /// the same for every device. Seeds libtorch's global generator, and draws from it.
    ///
    /// # Errors
    /// Where libtorch has no memory for it.
    pub fn new(spec: Spec, seed: u64, device: Device) -> Result<Self> {
        // The generator is the whole process's: two networks must not draw by turns.
        static DRAWING: Mutex<()> = Mutex::new(());
        let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
        tch::manual_seed(seed.cast_signed());
        let mut make = Maker::new(device);
        let (size, stride) = match spec.stem {
            Stem::Imagenet => (7, 2),
            Stem::Half => (3, 2),
            Stem::Small => (3, 1),
        };
        let conv1 = make.conv("conv1", 3, 64, size, stride)?;
        let bn1 = make.batch_norm("bn1", 64)?;
        let mut blocks = Vec::new();
        for (layer, inputs, outputs, stride) in [
            (1, 64, 64, 1),
            (2, 64, 128, 2),
            (3, 128, 256, 2),
            (4, 256, 512, 2),
        ] {
            blocks.push(make.block(&format!("layer{layer}.0"), inputs, outputs, stride)?);
            blocks.push(make.block(&format!("layer{layer}.1"), outputs, outputs, 1)?);
        }
        let fc = make.linear("fc", 512, spec.classes)?;
        // Last, so that all others are drawn as they are without it.
        let box_head = match spec.boxes {
            true => Some(BoxHead::new(&mut make, 512)?),
            false => None,
        };
        Ok(Self {
            spec,
            precision: Precision::F32,
            named: make.named,
            conv1,
            bn1,
            blocks,
            fc,
            box_head,
            batches: Cell::new(0),
            frozen: Vec::new(),
        })
    }

    /// The same network, computing as `precision` says; a new one computes in `f32`.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Starts every block as the identity: the scale of its last normalisation becomes 0.
    ///
    /// # Errors
    /// Only where libtorch fails.
    pub fn zero_init_residual(&mut self) -> Result<()> {
        for block in &self.blocks {
            let _ = tch::no_grad(|| block.bn2.weight.shallow_clone().f_zero_())?;
        }
        Ok(())
    }

    /// Makes the box head start at `mean` (centre, width and height), while it is untrained.
    ///
    /// # Errors
    /// Only where libtorch fails.
    pub fn start_boxes_at(&mut self, mean: [f64; 4]) -> Result<()> {
        if let Some(head) = &self.box_head {
            head.mean().f_copy_(&Tensor::f_from_slice(&mean)?)?;
        }
        Ok(())
    }

    /// Takes the parameters of `layers` out of training. Their normalisations then use the running
    /// statistics in training, too, and leave them as they are: the layer computes what it did.
    ///
    /// # Errors
    /// Only where libtorch fails.
    pub fn freeze(&mut self, layers: &[Layer]) -> Result<()> {
        self.frozen = layers.to_vec();
        for named in &mut self.named {
            if Layer::of(&named.name).is_some_and(|layer| layers.contains(&layer)) {
                let _ = named.tensor.f_set_requires_grad(false)?;
                named.role = Role::Buffer;
            }
        }
        Ok(())
    }

    /// The mean box of the training split: centre, width and height. `None` without a box head.
    ///
    /// # Errors
    /// Only where libtorch fails.
    pub fn mean_box(&self) -> Result<Option<[f64; 4]>> {
        let Some(head) = &self.box_head else {
            return Ok(None);
        };
        let mut mean = [0.0; 4];
        let host = head
            .mean()
            .f_to_device(Device::Cpu)?
            .f_to_kind(Kind::Double)?;
        host.f_copy_data(&mut mean, 4)?;
        Ok(Some(mean))
    }

    /// What this network looks like.
    pub fn spec(&self) -> Spec {
        self.spec
    }

    /// Every tensor, in torchvision's order, `num_batches_tracked` left out.
    pub fn named(&self) -> &[Named] {
        &self.named
    }

    /// Logits, `f32 [B, classes]`, of images `[B, 3, H, W]`, normalised `f32`, channels last. In training
    /// normalises by the batch's statistics and adds them to the running ones.
    ///
    /// # Errors
    /// Where libtorch refuses the shape or has no memory.
    pub fn forward(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        Ok(self.outputs(images, train)?.logits)
    }

    /// All that it predicts of images as [`forward`](Self::forward) takes them.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn outputs(&self, images: &Tensor, train: bool) -> Result<Outputs> {
        let Outputs { logits, boxes } = device::mixed(self.precision, images, |images| {
            let features = self.features(images, train)?;
            let boxes = self.box_head.as_ref();
            Ok(Outputs {
                logits: self.classify(&features)?,
                boxes: boxes
                    .map(|head| head.forward(&features, train))
                    .transpose()?,
            })
        })?;
        Ok(Outputs {
            logits: logits.f_to_kind(Kind::Float)?,
            boxes,
        })
    }

    /// The last feature map, `[B, 512, h, w]` in the kind of the images, of images as
    /// [`forward`](Self::forward) takes them.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn features(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        if train {
            self.batches.set(self.batches.get() + 1);
        }
        let trains = |layer| train && !self.frozen.contains(&layer);
        let mut x = self.conv1.forward(images)?;
        x = self.bn1.forward_relu(&x, None, trains(Layer::Stem))?;
        if self.spec.stem == Stem::Imagenet {
            x = x.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        }
        for (pair, layer) in self.blocks.chunks(2).zip(Layer::BLOCKS) {
            for block in pair {
                x = block.forward(&x, trains(layer))?;
            }
        }
        Ok(x)
    }

    fn classify(&self, features: &Tensor) -> Result<Tensor> {
        let (weight, bias) = &self.fc;
        let pooled = features.f_adaptive_avg_pool2d([1, 1])?.f_flatten(1, -1)?;
        // On a CPU the maps may be bfloat16; here a product costs nothing.
        let pooled = pooled.f_to_kind(weight.kind())?;
        Ok(pooled.f_linear(weight, Some(bias))?)
    }

    /// All that `torchvision.models.resnet18().state_dict()` holds, name by name, and the box head's.
    ///
    /// # Errors
    /// Only where libtorch fails.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut state = Vec::new();
        for named in &self.named {
            state.push((named.name.clone(), named.tensor.f_detach()?));
            if let Some(norm) = named.name.strip_suffix("running_var") {
                let batches = Tensor::f_from_slice(&[self.batches.get()])?.f_squeeze()?;
                state.push((format!("{norm}{BATCHES_TRACKED}"), batches));
            }
        }
        Ok(state)
    }

    /// Takes over `state`, which must hold exactly the names and shapes of [`state`](Self::state).
    ///
    /// # Errors
    /// [`Error::Weights`] names the first tensor that is missing, unknown or of another shape.
    pub fn load(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        let own = self.state()?;
        if let Some((name, _)) = state
            .iter()
            .find(|(name, _)| !own.iter().any(|o| o.0 == *name))
        {
            return Err(Error::weights(name, "is no tensor of this network"));
        }
        for (name, mut into) in own {
            let Some((_, from)) = state.iter().find(|(other, _)| *other == name) else {
                return Err(Error::weights(&name, "is missing"));
            };
            if from.size() != into.size() {
                let (got, expected) = (from.size(), into.size());
                return Err(Error::weights(
                    &name,
                    format!("has shape {got:?}, expected {expected:?}"),
                ));
            }
            if name.ends_with(BATCHES_TRACKED) {
                self.batches.set(from.f_int64_value(&[])?);
            } else {
                tch::no_grad(|| into.f_copy_(from))?;
            }
        }
        Ok(())
    }
}
