//! The classes of a sample set: every combination of an outline, a texture and a hue.

use std::fmt;

use super::SIDE;

/// An outline in the square from -1 to 1. `y` points down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outline {
    Disc,
    Ring,
    Square,
    Diamond,
    Triangle,
    Cross,
    Star,
    Crescent,
    Heart,
    Hourglass,
}

/// The fill of an outline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Texture {
    Plain,
    Striped,
    Checked,
    Dotted,
    Banded,
}

/// The words for each outline, with synonyms after a comma, as in WordNet.
const OUTLINES: [(Outline, &str); 10] = [
    (Outline::Disc, "disc, circle"),
    (Outline::Star, "star"),
    (Outline::Square, "square"),
    (Outline::Hourglass, "hourglass, bow tie"),
    (Outline::Ring, "ring"),
    (Outline::Triangle, "triangle"),
    (Outline::Heart, "heart"),
    (Outline::Cross, "cross, plus sign"),
    (Outline::Crescent, "crescent, half-moon"),
    (Outline::Diamond, "diamond, rhombus"),
];

const TEXTURES: [(Texture, &str); 5] = [
    (Texture::Plain, "plain"),
    (Texture::Striped, "striped"),
    (Texture::Checked, "checked"),
    (Texture::Dotted, "dotted"),
    (Texture::Banded, "banded"),
];

/// Names of the hues, evenly spaced on the colour circle from red.
const HUES: [&str; 6] = ["red", "yellow", "green", "cyan", "blue", "magenta"];

/// The number of classes.
pub const MAX_CLASSES: u32 = 300;
const _: () = assert!(MAX_CLASSES as usize == OUTLINES.len() * TEXTURES.len() * HUES.len());

/// One class. The class of a number never changes, so a set of ten classes and one of two hundred agree
/// on the first ten.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleClass {
    number: usize,
    pub(super) outline: Outline,
    pub(super) texture: Texture,
    /// Position on the colour circle, 0 to 1.
    pub(super) hue: f32,
    words: [&'static str; 3],
}

impl SampleClass {
    /// Class `number` of [`MAX_CLASSES`]. Consecutive classes differ in outline, texture and hue, so a few
    /// classes are easier to tell apart than many.
    pub(super) fn nth(number: usize) -> Self {
        // For each outline `s`, the steps pass once through all pairs of texture and hue, shifted by
        // `s`. So every combination occurs exactly once.
        let (step, s) = (number / OUTLINES.len(), number % OUTLINES.len());
        let t = (step + s) % TEXTURES.len();
        let h = (step / TEXTURES.len() + s) % HUES.len();
        let (outline, outline_words) = OUTLINES[s];
        let (texture, texture_word) = TEXTURES[t];
        Self {
            number,
            outline,
            texture,
            hue: h as f32 / HUES.len() as f32,
            words: [HUES[h], texture_word, outline_words],
        }
    }

    /// A synthetic WordNet id: `n` and eight digits. Unique, and not sorted by `number`.
    pub(super) fn wnid(&self) -> String {
        // The factor and 10^8 are coprime, so no two classes have the same id.
        format!("n{:08}", (self.number + 1) * 61_803_399 % 100_000_000)
    }
}

/// The class in words: `red striped disc, circle`.
impl fmt::Display for SampleClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}

/// One value for each pixel of a row.
pub(super) type Row<T> = [T; SIDE];

/// Evaluates `f` at each pixel. The choice of `f` is outside the loop, so that the loop vectorizes.
fn each(x: &Row<f32>, y: &Row<f32>, f: impl Fn(f32, f32) -> bool) -> Row<bool> {
    std::array::from_fn(|i| f(x[i], y[i]))
}

// Uses basic arithmetic only, since the last bit of `sin` differs between platforms.
impl Outline {
    /// Returns for each point whether it lies in the outline.
    pub(super) fn covers(self, x: &Row<f32>, y: &Row<f32>) -> Row<bool> {
        match self {
            Self::Disc => each(x, y, |x, y| x * x + y * y <= 1.0),
            Self::Ring => each(x, y, |x, y| (0.36..=1.0).contains(&(x * x + y * y))),
            Self::Square => each(x, y, |x, y| x.abs() <= 1.0 && y.abs() <= 1.0),
            Self::Diamond => each(x, y, |x, y| x.abs() + y.abs() <= 1.0),
            Self::Triangle => each(x, y, |x, y| y <= 1.0 && x.abs() <= (y + 1.0) / 2.0),
            Self::Cross => each(x, y, |x, y| {
                x.abs().min(y.abs()) <= 0.36 && x.abs().max(y.abs()) <= 1.0
            }),
            Self::Hourglass => each(x, y, |x, y| y.abs() <= 1.0 && x.abs() <= y.abs().max(0.2)),
            Self::Crescent => each(x, y, |x, y| {
                let cut = x - 0.5;
                x * x + y * y <= 1.0 && cut * cut + y * y >= 0.64
            }),
            Self::Heart => each(x, y, |x, y| {
                let (a, b) = (1.15 * x, 0.2 - 1.2 * y);
                let body = a * a + b * b - 1.0;
                body * body * body <= a * a * b * b * b
            }),
            // A point is in a pentagram if it lies beyond at most one of the five lines.
            Self::Star => each(x, y, |x, y| {
                let beyond = STAR.map(|[nx, ny]| u8::from(nx * x + ny * y > STAR_DISTANCE));
                beyond.iter().sum::<u8>() <= 1
            }),
        }
    }
}

/// Normals of the five lines of a pentagram, a fifth of a turn apart.
const STAR: [[f32; 2]; 5] = [
    [0.0, 1.0],
    [0.951_056_5, 0.309_017],
    [0.587_785_3, -0.809_017],
    [-0.587_785_3, -0.809_017],
    [-0.951_056_5, 0.309_017],
];
/// Distance of the lines from the centre: the cosine of a fifth of a turn.
const STAR_DISTANCE: f32 = 0.309_017;

/// The fractional part of `at`. Avoids `floor`, which is a function call on processors without an
/// instruction for it.
#[expect(
    clippy::cast_possible_truncation,
    reason = "periods in a picture are few"
)]
fn fraction(at: f32) -> f32 {
    // Makes `at` positive: no picture is 64 periods wide.
    let at = at + 64.0;
    at - (at as i32) as f32
}

fn upper_half(at: f32) -> bool {
    fraction(at) < 0.5
}

impl Texture {
    /// Returns for each point whether it has the second colour. `x` and `y` are in periods of the texture.
    pub(super) fn marks(self, x: &Row<f32>, y: &Row<f32>) -> Row<bool> {
        match self {
            Self::Plain => [false; SIDE],
            Self::Striped => each(x, y, |x, _| upper_half(x)),
            Self::Banded => each(x, y, |_, y| upper_half(y)),
            Self::Checked => each(x, y, |x, y| upper_half(x) != upper_half(y)),
            Self::Dotted => each(x, y, |x, y| {
                let (x, y) = (fraction(x) - 0.5, fraction(y) - 0.5);
                x * x + y * y < 0.11
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn all() -> impl Iterator<Item = SampleClass> {
        (0..MAX_CLASSES as usize).map(SampleClass::nth)
    }

    #[test]
    fn classes_are_unique() {
        let wnids: HashSet<_> = all().map(|class| class.wnid()).collect();
        let words: HashSet<_> = all().map(|class| class.to_string()).collect();
        assert_eq!((wnids.len(), words.len()), (300, 300));
        assert!(wnids.iter().all(|id| id.len() == 9 && id.starts_with('n')));
    }

    #[test]
    fn consecutive_classes_differ_in_outline_texture_and_hue() {
        let all: Vec<_> = all().collect();
        for pair in all.windows(2) {
            let (a, b) = (&pair[0], &pair[1]);
            assert!(
                a.outline != b.outline && a.texture != b.texture && a.hue != b.hue,
                "{a} / {b}"
            );
        }
    }

    /// Like the real data set, in which sorting moves every class: it catches readers that sort.
    #[test]
    fn sorting_wnids_moves_every_class() {
        for classes in [10, 200] {
            let ids: Vec<_> = (0..classes).map(|n| SampleClass::nth(n).wnid()).collect();
            let mut sorted = ids.clone();
            sorted.sort();
            assert!(
                ids.iter().zip(&sorted).all(|(a, b)| a != b),
                "{classes} classes"
            );
        }
    }
}
