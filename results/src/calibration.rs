//! Calibration: whether predictions of a confidence are right as often as that.

use crate::Predictions;

/// Bins of confidence, as many as Guo et al. 2017 use.
pub const BINS: usize = 15;

/// Predictions by their confidence.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// [`BINS`] bins of equal width from 0 to 1. A bin has its upper edge, and not its lower one.
    pub bins: Vec<Bin>,
    /// Expected calibration error: the mean over all images of `|accuracy - confidence|` of their bin (Guo et al.
    /// 2017, equation 3).
    pub expected_error: f64,
    /// Mean confidence of all images.
    pub confidence: f64,
    /// Fraction of all images that are right.
    pub accuracy: f64,
}

/// The predictions of a bin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bin {
    /// Images in it.
    pub images: u32,
    /// Their mean confidence; 0 without images.
    pub confidence: f64,
    /// Fraction of them that are right; 0 without images.
    pub accuracy: f64,
}

impl Calibration {
    /// The calibration of `predictions`. Confidences that are not numbers are left out.
    #[must_use]
    pub fn of(predictions: &Predictions) -> Self {
        let mut bins = [Bin::default(); BINS];
        let mut all = Bin::default();
        for (row, &confidence) in predictions.confidence.iter().enumerate() {
            if confidence.is_nan() {
                continue;
            }
            let right = f64::from(u8::from(predictions.is_right(row)));
            let confidence = f64::from(confidence);
            let at = (1..BINS).find(|&bin| confidence <= bin as f64 / BINS as f64);
            for bin in [&mut bins[at.unwrap_or(BINS) - 1], &mut all] {
                bin.images += 1;
                bin.confidence += confidence;
                bin.accuracy += right;
            }
        }
        let total = f64::from(all.images.max(1));
        let gap = |bin: &Bin| (bin.accuracy - bin.confidence).abs() / total;
        let expected_error = bins.iter().map(gap).sum();
        for bin in &mut bins {
            let images = f64::from(bin.images.max(1));
            bin.confidence /= images;
            bin.accuracy /= images;
        }
        Self {
            bins: bins.to_vec(),
            expected_error,
            confidence: all.confidence / total,
            accuracy: all.accuracy / total,
        }
    }
}
