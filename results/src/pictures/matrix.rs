//! The confusion matrix as a heat map, with the most confused pairs in words.

use crate::analysis::Analysis;
use crate::confusion::MAX_ORDERED;
use crate::draw::{Anchor, Ink, Pen, Pixels, SMALL, Scene, Type, fit};
use crate::num::whole;

/// Up to so many classes, each cell has its count.
const COUNTED: usize = 14;
/// Places of the matrix and its side.
const LEFT: f32 = 130.0;
const TOP: f32 = 70.0;
const SIDE: f32 = 440.0;

/// White to dark blue, for 0 to 1, by steps of ColorBrewer's Blues.
const SHADES: [[u8; 3]; 6] = [
    [255, 255, 255],
    [222, 235, 247],
    [158, 202, 225],
    [66, 146, 198],
    [8, 81, 156],
    [8, 36, 84],
];

fn shade(value: f64) -> [u8; 3] {
    let steps = SHADES.len() - 1;
    let place = value.clamp(0.0, 1.0) * steps as f64;
    let low = whole(place.floor()).min(steps - 1);
    let part = place - low as f64;
    let mix = |at: usize| {
        let (from, to) = (f64::from(SHADES[low][at]), f64::from(SHADES[low + 1][at]));
        u8::try_from(whole(from + (to - from) * part)).unwrap_or(u8::MAX)
    };
    [mix(0), mix(1), mix(2)]
}

/// The matrix; `None` for a single class, and for more than can be drawn.
pub(super) fn matrix(analysis: &Analysis) -> Option<Scene> {
    let order = &analysis.order;
    let classes = order.len();
    if !(2..=MAX_ORDERED).contains(&classes) || analysis.predictions.is_empty() {
        return None;
    }
    let wrong = analysis.mistakes().len();
    let subtitle = format!(
        "{} of {} images wrong. Row: label, column: prediction; classes that are confused are neighbours",
        tinyres::text::Count(wrong as u64),
        tinyres::text::Count(analysis.predictions.len() as u64)
    );
    let mut scene = Scene::titled(600.0, "Confusion matrix", &subtitle);
    let mut place = vec![0; classes];
    for (at, &class) in order.iter().enumerate() {
        place[class as usize] = at;
    }
    // The root shows rare confusions next to the diagonal.
    let mut rgb = vec![255; 3 * classes * classes];
    let fraction = |label: u32, count: u32| {
        f64::from(count) / f64::from(analysis.classes[label as usize].images.max(1))
    };
    for (label, predicted, count) in analysis.confusion.cells() {
        let at = place[label as usize] * classes + place[predicted as usize];
        rgb[3 * at..][..3].copy_from_slice(&shade(fraction(label, count).sqrt()));
    }
    let side = u32::try_from(classes).unwrap_or(u32::MAX);
    let area = [LEFT, TOP, SIDE, SIDE];
    scene.image(
        area,
        Pixels {
            width: side,
            height: side,
            rgb,
        },
        false,
    );
    scene.frame(area, Pen::new(Ink::Muted, 0.8));

    let cell = SIDE / classes as f32;
    let style = Type::new(SMALL, Ink::Text);
    if classes <= COUNTED {
        for (label, predicted, count) in analysis.confusion.cells() {
            let [row, column] = [label, predicted].map(|class| place[class as usize] as f32);
            let at = [LEFT + (column + 0.5) * cell, TOP + (row + 0.5) * cell + 4.0];
            let ink = if fraction(label, count) > 0.3 {
                Ink::Paper
            } else {
                Ink::Text
            };
            let style = Type {
                ink,
                ..style.anchor(Anchor::Middle)
            };
            scene.text(at, &count.to_string(), style);
        }
    }
    // Names: as many as there is room for.
    let every = whole(f64::from(13.0 / cell).ceil()).max(1);
    for (at, &class) in order.iter().enumerate().step_by(every) {
        let y = TOP + (at as f32 + 0.5) * cell;
        let name = fit(analysis.word(class), style, LEFT - 20.0);
        scene.text([LEFT - 7.0, y + 3.7], &name, style.anchor(Anchor::End));
        scene.line(vec![[LEFT - 4.0, y], [LEFT, y]], Pen::new(Ink::Muted, 0.8));
    }
    if every > 1 {
        let note = format!("Every {} class is named", ordinal(every));
        scene.text(
            [LEFT, TOP + SIDE + 18.0],
            &note,
            Type::new(SMALL, Ink::Muted),
        );
    }
    colour_bar(&mut scene);
    pairs(&mut scene, analysis);
    Some(scene)
}

fn ordinal(number: usize) -> String {
    let end = match (number % 10, number % 100) {
        (1, rest) if rest != 11 => "st",
        (2, rest) if rest != 12 => "nd",
        (3, rest) if rest != 13 => "rd",
        _ => "th",
    };
    format!("{number}{end}")
}

/// Legend of the colours: fractions of the images of a class.
fn colour_bar(scene: &mut Scene) {
    let (width, y) = (180.0, TOP + SIDE + 32.0);
    let left = LEFT + SIDE - width;
    let rgb = (0..180_u32)
        .flat_map(|at| shade(f64::from(at) / 179.0))
        .collect();
    scene.image(
        [left, y, width, 10.0],
        Pixels {
            width: 180,
            height: 1,
            rgb,
        },
        false,
    );
    scene.frame([left, y, width, 10.0], Pen::new(Ink::Muted, 0.6));
    let style = Type::new(SMALL, Ink::Muted).anchor(Anchor::Middle);
    for (fraction, name) in [
        (0.0, "0"),
        (0.05, "5%"),
        (0.25, "25%"),
        (0.5, "50%"),
        (1.0, "100%"),
    ] {
        let x = left + width * f32::sqrt(fraction);
        scene.text([x, y + 22.0], name, style);
    }
    scene.text(
        [left - 8.0, y + 9.0],
        "of a label's images",
        style.anchor(Anchor::End),
    );
}

/// The most confused pairs, to the right of the matrix.
fn pairs(scene: &mut Scene, analysis: &Analysis) {
    let (left, right) = (LEFT + SIDE + 24.0, 776.0);
    let heading = Type::new(13.0, Ink::Text).medium();
    scene.text([left, TOP + 10.0], "Most often confused", heading);
    let (body, count) = (Type::new(SMALL, Ink::Text), Type::new(SMALL, Ink::Muted));
    let room = right - left - 34.0;
    for (at, pair) in (0_u8..).zip(analysis.confused.iter().take(14)) {
        let y = TOP + 32.0 + 32.0 * f32::from(at);
        for (line, class, images) in [(0.0, pair.a, pair.a_as_b), (13.0, pair.b, pair.b_as_a)] {
            scene.text(
                [left, y + line],
                &fit(analysis.word(class), body, room),
                body,
            );
            let style = count.anchor(Anchor::End);
            scene.text([right, y + line], &format!("{images}"), style);
        }
        scene.line(
            vec![[left, y + 19.0], [right, y + 19.0]],
            Pen::new(Ink::Grid, 0.8),
        );
    }
    let y = TOP + 32.0 + 32.0 * analysis.confused.len().min(14) as f32;
    scene.text([left, y + 4.0], "images of each taken for the other", count);
}
