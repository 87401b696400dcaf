//! The layers of the network: convolution, batch norm and residual block, and `Maker`, which draws their
//! initial values. On a CPU they use the shim's kernels, and on a GPU libtorch's.

use tch::{Device, Kind, Tensor};

use super::{NamedTensor, Role};
use crate::Result;
use crate::libtorch::ffi;

/// Weight of the newest batch in the running statistics: the `momentum` of PyTorch's `BatchNorm2d`.
pub(crate) const STATISTICS_MOMENTUM: f64 = 0.1;
/// The `eps` of PyTorch's `BatchNorm2d`.
pub(crate) const EPSILON: f64 = 1e-5;

/// A convolution without bias; its padding keeps the size of the map at stride 1.
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

/// A batch normalisation. All its tensors are `f32 [C]`.
#[derive(Debug)]
pub(super) struct BatchNorm {
    pub(super) weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    /// Weight of the newest batch in the running statistics.
    momentum: f64,
}

impl BatchNorm {
    /// `norm(x)`.
    pub(super) fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        match train && x.device() == Device::Cpu {
            true => self.fused(x, None, false),
            false => self.by_libtorch(x, train),
        }
    }

    /// `relu(norm(x) + shortcut)`.
    pub(super) fn forward_relu(
        &self,
        x: &Tensor,
        shortcut: Option<&Tensor>,
        train: bool,
    ) -> Result<Tensor> {
        if train && x.device() == Device::Cpu {
            return self.fused(x, shortcut, true);
        }
        let mut y = self.by_libtorch(x, train)?;
        if let Some(shortcut) = shortcut {
            let _ = y.f_add_(shortcut)?;
        }
        Ok(y.f_relu_()?)
    }

    /// The shim's kernel, for training on a CPU.
    fn fused(&self, x: &Tensor, shortcut: Option<&Tensor>, relu: bool) -> Result<Tensor> {
        let norm = [&self.weight, &self.bias, &self.mean, &self.variance];
        ffi::batch_norm(x, norm, shortcut, relu, self.momentum, EPSILON)
    }

    fn by_libtorch(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        Ok(x.f_batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.mean),
            Some(&self.variance),
            train,
            self.momentum,
            EPSILON,
            true,
        )?)
    }
}

/// torchvision's `BasicBlock`: two 3x3 convolutions and a shortcut. `downsample` halves the shortcut where
/// the block has stride 2.
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
            .forward_relu(&self.conv1.forward(x)?, None, train)?;
        let inner = self.conv2.forward(&inner)?;
        self.bn2.forward_relu(&inner, Some(&shortcut), train)
    }
}

/// Origin of the tensors of a network.
pub(super) enum Origin<'a> {
    /// torchvision's initial values, on this device.
    Drawn(Device),
    /// Views of the tensors of another network of the same variant, except those for which the function holds:
    /// these are new, and 0.
    Views(&'a [NamedTensor], &'a dyn Fn(&NamedTensor) -> bool),
}

/// Makes layers, in torchvision's order, and lists their tensors.
pub(super) struct Maker<'a> {
    pub(super) named: Vec<NamedTensor>,
    origin: Origin<'a>,
    /// Momentum of the normalisations.
    momentum: f64,
}

impl<'a> Maker<'a> {
    pub(super) fn new(origin: Origin<'a>, momentum: f64) -> Self {
        Self {
            named: Vec::new(),
            origin,
            momentum,
        }
    }

    /// Makes the next tensor, and lists it. One that is drawn is moved to the device, channels last if it has four
    /// dimensions.
    pub(super) fn add(
        &mut self,
        name: String,
        role: Role,
        draw: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (tensor, role) = match self.origin {
            Origin::Drawn(device) => {
                let tensor = draw()?.f_to_device(device)?;
                match tensor.dim() {
                    4 => (ffi::channels_last(&tensor)?, role),
                    _ => (tensor, role),
                }
            }
            Origin::Views(all, is_new) => {
                let named = &all[self.named.len()];
                debug_assert_eq!(named.name, name, "the order of the other network");
                match is_new(named) {
                    true => (named.tensor.f_zeros_like()?, named.role),
                    false => (named.tensor.f_detach()?, named.role),
                }
            }
        };
        let tensor = tensor.f_set_requires_grad(role != Role::Buffer)?;
        self.named.push(NamedTensor {
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
        // kaiming_normal_(mode="fan_out", nonlinearity="relu"): std = sqrt(2 / fan_out).
        let std = (2.0 / (outputs * size * size) as f64).sqrt();
        let draw = || Ok(zeros(&[outputs, inputs, size, size])?.f_normal_(0.0, std)?);
        let weight = self.add(format!("{name}.weight"), Role::Weight, draw)?;
        Ok(Conv { weight, stride })
    }

    pub(super) fn batch_norm(&mut self, name: &str, channels: i64) -> Result<BatchNorm> {
        let momentum = self.momentum;
        let mut constant = |part: &str, value: f64, role| {
            let draw = || Ok(zeros(&[channels])?.f_fill_(value)?);
            self.add(format!("{name}.{part}"), role, draw)
        };
        Ok(BatchNorm {
            momentum,
            weight: constant("weight", 1.0, Role::NoDecay)?,
            bias: constant("bias", 0.0, Role::NoDecay)?,
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
        // nn.Linear: both uniform within 1 / sqrt(fan_in).
        let bound = 1.0 / (inputs as f64).sqrt();
        let draw = |dims: &[i64]| Ok(zeros(dims)?.f_uniform_(-bound, bound)?);
        Ok((
            self.add(format!("{name}.weight"), Role::Weight, || {
                draw(&[outputs, inputs])
            })?,
            self.add(format!("{name}.bias"), Role::NoDecay, || draw(&[outputs]))?,
        ))
    }
}

pub(super) fn zeros(dims: &[i64]) -> Result<Tensor> {
    Ok(Tensor::f_zeros(dims, (Kind::Float, Device::Cpu))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input, shortcut, weight, bias, running mean and running variance.
    fn leaves(n: i64, c: i64, h: i64, w: i64, kind: Kind) -> [Tensor; 6] {
        let random = |dims: &[i64]| Tensor::randn(dims, (Kind::Float, Device::Cpu));
        // Far from 0, where a difference of sums of squares cancels most.
        let x = random(&[n, c, h, w]) * 2 + random(&[1, c, 1, 1]) * 20;
        let maps =
            [x, random(&[n, c, h, w])].map(|t| ffi::channels_last(&t).unwrap().to_kind(kind));
        let [x, shortcut] = maps;
        let variance = random(&[c]).square();
        [
            x,
            shortcut,
            random(&[c]),
            random(&[c]),
            random(&[c]),
            variance,
        ]
    }

    /// Output, gradients of input, shortcut, weight and bias, and the running statistics, as `f64`.
    fn passes(
        leaves: &[Tensor; 6],
        kinds: [Kind; 2],
        (shortcut, relu): (bool, bool),
        pull: &Tensor,
        by: impl Fn(&BatchNorm, &Tensor, Option<&Tensor>) -> Tensor,
    ) -> Vec<Tensor> {
        let [maps, channels] = kinds;
        let leaf = |at: usize, kind, trained| {
            let copy = tch::no_grad(|| leaves[at].to_kind(kind).copy());
            copy.set_requires_grad(trained)
        };
        let (x, addend) = (leaf(0, maps, true), leaf(1, maps, true));
        let norm = BatchNorm {
            weight: leaf(2, channels, true),
            bias: leaf(3, channels, true),
            mean: leaf(4, channels, false),
            variance: leaf(5, channels, false),
            momentum: STATISTICS_MOMENTUM,
        };
        let y = by(&norm, &x, shortcut.then_some(&addend));
        (y.to_kind(Kind::Double) * pull)
            .sum(Kind::Double)
            .backward();
        assert_eq!(y.kind(), maps, "shortcut {shortcut}, ReLU {relu}");
        let mut passes = vec![y.detach(), x.grad(), norm.weight.grad(), norm.bias.grad()];
        passes.extend([norm.mean, norm.variance]);
        if shortcut {
            passes.push(addend.grad());
        }
        passes.iter().map(|t| t.to_kind(Kind::Double)).collect()
    }

    #[test]
    fn fused_batch_norm_matches_libtorch_in_f64() {
        tch::manual_seed(1);
        for (n, c, h, w) in [(8, 3, 2, 1), (6, 64, 4, 4), (5, 17, 9, 7), (3, 128, 16, 16)] {
            for (kind, most) in [(Kind::Float, 2e-5), (Kind::BFloat16, 1e-2)] {
                let leaves = leaves(n, c, h, w, kind);
                let pull = Tensor::randn_like(&leaves[0]).to_kind(Kind::Double);
                for how in [(false, false), (false, true), (true, true)] {
                    let (shortcut, relu) = how;
                    let theirs = |pull: &Tensor, relu: bool| {
                        let how = (shortcut, relu);
                        passes(
                            &leaves,
                            [Kind::Double; 2],
                            how,
                            pull,
                            |norm, x, shortcut| {
                                let mut y = norm.by_libtorch(x, true).unwrap();
                                if let Some(shortcut) = shortcut {
                                    y += shortcut;
                                }
                                if relu { y.relu() } else { y }
                            },
                        )
                    };
                    // Compares no gradient where rounding decides the ReLU's mask.
                    let pull = &pull * theirs(&pull, false)[0].abs().gt(1e-3);
                    let ours = [kind, Kind::Float];
                    let ours = passes(&leaves, ours, how, &pull, |norm, x, shortcut| {
                        norm.fused(x, shortcut, relu).unwrap()
                    });
                    let theirs = theirs(&pull, relu);
                    for (pass, (got, want)) in ours.iter().zip(&theirs).enumerate() {
                        let norm = |t: &Tensor| t.norm().double_value(&[]);
                        let (off, size) = (norm(&(want - got)), norm(want));
                        assert!(
                            off <= most * size,
                            "{pass} of {n}x{c}x{h}x{w} in {kind:?}, {how:?}: {off:.1e} of {size:.1e}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn nan_survives_batch_norm() {
        let leaves = leaves(4, 3, 2, 2, Kind::Float);
        let _ = leaves[0].get(1).get(2).fill_(f64::NAN);
        let [x, _, weight, bias, mean, variance] = leaves;
        let norm = BatchNorm {
            weight,
            bias,
            mean,
            variance,
            momentum: STATISTICS_MOMENTUM,
        };
        let y = norm.fused(&x, None, true).unwrap();
        let lost = y
            .isnan()
            .sum_dim_intlist([0, 2, 3].as_slice(), false, Kind::Int64);
        assert_eq!(Vec::<i64>::try_from(lost).unwrap(), [0, 0, 16]);
    }

    #[test]
    fn one_value_a_channel_is_refused() {
        let [x, _, weight, bias, mean, variance] = leaves(1, 3, 1, 1, Kind::Float);
        let norm = BatchNorm {
            weight,
            bias,
            mean,
            variance,
            momentum: STATISTICS_MOMENTUM,
        };
        let error = norm.fused(&x, None, true).unwrap_err().to_string();
        assert!(error.contains("has no variance"), "{error}");
    }
}
