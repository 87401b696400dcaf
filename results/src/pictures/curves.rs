//! Curves over a run, or over several: loss, accuracy, learning rate and images per second, over steps and time.

use tinyres::runs::Metrics;
use tinyres::text::Count;

use crate::draw::{Axis, Ink, Pen, Plot, Scene, fit, percent, ticks};
use crate::num::whole;

/// The figures of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Curve<'a> {
    pub name: &'a str,
    pub metrics: &'a Metrics,
}

impl Curve<'_> {
    fn last_step(&self) -> u64 {
        let step = self.metrics.steps.last().map_or(0, |step| step.step);
        self.metrics
            .epochs
            .last()
            .map_or(0, |epoch| epoch.step)
            .max(step)
    }

    /// Seconds of training after so many steps, by the epochs' times.
    fn seconds(&self, step: f64) -> Option<f64> {
        let (mut before, mut seconds) = (0.0, 0.0);
        for epoch in &self.metrics.epochs {
            let after = epoch.step as f64;
            if step <= after {
                return Some(seconds + epoch.took * (step - before) / (after - before).max(1.0));
            }
            (before, seconds) = (after, seconds + epoch.took);
        }
        None
    }
}

/// `90` as `1:30`.
fn clock(seconds: f64) -> String {
    let seconds = whole(seconds);
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

/// Means over about a hundredth of the values around each, so that a trend shows. The window is cut at both ends.
fn smoothed(values: &[f64]) -> impl Iterator<Item = f64> {
    let reach = (values.len() / 100).max(1);
    (0..values.len()).map(move |at| {
        let near = &values[at.saturating_sub(reach)..values.len().min(at + reach + 1)];
        near.iter().sum::<f64>() / near.len() as f64
    })
}

/// At most so many points of a curve are drawn.
const POINTS: usize = 1000;

/// The curves of one run or of several; `None` if no step was reported.
pub(crate) fn curves(runs: &[Curve<'_>]) -> Option<Scene> {
    let runs: Vec<_> = runs.iter().filter(|run| run.last_step() > 0).collect();
    let first = runs.first()?;
    let last = runs.iter().map(|run| run.last_step()).max()? as f64;
    let one = runs.len() == 1;
    let (title, subtitle) = match one {
        true => (first.name.to_owned(), summary(first)),
        false => ("Runs".to_owned(), String::new()),
    };
    let mut scene = Scene::titled(588.0, &title, &subtitle);
    let mut top = 96.0;
    if !one {
        scene = Scene::new(crate::draw::WIDTH, 550.0);
        top = 62.0;
        let entries: Vec<_> = (0..)
            .zip(&runs)
            .map(|(at, run)| (run.name, Pen::new(Ink::Series(at), 2.0)))
            .collect();
        scene.legend(776.0, 14.0, &entries);
    }
    let x = || {
        let label = |tick: f64| {
            let step = Count::rounded(tick).to_string();
            match first.seconds(tick).filter(|_| one && tick > 0.0) {
                Some(seconds) => format!("{step}\n{}", clock(seconds)),
                None => step,
            }
        };
        let ticks = ticks(0.0, last, 4)
            .into_iter()
            .map(|tick| (tick, label(tick)));
        Axis {
            from: 0.0,
            to: last,
            ticks: ticks.collect(),
        }
    };
    let area = |at: usize| {
        let (column, row) = ((at % 2) as f32, (at / 2) as f32);
        [62.0 + 386.0 * column, top + 244.0 * row, 322.0, 178.0]
    };
    let ink = |run: usize, series: usize| Ink::Series(if one { series } else { run });

    let losses = || {
        runs.iter().flat_map(|run| {
            let steps = run.metrics.steps.iter().map(|step| step.loss);
            steps.chain(
                run.metrics
                    .epochs
                    .iter()
                    .filter_map(|epoch| Some(epoch.scores?.loss)),
            )
        })
    };
    let plot = Plot::new(
        &mut scene,
        area(0),
        "Loss",
        x(),
        Axis::around(losses(), false, number),
    );
    for (at, run) in runs.iter().enumerate() {
        let steps = &run.metrics.steps;
        let every = steps.len().div_ceil(POINTS).max(1);
        let losses: Vec<_> = steps.iter().map(|step| step.loss).collect();
        let raw = steps
            .iter()
            .step_by(every)
            .map(|step| (step.step as f64, step.loss));
        if one {
            plot.curve(&mut scene, raw, Pen::new(ink(at, 0), 0.8).faint(0.3));
        }
        let smooth = steps.iter().zip(smoothed(&losses)).step_by(every);
        let smooth = smooth.map(|(step, loss)| (step.step as f64, loss));
        plot.curve(&mut scene, smooth, Pen::new(ink(at, 0), 1.6));
        let scores = run.metrics.epochs.iter().filter_map(|epoch| epoch.scores);
        let val = scores
            .clone()
            .map(|scores| (scores.step as f64, scores.loss));
        let pen = Pen::new(ink(at, 1), 1.8);
        plot.curve(
            &mut scene,
            val.clone(),
            if one { pen } else { pen.dashed() },
        );
        dots(&mut scene, &plot, val, ink(at, 1));
    }
    let train = Pen::new(if one { Ink::Series(0) } else { Ink::Muted }, 2.0);
    let val = Pen::new(if one { Ink::Series(1) } else { Ink::Muted }, 2.0);
    let val = if one { val } else { val.dashed() };
    legend(&mut scene, area(0), &[("train", train), ("val", val)]);

    let scores = runs
        .iter()
        .flat_map(|run| run.metrics.epochs.iter().filter_map(|epoch| epoch.scores));
    let fractions = scores.flat_map(|scores| [scores.top1, scores.top5]);
    let plot = Plot::new(
        &mut scene,
        area(1),
        "Accuracy on val",
        x(),
        Axis::around(fractions, true, percent),
    );
    for (at, run) in runs.iter().enumerate() {
        let scores = run.metrics.epochs.iter().filter_map(|epoch| epoch.scores);
        let top1 = scores
            .clone()
            .map(|scores| (scores.step as f64, scores.top1));
        let top5 = scores.map(|scores| (scores.step as f64, scores.top5));
        plot.curve(&mut scene, top1.clone(), Pen::new(ink(at, 1), 1.8));
        dots(&mut scene, &plot, top1, ink(at, 1));
        plot.curve(&mut scene, top5.clone(), Pen::new(ink(at, 2), 1.8).dashed());
        dots(&mut scene, &plot, top5, ink(at, 2));
    }
    let [top1, top5] =
        [1, 2].map(|at| Pen::new(if one { Ink::Series(at) } else { Ink::Muted }, 2.0));
    legend(
        &mut scene,
        area(1),
        &[("top-1", top1), ("top-5", top5.dashed())],
    );

    type Figure = (
        &'static str,
        fn(&tinyres::runs::StepFigures) -> f64,
        fn(f64) -> String,
    );
    let figures: [Figure; 2] = [
        ("Learning rate", |step| step.lr, number),
        (
            "Images per second",
            |step| step.images_per_second,
            |value| Count::rounded(value).to_string(),
        ),
    ];
    for (panel, (name, figure, label)) in (2..).zip(figures) {
        let values = runs.iter().flat_map(|run| {
            let values: Vec<_> = run.metrics.steps.iter().map(figure).collect();
            // A rate is measured from step to step; its first is that of a cold start.
            smoothed(&values).collect::<Vec<_>>()
        });
        let y = Axis::around(values.collect::<Vec<_>>().into_iter(), true, label);
        let plot = Plot::new(&mut scene, area(panel), name, x(), y);
        for (at, run) in runs.iter().enumerate() {
            let steps = &run.metrics.steps;
            let every = steps.len().div_ceil(POINTS).max(1);
            let values: Vec<_> = steps.iter().map(figure).collect();
            let points = steps.iter().zip(smoothed(&values)).step_by(every);
            let points = points.map(|(step, value)| (step.step as f64, value));
            plot.curve(&mut scene, points, Pen::new(ink(at, panel + 1), 1.6));
        }
    }
    let style = crate::draw::Type::new(crate::draw::SMALL, Ink::Muted);
    let note = if one {
        "steps, and time spent training"
    } else {
        "steps"
    };
    let bottom = scene.height - 12.0;
    scene.text([24.0, bottom], note, style);
    Some(scene)
}

fn legend(scene: &mut Scene, [left, top, width, _]: [f32; 4], entries: &[(&str, Pen)]) {
    scene.legend(left + width, top - 14.0, entries);
}

/// Marks points that are few.
fn dots(
    scene: &mut Scene,
    plot: &Plot,
    points: impl Iterator<Item = (f64, f64)> + Clone,
    ink: Ink,
) {
    if points.clone().count() <= 40 {
        for (x, y) in points.filter(|(_, y)| y.is_finite()) {
            let [x, y] = plot.point(x, y);
            scene.fill([x - 2.5, y - 2.5, 5.0, 5.0], ink, 1.0);
        }
    }
}

/// A number with as many digits as a label has room for.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        1e-3..1e5 => {
            let text = format!("{value:.4}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => format!("{value:.1e}"),
    }
}

/// The result of a run in a line.
fn summary(run: &Curve<'_>) -> String {
    let mut parts = Vec::new();
    let epochs = &run.metrics.epochs;
    if let Some(scores) = epochs.iter().rev().find_map(|epoch| epoch.scores) {
        let (top1, top5) = (100.0 * scores.top1, 100.0 * scores.top5);
        parts.push(format!("top-1 {top1:.2}%"));
        parts.push(format!("top-5 {top5:.2}%"));
        parts.push(format!("val loss {:.3}", scores.loss));
        if let Some(iou) = scores.mean_iou {
            parts.push(format!("mean IoU {iou:.3}"));
        }
    }
    parts.push(format!("{} steps", Count(run.last_step())));
    if !epochs.is_empty() {
        let seconds: f64 = epochs.iter().map(|epoch| epoch.took).sum();
        parts.push(format!("{} of training", clock(seconds)));
    }
    fit(
        &parts.join("   "),
        crate::draw::Type::new(crate::draw::BODY, Ink::Muted),
        760.0,
    )
}
