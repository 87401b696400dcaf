//! Scenes as SVG elements for a page: colours are classes, which the page's style sheet has for light and dark.

use std::fmt::Write as _;

use super::{Anchor, Item, Pixels, Scene, Weight, raster};
use crate::html::{base64, escape};

/// The element; `label` says what it shows to those who cannot see it.
pub(super) fn element(scene: &Scene, label: &str) -> String {
    let mut svg = format!(
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
        scene.width,
        scene.height,
        escape(label)
    );
    for item in &scene.items {
        match item {
            Item::Fill {
                area: [x, y, width, height],
                ink,
                alpha,
            } => {
                let _ = write!(
                    svg,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"f-{}\"{}/>",
                    ink.name(),
                    opacity(*alpha)
                );
            }
            Item::Line { points, pen } => {
                svg.push_str("<polyline points=\"");
                for [x, y] in points {
                    let _ = write!(svg, "{x:.1},{y:.1} ");
                }
                let dash = if pen.dashed {
                    " stroke-dasharray=\"4 3\""
                } else {
                    ""
                };
                let _ = write!(
                    svg,
                    "\" class=\"l-{}\" stroke-width=\"{}\"{dash}{}/>",
                    pen.ink.name(),
                    pen.width,
                    opacity(pen.alpha)
                );
            }
            Item::Text {
                at: [x, y],
                text,
                style,
            } => {
                let anchor = match style.anchor {
                    Anchor::Start => "",
                    Anchor::Middle => " text-anchor=\"middle\"",
                    Anchor::End => " text-anchor=\"end\"",
                };
                let weight = match style.weight {
                    Weight::Regular => "",
                    Weight::Medium => " font-weight=\"600\"",
                };
                let turned = match style.turned {
                    true => format!(" transform=\"rotate(-90 {x:.1} {y:.1})\""),
                    false => String::new(),
                };
                let _ = write!(
                    svg,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{}\" class=\"f-{}\"{anchor}{weight}{turned}>{}</text>",
                    style.size,
                    style.ink.name(),
                    escape(text)
                );
            }
            Item::Image {
                area: [x, y, width, height],
                pixels,
                is_photo,
            } => {
                let jpeg = is_photo.then(|| jpeg(pixels)).flatten();
                let (kind, file) = match (jpeg, raster::encode(pixels)) {
                    (Some(jpeg), _) => ("jpeg", jpeg),
                    (None, Ok(png)) => ("png", png),
                    (None, Err(_)) => continue,
                };
                let class = if *is_photo { "photo" } else { "cells" };
                let _ = write!(
                    svg,
                    "<image x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{class}\" \
                     preserveAspectRatio=\"none\" href=\"data:image/{kind};base64,{}\"/>",
                    base64(&file)
                );
            }
        }
    }
    svg + "</svg>"
}

/// A photograph as a JPEG: a third of a PNG's bytes.
fn jpeg(pixels: &Pixels) -> Option<Vec<u8>> {
    let image = turbojpeg::Image {
        pixels: pixels.rgb.as_slice(),
        width: pixels.width as usize,
        pitch: 3 * pixels.width as usize,
        height: pixels.height as usize,
        format: turbojpeg::PixelFormat::RGB,
    };
    let file = turbojpeg::compress(image, 92, turbojpeg::Subsamp::None);
    file.ok().map(|file| file.to_vec())
}

fn opacity(alpha: f32) -> String {
    match alpha {
        1.0 => String::new(),
        alpha => format!(" opacity=\"{alpha:.2}\""),
    }
}
