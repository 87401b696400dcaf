//! Pictures of images: alone, on a sheet with captions, or graded by predictions. Draws pixels, boxes and text,
//! and encodes PNG; reads no shards and writes no files.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use tinyres_format::Shape;

type Colour = [u8; 3];

const GREEN: Colour = [0, 150, 60];
const RED: Colour = [215, 30, 40];
const WHITE: Colour = [255; 3];
const BLACK: Colour = [0; 3];
/// Small images are enlarged to about this side: alone, on a sheet, and on a graded one.
const SIDES: [u32; 3] = [512, 192, 128];
/// A sheet is about as wide as this, and a graded one has so many images in a row.
const SHEET: usize = 1600;
const GRADED: usize = 8;
/// Pixels between the images of a sheet.
const GAP: usize = 8;
/// Pixels of the frame of a graded image, of those between the images.
const MAT: usize = 4;
const FONT: RasterHeight = RasterHeight::Size16;
const LINE: usize = 16;

/// An image to draw.
#[derive(Clone, Copy, Debug)]
pub struct Panel<'a> {
    /// Its shape; on one sheet all have the same.
    pub shape: Shape,
    /// Its pixels, `u8 [channels, height, width]`.
    pub pixels: &'a [u8],
    /// Its box, in inclusive pixels: x0, y0, x1, y1.
    pub bbox: Option<[i32; 4]>,
    /// What to write under it on a sheet, as far as there is room.
    pub caption: &'a str,
}

impl<'a> Panel<'a> {
    /// An image without a box, with the first of `words`, a list of synonyms, under it.
    #[must_use]
    pub fn new(shape: Shape, pixels: &'a [u8], words: &'a str) -> Self {
        Self {
            shape,
            pixels,
            bbox: None,
            caption: first_of(words),
        }
    }
}

/// Verdict on a prediction, which the frame of a graded image shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The predicted class is right.
    Right,
    /// The predicted class is another one, of this name.
    Wrong(&'a str),
}

/// A picture could not be encoded.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode a PNG: {0}")]
pub struct Error(#[from] png::EncodingError);

/// Pixels to look at.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    rows: Vec<Colour>,
}

impl Picture {
    /// An image with its box, small ones enlarged by a whole factor.
    #[must_use]
    pub fn of(panel: &Panel<'_>) -> Self {
        let scale = Scale::new(panel.shape, SIDES[0]);
        let mut picture = Self::blank(scale.width, scale.height);
        picture.panel(panel, &scale, [0, 0]);
        picture
    }

    /// An image with its box, pixel for pixel.
    #[must_use]
    pub fn plain(panel: &Panel<'_>) -> Self {
        let scale = Scale::new(panel.shape, 1);
        let mut picture = Self::blank(scale.width, scale.height);
        picture.panel(panel, &scale, [0, 0]);
        picture
    }

    /// Images with their boxes and captions; one alone is larger.
    #[must_use]
    pub fn sheet(panels: &[Panel<'_>]) -> Self {
        let Some(first) = panels.first() else {
            return Self::blank(1, 1);
        };
        let scale = Scale::new(first.shape, Self::side(panels.len()));
        let cell = [scale.width + GAP, scale.height + LINE + GAP];
        let columns = (SHEET / cell[0]).clamp(1, panels.len());
        let rows = panels.len().div_ceil(columns);
        let mut picture = Self::blank(columns * cell[0] + GAP, rows * cell[1] + GAP);
        for (i, panel) in panels.iter().enumerate() {
            let at = [GAP + i % columns * cell[0], GAP + i / columns * cell[1]];
            picture.panel(panel, &scale, at);
            picture.text(panel.caption, [at[0], at[1] + scale.height], scale.width);
        }
        picture
    }

    /// Images, each in a frame of the colour of its verdict: green if right, and if wrong red with the
    /// predicted class under the caption.
    #[must_use]
    pub fn graded(panels: &[Panel<'_>], verdicts: &[Verdict<'_>]) -> Self {
        let Some(first) = panels.first() else {
            return Self::blank(1, 1);
        };
        let scale = Scale::new(first.shape, SIDES[2]);
        let cell = [scale.width + 2 * GAP, scale.height + 2 * LINE + 2 * GAP];
        let rows = panels.len().div_ceil(GRADED);
        let mut picture = Self::blank(GRADED * cell[0], rows * cell[1]);
        for (i, (panel, verdict)) in panels.iter().zip(verdicts).enumerate() {
            let at = [GAP + i % GRADED * cell[0], GAP + i / GRADED * cell[1]];
            let colour = match verdict {
                Verdict::Right => GREEN,
                Verdict::Wrong(_) => RED,
            };
            picture.mat(at, &scale, colour);
            picture.panel(panel, &scale, at);
            let below = at[1] + scale.height + MAT;
            picture.text(panel.caption, [at[0], below], scale.width);
            if let Verdict::Wrong(predicted) = verdict {
                let words = format!("> {}", first_of(predicted));
                picture.text(&words, [at[0], below + LINE], scale.width);
            }
        }
        picture
    }

    /// About how large a sheet shows each of so many images, in pixels.
    #[must_use]
    pub fn side(images: usize) -> u32 {
        SIDES[usize::from(images > 1)]
    }

    /// The picture as a PNG file.
    ///
    /// # Errors
    /// It is larger than a PNG can be.
    pub fn png(&self) -> Result<Vec<u8>, Error> {
        let side = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, side(self.width), side(self.height));
        encoder.set_color(png::ColorType::Rgb);
        encoder
            .write_header()?
            .write_image_data(self.rows.as_flattened())?;
        Ok(file)
    }

    /// The colour at column `x` of row `y`.
    pub(crate) fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        self.rows[y * self.width + x]
    }

    fn blank(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            rows: vec![WHITE; width * height],
        }
    }

    fn set(&mut self, [x, y]: [usize; 2], colour: Colour) {
        self.rows[y * self.width + x] = colour;
    }

    fn panel(&mut self, panel: &Panel<'_>, scale: &Scale, at: [usize; 2]) {
        let (width, plane) = (scale.width / scale.factor, panel.pixels.len() / 3);
        for y in 0..scale.height {
            for x in 0..scale.width {
                let from = y / scale.factor * width + x / scale.factor;
                let colour = [0, 1, 2].map(|channel| panel.pixels[channel * plane + from]);
                self.set([at[0] + x, at[1] + y], colour);
            }
        }
        if let Some(sides) = panel.bbox {
            self.frame(
                sides.map(|side| usize::try_from(side).unwrap_or_default()),
                scale,
                at,
            );
        }
    }

    /// Fills the place of an image, and a little around it.
    fn mat(&mut self, at: [usize; 2], scale: &Scale, colour: Colour) {
        for y in at[1] - MAT..at[1] + scale.height + MAT {
            for x in at[0] - MAT..at[0] + scale.width + MAT {
                self.set([x, y], colour);
            }
        }
    }

    /// Draws a box along its outermost pixels, in dashes that show on any ground.
    fn frame(&mut self, [x0, y0, x1, y1]: [usize; 4], scale: &Scale, at: [usize; 2]) {
        let factor = scale.factor;
        let low = [at[0] + x0 * factor, at[1] + y0 * factor];
        let high = [at[0] + (x1 + 1) * factor - 1, at[1] + (y1 + 1) * factor - 1];
        let line = (factor / 4).max(scale.width / 256).max(1);
        for y in low[1]..=high[1] {
            for x in low[0]..=high[0] {
                if (x - low[0])
                    .min(high[0] - x)
                    .min(y - low[1])
                    .min(high[1] - y)
                    < line
                {
                    let dash = (x + y) / (4 * line) % 2;
                    self.set([x, y], [WHITE, BLACK][dash]);
                }
            }
        }
    }

    /// Writes as much of `text` as fits into `room` pixels.
    fn text(&mut self, text: &str, at: [usize; 2], room: usize) {
        let advance = get_raster_width(FontWeight::Regular, FONT);
        for (i, letter) in text.chars().take(room / advance).enumerate() {
            let known = get_raster(letter, FontWeight::Regular, FONT);
            let Some(glyph) = known.or_else(|| get_raster('?', FontWeight::Regular, FONT)) else {
                continue;
            };
            for (y, row) in glyph.rows().enumerate() {
                for (x, ink) in row.iter().enumerate() {
                    self.set([at[0] + i * advance + x, at[1] + y], [255 - ink; 3]);
                }
            }
        }
    }
}

/// The first of a list of synonyms.
fn first_of(words: &str) -> &str {
    words.split(',').next().unwrap_or(words)
}

/// How images are enlarged.
struct Scale {
    factor: usize,
    /// Of an enlarged image, in pixels.
    width: usize,
    height: usize,
}

impl Scale {
    fn new(shape: Shape, side: u32) -> Self {
        let factor = (side / shape.width.max(shape.height)).max(1) as usize;
        Self {
            factor,
            width: shape.width as usize * factor,
            height: shape.height as usize * factor,
        }
    }
}
