//! Accuracy by class: all of them in a row, and the worst and the best by name.

use crate::analysis::Analysis;
use crate::draw::{Anchor, Axis, Ink, Pen, Plot, SMALL, Scene, Type, fit, percent};
use crate::num::narrow;

/// Classes in a list.
const LISTED: usize = 16;

/// The classes with images; `None` if there are none.
pub(super) fn classes(analysis: &Analysis) -> Option<Scene> {
    let figures = &analysis.classes;
    let mut order: Vec<u32> = (0..)
        .take(figures.len())
        .filter(|&class| figures[class as usize].images > 0)
        .collect();
    if order.is_empty() {
        return None;
    }
    let accuracy = |class: u32| figures[class as usize].accuracy();
    order.sort_by(|&a, &b| accuracy(a).total_cmp(&accuracy(b)).then(a.cmp(&b)));
    let top1 = analysis.predictions.top1();
    let mean = order.iter().map(|&class| accuracy(class)).sum::<f64>() / order.len() as f64;
    let listed = LISTED.min(order.len().div_ceil(2));
    let height = 352.0 + 20.0 * listed as f32;
    let subtitle = format!(
        "Top-1 of each of {} classes, sorted. Mean over classes {:.2}%, over images {:.2}%",
        order.len(),
        100.0 * mean,
        100.0 * top1
    );
    let mut scene = Scene::titled(height, "Accuracy by class", &subtitle);
    let x = Axis {
        from: 0.0,
        to: order.len() as f64,
        ticks: Vec::new(),
    };
    let plot = Plot::new(
        &mut scene,
        [62.0, 84.0, 714.0, 170.0],
        "",
        x,
        Axis::new(0.0, 1.0, 4, percent),
    );
    let gap = if order.len() > 100 { 0.12 } else { 0.18 };
    for (at, &class) in order.iter().enumerate() {
        let (at, ink) = (at as f64, ink(at, listed, order.len()));
        plot.bar(
            &mut scene,
            [at + gap, at + 1.0 - gap],
            accuracy(class),
            ink,
            0.85,
        );
    }
    let ([left, y], [right, _]) = (plot.point(0.0, mean), plot.point(order.len() as f64, mean));
    scene.line(
        vec![[left, y], [right, y]],
        Pen::new(Ink::Text, 1.2).dashed(),
    );
    let note = Type::new(SMALL, Ink::Text);
    scene.text(
        [left + 6.0, y - 5.0],
        &format!("mean {}", percent_of(mean)),
        note,
    );

    let worst = order.iter().copied().take(listed);
    list(&mut scene, analysis, 24.0, ("Worst", Ink::Bad), worst);
    let best = order.iter().rev().copied().take(listed);
    list(&mut scene, analysis, 412.0, ("Best", Ink::Good), best);
    Some(scene)
}

fn ink(at: usize, listed: usize, all: usize) -> Ink {
    match at {
        at if at < listed => Ink::Bad,
        at if at + listed >= all => Ink::Good,
        _ => Ink::Series(0),
    }
}

fn percent_of(fraction: f64) -> String {
    format!("{:.1}%", 100.0 * fraction)
}

/// Bars with names: accuracy as a bar, precision as a mark.
fn list(
    scene: &mut Scene,
    analysis: &Analysis,
    left: f32,
    (title, ink): (&str, Ink),
    classes: impl Iterator<Item = u32>,
) {
    let top = 284.0;
    scene.text([left, top], title, Type::new(13.0, Ink::Text).medium());
    let style = Type::new(SMALL, Ink::Text);
    let muted = Type::new(SMALL, Ink::Muted).anchor(Anchor::End);
    scene.text([left + 364.0, top], "bar: top-1, mark: precision", muted);
    let (bar, room) = (left + 136.0, 184.0);
    for (at, class) in (0_u8..).zip(classes) {
        let figures = analysis.classes[class as usize];
        let y = top + 14.0 + 20.0 * f32::from(at);
        let name = fit(analysis.word(class), style, 126.0);
        scene.text([bar - 8.0, y + 10.5], &name, style.anchor(Anchor::End));
        scene.fill([bar, y, room, 14.0], Ink::Grid, 0.6);
        let accuracy = narrow(figures.accuracy());
        scene.fill([bar, y, (room * accuracy).max(0.5), 14.0], ink, 0.8);
        if figures.predicted > 0 {
            let x = bar + room * narrow(figures.precision());
            scene.line(vec![[x, y - 1.0], [x, y + 15.0]], Pen::new(Ink::Text, 1.6));
        }
        let counts = format!("{}/{}", figures.right, figures.images);
        scene.text([left + 364.0, y + 10.5], &counts, muted);
    }
}
