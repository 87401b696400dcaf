//! What the network is made of, and how it is drawn.

use tch::{Device, Kind, Tensor};

use super::{Named, Role};
use crate::{Result, ffi};

/// Share of the newest batch in the running statistics.
pub(crate) const STATISTICS_MOMENTUM: f64 = 0.1;
pub(crate) const EPSILON: f64 = 1e-5;
#[derive(Debug)]
pub(super) struct Conv {
    weight: Tensor,
    stride: i64,
}

impl Conv {
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let pad = self.weight.size()[2] / 2;
        if self.weight.device() == Device::Cpu {
            return ffi::conv2d(x, &self.weight, self.stride, pad);
        }
        let (stride, pad) = ([self.stride; 2], [pad; 2]);
        Ok(x.f_conv2d(&self.weight, None::<&Tensor>, stride, pad, [1, 1], 1)?)
    }
}

#[derive(Debug)]
pub(super) struct BatchNorm {
    pub(super) weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
}

impl BatchNorm {
    pub(super) fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
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
pub(super) struct Block {
    conv1: Conv,
    bn1: BatchNorm,
    conv2: Conv,
    pub(super) bn2: BatchNorm,
    downsample: Option<(Conv, BatchNorm)>,
}

impl Block {
    pub(super) fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
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
pub(super) struct Maker {
    pub(super) named: Vec<Named>,
    device: Device,
}

impl Maker {
    pub(super) fn new(device: Device) -> Self {
        Self {
            named: Vec::new(),
            device,
        }
    }

    /// Moves a freshly drawn tensor to its device and layout, and lists it.
    pub(super) fn add(&mut self, name: String, drawn: &Tensor, role: Role) -> Result<Tensor> {
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

    pub(super) fn conv(
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

    pub(super) fn batch_norm(&mut self, name: &str, channels: i64) -> Result<BatchNorm> {
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

    pub(super) fn block(
        &mut self,
        name: &str,
        inputs: i64,
        outputs: i64,
        stride: i64,
    ) -> Result<Block> {
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

    pub(super) fn linear(
        &mut self,
        name: &str,
        inputs: i64,
        outputs: i64,
    ) -> Result<(Tensor, Tensor)> {
        let bound = 1.0 / real(inputs).sqrt();
        let weight = zeros(&[outputs, inputs])?.f_uniform_(-bound, bound)?;
        let bias = zeros(&[outputs])?.f_uniform_(-bound, bound)?;
        Ok((
            self.add(format!("{name}.weight"), &weight, Role::Weight)?,
            self.add(format!("{name}.bias"), &bias, Role::Plain)?,
        ))
    }
}

pub(super) fn zeros(dims: &[i64]) -> Result<Tensor> {
    Ok(Tensor::f_zeros(dims, (Kind::Float, Device::Cpu))?)
}

/// A fan, which is far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "fans are below 2^53")]
fn real(fan: i64) -> f64 {
    fan as f64
}
