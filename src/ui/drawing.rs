//! Pictures as text for a terminal: by the graphics protocol of kitty or iTerm2, by sixels, or as half blocks of
//! colour, two pixels in a character. The terminal is known by its variables alone: to ask it, a program must wait for an
//! answer that may never come.

use std::env;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::picture::Picture;

/// Protocols of terminals, each with a variable that tells and the values that it begins with.
const KNOWN: &[(Protocol, &str, &[&str])] = &[
    (Protocol::Kitty, "TERM", &["xterm-kitty", "xterm-ghostty"]),
    (Protocol::Kitty, "TERM_PROGRAM", &["ghostty"]),
    (
        Protocol::Iterm,
        "TERM_PROGRAM",
        &["iTerm", "WezTerm", "mintty", "rio", "WarpTerminal"],
    ),
    (Protocol::Iterm, "LC_TERMINAL", &["iTerm"]),
    (Protocol::Iterm, "KONSOLE_VERSION", &[""]),
    #[cfg(feature = "sixel")]
    (
        Protocol::Sixel,
        "TERM",
        &["foot", "mlterm", "contour", "yaft"],
    ),
];

/// Bytes of base64 that one escape sequence of kitty may have.
const CHUNK: usize = 4096;
/// About as many pixels as a character is wide.
#[cfg(feature = "sixel")]
const CELL: usize = 8;
/// Rows of the terminal that stay free for text.
const TEXT_ROWS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// <https://sw.kovidgoyal.net/kitty/graphics-protocol/>
    Kitty,
    /// <https://iterm2.com/documentation-images.html>
    Iterm,
    #[cfg(feature = "sixel")]
    /// <https://vt100.net/docs/vt3xx-gp/chapter14.html>
    Sixel,
    Blocks,
}

impl Protocol {
    fn known() -> Self {
        let says = |name: &str, starts: &[&str]| {
            let value = env::var(name).unwrap_or_default();
            !value.is_empty() && starts.iter().any(|start| value.starts_with(start))
        };
        let known = KNOWN.iter().find(|(_, name, starts)| says(name, starts));
        known.map_or(Self::Blocks, |(protocol, ..)| *protocol)
    }
}

/// `picture` for a terminal of `rows` and `columns`, at most `most` columns wide, and no larger than terminal or picture.
/// It ends its line. `None` if it cannot be encoded.
pub(super) fn drawn(picture: &Picture, [rows, columns]: [usize; 2], most: usize) -> Option<String> {
    let (width, height) = (picture.width.max(1), picture.height.max(1));
    // A character is about twice as high as it is wide.
    let of_rows = 2 * rows.saturating_sub(TEXT_ROWS).max(1) * width / height;
    let columns = most.min(width).min(columns).min(of_rows).max(1);
    let rows = (columns * height).div_ceil(2 * width).max(1);
    match Protocol::known() {
        Protocol::Kitty => Some(kitty(&picture.png().ok()?, columns, rows)),
        Protocol::Iterm => {
            let png = BASE64.encode(picture.png().ok()?);
            Some(format!(
                "\x1b]1337;File=inline=1;width={columns};height={rows}:{png}\x07\n"
            ))
        }
        #[cfg(feature = "sixel")]
        Protocol::Sixel => sixel(picture, columns),
        Protocol::Blocks => Some(blocks(picture, columns, has_all_colours())),
    }
}

fn kitty(png: &[u8], columns: usize, rows: usize) -> String {
    let encoded = BASE64.encode(png);
    let mut text = String::new();
    let mut rest = encoded.as_str();
    let mut keys = format!("a=T,f=100,c={columns},r={rows},");
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rest.len().min(CHUNK));
        let more = u8::from(!after.is_empty());
        let _ = write!(text, "\x1b_G{keys}m={more};{chunk}\x1b\\");
        (rest, keys) = (after, String::new());
    }
    text + "\n"
}

#[cfg(feature = "sixel")]
fn sixel(picture: &Picture, columns: usize) -> Option<String> {
    let (width, height) = (
        columns * CELL,
        columns * CELL * picture.height / picture.width.max(1),
    );
    let pixel = |x: usize, y: usize| {
        let [r, g, b] = picture.pixel(x * picture.width / width, y * picture.height / height);
        [r, g, b, 255]
    };
    let rows = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y)));
    let image = icy_sixel::SixelImage::try_from_rgba(rows.collect(), width, height).ok()?;
    Some(image.encode().ok()? + "\n")
}

/// Lines of half blocks: the upper pixel is the ground, the lower one the colour.
fn blocks(picture: &Picture, columns: usize, all_colours: bool) -> String {
    let rows = (columns * picture.height)
        .div_ceil(picture.width.max(1))
        .max(1);
    let mean = |x: usize, y: usize| {
        let span = |at: usize, cells: usize, side: usize| {
            let start = at * side / cells;
            start
                ..((at + 1) * side)
                    .div_ceil(cells)
                    .clamp(start + 1, side.max(1))
        };
        let (across, down) = (
            span(x, columns, picture.width),
            span(y, rows, picture.height),
        );
        let count = across.len() * down.len();
        let mut sum = [0_usize; 3];
        for (x, y) in down.flat_map(|y| across.clone().map(move |x| (x, y))) {
            for (sum, value) in sum.iter_mut().zip(picture.pixel(x, y)) {
                *sum += usize::from(value);
            }
        }
        let code = sum.map(|sum| sum / count);
        match all_colours {
            true => format!("2;{};{};{}", code[0], code[1], code[2]),
            // The cube of 6x6x6 colours, numbers 16 to 231.
            false => {
                let [r, g, b] = code.map(|value| (value * 5 + 127) / 255);
                format!("5;{}", 16 + 36 * r + 6 * g + b)
            }
        }
    };
    let mut text = String::new();
    for y in (0..rows).step_by(2) {
        for x in 0..columns {
            let _ = match y + 1 < rows {
                true => write!(
                    text,
                    "\x1b[48;{};38;{}m\u{2584}",
                    mean(x, y),
                    mean(x, y + 1)
                ),
                false => write!(text, "\x1b[49;38;{}m\u{2580}", mean(x, y)),
            };
        }
        text += "\x1b[0m\n";
    }
    text
}

/// True if the terminal says that it shows 24 bits of colour, and not only 256 colours.
fn has_all_colours() -> bool {
    env::var("COLORTERM").is_ok_and(|value| ["truecolor", "24bit"].contains(&value.as_str()))
}

#[cfg(test)]
mod tests {
    use tinyres_format::{Draws, Shape, Stream};

    use super::*;
    use crate::picture::Panel;

    fn picture(pixels: &[u8], side: u32) -> Picture {
        Picture::plain(&Panel::new(Shape::rgb(side), pixels, ""))
    }

    #[test]
    fn kitty_gets_the_png_in_chunks() {
        let draws = Draws::new(1, Stream::Sample, 0);
        let noise = (0..3 * 64 * 64).map(|at| u8::try_from(draws.below(at, 256)).unwrap());
        let noise: Vec<u8> = noise.collect();
        let png = picture(&noise, 64).png().unwrap();
        let text = kitty(&png, 10, 5);
        let chunks: Vec<_> = text
            .trim_end()
            .split("\x1b\\")
            .filter(|chunk| !chunk.is_empty())
            .collect();
        assert!(chunks.len() > 2);
        assert!(chunks[0].starts_with("\x1b_Ga=T,f=100,c=10,r=5,m=1;"));
        assert!(chunks[1].starts_with("\x1b_Gm=1;"));
        assert!(chunks.last().unwrap().starts_with("\x1b_Gm=0;"));
        let data = chunks.iter().map(|chunk| chunk.split_once(';').unwrap().1);
        assert!(data.clone().all(|data| data.len() <= CHUNK));
        assert_eq!(BASE64.decode(data.collect::<String>()).unwrap(), png);
    }

    #[test]
    fn blocks_are_means_of_pixels_and_their_last_half_line_has_no_ground() {
        // Red 0, 10, 20, ... 80; the other channels 0.
        let mut pixels = vec![0; 27];
        (0..9_u8).for_each(|at| pixels[usize::from(at)] = 10 * at);
        let image = picture(&pixels, 3);
        let end = "\x1b[0m\n";
        let cell = |upper, lower| format!("\x1b[48;2;{upper};0;0;38;2;{lower};0;0m\u{2584}");
        let half = |upper| format!("\x1b[49;38;2;{upper};0;0m\u{2580}");
        let lines = [
            cell(0, 30) + &cell(10, 40) + &cell(20, 50) + end,
            half(60) + &half(70) + &half(80) + end,
        ];
        assert_eq!(blocks(&image, 3, true), lines.concat());
        assert_eq!(blocks(&image, 1, true), half(40) + end);
        // 40 of 255 is nearest to step 1 of 5: colour 16 + 36.
        assert_eq!(
            blocks(&image, 1, false),
            format!("\x1b[49;38;5;52m\u{2580}{end}")
        );
    }

    #[cfg(feature = "sixel")]
    #[test]
    fn sixels_are_of_the_picture() {
        let red: Vec<u8> = [vec![255; 16], vec![0; 32]].concat();
        let text = sixel(&picture(&red, 4), 4).unwrap();
        let shown = icy_sixel::SixelImage::decode(text.trim_end().as_bytes()).unwrap();
        // Sixels have six rows each.
        assert_eq!(shown.width, 4 * CELL);
        assert_eq!(shown.height, (4 * CELL).next_multiple_of(6));
        let is_red = |pixel: &[u8]| pixel[0] > 240 && pixel[1] < 15 && pixel[2] < 15;
        assert!((shown.pixels.chunks(4).take(16 * CELL * CELL)).all(is_red));
    }
}
