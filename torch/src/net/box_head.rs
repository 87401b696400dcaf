//! The head that predicts an image's box from the network's last feature map. Boxes are centre x, centre y,
//! width and height, as fractions of the image's sides. `boxes` has the loss.

use tch::{Kind, Tensor};

use super::Role;
use super::layers::{BatchNorm, Conv, Maker, zeros};
use crate::Result;

/// Prefix of the names of the head's tensors. No tensor of torchvision's network has it.
pub(crate) const PREFIX: &str = "box_head.";

/// Channels after the 1x1 convolution.
const CHANNELS: i64 = 128;
/// Cells along each side of the grid that the map is pooled to, whatever its size.
const GRID: i64 = 2;
/// Scale of the inputs of the linear layer. They are `CHANNELS * GRID^2 = 512` and mostly positive, so an
/// SGD step moves the output by about `SCALE^2`: with 1 it overshoots at the classifier's learning rate.
const SCALE: f64 = 0.125;
/// Each value of the mean box is kept this far from 0 and 1, where a sigmoid has no slope.
const MARGIN: f64 = 1e-3;

/// The box head:
///
/// ```text
/// cells = avg_pool(relu(norm(conv1x1(features))), GRID x GRID)
/// box   = sigmoid(logit(mean) + linear(SCALE * cells))
/// ```
///
/// The linear layer starts at 0, so an untrained head predicts the mean box for every image.
#[derive(Debug)]
pub(super) struct BoxHead {
    conv: Conv,
    norm: BatchNorm,
    linear: (Tensor, Tensor),
    mean: Tensor,
}

impl BoxHead {
    /// A head for feature maps of `inputs` channels.
    pub(super) fn new(make: &mut Maker, inputs: i64) -> Result<Self> {
        let name = |part: &str| format!("{PREFIX}{part}");
        let conv = make.conv(&name("conv"), inputs, CHANNELS, 1, 1)?;
        let norm = make.batch_norm(&name("norm"), CHANNELS)?;
        let cells = CHANNELS * GRID * GRID;
        Ok(Self {
            conv,
            norm,
            linear: (
                make.add(name("linear.weight"), Role::Weight, || zeros(&[4, cells]))?,
                make.add(name("linear.bias"), Role::NoDecay, || zeros(&[4]))?,
            ),
            mean: make.add(
                name("mean"),
                Role::Buffer,
                || Ok(zeros(&[4])?.f_fill_(0.5)?),
            )?,
        })
    }

    /// The mean box, `f32 [4]`, by a handle.
    pub(super) fn mean(&self) -> Tensor {
        self.mean.shallow_clone()
    }

    /// Boxes, `f32 [B, 4]`, from feature maps `[B, inputs, h, w]`.
    pub(super) fn forward(&self, features: &Tensor, train: bool) -> Result<Tensor> {
        let map = self.conv.forward(features)?;
        let map = self.norm.forward_relu(&map, None, train)?;
        let cells = map
            .f_adaptive_avg_pool2d([GRID, GRID])?
            .f_flatten(1, -1)?
            .f_mul_scalar(SCALE)?;
        let (weight, bias) = &self.linear;
        // The maps may be bfloat16, as in the classifier.
        let cells = cells.f_to_kind(weight.kind())?;
        let offset = cells.f_linear(weight, Some(bias))?.f_to_kind(Kind::Float)?;
        Ok(offset.f_add(&self.mean.f_logit(MARGIN)?)?.f_sigmoid()?)
    }
}
