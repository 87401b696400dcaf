//! The sections of a report.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tinyres::text::Count;

use super::Run;
use crate::draw::Scene;
use crate::html::escape;
use crate::num::whole;
use crate::pictures::{Curve, PICTURES, curves, reliability_of};
use crate::{Agreement, Analysis, Result, Subject};

/// The longest table of classes.
const MOST_CLASSES: usize = 1000;
/// Classes that gained and lost most, in a comparison.
const DELTAS: usize = 12;

/// Headings of the pictures by name. They also tell those who cannot see a picture what it is.
const HEADINGS: [(&str, &str); 10] = [
    ("results", "Training"),
    ("confusion_matrix", "Confusion"),
    ("confused_pairs", "Confused pairs"),
    ("classes", "Classes"),
    ("reliability", "Calibration"),
    ("confident_mistakes", "Confident mistakes"),
    ("suspect_labels", "Suspected labels"),
    ("suspect_training_labels", "Suspected training labels"),
    ("duplicates", "Duplicates"),
    ("boxes", "Boxes"),
];

/// A number with its exact value for programs.
fn data(value: f64, shown: &str) -> String {
    format!("<data value=\"{value}\">{}</data>", escape(shown))
}

fn percent(value: f64) -> String {
    data(value, &format!("{:.2}%", 100.0 * value))
}

fn duration(seconds: f64) -> String {
    let whole = whole(seconds);
    let shown = match whole {
        ..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    };
    data(seconds, &shown)
}

/// A sentence on what was run, and on what.
pub(super) fn about(run: &Run) -> String {
    let text = |key: &str| {
        run.config
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    };
    let mut words = format!(
        "<p class=\"about\"><strong>{}</strong>: recipe {}, trained on {}",
        escape(&run.name),
        escape(&run.summary.recipe),
        escape(&run.summary.data)
    );
    if let Some(seed) = text("seed") {
        let _ = write!(words, ", seed {}", escape(seed));
    }
    if let Some(version) = text("run.version") {
        let _ = write!(words, ", by tinyres {}", escape(version));
    }
    if let Some(analysis) = &run.analysis {
        let origin = &analysis.predictions.origin;
        let _ = write!(
            words,
            ". Scores are of {} {} images at {} pixels",
            Count(analysis.predictions.len() as u64),
            origin.split,
            origin.size
        );
        if origin.tta != "none" {
            let _ = write!(words, ", averaged over views ({})", escape(&origin.tta));
        }
    }
    if !run.summary.complete {
        words += ". The run is not at its end";
    }
    words + ".</p>"
}

type Row = (&'static str, fn(&Run) -> Option<String>);

fn of_analysis(run: &Run, text: impl FnOnce(&Analysis) -> Option<String>) -> Option<String> {
    run.analysis.as_ref().and_then(text)
}

const FIGURES: [Row; 10] = [
    ("Top-1", |run| {
        of_analysis(run, |it| Some(percent(it.predictions.top1())))
    }),
    ("Top-5", |run| {
        of_analysis(run, |it| Some(percent(it.predictions.top5_accuracy())))
    }),
    ("Loss", |run| {
        let text = |it: &Analysis| {
            Some(data(
                it.predictions.mean_loss(),
                &format!("{:.4}", it.predictions.mean_loss()),
            ))
        };
        of_analysis(run, text)
    }),
    ("Mean IoU of boxes", |run| {
        of_analysis(run, |it| {
            let iou = it.predictions.mean_iou()?;
            Some(data(iou, &format!("{iou:.3}")))
        })
    }),
    ("Calibration error", |run| {
        let text = |it: &Analysis| {
            let error = it.calibration.expected_error;
            Some(data(error, &format!("{error:.3}")))
        };
        of_analysis(run, text)
    }),
    ("Epochs", |run| Some(Count(run.summary.epochs).to_string())),
    ("Steps", |run| Some(Count(run.summary.steps).to_string())),
    ("Training time", |run| Some(duration(run.summary.seconds))),
    ("Images per second", |run| {
        run.summary
            .images_per_second
            .map(|rate| data(rate, &Count::rounded(rate).to_string()))
    }),
    ("Training loss, last epoch", |run| {
        run.summary
            .train_loss
            .map(|loss| data(loss, &format!("{loss:.3}")))
    }),
];

/// The figures: tiles for one run, a table for several.
pub(super) fn figures(runs: &[Run]) -> String {
    if let [run] = runs {
        let tile = |(name, text): Row| {
            text(run).map(|text| format!("<div><dt>{name}</dt><dd>{text}</dd></div>"))
        };
        let tiles: String = FIGURES.into_iter().filter_map(tile).collect();
        return format!("<dl class=\"tiles\">{tiles}</dl>");
    }
    let mut table = head(runs, "");
    for (name, text) in FIGURES {
        let cells: Vec<_> = runs.iter().map(text).collect();
        if cells.iter().any(Option::is_some) {
            row(
                &mut table,
                name,
                cells
                    .into_iter()
                    .map(|cell| cell.unwrap_or_else(|| "-".to_owned())),
            );
        }
    }
    scrolling(&(table + "</tbody></table>"))
}

fn head(runs: &[Run], first: &str) -> String {
    let names = runs
        .iter()
        .map(|run| format!("<th scope=\"col\">{}</th>", escape(&run.name)));
    format!(
        "<table><thead><tr><th scope=\"col\">{first}</th>{}</tr></thead><tbody>",
        names.collect::<String>()
    )
}

/// Adds a row; the name and the cells are HTML.
fn row(table: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let cells: String = cells.map(|cell| format!("<td>{cell}</td>")).collect();
    let _ = write!(table, "<tr><th scope=\"row\">{name}</th>{cells}</tr>");
}

fn scrolling(html: &str) -> String {
    format!("<div class=\"scroll\" tabindex=\"0\">{html}</div>")
}

fn section(heading: &str, html: &str) -> String {
    format!("<section><h2>{heading}</h2>{html}</section>")
}

fn figure(scene: &Scene, label: &str) -> String {
    format!(
        "<figure class=\"scroll\" tabindex=\"0\">{}</figure>",
        scene.svg(label)
    )
}

/// The sections of one run.
pub(super) fn contents(run: &Run, photos: bool) -> Result<String> {
    let mut html = String::new();
    if let Some(analysis) = &run.analysis {
        let subject = Subject {
            name: &run.name,
            metrics: Some(&run.metrics),
            analysis,
            images: run.images().filter(|_| photos),
            sets: &run.sets,
            run: photos.then_some(run.dir.as_path()),
        };
        for ((name, draw), (expected, heading)) in PICTURES.iter().zip(HEADINGS) {
            debug_assert_eq!(*name, expected);
            let scene = if photos || *name != "duplicates" {
                draw(&subject)?
            } else {
                None
            };
            if let Some(scene) = scene {
                // The picture has a title of its own.
                let figure = figure(&scene, heading);
                html += &format!("<section><h2 class=\"unseen\">{heading}</h2>{figure}</section>");
            }
            if *name == "classes" {
                html += &class_table(analysis);
            }
        }
        if subject.images.is_none() && photos {
            html += "<p class=\"note\">The shards are not at hand, so there are no photographs here.</p>";
        }
    } else {
        let curve = Curve {
            name: &run.name,
            metrics: &run.metrics,
        };
        if let Some(scene) = curves(&[curve]) {
            html += &section("Training", &figure(&scene, "Training"));
        }
        html += "<p class=\"note\">There are no predictions: <code>tinyres eval RUN SHARDS</code> makes them.</p>";
    }
    let mut table = String::from("<table><tbody>");
    for (key, value) in &run.config {
        row(
            &mut table,
            &escape(key),
            std::iter::once(format!("<code>{}</code>", escape(value))),
        );
    }
    let table = scrolling(&(table + "</tbody></table>"));
    html += &format!("<details><summary>Configuration</summary>{table}</details>");
    Ok(html)
}

/// All classes, the worst first.
fn class_table(analysis: &Analysis) -> String {
    let figures = &analysis.classes;
    let mut order: Vec<u32> = (0..).take(figures.len()).collect();
    let accuracy = |class: u32| figures[class as usize].accuracy();
    order.retain(|&class| figures[class as usize].images > 0);
    order.sort_by(|&a, &b| accuracy(a).total_cmp(&accuracy(b)).then(a.cmp(&b)));
    let mut most: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
    for (label, predicted, count) in analysis.confusion.cells() {
        let best = most.entry(label).or_insert((0, 0));
        if label != predicted && count > best.1 {
            *best = (predicted, count);
        }
    }
    let mut table = String::from(
        "<table class=\"classes\"><thead><tr><th scope=\"col\">Class</th><th scope=\"col\">Id</th><th scope=\"col\">Images</th>\
         <th scope=\"col\">Right</th><th scope=\"col\">Top-1</th><th scope=\"col\">Precision</th>\
         <th scope=\"col\">Most often taken for</th></tr></thead><tbody>",
    );
    for &class in order.iter().take(MOST_CLASSES) {
        let own = figures[class as usize];
        let id = &analysis.predictions.origin.classes[class as usize].id;
        let precision = if own.predicted > 0 {
            percent(own.precision())
        } else {
            "-".to_owned()
        };
        let taken = match most.get(&class) {
            Some(&(other, count)) if count > 0 => {
                format!("{} ({count})", escape(analysis.word(other)))
            }
            _ => "-".to_owned(),
        };
        let cells = [
            format!("<code>{}</code>", escape(id)),
            own.images.to_string(),
            own.right.to_string(),
            percent(own.accuracy()),
            precision,
            taken,
        ];
        row(&mut table, &escape(analysis.word(class)), cells.into_iter());
    }
    let left_out = order.len().saturating_sub(MOST_CLASSES);
    let note = match left_out {
        0 => String::new(),
        left_out => format!("<p class=\"note\">{left_out} better classes are left out.</p>"),
    };
    format!(
        "<details><summary>All {} classes</summary>{}{note}</details>",
        order.len(),
        scrolling(&(table + "</tbody></table>"))
    )
}

/// The sections that tell several runs apart.
pub(super) fn comparison(runs: &[Run]) -> String {
    let mut html = String::new();
    let mut values: BTreeMap<&str, Vec<Option<&str>>> = BTreeMap::new();
    for (at, run) in runs.iter().enumerate() {
        for (key, value) in &run.config {
            values.entry(key).or_insert_with(|| vec![None; runs.len()])[at] = Some(value);
        }
    }
    values.retain(|_, row| row.iter().any(|value| *value != row[0]));
    let differs = if values.is_empty() {
        "<p>Nothing: the configurations are the same.</p>".to_owned()
    } else {
        let mut table = head(runs, "");
        for (key, values) in values {
            let cell =
                |value: Option<&str>| format!("<code>{}</code>", escape(value.unwrap_or("-")));
            row(&mut table, &escape(key), values.into_iter().map(cell));
        }
        scrolling(&(table + "</tbody></table>"))
    };
    html += &section("What differs", &differs);

    let lines: Vec<_> = runs
        .iter()
        .map(|run| Curve {
            name: &run.name,
            metrics: &run.metrics,
        })
        .collect();
    if let Some(scene) = curves(&lines) {
        html += &section("Training", &figure(&scene, "Curves of all runs"));
    }
    let analysed: Vec<_> = runs
        .iter()
        .filter_map(|run| Some((run.name.as_str(), run.analysis.as_ref()?)))
        .collect();
    if analysed.len() > 1 {
        if let Some(scene) = reliability_of(&analysed) {
            html += &section("Calibration", &figure(&scene, "Reliability of all runs"));
        }
        let (first, others) = (analysed[0], &analysed[1..]);
        for &other in others {
            html += &pair(first, other);
        }
    }
    html
}

/// Two networks on the same images.
fn pair((a_name, a): (&str, &Analysis), (b_name, b): (&str, &Analysis)) -> String {
    let (first, second) = (escape(a_name), escape(b_name));
    let heading = format!("{first} and {second}");
    let Some(agreement) = Agreement::of(&a.predictions, &b.predictions) else {
        return section(
            &heading,
            "<p>Their predictions are of different images.</p>",
        );
    };
    let count = |images: u32| data(f64::from(images), &Count(u64::from(images)).to_string());
    let p = agreement.p_value;
    let shown = match p {
        ..0.0001 => format!("{p:.1e}"),
        _ => format!("{p:.4}"),
    };
    let (gain, better) = match agreement.only_first.cmp(&agreement.only_second) {
        std::cmp::Ordering::Less => (agreement.only_second - agreement.only_first, &second),
        std::cmp::Ordering::Greater => (agreement.only_first - agreement.only_second, &first),
        std::cmp::Ordering::Equal => (0, &first),
    };
    let verdict = match (gain, p) {
        (0, _) => "Both are right as often.".to_owned(),
        (_, ..0.05) => {
            format!("{better} is better by {gain} images, which chance would hardly bring about.")
        }
        _ => format!(
            "{better} is better by {gain} images, which chance alone may have brought about."
        ),
    };
    let html = format!(
        "<table class=\"square\"><thead><tr><td></td><th scope=\"col\">{second} right</th><th scope=\"col\">{second} wrong</th></tr></thead>\
         <tbody><tr><th scope=\"row\">{first} right</th><td>{}</td><td>{}</td></tr>\
         <tr><th scope=\"row\">{first} wrong</th><td>{}</td><td>{}</td></tr></tbody></table>\
         <p>{verdict} McNemar's exact test: p = {}.</p>{}",
        count(agreement.both),
        count(agreement.only_first),
        count(agreement.only_second),
        count(agreement.neither),
        data(p, &shown),
        deltas(&first, a, &second, b)
    );
    section(&heading, &html)
}

/// The classes whose accuracy differs most.
fn deltas(first: &str, a: &Analysis, second: &str, b: &Analysis) -> String {
    let delta = |class: usize| b.classes[class].accuracy() - a.classes[class].accuracy();
    let mut order: Vec<_> = (0..a.classes.len())
        .filter(|&class| delta(class).is_finite())
        .collect();
    order.sort_by(|&x, &y| delta(y).total_cmp(&delta(x)).then(x.cmp(&y)));
    let table = |title: &str, classes: &mut dyn Iterator<Item = usize>| {
        let mut table = format!(
            "<div><h3>{title}</h3><table><thead><tr><th scope=\"col\">Class</th><th scope=\"col\">{first}</th>\
             <th scope=\"col\">{second}</th><th scope=\"col\">Difference</th></tr></thead><tbody>"
        );
        for class in classes {
            let difference = delta(class);
            let name = escape(a.word(u32::try_from(class).unwrap_or(u32::MAX)));
            let kind = if difference > 0.0 { "good" } else { "bad" };
            let shown = format!("<span class=\"{kind}\">{:+.1}</span>", 100.0 * difference);
            let cells = [
                percent(a.classes[class].accuracy()),
                percent(b.classes[class].accuracy()),
                shown,
            ];
            row(&mut table, &name, cells.into_iter());
        }
        table + "</tbody></table></div>"
    };
    let mut gained = order
        .iter()
        .copied()
        .filter(|&class| delta(class) > 0.0)
        .take(DELTAS);
    let mut lost = order
        .iter()
        .rev()
        .copied()
        .filter(|&class| delta(class) < 0.0)
        .take(DELTAS);
    format!(
        "<div class=\"two\">{}{}</div>",
        table(&format!("Better in {second}"), &mut gained),
        table(&format!("Worse in {second}"), &mut lost)
    )
}
