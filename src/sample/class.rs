//! What the classes of a sample set are: every combination of a shape, a texture and a hue.

use std::fmt;

use super::SIDE;

/// An outline within the square from -1 to 1, `y` downwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Shape {
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

/// How a shape is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Texture {
    Plain,
    Striped,
    Checked,
    Dotted,
    Banded,
}

/// Words for each shape, synonyms after a comma as WordNet has them.
const SHAPES: [(Shape, &str); 10] = [
    (Shape::Disc, "disc, circle"),
    (Shape::Star, "star"),
    (Shape::Square, "square"),
    (Shape::Hourglass, "hourglass, bow tie"),
    (Shape::Ring, "ring"),
    (Shape::Triangle, "triangle"),
    (Shape::Heart, "heart"),
    (Shape::Cross, "cross, plus sign"),
    (Shape::Crescent, "crescent, half-moon"),
    (Shape::Diamond, "diamond, rhombus"),
];

const TEXTURES: [(Texture, &str); 5] = [
    (Texture::Plain, "plain"),
    (Texture::Striped, "striped"),
    (Texture::Checked, "checked"),
    (Texture::Dotted, "dotted"),
    (Texture::Banded, "banded"),
];

/// Names of hues, evenly spaced round the colour circle from red.
const HUES: [&str; 6] = ["red", "yellow", "green", "cyan", "blue", "magenta"];

/// How many classes there are.
pub const MAX_CLASSES: u32 = 300;
const _: () = assert!(MAX_CLASSES as usize == SHAPES.len() * TEXTURES.len() * HUES.len());

/// One class. Which one a number stands for never changes, so a set of ten classes and one of two
/// hundred agree on the first ten.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    number: usize,
    pub(super) shape: Shape,
    pub(super) texture: Texture,
    /// Turns round the colour circle, 0 to 1.
    pub(super) hue: f32,
    words: [&'static str; 3],
}

impl Class {
    /// Class `number` of [`MAX_CLASSES`]. Neighbours differ in shape, texture and hue at once, so
    /// that a few classes are told apart more easily than many.
    pub(super) fn nth(number: usize) -> Self {
        // For each shape, the steps run once through all textures times hues, shifted by the
        // shape: every combination comes exactly once.
        let (step, s) = (number / SHAPES.len(), number % SHAPES.len());
        let t = (step + s) % TEXTURES.len();
        let h = (step / TEXTURES.len() + s) % HUES.len();
        let (shape, shape_words) = SHAPES[s];
        let (texture, texture_word) = TEXTURES[t];
        Self {
            number,
            shape,
            texture,
            hue: h as f32 / HUES.len() as f32,
            words: [HUES[h], texture_word, shape_words],
        }
    }

    /// The class's synthetic WordNet id: `n` and eight digits, unique and in no order.
    pub(super) fn wnid(&self) -> String {
        // The factor shares no divisor with 10^8, so no two classes meet.
        format!("n{:08}", (self.number + 1) * 61_803_399 % 100_000_000)
    }
}

/// The class in words: `red striped disc, circle`.
impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}

/// A coordinate, or what holds, at each pixel of a row.
pub(super) type Row<T> = [T; SIDE];

/// Asks `f` at each pixel. The choice of `f` stays outside the loop, which then runs on vectors.
fn each(x: &Row<f32>, y: &Row<f32>, f: impl Fn(f32, f32) -> bool) -> Row<bool> {
    std::array::from_fn(|i| f(x[i], y[i]))
}

// Arithmetic alone: the last bit of a library's sine differs between platforms.
impl Shape {
    /// Which of the points lie in the shape.
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
            // A pentagram is what lies beyond at most one of its five lines.
            Self::Star => each(x, y, |x, y| {
                let beyond = STAR.map(|[nx, ny]| u8::from(nx * x + ny * y > STAR_DISTANCE));
                beyond.iter().sum::<u8>() <= 1
            }),
        }
    }
}

/// Directions of a pentagram's lines, a fifth of a turn apart.
const STAR: [[f32; 2]; 5] = [
    [0.0, 1.0],
    [0.951_056_5, 0.309_017],
    [0.587_785_3, -0.809_017],
    [-0.587_785_3, -0.809_017],
    [-0.951_056_5, 0.309_017],
];
/// Their distance from its centre: the cosine of a fifth of a turn.
const STAR_DISTANCE: f32 = 0.309_017;

/// The part of `at` after the point: `floor` would be a call where the processor has no such
/// instruction for sure.
#[expect(
    clippy::cast_possible_truncation,
    reason = "periods in a picture are few"
)]
fn fraction(at: f32) -> f32 {
    // Never negative: no picture is that many periods wide.
    let at = at + 64.0;
    at - (at as i32) as f32
}

fn upper_half(at: f32) -> bool {
    fraction(at) < 0.5
}

impl Texture {
    /// Which of the points carry the second colour: `x` and `y` in periods of the texture.
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

    fn all() -> impl Iterator<Item = Class> {
        (0..MAX_CLASSES as usize).map(Class::nth)
    }

    #[test]
    fn classes_are_unique() {
        let wnids: HashSet<_> = all().map(|class| class.wnid()).collect();
        let words: HashSet<_> = all().map(|class| class.to_string()).collect();
        assert_eq!((wnids.len(), words.len()), (300, 300));
        assert!(wnids.iter().all(|id| id.len() == 9 && id.starts_with('n')));
    }

    #[test]
    fn neighbours_share_nothing() {
        let all: Vec<_> = all().collect();
        for pair in all.windows(2) {
            let (a, b) = (&pair[0], &pair[1]);
            assert!(
                a.shape != b.shape && a.texture != b.texture && a.hue != b.hue,
                "{a} / {b}"
            );
        }
    }

    /// As in the real set, where sorting moves every class.
    #[test]
    fn no_class_keeps_its_place_when_sorted() {
        for classes in [10, 200] {
            let ids: Vec<_> = (0..classes).map(|n| Class::nth(n).wnid()).collect();
            let mut sorted = ids.clone();
            sorted.sort();
            assert!(
                ids.iter().zip(&sorted).all(|(a, b)| a != b),
                "{classes} classes"
            );
        }
    }
}
