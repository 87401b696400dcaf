//! How well boxes are found.

use std::fmt;

use serde::Serialize;
use tinyres::event::BoxScore;

use super::baseline::{Baseline, baselines};
use super::is_box;

/// Overlap from which on a box counts as found, as in the localisation task of ImageNet.
const FOUND: f64 = 0.5;

/// How a network's boxes do on a split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Localisation {
    /// Images that have a box: all figures are over these.
    pub images: usize,
    /// Of the predicted boxes.
    #[serde(flatten)]
    pub score: BoxScore,
    /// What boxes that do not look at the image reach, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub baselines: Vec<Baseline>,
    #[serde(skip)]
    truth: Vec<Truth>,
}

/// What an image's box is, and whether the network knew its class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Truth {
    pub edges: [f32; 4],
    pub class_right: bool,
}

impl Localisation {
    /// From the `truth` of every image (edges, or four zeros), and whether the likeliest class was
    /// right and how much the predicted box overlaps it. `None` where no image has a box.
    #[must_use]
    pub fn new(truth: &[[f32; 4]], class_right: &[bool], ious: &[f64]) -> Option<Self> {
        let all = truth.iter().zip(class_right).zip(ious);
        let (truth, ious): (Vec<_>, Vec<_>) = all
            .filter(|((edges, _), _)| is_box(edges))
            .map(|((&edges, &class_right), &iou)| (Truth { edges, class_right }, iou))
            .unzip();
        (!truth.is_empty()).then(|| Self {
            images: truth.len(),
            score: score(&truth, ious),
            baselines: Vec::new(),
            truth,
        })
    }

    /// Adds what constant boxes reach, among them `mean`, the mean box of the training split
    /// (centre, width and height).
    pub fn compare(&mut self, mean: [f64; 4]) {
        self.baselines = baselines(&self.truth, mean);
    }
}

impl fmt::Display for Localisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let images = tinyres::text::Count(self.images as u64);
        let title = format!("boxes of {images} images");
        write!(f, "{title:24}  mean IoU  IoU >= 0.5  top-1 loc")?;
        let baselines = self.baselines.iter().map(|own| (own.name, own.score));
        for (name, score) in std::iter::once(("predicted", self.score)).chain(baselines) {
            let (known, top1) = (100.0 * score.gt_known_loc, 100.0 * score.top1_loc);
            let iou = score.mean_iou;
            write!(f, "\n  {name:22}  {iou:8.3}  {known:9.2}%  {top1:8.2}%")?;
        }
        Ok(())
    }
}

pub(super) fn score(truth: &[Truth], ious: impl IntoIterator<Item = f64>) -> BoxScore {
    let (mut sum, mut found, mut both) = (0.0, 0, 0);
    for (truth, iou) in truth.iter().zip(ious) {
        sum += iou;
        found += usize::from(iou >= FOUND);
        both += usize::from(iou >= FOUND && truth.class_right);
    }
    let images = real(truth.len());
    BoxScore {
        mean_iou: sum / images,
        gt_known_loc: real(found) / images,
        top1_loc: real(both) / images,
    }
}

/// Intersection over union of two boxes that have an area, each as edges.
#[must_use]
pub fn overlap(a: [f64; 4], b: [f64; 4]) -> f64 {
    let area =
        |low: [f64; 2], high: [f64; 2]| (high[0] - low[0]).max(0.0) * (high[1] - low[1]).max(0.0);
    let both = area(
        [a[0].max(b[0]), a[1].max(b[1])],
        [a[2].min(b[2]), a[3].min(b[3])],
    );
    let own = |of: [f64; 4]| area([of[0], of[1]], [of[2], of[3]]);
    both / (own(a) + own(b) - both)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of images are below 2^53"
)]
fn real(count: usize) -> f64 {
    count as f64
}
