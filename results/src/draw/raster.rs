//! Scenes as PNG files, rasterised by tiny-skia.

use tiny_skia::{
    Color, FillRule, FilterQuality, LineCap, LineJoin, Paint, PathBuilder, Pixmap, PixmapPaint,
    Rect, Stroke, StrokeDash, Transform,
};
use ttf_parser::OutlineBuilder;

use crate::num::whole;

use super::font;
use super::{Anchor, Ink, Item, Pixels, Scene, Type};

/// Pixels of the file in one of the scene.
const SCALE: f32 = 2.0;
/// The longest side of a file, in pixels.
const MAX_SIDE: f32 = 8000.0;

pub(super) fn png(scene: &Scene) -> Result<Vec<u8>, png::EncodingError> {
    let side = |length: f32| {
        let pixels = whole(f64::from((length * SCALE).clamp(1.0, MAX_SIDE)));
        u32::try_from(pixels).unwrap_or(1)
    };
    let (width, height) = (side(scene.width), side(scene.height));
    let mut rgb = Vec::new();
    // There is room for it: its sides are at most `MAX_SIDE`.
    if let Some(mut map) = Pixmap::new(width, height) {
        map.fill(colour(Ink::Paper, 1.0));
        for item in &scene.items {
            draw(&mut map, item);
        }
        let pixels = map.data().chunks_exact(4);
        rgb = pixels
            .flat_map(|pixel| [pixel[0], pixel[1], pixel[2]])
            .collect();
    }
    encode(&Pixels { width, height, rgb })
}

/// An image as a PNG file.
pub(super) fn encode(pixels: &Pixels) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, pixels.width, pixels.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&pixels.rgb)?;
    Ok(file)
}

fn colour(ink: Ink, alpha: f32) -> Color {
    let [red, green, blue] = ink.rgb();
    let mut colour = Color::from_rgba8(red, green, blue, 255);
    colour.set_alpha(alpha);
    colour
}

fn paint(ink: Ink, alpha: f32) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color(colour(ink, alpha));
    paint
}

fn draw(map: &mut Pixmap, item: &Item) {
    let scale = Transform::from_scale(SCALE, SCALE);
    match item {
        &Item::Fill {
            area: [x, y, width, height],
            ink,
            alpha,
        } => {
            if let Some(rect) = Rect::from_xywh(x, y, width, height) {
                map.fill_rect(rect, &paint(ink, alpha), scale, None);
            }
        }
        Item::Line { points, pen } => {
            let mut path = PathBuilder::new();
            for (at, &[x, y]) in points.iter().enumerate() {
                match at {
                    0 => path.move_to(x, y),
                    _ => path.line_to(x, y),
                }
            }
            let Some(path) = path.finish() else {
                return;
            };
            let dash = pen
                .dashed
                .then(|| StrokeDash::new(vec![4.0, 3.0], 0.0))
                .flatten();
            let stroke = Stroke {
                width: pen.width,
                line_cap: LineCap::Butt,
                line_join: LineJoin::Round,
                dash,
                ..Stroke::default()
            };
            map.stroke_path(&path, &paint(pen.ink, pen.alpha), &stroke, scale, None);
        }
        Item::Text { at, text, style } => write(map, *at, text, *style),
        &Item::Image {
            area: [x, y, width, height],
            ref pixels,
            is_photo,
        } => {
            let Some(mut image) = Pixmap::new(pixels.width, pixels.height) else {
                return;
            };
            let (to, _) = image.data_mut().as_chunks_mut::<4>();
            let (from, _) = pixels.rgb.as_chunks::<3>();
            for (to, &[red, green, blue]) in to.iter_mut().zip(from) {
                *to = [red, green, blue, 255];
            }
            let (across, down) = (width / pixels.width as f32, height / pixels.height as f32);
            let place =
                Transform::from_row(across * SCALE, 0.0, 0.0, down * SCALE, x * SCALE, y * SCALE);
            let quality = match is_photo {
                true => FilterQuality::Bicubic,
                false => FilterQuality::Nearest,
            };
            let paint = PixmapPaint {
                quality,
                ..PixmapPaint::default()
            };
            map.draw_pixmap(0, 0, image.as_ref(), &paint, place, None);
        }
    }
}

fn write(map: &mut Pixmap, [x, y]: [f32; 2], text: &str, style: Type) {
    let mut outline = Outline(PathBuilder::new());
    font::outline(text, style.weight, &mut outline);
    let Some(path) = outline.0.finish() else {
        return;
    };
    let before = match style.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => font::width(text, style) / 2.0,
        Anchor::End => font::width(text, style),
    };
    let size = style.size * SCALE;
    let (x, y, before) = (x * SCALE, y * SCALE, before * SCALE);
    // The outlines have y upwards.
    let place = match style.turned {
        true => Transform::from_row(0.0, -size, -size, 0.0, x, y + before),
        false => Transform::from_row(size, 0.0, 0.0, -size, x - before, y),
    };
    map.fill_path(
        &path,
        &paint(style.ink, 1.0),
        FillRule::Winding,
        place,
        None,
    );
}

struct Outline(PathBuilder);

impl OutlineBuilder for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        self.0.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.0.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.0.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.0.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.0.close();
    }
}
