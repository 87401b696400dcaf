//! Boxes: where they lie, how much two of them overlap, and what training makes of that.
//!
//! Boxes are `f32 [B, 4]`, in shares of the image's width and height, in one of two forms: *edges*
//! `(x0, y0, x1, y1)`, or *centres* `(cx, cy, w, h)`, which is what a network predicts. A source's
//! integers name the first and the last pixel of a box, so its edges are `(x0, y0, x1 + 1, y1 + 1)`
//! over the image's sides. Four zeros stand for an image without a box: what has no area is no box.

mod baseline;
mod score;

pub use baseline::Baseline;
pub use score::{Localisation, overlap};

use tch::{Reduction, Tensor};
use tinyres_load::Dataset;

use crate::Result;

/// Where smooth L1 turns from a square to a line, in shares of the image: that of torchvision's
/// region proposals, and small enough that most errors of a box lie on the line.
const BETA: f64 = 1.0 / 9.0;

/// Added to areas that are divided by, as `torchvision.ops.generalized_box_iou_loss` does.
const EPSILON: f64 = 1e-7;

/// The edges of every image's box in `data`, or four zeros.
///
/// # Errors
/// The boxes of a shard are not as they were written.
pub fn of(data: &Dataset) -> Result<Vec<[f32; 4]>> {
    let shape = data.shape();
    let edges = |image| Ok(edges(data.bbox(image)?, (shape.height, shape.width)));
    (0..data.len()).map(edges).collect()
}

/// The edges of a box of inclusive pixels in an image of `(height, width)` pixels; four zeros for
/// four times -1.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "shares of a side, rounded to f32"
)]
pub fn edges(pixels: [i32; 4], (height, width): (u32, u32)) -> [f32; 4] {
    let [x0, y0, x1, y1] = pixels.map(f64::from);
    if x1 < 0.0 {
        return [0.0; 4];
    }
    let (height, width) = (f64::from(height), f64::from(width));
    [
        x0 / width,
        y0 / height,
        (x1 + 1.0) / width,
        (y1 + 1.0) / height,
    ]
    .map(|edge| edge as f32)
}

/// Mean centre, width and height of the boxes among `edges`; `None` where there is no box.
#[must_use]
pub fn mean(edges: &[[f32; 4]]) -> Option<[f64; 4]> {
    let (mut sum, mut count) = ([0.0; 4], 0.0);
    for [x0, y0, x1, y1] in edges.iter().filter(|edges| is_box(edges)) {
        let [x0, y0, x1, y1] = [x0, y0, x1, y1].map(|&edge| f64::from(edge));
        let centres = [(x0 + x1) / 2.0, (y0 + y1) / 2.0, x1 - x0, y1 - y0];
        sum = std::array::from_fn(|part| sum[part] + centres[part]);
        count += 1.0;
    }
    (count > 0.0).then(|| sum.map(|sum| sum / count))
}

/// Whether `edges` have an area.
#[must_use]
pub fn is_box([x0, y0, x1, y1]: &[f32; 4]) -> bool {
    x0 < x1 && y0 < y1
}

/// Edges of `centres`, both `[B, 4]`.
///
/// # Errors
/// Only where libtorch fails.
pub fn to_edges(centres: &Tensor) -> Result<Tensor> {
    let (middle, size) = (centres.f_narrow(1, 0, 2)?, centres.f_narrow(1, 2, 2)?);
    let half = size.f_mul_scalar(0.5)?;
    Ok(Tensor::f_cat(
        &[middle.f_sub(&half)?, middle.f_add(&half)?],
        1,
    )?)
}

/// Centres of `edges`, both `[B, 4]`.
///
/// # Errors
/// Only where libtorch fails.
pub fn to_centres(edges: &Tensor) -> Result<Tensor> {
    let (low, high) = (edges.f_narrow(1, 0, 2)?, edges.f_narrow(1, 2, 2)?);
    let middle = low.f_add(&high)?.f_mul_scalar(0.5)?;
    Ok(Tensor::f_cat(&[middle, high.f_sub(&low)?], 1)?)
}

/// Intersection over union of each box of `a` with that of `b`, both edges `[B, 4]`: `[B]`, from 0
/// to 1.
///
/// # Errors
/// Only where libtorch fails.
pub fn iou(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (intersection, union) = overlap_areas(a, b)?;
    Ok(intersection.f_div(&union.f_add_scalar(EPSILON)?)?)
}

/// Generalised intersection over union (Rezatofighi et al. 2019) of each box of `a` with that of
/// `b`, both edges `[B, 4]`: `[B]`, from -1 to 1. With C the smallest box around both it is
/// `IoU - |C outside the union| / |C|`, which still has a slope where the two do not meet.
///
/// # Errors
/// Only where libtorch fails.
pub fn giou(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (intersection, union) = overlap_areas(a, b)?;
    let iou = intersection.f_div(&union.f_add_scalar(EPSILON)?)?;
    let low = a.f_narrow(1, 0, 2)?.f_minimum(&b.f_narrow(1, 0, 2)?)?;
    let high = a.f_narrow(1, 2, 2)?.f_maximum(&b.f_narrow(1, 2, 2)?)?;
    let around = area(&high.f_sub(&low)?)?;
    let outside = around.f_sub(&union)?;
    Ok(iou.f_sub(&outside.f_div(&around.f_add_scalar(EPSILON)?)?)?)
}

/// Areas of intersection and union, each `[B]`.
fn overlap_areas(a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
    let (a_low, a_high) = (a.f_narrow(1, 0, 2)?, a.f_narrow(1, 2, 2)?);
    let (b_low, b_high) = (b.f_narrow(1, 0, 2)?, b.f_narrow(1, 2, 2)?);
    let common = a_high
        .f_minimum(&b_high)?
        .f_sub(&a_low.f_maximum(&b_low)?)?;
    let intersection = area(&common.f_clamp_min(0)?)?;
    let both = area(&a_high.f_sub(&a_low)?)?.f_add(&area(&b_high.f_sub(&b_low)?)?)?;
    let union = both.f_sub(&intersection)?;
    Ok((intersection, union))
}

/// `[B]` of widths and heights `[B, 2]`.
fn area(size: &Tensor) -> Result<Tensor> {
    Ok(size.f_select(1, 0)?.f_mul(&size.f_select(1, 1)?)?)
}

/// How much the parts of the box loss weigh beside the cross-entropy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// Of smooth L1, summed over centre, width and height.
    pub smooth_l1: f64,
    /// Of 1 - [`giou`].
    pub giou: f64,
}

/// The loss of `predicted` boxes (centres `[B, 4]`) against `truth` (edges `[B, 4]`): smooth L1 of
/// centre, width and height (Girshick 2015) and 1 - GIoU, weighted, and averaged over the images
/// that have a box. 0 where none has.
///
/// # Errors
/// Only where libtorch fails.
pub fn loss(predicted: &Tensor, truth: &Tensor, weights: Weights) -> Result<Tensor> {
    let kind = predicted.kind();
    let target = to_centres(truth)?;
    let smooth_l1 = predicted
        .f_smooth_l1_loss(&target, Reduction::None, BETA)?
        .f_sum_dim_intlist(1, false, kind)?;
    let apart = giou(&to_edges(predicted)?, truth)?
        .f_neg()?
        .f_add_scalar(1)?;
    let each = smooth_l1
        .f_mul_scalar(weights.smooth_l1)?
        .f_add(&apart.f_mul_scalar(weights.giou)?)?;
    let has_box = area(&target.f_narrow(1, 2, 2)?)?.f_gt(0)?.f_to_kind(kind)?;
    let count = has_box.f_sum(kind)?.f_clamp_min(1)?;
    Ok(each.f_mul(&has_box)?.f_sum(kind)?.f_div(&count)?)
}
