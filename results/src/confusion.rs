//! The confusion matrix: how often an image of each class is predicted as each class, and an order of the classes in
//! which those that are confused lie next to each other.

use std::collections::BTreeMap;

use kodama::{Method, linkage};

use crate::num::narrow;
use crate::{Logits, Predictions};

/// More classes than this stay in label order: the order by similarity compares each with each other.
pub const MAX_ORDERED: usize = 1024;

/// Counts of images by label and predicted class. Only pairs that occur take memory.
#[derive(Clone, Debug)]
pub struct Confusion {
    classes: usize,
    counts: BTreeMap<(u32, u32), u32>,
}

/// Two classes that are taken for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confused {
    /// One class.
    pub a: u32,
    /// The other class.
    pub b: u32,
    /// Images of `a` that are predicted as `b`.
    pub a_as_b: u32,
    /// Images of `b` that are predicted as `a`.
    pub b_as_a: u32,
}

impl Confused {
    /// Images of either class that are predicted as the other one.
    #[must_use]
    pub fn images(&self) -> u32 {
        self.a_as_b + self.b_as_a
    }
}

impl Confusion {
    /// The confusion matrix of `predictions`.
    #[must_use]
    pub fn of(predictions: &Predictions) -> Self {
        let mut counts = BTreeMap::new();
        for pair in predictions
            .label
            .iter()
            .copied()
            .zip(predictions.predicted.iter().copied())
        {
            *counts.entry(pair).or_insert(0) += 1;
        }
        Self {
            classes: predictions.classes(),
            counts,
        }
    }

    /// Number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Images of class `label` that are predicted as `predicted`.
    #[must_use]
    pub fn count(&self, label: u32, predicted: u32) -> u32 {
        self.counts.get(&(label, predicted)).copied().unwrap_or(0)
    }

    /// Label, predicted class and count of each pair that occurs, by label.
    pub fn cells(&self) -> impl Iterator<Item = (u32, u32, u32)> {
        self.counts
            .iter()
            .map(|(&(label, predicted), &count)| (label, predicted, count))
    }

    /// The pairs of classes that are confused, the most often confused first.
    #[must_use]
    pub fn confused(&self) -> Vec<Confused> {
        let mut pairs = BTreeMap::new();
        for (label, predicted, count) in self.cells() {
            let (a, b) = (label.min(predicted), label.max(predicted));
            if a == b {
                continue;
            }
            let pair = pairs.entry((a, b)).or_insert(Confused {
                a,
                b,
                a_as_b: 0,
                b_as_a: 0,
            });
            if label == a {
                pair.a_as_b += count;
            } else {
                pair.b_as_a += count;
            }
        }
        let mut pairs: Vec<_> = pairs.into_values().collect();
        pairs.sort_by_key(|pair| (std::cmp::Reverse(pair.images()), pair.a, pair.b));
        pairs
    }

    /// An order of the classes in which similar ones lie next to each other, so that blocks show along the diagonal.
    ///
    /// Classes are clustered by average linkage; the distance of two is Hellinger's, between the mean probabilities
    /// that the network gives to their images (without logits, between their rows of the matrix). Of the orders that
    /// the tree allows, each join takes the one whose touching ends are the closest (Gruvaeus & Wainer 1972). The
    /// identifiers of WordNet would do for ImageNet alone, and say nothing about the network.
    #[must_use]
    pub fn order(&self, predictions: &Predictions, logits: Option<&Logits>) -> Vec<u32> {
        let classes = u32::try_from(self.classes).unwrap_or(u32::MAX);
        if !(3..=MAX_ORDERED).contains(&self.classes) {
            return (0..classes).collect();
        }
        let rows = match logits {
            Some(logits) => mean_probabilities(&predictions.label, logits),
            None => self.rows(),
        };
        seriate(&hellinger(&rows, self.classes), self.classes)
    }

    /// The matrix, row-major `[C, C]`, each row divided by its sum.
    fn rows(&self) -> Vec<f64> {
        let mut rows = vec![0.0; self.classes * self.classes];
        for (label, predicted, count) in self.cells() {
            rows[label as usize * self.classes + predicted as usize] = f64::from(count);
        }
        normalize(&mut rows, self.classes);
        rows
    }
}

/// Mean probabilities of the images of each class, row-major `[C, C]`; zero for a class without images.
fn mean_probabilities(labels: &[u32], logits: &Logits) -> Vec<f64> {
    let classes = logits.classes();
    let mut rows = vec![0.0; classes * classes];
    for (image, &label) in labels.iter().enumerate() {
        let sums = &mut rows[label as usize * classes..][..classes];
        for (sum, probability) in sums.iter_mut().zip(logits.probabilities(image)) {
            *sum += probability;
        }
    }
    normalize(&mut rows, classes);
    rows
}

fn normalize(rows: &mut [f64], width: usize) {
    for row in rows.chunks_exact_mut(width) {
        let sum: f64 = row.iter().sum();
        if sum > 0.0 {
            row.iter_mut().for_each(|value| *value /= sum);
        }
    }
}

/// Hellinger distances of the rows, `sqrt(1 - sum sqrt(p q))`, in condensed form: (0, 1), (0, 2), ... (1, 2), ...
fn hellinger(rows: &[f64], classes: usize) -> Vec<f64> {
    let roots: Vec<f32> = rows.iter().map(|&value| narrow(value.sqrt())).collect();
    let root = |class: usize| &roots[class * classes..][..classes];
    let mut distances = Vec::with_capacity(classes * (classes - 1) / 2);
    for a in 0..classes {
        for b in a + 1..classes {
            let overlap: f32 = root(a).iter().zip(root(b)).map(|(p, q)| p * q).sum();
            distances.push(f64::from((1.0 - overlap).max(0.0)).sqrt());
        }
    }
    distances
}

/// The leaves of the tree of average linkage over condensed `distances`, in the order that `Confusion::order`
/// describes.
fn seriate(distances: &[f64], leaves: usize) -> Vec<u32> {
    let distance = |a: u32, b: u32| {
        let (a, b) = (a.min(b) as usize, a.max(b) as usize);
        distances[a * leaves - a * (a + 1) / 2 + b - a - 1]
    };
    let tree = linkage(&mut distances.to_vec(), leaves, Method::Average);
    let mut clusters: Vec<Vec<u32>> = (0..leaves)
        .map(|leaf| vec![u32::try_from(leaf).unwrap_or(u32::MAX)])
        .collect();
    for step in tree.steps() {
        let mut left = std::mem::take(&mut clusters[step.cluster1]);
        let mut right = std::mem::take(&mut clusters[step.cluster2]);
        // No cluster is empty.
        let ends = |cluster: &[u32]| [cluster[0], cluster[cluster.len() - 1]];
        let ([l0, l1], [r0, r1]) = (ends(&left), ends(&right));
        let joints = [(l1, r0), (l1, r1), (l0, r0), (l0, r1)];
        let costs = joints.map(|(a, b)| distance(a, b));
        let best = (0..4).min_by(|&a, &b| costs[a].total_cmp(&costs[b]));
        let (flip_left, flip_right) = match best {
            Some(1) => (false, true),
            Some(2) => (true, false),
            Some(3) => (true, true),
            _ => (false, false),
        };
        if flip_left {
            left.reverse();
        }
        if flip_right {
            right.reverse();
        }
        left.append(&mut right);
        clusters.push(left);
    }
    clusters.pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_a_block_lie_together_whatever_their_numbers() {
        // Three groups of four classes; within a group a chain 0-1-2-3 in which neighbours are the closest.
        let group = |class: usize| class * 7 % 12;
        let mut distances = Vec::new();
        for a in 0..12 {
            for b in a + 1..12 {
                let (a, b) = (group(a), group(b));
                let steps = (a % 4).abs_diff(b % 4) as f64;
                distances.push(if a / 4 == b / 4 { 0.1 * steps } else { 0.9 });
            }
        }
        let order: Vec<_> = seriate(&distances, 12)
            .into_iter()
            .map(|class| group(class as usize))
            .collect();
        for four in order.chunks(4) {
            assert!(
                four.iter().all(|class| class / 4 == four[0] / 4),
                "{order:?}"
            );
            let steps = four.windows(2).map(|pair| pair[0].abs_diff(pair[1]));
            assert!(steps.clone().all(|step| step == 1), "{order:?}");
        }
    }
}
