//! Decoding of a BMP to RGBX pixels: what Pillow's `BmpImagePlugin` reads, with its pixels.
//!
//! The crate `image` 0.25.10 rounds the levels of 5 and 6 bits, which Pillow rounds down, leaves out pixels that run
//! lengths skip, and refuses headers of 64 bytes and run lengths from top to bottom: of Pillow's own 54 test files that
//! Pillow reads it gives 44 as Pillow does, and this module all.

use super::ImageError;
use super::error::{broken, cut};
use super::facts::Facts;
use super::limits::set_len;
use super::orientation::Orientation;

const RAW: u32 = 0;
const RLE8: u32 = 1;
const RLE4: u32 = 2;
const BIT_FIELDS: u32 = 3;

struct Header {
    width: usize,
    height: usize,
    /// The first row is the top one.
    top_down: bool,
    bits: u16,
    compression: u32,
    /// Red, green and blue of each index; black where the file has no more. Empty without a palette.
    palette: Vec<[u8; 3]>,
    /// Bits of red, green and blue in a pixel.
    masks: [u32; 3],
    /// Offset of the pixels, in bytes.
    pixels: usize,
}

/// Width and height in pixels.
pub(super) fn size(bytes: &[u8]) -> Result<[u32; 2], ImageError> {
    let header = Header::read(bytes)?;
    Ok([header.width, header.height].map(|length| u32::try_from(length).unwrap_or(u32::MAX)))
}

/// Decodes to `rgbx`, which is resized to fit.
pub(super) fn decode(bytes: &[u8], rgbx: &mut Vec<u8>) -> Result<Facts, ImageError> {
    let header = Header::read(bytes)?;
    let (width, height) = (header.width, header.height);
    let unpacked;
    let (rows, stride) = match header.compression {
        RLE8 | RLE4 => {
            unpacked = header.run_lengths(bytes)?;
            (&unpacked[..], width)
        }
        _ => {
            let rows = bytes.get(header.pixels..).unwrap_or(&[]);
            (rows, ((width * usize::from(header.bits) + 31) >> 3) & !3)
        }
    };
    // Indices of run lengths have a byte each.
    let bits = match header.compression {
        RLE8 | RLE4 => 8,
        _ => header.bits,
    };
    let len = (width * usize::from(bits)).div_ceil(8);
    if rows.len() < stride * (height - 1) + len {
        return Err(cut());
    }
    set_len(rgbx, 4 * width * height);
    for (index, row) in (0..height).zip(rgbx.chunks_exact_mut(4 * width).rev()) {
        let index = if header.top_down {
            height - 1 - index
        } else {
            index
        };
        let packed = &rows[index * stride..][..len];
        for (x, pixel) in row.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let [red, green, blue] = header.color(bits, packed, x);
            *pixel = [red, green, blue, 0];
        }
    }
    Ok(Facts {
        grey: !header.palette.is_empty()
            && (header.palette.iter()).all(|[red, green, blue]| red == green && green == blue),
        orientation: Orientation::UPRIGHT,
        conversion: None,
    })
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, ImageError> {
        let offset = long(bytes, 10)? as usize;
        let len = long(bytes, 14)? as usize;
        let end = 14 + len;
        if ![12, 40, 52, 56, 64, 108, 124].contains(&len) {
            return Err(broken(&format!("BMP with a header of {len} bytes")));
        }
        bytes.get(..end).ok_or_else(cut)?;
        let old = len == 12;
        let mut header = Self {
            width: 0,
            height: 0,
            top_down: false,
            bits: short(bytes, if old { 24 } else { 28 })?,
            compression: RAW,
            palette: Vec::new(),
            masks: [0; 3],
            pixels: offset,
        };
        let mut colors = 0;
        if old {
            header.width = short(bytes, 18)?.into();
            header.height = short(bytes, 20)?.into();
        } else {
            header.width = long(bytes, 18)? as usize;
            let height = long(bytes, 22)?;
            header.top_down = height >> 24 == 0xff;
            header.height = match header.top_down {
                true => height.wrapping_neg() as usize,
                false => height as usize,
            };
            header.compression = long(bytes, 30)?;
            colors = long(bytes, 46)? as usize;
        }
        if header.width == 0 || header.height == 0 {
            return Err(broken("BMP without pixels"));
        }
        let bits = header.bits;
        let mut behind = end;
        match (header.compression, bits) {
            (RAW, 1 | 4 | 8) | (RLE8, 8) | (RLE4, 4) => {
                let colors = if colors == 0 { 1 << bits } else { colors };
                if colors > 1 << 16 {
                    return Err(broken("BMP with too many colors"));
                }
                let padding = if old { 3 } else { 4 };
                let entries = bytes[end..].chunks(padding).take(colors.min(256));
                header.palette = (entries)
                    .map(|entry| match *entry {
                        [blue, green, red, ..] => [red, green, blue],
                        _ => [0; 3],
                    })
                    .collect();
                header.palette.resize(256, [0; 3]);
                behind += padding * colors;
                if offset == end {
                    header.pixels = behind;
                }
            }
            (RAW, 16) => header.masks = [0x7c00, 0x3e0, 0x1f],
            (RAW, 24 | 32) => header.masks = [0xff_0000, 0xff00, 0xff],
            (BIT_FIELDS, 16 | 24 | 32) => {
                for (index, mask) in header.masks.iter_mut().enumerate() {
                    *mask = long(bytes, 54 + 4 * index)?;
                }
                let byte = |mask: u32| (0..4).any(|byte| mask == 0xff << (8 * byte));
                let known = match (bits, header.masks) {
                    (16, [0xf800, 0x7e0, 0x1f] | [0x7c00, 0x3e0, 0x1f]) => true,
                    (24, masks) => masks == [0xff_0000, 0xff00, 0xff],
                    (32, [0, 0, 0]) => {
                        header.masks = [0xff_0000, 0xff00, 0xff];
                        true
                    }
                    (32, masks) => masks.into_iter().all(byte),
                    _ => false,
                };
                if !known {
                    return Err(broken("BMP with unusual bit fields"));
                }
                if len == 40 {
                    behind += 12;
                }
            }
            (compression, bits) => {
                return Err(broken(&format!(
                    "BMP of {bits} bits with compression {compression}"
                )));
            }
        }
        if offset == 0 {
            header.pixels = behind;
        }
        Ok(header)
    }

    /// Red, green and blue of pixel `x` of a row.
    fn color(&self, bits: u16, row: &[u8], x: usize) -> [u8; 3] {
        let word = match bits {
            1 => return self.palette[usize::from(row[x / 8] >> (7 - x % 8) & 1)],
            4 => return self.palette[usize::from(row[x / 2] >> (4 - 4 * (x % 2)) & 15)],
            8 => return self.palette[usize::from(row[x])],
            16 => u32::from(u16::from_le_bytes([row[2 * x], row[2 * x + 1]])),
            24 => u32::from_le_bytes([row[3 * x], row[3 * x + 1], row[3 * x + 2], 0]),
            _ => {
                let at = 4 * x;
                u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]])
            }
        };
        self.masks.map(|mask| {
            let shift = mask.trailing_zeros();
            let level = (word & mask) >> shift;
            // Rounded down, as Pillow does.
            (level * 255 / (mask >> shift)).to_le_bytes()[0]
        })
    }

    /// The indices of a compressed image, a byte each, row by row.
    fn run_lengths(&self, bytes: &[u8]) -> Result<Vec<u8>, ImageError> {
        let four = self.compression == RLE4;
        let width = self.width;
        let total = width * self.height;
        let mut data = Vec::with_capacity(total);
        let (mut at, mut x) = (self.pixels, 0);
        while data.len() < total {
            let Some(&[count, byte]) = bytes.get(at..).and_then(|rest| rest.first_chunk()) else {
                break;
            };
            at += 2;
            let index = |position: usize, byte: u8| match (four, position % 2) {
                (false, _) => byte,
                (true, 0) => byte >> 4,
                (true, _) => byte & 15,
            };
            match (count, byte) {
                (0, 0) => {
                    data.resize(data.len().next_multiple_of(width), 0);
                    x = 0;
                }
                (0, 1) => break,
                (0, 2) => {
                    let Some(&[right, up]) = bytes.get(at..).and_then(|rest| rest.first_chunk())
                    else {
                        break;
                    };
                    at += 2;
                    let skipped = usize::from(right) + usize::from(up) * width;
                    data.resize((data.len() + skipped).min(total), 0);
                    x = data.len() % width;
                }
                (0, plain) => {
                    let count = usize::from(plain).min(total - data.len());
                    let len = if four { count.div_ceil(2) } else { count };
                    let found = bytes.get(at..).unwrap_or(&[]);
                    let found = &found[..found.len().min(len)];
                    at += found.len();
                    let per_byte = if four { 2 } else { 1 };
                    let indices = (0..count.min(per_byte * found.len()))
                        .map(|position| index(position, found[position / per_byte]));
                    data.extend(indices);
                    if found.len() < len || data.len() == total {
                        break;
                    }
                    x += usize::from(plain);
                    at += at % 2;
                }
                (count, byte) => {
                    let count = usize::from(count).min(width.saturating_sub(x));
                    data.extend((0..count).map(|position| index(position, byte)));
                    x += count;
                }
            }
        }
        if data.len() < total {
            return Err(cut());
        }
        Ok(data)
    }
}

fn short(bytes: &[u8], at: usize) -> Result<u16, ImageError> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    Ok(u16::from_le_bytes(*found.ok_or_else(cut)?))
}

fn long(bytes: &[u8], at: usize) -> Result<u32, ImageError> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    Ok(u32::from_le_bytes(*found.ok_or_else(cut)?))
}
