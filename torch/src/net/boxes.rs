//! Boxes: their coordinates, the overlap of two boxes, and the loss. The head that predicts boxes is in
//! `box_head`, and the scores of boxes in `infer::box_score`.
//!
//! Boxes are `f32 [B, 4]`, as fractions of the image's width and height, in one of two forms: *edges*
//! `(x0, y0, x1, y1)`, or *centres* `(cx, cy, w, h)`, which a network predicts. A source gives the first
//! and the last pixel of a box, both inclusive, so its edges are `(x0, y0, x1 + 1, y1 + 1)` divided by the
//! image's sides. An image without a box has four zeros: a box has an area.

use tch::{Kind, Reduction, Tensor};
use tinyres_load::Dataset;

use crate::Result;
use crate::num::to_f32;

/// Error at which smooth L1 changes from a square to a line, as a fraction of the image. It is that of
/// torchvision's region proposals, and so small that most errors are on the line.
const BETA: f64 = 1.0 / 9.0;

/// Added to areas before dividing by them, as in `torchvision.ops.generalized_box_iou_loss`.
const EPSILON: f64 = 1e-7;

/// The edges of every image's box in `data`, or four zeros.
///
/// # Errors
/// The boxes of a shard do not have the checksum that was written.
pub fn of(data: &Dataset) -> Result<Vec<[f32; 4]>> {
    let shape = data.shape();
    let edges = |image| Ok(edges(data.bbox(image)?, (shape.height, shape.width)));
    (0..data.len()).map(edges).collect()
}

/// The edges of a box of inclusive pixels in an image of `(height, width)` pixels; four zeros for
/// four times -1.
#[must_use]
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
    .map(to_f32)
}

/// Mean centre x, centre y, width and height of the boxes among `edges`. `None` if there are none.
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

/// True if `edges` have an area.
#[must_use]
pub fn is_box([x0, y0, x1, y1]: &[f32; 4]) -> bool {
    x0 < x1 && y0 < y1
}

/// Converts centres to edges, both `[B, 4]`.
pub fn to_edges(centres: &Tensor) -> Result<Tensor> {
    let (middle, size) = (centres.f_narrow(1, 0, 2)?, centres.f_narrow(1, 2, 2)?);
    let half = size.f_mul_scalar(0.5)?;
    Ok(Tensor::f_cat(
        &[middle.f_sub(&half)?, middle.f_add(&half)?],
        1,
    )?)
}

/// Converts edges to centres, both `[B, 4]`.
pub fn to_centres(edges: &Tensor) -> Result<Tensor> {
    let (low, high) = (edges.f_narrow(1, 0, 2)?, edges.f_narrow(1, 2, 2)?);
    let middle = low.f_add(&high)?.f_mul_scalar(0.5)?;
    Ok(Tensor::f_cat(&[middle, high.f_sub(&low)?], 1)?)
}

/// Intersection over union of each box of `a` with the one of `b` in the same row: `[B]`, from 0 to 1. Both
/// are edges, `[B, 4]`.
pub fn iou(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (intersection, union) = overlap_areas(a, b)?;
    Ok(intersection.f_div(&union.f_add_scalar(EPSILON)?)?)
}

/// Generalised intersection over union (Rezatofighi et al. 2019) of each box of `a` with the one of `b` in
/// the same row: `[B]`, from -1 to 1. Both are edges, `[B, 4]`.
///
/// `GIoU = IoU - (|C| - |union|) / |C|`, where C is the smallest box around both. Unlike IoU it has a
/// gradient where the two do not intersect.
pub fn giou(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (intersection, union) = overlap_areas(a, b)?;
    let iou = intersection.f_div(&union.f_add_scalar(EPSILON)?)?;
    let low = a.f_narrow(1, 0, 2)?.f_minimum(&b.f_narrow(1, 0, 2)?)?;
    let high = a.f_narrow(1, 2, 2)?.f_maximum(&b.f_narrow(1, 2, 2)?)?;
    let enclosing = area(&high.f_sub(&low)?)?;
    let outside = enclosing.f_sub(&union)?;
    Ok(iou.f_sub(&outside.f_div(&enclosing.f_add_scalar(EPSILON)?)?)?)
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

/// Areas, `[B]`, from widths and heights, `[B, 2]`.
fn area(size: &Tensor) -> Result<Tensor> {
    Ok(size.f_select(1, 0)?.f_mul(&size.f_select(1, 1)?)?)
}

/// Weights of the parts of the box loss. The cross-entropy, to which it is added, has weight 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// Weight of smooth L1, summed over centre x, centre y, width and height.
    pub smooth_l1: f64,
    /// Weight of 1 - [`giou`].
    pub giou: f64,
}

/// The loss of `predicted` boxes (centres, `[B, 4]`) against `truth` (edges, `[B, 4]`), a scalar: the weighted
/// sum of smooth L1 (Girshick 2015) and 1 - GIoU, averaged over the images that have a box. 0 if none has.
pub fn loss(predicted: &Tensor, truth: &Tensor, weights: Weights) -> Result<Tensor> {
    let kind = predicted.kind();
    let target = to_centres(truth)?;
    let smooth_l1 = predicted
        .f_smooth_l1_loss(&target, Reduction::None, BETA)?
        .f_sum_dim_intlist(1, false, kind)?;
    let one_minus_giou = giou(&to_edges(predicted)?, truth)?
        .f_neg()?
        .f_add_scalar(1)?;
    let each = smooth_l1
        .f_mul_scalar(weights.smooth_l1)?
        .f_add(&one_minus_giou.f_mul_scalar(weights.giou)?)?;
    let has_box = has_area(&target)?.f_to_kind(kind)?;
    let count = has_box.f_sum(kind)?.f_clamp_min(1)?;
    Ok(each.f_mul(&has_box)?.f_sum(kind)?.f_div(&count)?)
}

/// The number of boxes among `edges`, `[B, 4]`.
pub fn count(edges: &Tensor) -> Result<i64> {
    let has_box = has_area(&to_centres(edges)?)?;
    Ok(has_box.f_sum(Kind::Int64)?.f_int64_value(&[])?)
}

/// True for each of the boxes `centres`, `[B, 4]`, that has an area: `[B]`.
fn has_area(centres: &Tensor) -> Result<Tensor> {
    Ok(area(&centres.f_narrow(1, 2, 2)?)?.f_gt(0)?)
}
