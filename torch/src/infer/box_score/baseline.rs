//! Scores of constant boxes, which ignore the image. A head that scores no higher has learnt nothing.

use serde::Serialize;

use super::truth::{BoxScore, Truth, overlap, score};

/// A box that is the same for every image, and its score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Baseline {
    /// Name in the report.
    pub name: &'static str,
    /// Edges (x0, y0, x1, y1), as fractions of the image's sides.
    pub edges: [f64; 4],
    /// Score, where the top-1 part uses the classes that the network predicts.
    #[serde(flatten)]
    pub score: BoxScore,
}

/// The full image, the training split's mean box (centres), and the two constant boxes that are best for
/// `truth` itself: by the mean IoU, and by the fraction of images with an IoU of at least 0.5.
pub(super) fn baselines(truth: &[Truth], mean: [f64; 4]) -> Vec<Baseline> {
    let [cx, cy, w, h] = mean;
    let mean = [cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0];
    [
        ("full image", [0.0, 0.0, 1.0, 1.0]),
        ("training mean", mean),
        ("best by mean IoU", best(truth, |score| score.mean_iou)),
        (
            "best by IoU >= 0.5",
            best(truth, |score| score.gt_known_loc),
        ),
    ]
    .map(|(name, edges)| Baseline {
        name,
        edges,
        score: constant(truth, edges),
    })
    .into()
}

fn constant(truth: &[Truth], edges: [f64; 4]) -> BoxScore {
    let ious = (truth.iter()).map(|truth| overlap(edges, truth.edges.map(f64::from)));
    score(truth, ious)
}

/// The edges of a constant box that is good by `goal`: the best of those whose edges are multiples of 1/8
/// of a side, improved by moving one edge at a time to the best multiple of 1/64 until no move gains.
fn best(truth: &[Truth], goal: impl Fn(&BoxScore) -> f64) -> [f64; 4] {
    const FINE: u32 = 64;
    let edges = |at: [u32; 4]| at.map(|at| f64::from(at) / f64::from(FINE));
    let scored = |at| (goal(&constant(truth, edges(at))), at);
    let better = |a: (f64, [u32; 4]), b: (f64, [u32; 4])| if b.0 > a.0 { b } else { a };
    let eighths = || (0..=FINE).step_by(8);
    let spans: Vec<_> = eighths()
        .flat_map(|from| eighths().map(move |to| (from, to)))
        .filter(|(from, to)| from < to)
        .collect();
    let mut best = spans
        .iter()
        .flat_map(|&(x0, x1)| spans.iter().map(move |&(y0, y1)| [x0, y0, x1, y1]))
        .map(scored)
        .fold((f64::NEG_INFINITY, [0, 0, FINE, FINE]), better);
    loop {
        let before = best.0;
        for edge in 0..4 {
            best = (0..=FINE)
                .map(|to| {
                    let mut at = best.1;
                    at[edge] = to;
                    at
                })
                .filter(|at| at[0] < at[2] && at[1] < at[3])
                .map(scored)
                .fold(best, better);
        }
        if best.0 <= before {
            return edges(best.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tinyres_format::{Draws, Stream};

    /// The boxes have edges at multiples of 1/8, so that an exhaustive search at 1/16 is a fair rival.
    #[test]
    fn best_constant_box_beats_an_exhaustive_search() {
        let draws = Draws::new(5, Stream::Augment, 0);
        let truth: Vec<_> = (0..40)
            .map(|image| {
                let draws = draws.of(image);
                let at = |n, from: u64, to: u64| from + draws.below(n, to - from);
                let (x0, y0) = (at(0, 0, 5), at(1, 0, 5));
                let (x1, y1) = (at(2, x0 + 1, 9), at(3, y0 + 1, 9));
                let eighth = |at: u64| f32::from(u8::try_from(at).unwrap()) / 8.0;
                Truth {
                    edges: [x0, y0, x1, y1].map(eighth),
                    class_right: image % 3 == 0,
                }
            })
            .collect();
        let found = baselines(&truth, [0.5, 0.5, 0.5, 0.5]);
        assert_eq!(found[1].edges, [0.25, 0.25, 0.75, 0.75]);
        let (mut best_iou, mut best_found) = (0.0_f64, 0.0_f64);
        for code in 0..17_u32.pow(4) {
            let at = [0, 1, 2, 3].map(|place| f64::from(code / 17_u32.pow(place) % 17) / 16.0);
            if at[0] < at[2] && at[1] < at[3] {
                let score = constant(&truth, at);
                best_iou = best_iou.max(score.mean_iou);
                best_found = best_found.max(score.gt_known_loc);
            }
        }
        assert!(found[2].score.mean_iou >= best_iou, "{found:#?} {best_iou}");
        assert!(
            found[3].score.gt_known_loc >= best_found,
            "{found:#?} {best_found}"
        );
        for baseline in &found {
            assert!(baseline.score.top1_loc <= baseline.score.gt_known_loc);
        }
    }
}
