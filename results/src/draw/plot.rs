//! Axes of charts: scales, ticks and grid.

use crate::num::narrow;

use super::{Anchor, Area, Ink, Pen, SMALL, Scene, Type};

/// One axis of a chart.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub from: f64,
    pub to: f64,
    /// Values with a grid line and a label.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis over `from..=to` with about `count` ticks, labelled by `label`.
    pub fn new(from: f64, to: f64, count: usize, label: impl Fn(f64) -> String) -> Self {
        let to = if to > from { to } else { from + 1.0 };
        let labelled = ticks(from, to, count)
            .into_iter()
            .map(|tick| (tick, label(tick)));
        Self {
            from,
            to,
            ticks: labelled.collect(),
        }
    }

    /// An axis over the values with some room above and below; from 0 if `zero`.
    pub fn around(
        values: impl Iterator<Item = f64> + Clone,
        zero: bool,
        label: impl Fn(f64) -> String,
    ) -> Self {
        let finite = values.filter(|value| value.is_finite());
        let high = finite.clone().fold(f64::NEG_INFINITY, f64::max);
        let low = finite.fold(f64::INFINITY, f64::min);
        if low > high {
            return Self::new(0.0, 1.0, 4, label);
        }
        let room = ((high - low) * 0.06).max(high.abs() * 1e-3).max(1e-12);
        match zero {
            true => Self::new(0.0, high + high.abs() * 0.08, 5, label),
            false => Self::new(low - room, high + room, 6, label),
        }
    }

    /// The place of a value, 0 to 1.
    fn place(&self, value: f64) -> f32 {
        narrow((value - self.from) / (self.to - self.from))
    }
}

/// Multiples of 1, 2 or 5 times a power of ten in `from..=to`, about `count` of them.
pub(crate) fn ticks(from: f64, to: f64, count: usize) -> Vec<f64> {
    let rough = (to - from) / count.max(1) as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return Vec::new();
    }
    let power = 10_f64.powf(rough.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let factor = factors
        .into_iter()
        .find(|factor| factor * power >= rough * 0.999);
    let step = factor.unwrap_or(10.0) * power;
    let first = (from / step - 1e-9).ceil();
    let ticks = (0..=10 * count).map(|at| (first + at as f64) * step);
    ticks
        .take_while(|tick| *tick <= to + step * 1e-9)
        .map(|tick| tick + 0.0)
        .collect()
}

/// `0.25` as `25%`.
pub(crate) fn percent(value: f64) -> String {
    let percent = value * 100.0;
    match (percent - percent.round()).abs() < 1e-6 {
        true => format!("{percent:.0}%"),
        false => format!("{percent:.1}%"),
    }
}

/// A chart's area in a scene.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub area: Area,
    x: Axis,
    y: Axis,
}

impl Plot {
    /// Draws title, grid and labels. `area` is what the curves fill: labels go left of it and below. A label of the x
    /// axis may have a second line.
    pub fn new(scene: &mut Scene, area: Area, title: &str, x: Axis, y: Axis) -> Self {
        let plot = Self { area, x, y };
        let [left, top, width, height] = area;
        let style = Type::new(13.0, Ink::Text).medium();
        scene.text([left - 34.0, top - 14.0], title, style);
        let style = Type::new(SMALL, Ink::Muted);
        for (value, label) in &plot.y.ticks {
            let [_, y] = plot.point(plot.x.from, *value);
            scene.line(vec![[left, y], [left + width, y]], Pen::new(Ink::Grid, 1.0));
            scene.text([left - 7.0, y + 3.8], label, style.anchor(Anchor::End));
        }
        for (value, label) in &plot.x.ticks {
            let [x, _] = plot.point(*value, plot.y.from);
            let bottom = top + height;
            scene.line(
                vec![[x, bottom], [x, bottom + 4.0]],
                Pen::new(Ink::Muted, 1.0),
            );
            for (line, text) in (0_u8..).zip(label.lines()) {
                let y = bottom + 16.0 + 13.0 * f32::from(line);
                scene.text([x, y], text, style.anchor(Anchor::Middle));
            }
        }
        let bottom = vec![[left, top + height], [left + width, top + height]];
        scene.line(bottom, Pen::new(Ink::Muted, 1.0));
        plot
    }

    /// The point of a pair of values.
    pub fn point(&self, x: f64, y: f64) -> [f32; 2] {
        let [left, top, width, height] = self.area;
        [
            left + width * self.x.place(x),
            top + height * (1.0 - self.y.place(y)),
        ]
    }

    /// Draws a curve, which breaks where a value is not finite.
    pub fn curve(&self, scene: &mut Scene, points: impl Iterator<Item = (f64, f64)>, pen: Pen) {
        let points: Vec<_> = points.collect();
        for part in points.split(|(x, y)| !(x.is_finite() && y.is_finite())) {
            let part: Vec<_> = part.iter().map(|&(x, y)| self.point(x, y)).collect();
            match part[..] {
                [] => {}
                [[x, y]] => scene.fill([x - 2.5, y - 2.5, 5.0, 5.0], pen.ink, pen.alpha),
                _ => scene.line(part, pen),
            }
        }
    }

    /// Draws a bar from the axis.
    pub fn bar(&self, scene: &mut Scene, x: [f64; 2], y: f64, ink: Ink, alpha: f32) {
        let ([left, top], [right, bottom]) = (self.point(x[0], y), self.point(x[1], self.y.from));
        scene.fill([left, top, right - left, bottom - top], ink, alpha);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(
            ticks(0.0, 1.0, 5),
            [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]
        );
        assert_eq!(ticks(-3.0, 17.0, 4), [0.0, 5.0, 10.0, 15.0]);
        assert_eq!(ticks(424.0, 425.0, 2), [424.0, 424.5, 425.0]);
        assert!(ticks(0.0, f64::NAN, 4).is_empty() && ticks(1.0, 1.0, 4).is_empty());
    }
}
