//! What predicts an image's box from the network's last feature map.

use tch::{Kind, Tensor};

use super::Role;
use super::layers::{BatchNorm, Conv, Maker, zeros};
use crate::Result;

/// Channels of the map that positions are read from.
const CHANNELS: i64 = 128;
/// Cells a side of the grid that a map of any size is brought to.
const GRID: i64 = 2;
/// Of what the linear layer reads. Its inputs are many and above zero on average, so that with the
/// classifier's learning rate its steps would overshoot: they grow with the square of this.
const SCALE: f64 = 0.125;
/// A side of the mean box counts as at least so far from 0 and 1, where a sigmoid has no slope.
const MARGIN: f64 = 1e-3;

/// Reads a box from where things are in a feature map: a 1x1 convolution keeps the map's places
/// apart, its average over each cell of a grid makes it of one size, and what a linear layer makes
/// of all cells is added to the mean box before the sigmoid. Starts as the mean box, whatever it sees.
#[derive(Debug)]
pub(super) struct BoxHead {
    conv: Conv,
    norm: BatchNorm,
    linear: (Tensor, Tensor),
    mean: Tensor,
}

impl BoxHead {
    /// Its tensors are named `box_head.*`, which no network of torchvision's has.
    pub(super) fn new(make: &mut Maker, inputs: i64) -> Result<Self> {
        let conv = make.conv("box_head.conv", inputs, CHANNELS, 1, 1)?;
        let norm = make.batch_norm("box_head.norm", CHANNELS)?;
        let weight = zeros(&[4, CHANNELS * GRID * GRID])?;
        let middle = zeros(&[4])?.f_fill_(0.5)?;
        Ok(Self {
            conv,
            norm,
            linear: (
                make.add("box_head.linear.weight".to_owned(), &weight, Role::Weight)?,
                make.add(
                    "box_head.linear.bias".to_owned(),
                    &zeros(&[4])?,
                    Role::Plain,
                )?,
            ),
            mean: make.add("box_head.mean".to_owned(), &middle, Role::Buffer)?,
        })
    }

    /// The box that it starts at: centre, width and height, `f32 [4]`.
    pub(super) fn mean(&self) -> Tensor {
        self.mean.shallow_clone()
    }

    /// Boxes `f32 [B, 4]`: centre, width and height, of feature maps `[B, inputs, h, w]`.
    pub(super) fn forward(&self, features: &Tensor, train: bool) -> Result<Tensor> {
        let map = self.conv.forward(features)?;
        let map = self.norm.forward_relu(&map, None, train)?;
        let cells = map
            .f_adaptive_avg_pool2d([GRID, GRID])?
            .f_flatten(1, -1)?
            .f_mul_scalar(SCALE)?;
        let (weight, bias) = &self.linear;
        // As in the classifier: the maps may be bfloat16.
        let cells = cells.f_to_kind(weight.kind())?;
        let moved = cells.f_linear(weight, Some(bias))?.f_to_kind(Kind::Float)?;
        Ok(moved.f_add(&self.mean.f_logit(MARGIN)?)?.f_sigmoid()?)
    }
}
