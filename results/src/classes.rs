//! How well each class is recognised.

use crate::Predictions;

/// The figures of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClassFigures {
    /// Images labelled with it.
    pub images: u32,
    /// Images predicted as it.
    pub predicted: u32,
    /// Images that are both.
    pub right: u32,
}

impl ClassFigures {
    /// Fraction of its images that are predicted as it: its recall, or top-1. NaN without images.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        f64::from(self.right) / f64::from(self.images)
    }

    /// Fraction of the images predicted as it that are its own. NaN if there are none.
    #[must_use]
    pub fn precision(&self) -> f64 {
        f64::from(self.right) / f64::from(self.predicted)
    }
}

/// The figures of all classes, in label order.
#[must_use]
pub fn by_class(predictions: &Predictions) -> Vec<ClassFigures> {
    let mut classes = vec![ClassFigures::default(); predictions.classes()];
    for (&label, &predicted) in predictions.label.iter().zip(&predictions.predicted) {
        classes[label as usize].images += 1;
        classes[predicted as usize].predicted += 1;
        classes[label as usize].right += u32::from(label == predicted);
    }
    classes
}
