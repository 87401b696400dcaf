//! The reliability diagram: accuracy by confidence, and how confident the predictions are.

use crate::analysis::Analysis;
use crate::calibration::BINS;
use crate::draw::{Anchor, Axis, Ink, Pen, Plot, SMALL, Scene, Type, percent};

/// The diagram of one network, or of several; `None` without images.
pub(crate) fn reliability(networks: &[(&str, &Analysis)]) -> Option<Scene> {
    let (_, first) = networks.first()?;
    if networks
        .iter()
        .any(|(_, analysis)| analysis.predictions.is_empty())
    {
        return None;
    }
    let one = networks.len() == 1;
    let calibration = &first.calibration;
    let mut scene = if one {
        let subtitle = format!(
            "Expected calibration error {:.3}: confidence is {:.1}% on the mean, accuracy {:.1}%",
            calibration.expected_error,
            100.0 * calibration.confidence,
            100.0 * calibration.accuracy
        );
        Scene::titled(440.0, "Reliability", &subtitle)
    } else {
        let mut scene = Scene::new(crate::draw::WIDTH, 400.0);
        let entries: Vec<_> = (0..)
            .zip(networks)
            .map(|(at, (name, _))| (*name, Pen::new(Ink::Series(at), 2.0)))
            .collect();
        scene.legend(776.0, 14.0, &entries);
        scene
    };
    let top = if one { 102.0 } else { 56.0 };
    let fraction = || Axis::new(0.0, 1.0, 5, percent);
    let plot = Plot::new(
        &mut scene,
        [62.0, top, 322.0, 290.0],
        "Accuracy by confidence",
        fraction(),
        fraction(),
    );
    for (at, (_, analysis)) in networks.iter().enumerate() {
        let bins = analysis.calibration.bins.iter().enumerate();
        let filled: Vec<_> = bins.filter(|(_, bin)| bin.images > 0).collect();
        if one {
            for &(number, bin) in &filled {
                let edges = [0.06, 0.94].map(|inset| (number as f64 + inset) / BINS as f64);
                let both = bin.accuracy.min(bin.confidence);
                plot.bar(&mut scene, edges, both, Ink::Series(at), 0.75);
                // The gap to what the confidence promises.
                let ([left, y], [right, promised]) = (
                    plot.point(edges[0], bin.accuracy),
                    plot.point(edges[1], bin.confidence),
                );
                let area = [left, y.min(promised), right - left, (y - promised).abs()];
                scene.fill(area, Ink::Series(1), 0.35);
                scene.line(vec![[left, y], [right, y]], Pen::new(Ink::Series(0), 2.0));
            }
        } else {
            let points = filled.iter().map(|(_, bin)| (bin.confidence, bin.accuracy));
            plot.curve(&mut scene, points, Pen::new(Ink::Series(at), 1.8));
        }
    }
    let diagonal = [(0.0, 0.0), (1.0, 1.0)];
    plot.curve(
        &mut scene,
        diagonal.into_iter(),
        Pen::new(Ink::Text, 1.0).dashed(),
    );
    if one {
        let entries = [
            ("accuracy", Pen::new(Ink::Series(0), 6.0)),
            ("gap", Pen::new(Ink::Series(1), 6.0).faint(0.4)),
        ];
        scene.legend(384.0, top - 14.0, &entries);
    }

    let fraction_in = |analysis: &Analysis, bin: usize| {
        let images = analysis.calibration.bins[bin].images;
        f64::from(images) / analysis.predictions.len() as f64
    };
    let all = networks
        .iter()
        .flat_map(|(_, analysis)| (0..BINS).map(|bin| fraction_in(analysis, bin)));
    let y = Axis::around(all.collect::<Vec<_>>().into_iter(), true, percent);
    let plot = Plot::new(
        &mut scene,
        [448.0, top, 322.0, 290.0],
        "Images by confidence",
        fraction(),
        y,
    );
    for (at, (_, analysis)) in networks.iter().enumerate() {
        for bin in 0..BINS {
            let edges = [0.06, 0.94].map(|inset| (bin as f64 + inset) / BINS as f64);
            if one {
                plot.bar(
                    &mut scene,
                    edges,
                    fraction_in(analysis, bin),
                    Ink::Series(0),
                    0.75,
                );
            }
        }
        if !one {
            let middle =
                |bin: usize| ((bin as f64 + 0.5) / BINS as f64, fraction_in(analysis, bin));
            plot.curve(
                &mut scene,
                (0..BINS).map(middle),
                Pen::new(Ink::Series(at), 1.8),
            );
        }
    }
    let style = Type::new(SMALL, Ink::Muted).anchor(Anchor::End);
    let note = format!("{BINS} bins of confidence (Guo et al. 2017)");
    let bottom = scene.height - 12.0;
    scene.text([776.0, bottom], &note, style);
    Some(scene)
}
