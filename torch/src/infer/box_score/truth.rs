//! The scores of boxes against those of a split's images. Which boxes they are is the callers' matter.

use std::fmt;

use serde::Serialize;

/// IoU from which on a box counts as found, as in ImageNet's localisation task.
const FOUND: f64 = 0.5;

/// Scores of boxes on a split, over the images that have a box.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BoxScore {
    /// Mean intersection over union with the image's box, 0 to 1.
    pub mean_iou: f64,
    /// Localisation accuracy with known class: fraction of the images whose intersection over union is
    /// at least 0.5.
    pub gt_known_loc: f64,
    /// Top-1 localisation accuracy: as above, and the likeliest class is right.
    pub top1_loc: f64,
}

impl fmt::Display for BoxScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (known, top1) = (100.0 * self.gt_known_loc, 100.0 * self.top1_loc);
        let iou = self.mean_iou;
        write!(
            f,
            "mean IoU {iou:.3}  IoU >= 0.5 {known:5.2}%  top-1 loc {top1:5.2}%"
        )
    }
}

/// An image's box, and whether the network predicted its class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Truth {
    pub edges: [f32; 4],
    pub class_right: bool,
}

/// The score of boxes that overlap those of `truth` by `ious`, in the same order.
pub(super) fn score(truth: &[Truth], ious: impl IntoIterator<Item = f64>) -> BoxScore {
    let (mut sum, mut found, mut both) = (0.0, 0, 0);
    for (truth, iou) in truth.iter().zip(ious) {
        sum += iou;
        found += usize::from(iou >= FOUND);
        both += usize::from(iou >= FOUND && truth.class_right);
    }
    let images = truth.len() as f64;
    BoxScore {
        mean_iou: sum / images,
        gt_known_loc: found as f64 / images,
        top1_loc: both as f64 / images,
    }
}

/// Intersection over union of two boxes, given as edges. Both must have an area.
#[must_use]
pub fn overlap(a: [f64; 4], b: [f64; 4]) -> f64 {
    let area =
        |low: [f64; 2], high: [f64; 2]| (high[0] - low[0]).max(0.0) * (high[1] - low[1]).max(0.0);
    let intersection = area(
        [a[0].max(b[0]), a[1].max(b[1])],
        [a[2].min(b[2]), a[3].min(b[3])],
    );
    let area_of = |edges: [f64; 4]| area([edges[0], edges[1]], [edges[2], edges[3]]);
    intersection / (area_of(a) + area_of(b) - intersection)
}
