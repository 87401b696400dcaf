//! The report on a network's boxes: their score on a split, next to those of constant boxes.

mod baseline;
mod truth;

use std::fmt;

use serde::Serialize;

use self::baseline::baselines;
use self::truth::{Truth, score};
use crate::net::boxes::is_box;

pub use baseline::Baseline;
pub use truth::{BoxScore, overlap};

/// The score of a network's boxes on a split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Localisation {
    /// Number of images that have a box. All scores are over these.
    pub images: usize,
    /// Score of the predicted boxes.
    #[serde(flatten)]
    pub score: BoxScore,
    /// Scores of constant boxes. Empty before [`compare`](Self::compare).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub baselines: Vec<Baseline>,
    #[serde(skip)]
    truth: Vec<Truth>,
}

impl Localisation {
    /// The score over all images of a split. For each image, in the same order: `truth` has the edges of its
    /// box, or four zeros; `class_right` whether the predicted class is right; `ious` the predicted
    /// box's IoU. `None` if no image has a box.
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

    /// Adds the scores of constant boxes. One is `mean`, the training split's mean box: centre x, centre y,
    /// width, height.
    pub fn compare(&mut self, mean: [f64; 4]) {
        self.baselines = baselines(&self.truth, mean);
    }
}

impl fmt::Display for Localisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let images = tinyres::text::counted(self.images, "image");
        let title = format!("boxes of {images}");
        write!(f, "{title:24}  mean IoU  IoU >= 0.5  top-1 loc")?;
        let baselines = self
            .baselines
            .iter()
            .map(|constant| (constant.name, constant.score));
        for (name, score) in std::iter::once(("predicted", self.score)).chain(baselines) {
            let (known, top1) = (100.0 * score.gt_known_loc, 100.0 * score.top1_loc);
            let iou = score.mean_iou;
            write!(f, "\n  {name:22}  {iou:8.3}  {known:9.2}%  {top1:8.2}%")?;
        }
        Ok(())
    }
}
