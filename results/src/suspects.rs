//! Images whose labels are probably wrong, by confident learning (Northcutt, Jiang and Chuang 2021).
//!
//! A class's threshold is the mean probability of the class over the images labelled with it. An image counts as one of
//! the class whose threshold its probability reaches (the likeliest of them, if there are several). If that is not the
//! label, nor the label is the likeliest class, the label is suspected. These are the off-diagonal elements of the
//! confident joint; cleanlab finds the same by `find_label_issues(filter_by="confident_learning")`.
//!
//! The probabilities must be those of a network that has not been trained on the images.

use crate::{Logits, Predictions};

/// Distance below a threshold that still counts as reaching it, as in cleanlab.
const SLACK: f64 = 1e-6;

/// A label that is probably wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suspect {
    /// The image.
    pub row: usize,
    /// The class that it probably has.
    pub class: u32,
    /// Probability of its label: the lower, the likelier the label is wrong.
    pub label_prob: f64,
}

/// The suspected labels of `predictions`, the likeliest first. `logits` are those of the same images.
#[must_use]
pub fn suspects(predictions: &Predictions, logits: &Logits) -> Vec<Suspect> {
    let labels = &predictions.label;
    let classes = logits.classes();
    let (mut sums, mut images) = (vec![0.0; classes], vec![0_u32; classes]);
    for (row, &label) in labels.iter().enumerate() {
        let own = logits.probabilities(row).nth(label as usize);
        sums[label as usize] += own.unwrap_or(0.0);
        images[label as usize] += 1;
    }
    let threshold = |class: usize| match images[class] {
        // None reaches that of a class without images.
        0 => f64::INFINITY,
        images => sums[class] / f64::from(images) - SLACK,
    };
    let thresholds: Vec<f64> = (0..classes).map(threshold).collect();
    let suspect = |(row, &label): (usize, &u32)| {
        let (mut likeliest, mut confident, mut reached) = ((0.0, 0), 0, 0);
        let mut label_prob = 0.0;
        for (class, probability) in (0..).zip(logits.probabilities(row)) {
            if probability > likeliest.0 {
                likeliest = (probability, class);
            }
            if class == label {
                label_prob = probability;
            }
            if probability >= thresholds[class as usize] {
                reached += 1;
                if reached == 1 {
                    confident = class;
                }
            }
        }
        let class = match reached {
            0 => return None,
            1 => confident,
            _ => likeliest.1,
        };
        let is_likeliest = label_prob + SLACK > likeliest.0;
        (class != label && !is_likeliest).then_some(Suspect {
            row,
            class,
            label_prob,
        })
    };
    let mut suspects: Vec<_> = labels.iter().enumerate().filter_map(suspect).collect();
    suspects.sort_by(|a, b| {
        a.label_prob
            .total_cmp(&b.label_prob)
            .then(a.row.cmp(&b.row))
    });
    suspects
}
