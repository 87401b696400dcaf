//! Predicted boxes at their best and at their worst.

use crate::draw::{Anchor, Ink, Pen, SMALL, Scene, Type, fit};
use crate::{Result, Subject};

use super::sheet::{Photos, fitted};

const MARGIN: f32 = 24.0;
const COLUMNS: usize = 6;
const SIDE: f32 = 118.0;
const ROWS: usize = 2;

/// The boxes with the highest and the lowest overlap; `None` if the network predicts none.
pub(super) fn boxes(subject: &Subject<'_>) -> Result<Option<Scene>> {
    let analysis = subject.analysis;
    let predictions = &analysis.predictions;
    let (Some(images), Some(boxes)) = (subject.images, &predictions.boxes) else {
        return Ok(None);
    };
    let mut order: Vec<_> = (0..predictions.len())
        .filter(|&row| boxes.iou[row].is_finite())
        .collect();
    if order.is_empty() {
        return Ok(None);
    }
    order.sort_by(|&a, &b| boxes.iou[b].total_cmp(&boxes.iou[a]).then(a.cmp(&b)));
    let sum: f64 = order.iter().map(|&row| f64::from(boxes.iou[row])).sum();
    let subtitle = format!(
        "Mean intersection over union {:.3} over {}",
        sum / order.len() as f64,
        tinyres::text::counted(order.len(), "box").replace("boxs", "boxes")
    );
    let shown = (COLUMNS * ROWS).min(order.len().div_ceil(2));
    let step = [
        (crate::draw::WIDTH - 2.0 * MARGIN + 9.0) / COLUMNS as f32,
        SIDE + 28.0,
    ];
    let part = 34.0 + shown.div_ceil(COLUMNS) as f32 * step[1];
    let mut scene = Scene::titled(62.0 + 2.0 * part, "Boxes", &subtitle);
    let pens = [Pen::new(Ink::Series(2), 2.2), Pen::new(Ink::Series(1), 2.2)];
    scene.legend(
        776.0,
        49.0,
        &[("the image's box", pens[0]), ("predicted", pens[1])],
    );
    let parts = [
        ("Best", &order[..shown]),
        ("Worst", &order[order.len() - shown..]),
    ];
    for (at, (title, rows)) in (0_u8..).zip(parts) {
        let top = 70.0 + part * f32::from(at);
        scene.text(
            [MARGIN, top + 10.0],
            title,
            Type::new(13.0, Ink::Text).medium(),
        );
        for (at, &row) in rows.iter().enumerate() {
            let [x, y] = [
                MARGIN + (at % COLUMNS) as f32 * step[0],
                top + 20.0 + (at / COLUMNS) as f32 * step[1],
            ];
            let pixels = Photos(images).get(predictions.image[row])?;
            let area = fitted(&pixels, [x, y], SIDE);
            let scale = area[2] / pixels.width as f32;
            let bounds = [pixels.width as f32, pixels.height as f32];
            scene.image(area, pixels, true);
            let truth = predictions.bbox[row].map(|side| side as f32);
            for (sides, pen) in [truth, boxes.predicted[row]].into_iter().zip(pens) {
                if sides.iter().any(|side| !side.is_finite()) {
                    continue;
                }
                // Inclusive pixels; a line lies inside of its box.
                let edge = |at: usize, beyond: f32| {
                    (sides[at] + beyond).clamp(0.0, bounds[at % 2]) * scale
                };
                let [x0, y0, x1, y1] = [edge(0, 0.0), edge(1, 0.0), edge(2, 1.0), edge(3, 1.0)];
                let half = pen.width / 2.0;
                let frame = [
                    area[0] + x0.min(x1) + half,
                    area[1] + y0.min(y1) + half,
                    ((x1 - x0).abs() - pen.width).max(0.5),
                    ((y1 - y0).abs() - pen.width).max(0.5),
                ];
                scene.frame(frame, Pen::new(Ink::Paper, 3.6).faint(0.7));
                scene.frame(frame, pen);
            }
            let style = Type::new(SMALL, Ink::Text);
            let word = fit(analysis.word(predictions.label[row]), style, SIDE - 36.0);
            scene.text([x, y + SIDE + 14.0], &word, style);
            let iou = format!("{:.2}", boxes.iou[row]);
            let style = Type::new(SMALL, Ink::Muted).anchor(Anchor::End);
            scene.text([x + SIDE, y + SIDE + 14.0], &iou, style);
        }
    }
    Ok(Some(scene))
}
