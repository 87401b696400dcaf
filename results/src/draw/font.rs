//! The font of pictures: Roboto (Apache License 2.0), of which `results/font` has the Latin, Greek and Cyrillic letters.

use std::sync::LazyLock;

use ttf_parser::{Face, GlyphId, OutlineBuilder};

use super::{Type, Weight};

static FACES: LazyLock<[Option<Face<'static>>; 2]> = LazyLock::new(|| {
    let files: [&'static [u8]; 2] = [
        include_bytes!("../../font/Roboto-Regular.ttf"),
        include_bytes!("../../font/Roboto-Medium.ttf"),
    ];
    files.map(|file| Face::parse(file, 0).ok())
});

fn face(weight: Weight) -> Option<&'static Face<'static>> {
    let at = match weight {
        Weight::Regular => 0,
        Weight::Medium => 1,
    };
    FACES[at].as_ref()
}

/// The glyphs of a text, each with the place where it begins, in parts of the size. Letters that the font lacks are
/// question marks.
fn glyphs(text: &str, weight: Weight) -> Vec<(GlyphId, f32, f32)> {
    let Some(face) = face(weight) else {
        return Vec::new();
    };
    let em = f32::from(face.units_per_em().max(1));
    let mut x = 0.0;
    let glyph = |letter: char| {
        let glyph = face.glyph_index(letter).or_else(|| face.glyph_index('?'))?;
        let start = x;
        x += f32::from(face.glyph_hor_advance(glyph).unwrap_or(0)) / em;
        Some((glyph, start, x))
    };
    text.chars().filter_map(glyph).collect()
}

/// The width of a text.
pub(crate) fn width(text: &str, style: Type) -> f32 {
    let last = glyphs(text, style.weight).pop();
    last.map_or(0.0, |(.., end)| end * style.size)
}

/// Cuts a text to what fits into `room`, with an ellipsis if some of it is left out.
pub(crate) fn fit(text: &str, style: Type, room: f32) -> String {
    if width(text, style) <= room {
        return text.to_owned();
    }
    let room = room - width("…", style);
    let glyphs = glyphs(text, style.weight);
    let fits = glyphs
        .iter()
        .take_while(|(.., end)| end * style.size <= room)
        .count();
    let start: String = text.chars().take(fits).collect();
    format!("{}…", start.trim_end_matches([' ', ',', '-']))
}

/// Draws the outlines of a text of size 1 that begins at (0, 0), with y upwards.
pub(super) fn outline(text: &str, weight: Weight, to: &mut impl OutlineBuilder) {
    let Some(face) = face(weight) else {
        return;
    };
    let scale = 1.0 / f32::from(face.units_per_em().max(1));
    for (glyph, x, _) in glyphs(text, weight) {
        face.outline_glyph(glyph, &mut Placed { to, scale, x });
    }
}

/// A glyph at its place.
struct Placed<'a, B> {
    to: &'a mut B,
    scale: f32,
    x: f32,
}

impl<B> Placed<'_, B> {
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        (self.x + x * self.scale, y * self.scale)
    }
}

impl<B: OutlineBuilder> OutlineBuilder for Placed<'_, B> {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.to.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.to.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.at(x1, y1), self.at(x, y));
        self.to.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.at(x1, y1), self.at(x2, y2), self.at(x, y));
        self.to.curve_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.to.close();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ink;
    use super::*;

    #[test]
    fn a_text_that_is_too_long_ends_in_an_ellipsis_that_fits() {
        let style = Type::new(12.0, Ink::Text);
        assert_eq!(fit("cab", style, 100.0), "cab");
        let short = fit("Staffordshire bullterrier", style, 80.0);
        assert!(
            short.starts_with("Staff") && short.ends_with('…'),
            "{short}"
        );
        assert!(width(&short, style) <= 80.0);
        // Roboto's advance of a digit is 1150 of 2048 units.
        assert!((width("00", style) - 2.0 * 12.0 * 1150.0 / 2048.0).abs() < 0.1);
    }
}
