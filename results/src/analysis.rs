//! Everything that follows from one predictions file, computed once for pictures and reports.

use std::sync::Arc;

use tinyres_load::Dataset;

use crate::{
    Calibration, ClassFigures, Confused, Confusion, Duplicates, Logits, Predictions, Result,
    Suspect, by_class, suspects,
};

/// Predictions, and what follows from them.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// The predictions.
    pub predictions: Predictions,
    /// Their logits, if they were saved.
    pub logits: Option<Logits>,
    /// The confusion matrix.
    pub confusion: Confusion,
    /// The classes, those that are confused next to each other.
    pub order: Vec<u32>,
    /// The pairs of classes that are confused, the most often confused first.
    pub confused: Vec<Confused>,
    /// The figures of each class.
    pub classes: Vec<ClassFigures>,
    /// Calibration.
    pub calibration: Calibration,
    /// Labels that are probably wrong, the likeliest first. Empty without logits, and for a split that the network was
    /// trained on.
    pub suspects: Vec<Suspect>,
    /// Images that are there more than once, if they were looked for.
    pub duplicates: Option<Duplicates>,
}

impl Analysis {
    /// Analyses `predictions`. Duplicates are looked for in `sets`, the splits of their set, if there are any.
    ///
    /// # Errors
    /// Logits or pixels are damaged.
    pub fn new(predictions: Predictions, sets: &[Arc<Dataset>]) -> Result<Self> {
        let logits = predictions.logits()?;
        let confusion = Confusion::of(&predictions);
        let is_trained_on = predictions.origin.split == tinyres_format::Split::Train;
        let trusted = logits.as_ref().filter(|_| !is_trained_on);
        Ok(Self {
            order: confusion.order(&predictions, logits.as_ref()),
            confused: confusion.confused(),
            confusion,
            classes: by_class(&predictions),
            calibration: Calibration::of(&predictions),
            suspects: trusted.map_or_else(Vec::new, |logits| suspects(&predictions, logits)),
            duplicates: match sets {
                [] => None,
                sets => Some(Duplicates::find(sets)?),
            },
            logits,
            predictions,
        })
    }

    /// The mistakes, those of the highest confidence first.
    #[must_use]
    pub fn mistakes(&self) -> Vec<usize> {
        let predictions = &self.predictions;
        let mut wrong: Vec<_> = (0..predictions.len())
            .filter(|&row| !predictions.is_right(row))
            .collect();
        let confidence = &predictions.confidence;
        wrong.sort_by(|&a, &b| confidence[b].total_cmp(&confidence[a]).then(a.cmp(&b)));
        wrong
    }

    /// First word of the name of a class: of a list of synonyms the first, or the identifier if there is no name.
    #[must_use]
    pub fn word(&self, class: u32) -> &str {
        match self.predictions.origin.classes.get(class as usize) {
            Some(class) if class.name.is_empty() => &class.id,
            Some(class) => class.name.split(',').next().unwrap_or(&class.name),
            None => "?",
        }
    }
}
