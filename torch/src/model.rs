//! ResNet18 as torchvision has it: the same names, shapes and initial values.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::device::{self, Precision};
use crate::{Error, Result, ffi};

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

/// What a network looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What comes before the residual blocks.
    pub stem: Stem,
    /// Outputs of the classifier.
    pub classes: i64,
}

/// What a tensor of a network is, which decides how it is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Trained, and subject to weight decay: the weights of convolutions and of the classifier.
    Weight,
    /// Trained without weight decay: scales and biases.
    Plain,
    /// Not trained: running statistics.
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
    /// Batches seen in training: `num_batches_tracked` of every normalisation.
    batches: Cell<i64>,
}

/// Share of the newest batch in the running statistics.
pub(crate) const STATISTICS_MOMENTUM: f64 = 0.1;
pub(crate) const EPSILON: f64 = 1e-5;
const BATCHES_TRACKED: &str = "num_batches_tracked";

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
        let mut make = Maker {
            named: Vec::new(),
            device,
        };
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
        Ok(Self {
            spec,
            precision: Precision::F32,
            named: make.named,
            conv1,
            bn1,
            blocks,
            fc,
            batches: Cell::new(0),
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
        let logits = device::mixed(self.precision, images, |images| {
            self.classify(&self.features(images, train)?)
        })?;
        Ok(logits.f_to_kind(Kind::Float)?)
    }

    /// The last feature map, `[B, 512, h, w]` in the kind of the images, of images as [`forward`](Self::forward) takes them.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn features(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        if train {
            self.batches.set(self.batches.get() + 1);
        }
        let mut x = self.conv1.forward(images)?;
        x = self.bn1.forward(&x, train)?.f_relu_()?;
        if self.spec.stem == Stem::Imagenet {
            x = x.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        }
        for block in &self.blocks {
            x = block.forward(&x, train)?;
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

    /// All that `torchvision.models.resnet18().state_dict()` holds, name by name.
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

#[derive(Debug)]
struct Conv {
    weight: Tensor,
    stride: i64,
}

impl Conv {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let pad = self.weight.size()[2] / 2;
        if self.weight.device() == Device::Cpu {
            return ffi::conv2d(x, &self.weight, self.stride, pad);
        }
        let (stride, pad) = ([self.stride; 2], [pad; 2]);
        Ok(x.f_conv2d(&self.weight, None::<&Tensor>, stride, pad, [1, 1], 1)?)
    }
}

#[derive(Debug)]
struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
}

impl BatchNorm {
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        Ok(x.f_batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.mean),
            Some(&self.variance),
            train,
            STATISTICS_MOMENTUM,
            EPSILON,
            true,
        )?)
    }
}

#[derive(Debug)]
struct Block {
    conv1: Conv,
    bn1: BatchNorm,
    conv2: Conv,
    bn2: BatchNorm,
    downsample: Option<(Conv, BatchNorm)>,
}

impl Block {
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let shortcut = match &self.downsample {
            Some((conv, bn)) => bn.forward(&conv.forward(x)?, train)?,
            None => x.shallow_clone(),
        };
        let inner = self
            .bn1
            .forward(&self.conv1.forward(x)?, train)?
            .f_relu_()?;
        let mut out = self.bn2.forward(&self.conv2.forward(&inner)?, train)?;
        Ok(out.f_add_(&shortcut)?.f_relu_()?)
    }
}

/// Makes tensors with torchvision's initial values, and keeps the list of them.
struct Maker {
    named: Vec<Named>,
    device: Device,
}

impl Maker {
    /// Moves a freshly drawn tensor to its device and layout, and lists it.
    fn add(&mut self, name: String, drawn: &Tensor, role: Role) -> Result<Tensor> {
        let mut tensor = drawn.f_to_device(self.device)?;
        if tensor.dim() == 4 {
            tensor = ffi::channels_last(&tensor)?;
        }
        let tensor = tensor.f_set_requires_grad(role != Role::Buffer)?;
        self.named.push(Named {
            name,
            tensor: tensor.shallow_clone(),
            role,
        });
        Ok(tensor)
    }

    fn conv(
        &mut self,
        name: &str,
        inputs: i64,
        outputs: i64,
        size: i64,
        stride: i64,
    ) -> Result<Conv> {
        // Kaiming's normal distribution for a ReLU, by the fan out.
        let deviation = (2.0 / real(outputs * size * size)).sqrt();
        let drawn = zeros(&[outputs, inputs, size, size])?.f_normal_(0.0, deviation)?;
        let weight = self.add(format!("{name}.weight"), &drawn, Role::Weight)?;
        Ok(Conv { weight, stride })
    }

    fn batch_norm(&mut self, name: &str, channels: i64) -> Result<BatchNorm> {
        let mut constant = |part: &str, value: f64, role| {
            let drawn = zeros(&[channels])?.f_fill_(value)?;
            self.add(format!("{name}.{part}"), &drawn, role)
        };
        Ok(BatchNorm {
            weight: constant("weight", 1.0, Role::Plain)?,
            bias: constant("bias", 0.0, Role::Plain)?,
            mean: constant("running_mean", 0.0, Role::Buffer)?,
            variance: constant("running_var", 1.0, Role::Buffer)?,
        })
    }

    fn block(&mut self, name: &str, inputs: i64, outputs: i64, stride: i64) -> Result<Block> {
        Ok(Block {
            conv1: self.conv(&format!("{name}.conv1"), inputs, outputs, 3, stride)?,
            bn1: self.batch_norm(&format!("{name}.bn1"), outputs)?,
            conv2: self.conv(&format!("{name}.conv2"), outputs, outputs, 3, 1)?,
            bn2: self.batch_norm(&format!("{name}.bn2"), outputs)?,
            downsample: match stride {
                1 => None,
                _ => Some((
                    self.conv(&format!("{name}.downsample.0"), inputs, outputs, 1, stride)?,
                    self.batch_norm(&format!("{name}.downsample.1"), outputs)?,
                )),
            },
        })
    }

    fn linear(&mut self, name: &str, inputs: i64, outputs: i64) -> Result<(Tensor, Tensor)> {
        let bound = 1.0 / real(inputs).sqrt();
        let weight = zeros(&[outputs, inputs])?.f_uniform_(-bound, bound)?;
        let bias = zeros(&[outputs])?.f_uniform_(-bound, bound)?;
        Ok((
            self.add(format!("{name}.weight"), &weight, Role::Weight)?,
            self.add(format!("{name}.bias"), &bias, Role::Plain)?,
        ))
    }
}

fn zeros(dims: &[i64]) -> Result<Tensor> {
    Ok(Tensor::f_zeros(dims, (Kind::Float, Device::Cpu))?)
}

/// A fan, which is far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "fans are below 2^53")]
fn real(fan: i64) -> f64 {
    fan as f64
}
