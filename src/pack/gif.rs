//! Decoding of the first frame of a GIF to RGBX pixels, as Pillow's `GifImagePlugin` does.

use super::ImageError;
use super::error::{broken, cut};
use super::facts::Facts;
use super::orientation::Orientation;

/// Codes in the table at most.
const TABLE: usize = 4096;

struct Frame<'a> {
    /// Width and height of the picture: the screen, made larger where the frame leaves it.
    size: [usize; 2],
    /// Position of the frame in it.
    start: [usize; 2],
    /// Width and height of the frame.
    extent: [usize; 2],
    /// Red, green and blue of each index; grey levels without one.
    palette: Option<&'a [u8]>,
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
        Some(palette) => *(palette.as_chunks().0.get(usize::from(index))).unwrap_or(&[0; 3]),
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
            flags @ 128.. => Some(take(&mut rest, 3 << ((flags & 7) + 1))?),
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
                        palette = Some(take(&mut rest, 3 << ((flags & 7) + 1))?);
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
        let mut indices = vec![self.around; width * height];
        let mut rows = Rows::new(self.extent[1], self.interlaced);
        let (mut x, mut y) = (0, rows.next());
        expand(self.bits, self.data, |index| {
            let Some(row) = y else { return false };
            indices[(self.start[1] + row) * width + self.start[0] + x] = index;
            x += 1;
            if x == self.extent[0] {
                (x, y) = (0, rows.next());
            }
            y.is_some()
        })?;
        match y {
            None => Ok(indices),
            Some(_) => Err(cut()),
        }
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

/// Expands codes of variable length (Lempel, Ziv and Welch) and hands each index to `put`, until that returns
/// false. Ends early where the blocks end.
fn expand(bits: u8, data: &[u8], mut put: impl FnMut(u8) -> bool) -> Result<(), ImageError> {
    if bits > 12 {
        return Err(broken("GIF with codes of too many bits"));
    }
    let wrong = || broken("GIF with a code that stands for nothing");
    let clear = 1_usize << bits;
    // For each code the index that it adds, and the code of those before.
    let mut added = vec![0_u8; TABLE];
    let mut link = vec![0_usize; TABLE];
    let mut codes = Codes {
        rest: data,
        block: &[],
        buffer: 0,
        held: 0,
    };
    let (mut next, mut size) = (clear + 2, u32::from(bits) + 1);
    let mut last: Option<(usize, u8)> = None;
    let mut string = Vec::with_capacity(TABLE);
    while let Some(code) = codes.next(size) {
        if code == clear {
            (next, size, last) = (clear + 2, u32::from(bits) + 1, None);
            continue;
        }
        if code == clear + 1 {
            return Ok(());
        }
        string.clear();
        let Some((last_code, last_first)) = last else {
            if code > clear {
                return Err(wrong());
            }
            let first = index(code)?;
            last = Some((code, first));
            if !put(first) {
                return Ok(());
            }
            continue;
        };
        if code > next {
            return Err(wrong());
        }
        let mut at = code;
        if code == next {
            string.push(last_first);
            at = last_code;
        }
        while at >= clear {
            if at >= TABLE || string.len() >= TABLE {
                return Err(wrong());
            }
            string.push(added[at]);
            at = link[at];
        }
        let first = index(at)?;
        if next < TABLE {
            (added[next], link[next]) = (first, last_code);
            if next == (1 << size) - 1 && size < 12 {
                size += 1;
            }
            next += 1;
        }
        last = Some((code, first));
        string.push(first);
        if !string.iter().rev().all(|&index| put(index)) {
            return Ok(());
        }
    }
    Ok(())
}

fn index(code: usize) -> Result<u8, ImageError> {
    u8::try_from(code).map_err(|_| broken("GIF with more than 256 colors"))
}

/// Reads codes from the blocks.
struct Codes<'a> {
    rest: &'a [u8],
    block: &'a [u8],
    buffer: u32,
    held: u32,
}

impl Codes<'_> {
    /// The next code of `size` bits. `None` where the blocks end or the file is cut short.
    fn next(&mut self, size: u32) -> Option<usize> {
        while self.held < size {
            if let Some((&byte, block)) = self.block.split_first() {
                self.block = block;
                self.buffer |= u32::from(byte) << self.held;
                self.held += 8;
            } else {
                let (&len, rest) = self.rest.split_first()?;
                self.block = rest.get(..usize::from(len))?;
                self.rest = &rest[usize::from(len)..];
            }
        }
        let code = self.buffer & ((1 << size) - 1);
        self.buffer >>= size;
        self.held -= size;
        Some(code as usize)
    }
}

/// The next block of an extension. `None` for the empty one that ends them.
fn block<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take(rest, 1).ok()?[0];
    let (found, after) = rest.split_at(rest.len().min(len.into()));
    *rest = after;
    (!found.is_empty()).then_some(found)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], ImageError> {
    let (taken, after) = rest.split_at_checked(len).ok_or_else(cut)?;
    *rest = after;
    Ok(taken)
}
