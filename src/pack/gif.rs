//! Decoding of the first frame of a GIF to RGBX pixels, as Pillow's `GifImagePlugin` does. The crate `weezl` expands
//! the codes.
//!
//! The crate `gif` 0.14.2, which also uses `weezl`, gives other pixels where a frame has two control extensions, and
//! refuses files without a palette and files that end right behind the last pixel. Pillow reads all of these.

use weezl::{BitOrder, LzwStatus, decode};

use super::ImageError;
use super::error::{broken, cut};
use super::facts::Facts;
use super::orientation::Orientation;

struct Frame<'a> {
    /// Width and height of the picture: the screen, made larger where the frame leaves it.
    size: [usize; 2],
    /// Position of the frame in it.
    start: [usize; 2],
    /// Width and height of the frame.
    extent: [usize; 2],
    /// Red, green and blue of each index; grey levels without one.
    palette: Option<&'a [[u8; 3]]>,
    /// Index of what the frame does not cover.
    around: u8,
    interlaced: bool,
    /// Bits of the smallest codes, without those for clear and end.
    bits: u8,
    /// The blocks of the coded pixels, and all after them.
    data: &'a [u8],
}

/// Width and height in pixels.
pub(super) fn size(bytes: &[u8]) -> Result<[u32; 2], ImageError> {
    let size = Frame::first(bytes)?.size;
    Ok(size.map(|length| u32::try_from(length).unwrap_or(u32::MAX)))
}

/// Decodes to `rgbx`, which is resized to fit. Transparency is dropped.
pub(super) fn decode(bytes: &[u8], rgbx: &mut Vec<u8>) -> Result<Facts, ImageError> {
    let frame = Frame::first(bytes)?;
    let indices = frame.indices()?;
    let color = |index: u8| match frame.palette {
        None => [index; 3],
        Some(palette) => *palette.get(usize::from(index)).unwrap_or(&[0; 3]),
    };
    let colors = (0..=u8::MAX).map(color);
    let colors: Vec<[u8; 4]> = colors
        .map(|[red, green, blue]| [red, green, blue, 0])
        .collect();
    rgbx.clear();
    rgbx.extend(indices.iter().flat_map(|&index| colors[usize::from(index)]));
    Ok(Facts {
        grey: (colors.iter()).all(|[red, green, blue, _]| red == green && green == blue),
        orientation: Orientation::UPRIGHT,
        conversion: None,
    })
}

impl<'a> Frame<'a> {
    /// Reads all blocks up to the pixels of the first frame.
    fn first(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let mut rest = bytes;
        let screen = take(&mut rest, 13)?;
        let size = [6, 8].map(|at| usize::from(u16::from_le_bytes([screen[at], screen[at + 1]])));
        let mut palette = match screen[10] {
            flags @ 128.. => palette(&mut rest, flags)?,
            _ => None,
        };
        let mut around = 0;
        loop {
            match take(&mut rest, 1)?[0] {
                b';' => return Err(broken("GIF without a frame")),
                b'!' => {
                    let kind = take(&mut rest, 1)?[0];
                    let content = block(&mut rest);
                    // A graphic control with a transparent index.
                    if let (249, Some(&[flags, _, _, index, ..])) = (kind, content)
                        && flags & 1 != 0
                    {
                        around = index;
                    }
                    if kind == 254 && content.is_none() {
                        continue; // An empty comment.
                    }
                    while block(&mut rest).is_some() {}
                }
                b',' => {
                    let head = take(&mut rest, 9)?;
                    let number =
                        |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
                    let (start, extent) = ([number(0), number(2)], [number(4), number(6)]);
                    if let flags @ 128.. = head[8] {
                        palette = self::palette(&mut rest, flags)?.or(palette);
                    }
                    if extent.contains(&0) {
                        return Err(broken("GIF with an empty frame"));
                    }
                    return Ok(Self {
                        size: [0, 1].map(|axis| size[axis].max(start[axis] + extent[axis])),
                        start,
                        extent,
                        palette,
                        around,
                        interlaced: head[8] & 64 != 0,
                        bits: take(&mut rest, 1)?[0],
                        data: rest,
                    });
                }
                _ => {}
            }
        }
    }

    /// The index of every pixel of the picture.
    fn indices(&self) -> Result<Vec<u8>, ImageError> {
        let [width, height] = self.size;
        let [columns, rows] = self.extent;
        let stored = self.expand(columns * rows)?;
        let mut indices = vec![self.around; width * height];
        for (stored, row) in stored
            .chunks_exact(columns)
            .zip(Rows::new(rows, self.interlaced))
        {
            let place = (self.start[1] + row) * width + self.start[0];
            indices[place..place + columns].copy_from_slice(stored);
        }
        Ok(indices)
    }

    /// The index of every pixel of the frame, in the order of the file: codes of variable length (Lempel, Ziv and
    /// Welch), in blocks.
    fn expand(&self, len: usize) -> Result<Vec<u8>, ImageError> {
        if self.bits > 11 {
            return Err(broken("GIF with codes of too many bits"));
        }
        let mut decoder = decode::Decoder::new(BitOrder::Lsb, self.bits);
        let (mut stored, mut filled) = (vec![0; len], 0);
        let mut blocks = self.data;
        while filled < len {
            let before = blocks;
            // A block that is cut short is not read.
            let whole = block(&mut blocks).filter(|block| block.len() == usize::from(before[0]));
            let mut codes = whole.unwrap_or(&[]);
            loop {
                let done = decoder.decode_bytes(codes, &mut stored[filled..]);
                codes = &codes[done.consumed_in..];
                filled += done.consumed_out;
                match done.status {
                    Ok(LzwStatus::Ok) => {}
                    Ok(LzwStatus::NoProgress) => break,
                    Ok(LzwStatus::Done) if filled == len => break,
                    Ok(LzwStatus::Done) => return Err(cut()),
                    Err(_) => return Err(broken("GIF with a code that stands for nothing")),
                }
                if filled == len {
                    break;
                }
            }
            if whole.is_none() && filled < len {
                return Err(cut());
            }
        }
        Ok(stored)
    }
}

/// The rows of a frame in the order of the file.
struct Rows {
    height: usize,
    next: usize,
    step: usize,
    /// First row and step of the passes to come.
    passes: &'static [(usize, usize)],
}

impl Rows {
    fn new(height: usize, interlaced: bool) -> Self {
        let passes: &[(usize, usize)] = match interlaced {
            true => &[(0, 8), (4, 8), (2, 4), (1, 2)],
            false => &[(0, 1)],
        };
        Self {
            height,
            next: height,
            step: 0,
            passes,
        }
    }
}

impl Iterator for Rows {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.next >= self.height {
            let (&(first, step), passes) = self.passes.split_first()?;
            (self.next, self.step, self.passes) = (first, step, passes);
        }
        let row = self.next;
        self.next += self.step;
        Some(row)
    }
}

/// The next block of an extension. `None` for the empty one that ends them.
fn block<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take(rest, 1).ok()?[0];
    let (found, after) = rest.split_at(rest.len().min(len.into()));
    *rest = after;
    (!found.is_empty()).then_some(found)
}

/// A palette of as many colors as `flags` say. `None` for one that says nothing: greys from 0 on. Where that is the
/// frame's own, Pillow takes the palette of all frames.
fn palette<'a>(rest: &mut &'a [u8], flags: u8) -> Result<Option<&'a [[u8; 3]]>, ImageError> {
    let (colors, _) = take(rest, 3 << ((flags & 7) + 1))?.as_chunks();
    let grey = (0..=u8::MAX)
        .zip(colors)
        .all(|(index, color)| *color == [index; 3]);
    Ok((!grey).then_some(colors))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], ImageError> {
    let (taken, after) = rest.split_at_checked(len).ok_or_else(cut)?;
    *rest = after;
    Ok(taken)
}
