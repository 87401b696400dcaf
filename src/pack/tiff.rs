//! Decoding of the first image of a TIFF to RGBX pixels, with the pixels of Pillow's `TiffImagePlugin`.
//!
//! Reads what people save pictures as: strips, 1 to 16 bits, grey, RGB, palette and CMYK; raw, LZW, Deflate and
//! PackBits. JPEG and fax compression, tiles and separate planes are named, not read.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::ZlibDecoder;

use super::ImageError;
use super::error::{broken, cut};
use super::exif::Tiff;
use super::facts::Facts;
use super::jpeg::cmyk_to_rgb;
use super::orientation::Orientation;

/// Tags of TIFF 6.0.
mod tag {
    pub const WIDTH: u16 = 256;
    pub const HEIGHT: u16 = 257;
    pub const BITS: u16 = 258;
    pub const COMPRESSION: u16 = 259;
    pub const PHOTOMETRIC: u16 = 262;
    pub const FILL_ORDER: u16 = 266;
    pub const OFFSETS: u16 = 273;
    pub const SAMPLES: u16 = 277;
    pub const ROWS: u16 = 278;
    pub const LENGTHS: u16 = 279;
    pub const PLANAR: u16 = 284;
    pub const PREDICTOR: u16 = 317;
    pub const COLORS: u16 = 320;
    pub const TILES: u16 = 324;
    pub const EXTRA: u16 = 338;
    pub const FORMAT: u16 = 339;
    pub const XMP: u16 = 700;
}

struct Header<'a> {
    tiff: Tiff<'a>,
    size: [u32; 2],
    bits: u32,
    samples: usize,
    compression: u32,
    photometric: u32,
}

/// Width and height in pixels, as stored.
pub(super) fn size(bytes: &[u8]) -> Result<[u32; 2], ImageError> {
    Ok(Header::read(bytes)?.size)
}

/// Decodes to `rgbx`, which is resized to fit. Transparency is dropped.
pub(super) fn decode(bytes: &[u8], rgbx: &mut Vec<u8>) -> Result<Facts, ImageError> {
    let header = Header::read(bytes)?;
    let palette = header.tiff.numbers(tag::COLORS).unwrap_or_default();
    let [width, height] = header.size.map(|length| length as usize);
    let rows = header.rows(width, height)?;
    let stride = header.row_len(width);
    rgbx.clear();
    rgbx.reserve(4 * width * height);
    for row in rows.chunks_exact(stride).take(height) {
        for x in 0..width {
            let pixel = header.pixel(row, x, &palette)?;
            rgbx.extend([pixel[0], pixel[1], pixel[2], 0]);
        }
    }
    if rgbx.len() < 4 * width * height {
        return Err(cut());
    }
    let xmp = header.tiff.numbers(tag::XMP).unwrap_or_default();
    let xmp: Vec<u8> = xmp.iter().map(|&byte| byte.to_le_bytes()[0]).collect();
    Ok(Facts {
        grey: header.photometric < 2,
        orientation: Orientation::of(Some(bytes), Some(&xmp)),
        conversion: None,
    })
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let tiff = Tiff::open(bytes).ok_or_else(cut)?;
        let number = |tag, or: u32| -> u32 {
            let found = tiff.numbers(tag).unwrap_or_default();
            found.first().copied().unwrap_or(or)
        };
        let size = [number(tag::WIDTH, 0), number(tag::HEIGHT, 0)];
        if size.contains(&0) {
            return Err(broken("TIFF without pixels"));
        }
        let samples = number(tag::SAMPLES, 1);
        let bits = tiff.numbers(tag::BITS).unwrap_or_else(|| vec![1]);
        let extra = tiff.numbers(tag::EXTRA).unwrap_or_default();
        let compression = number(tag::COMPRESSION, 1);
        let photometric = number(tag::PHOTOMETRIC, 0);
        let even = bits.iter().all(|&other| other == bits[0]);
        let depth = bits.first().copied().unwrap_or(1);
        let kind = matches!(
            (photometric, depth, samples, &extra[..]),
            (0, 1 | 2 | 4 | 8, 1, [])
                | (1, 1 | 2 | 4 | 8 | 16, 1, [])
                | (1, 8, 2, [0 | 2])
                | (2, 8 | 16, 3, [])
                | (2, 8 | 16, 4, [] | [0 | 2])
                | (3, 1 | 2 | 4 | 8, 1, [])
                | (3, 8, 2, [0 | 2])
                | (5, 8, 4, [])
        );
        let usual = number(tag::FILL_ORDER, 1) == 1
            && (number(tag::PLANAR, 1) == 1 || samples == 1)
            && tiff.numbers(tag::TILES).is_none()
            && (tiff.numbers(tag::FORMAT).unwrap_or_default())
                .iter()
                .all(|&format| format == 1);
        if !(kind && usual && even && matches!(compression, 1 | 5 | 8 | 32773 | 32946)) {
            return Err(broken(&format!(
                "TIFF of a kind that is not read: compression {compression}, photometric \
                 interpretation {photometric}, {samples} samples of {depth} bits"
            )));
        }
        Ok(Self {
            tiff,
            size,
            bits: depth,
            samples: samples as usize,
            compression,
            photometric,
        })
    }

    fn row_len(&self, width: usize) -> usize {
        (width * self.samples * self.bits as usize).div_ceil(8)
    }

    /// The rows of all strips, one after the other.
    fn rows(&self, width: usize, height: usize) -> Result<Vec<u8>, ImageError> {
        let numbers = |tag| self.tiff.numbers(tag);
        let offsets = numbers(tag::OFFSETS).ok_or_else(cut)?;
        let lengths = numbers(tag::LENGTHS);
        let first = |tag, or| {
            numbers(tag)
                .and_then(|found| found.first().copied())
                .unwrap_or(or)
        };
        let in_strip = (first(tag::ROWS, u32::MAX) as usize).clamp(1, height);
        let predicted = first(tag::PREDICTOR, 1);
        let stride = self.row_len(width);
        let mut rows = Vec::with_capacity(stride * height);
        for (index, &offset) in offsets.iter().enumerate() {
            let wanted = stride * in_strip.min(height.saturating_sub(index * in_strip));
            let from = self.tiff.bytes().get(offset as usize..).ok_or_else(cut)?;
            let len = lengths.as_ref().and_then(|lengths| lengths.get(index));
            let strip = match (len, self.compression) {
                // Pillow reads as many raw bytes as there are pixels.
                (_, 1) | (None, _) => from,
                (Some(&len), _) => &from[..from.len().min(len as usize)],
            };
            let mut strip = match self.compression {
                1 => Cow::Borrowed(strip),
                5 => Cow::Owned(lzw(strip, wanted)?),
                32773 => Cow::Owned(pack_bits(strip, wanted)),
                _ => {
                    let mut found = Vec::with_capacity(wanted);
                    let mut reader = ZlibDecoder::new(strip).take(wanted as u64);
                    reader.read_to_end(&mut found).map_err(|_| cut())?;
                    Cow::Owned(found)
                }
            };
            if strip.len() < wanted {
                return Err(cut());
            }
            if predicted == 2 && self.compression != 1 {
                for row in strip.to_mut().chunks_mut(stride) {
                    self.add_differences(row);
                }
            }
            rows.extend(&strip[..wanted]);
        }
        Ok(rows)
    }

    /// Undoes horizontal differencing (TIFF 6.0, section 14).
    fn add_differences(&self, row: &mut [u8]) {
        match self.bits {
            8 => {
                for at in self.samples..row.len() {
                    row[at] = row[at].wrapping_add(row[at - self.samples]);
                }
            }
            16 => {
                let mut last = vec![0_u16; self.samples];
                for (at, sample) in row.as_chunks_mut().0.iter_mut().enumerate() {
                    let last = &mut last[at % self.samples];
                    *last = last.wrapping_add(self.tiff.short_from(*sample));
                    *sample = self.tiff.short_to(*last);
                }
            }
            _ => {}
        }
    }

    fn pixel(&self, row: &[u8], x: usize, palette: &[u32]) -> Result<[u8; 4], ImageError> {
        let bits = self.bits as usize;
        // The upper byte of 16 bits, but for greys: those are cut off at 255.
        let sample = |index: usize| {
            let at = x * self.samples + index;
            match bits {
                8 => row[at],
                16 => {
                    let wide = self.tiff.short_from([row[2 * at], row[2 * at + 1]]);
                    match self.photometric {
                        1 => u8::try_from(wide).unwrap_or(u8::MAX),
                        _ => wide.to_be_bytes()[0],
                    }
                }
                _ => {
                    let shift = 8 - bits - at * bits % 8;
                    row[at * bits / 8] >> shift & ((1 << bits) - 1)
                }
            }
        };
        Ok(match self.photometric {
            3 => {
                let index = usize::from(sample(0));
                let colors = palette.len() / 3;
                let level = |channel: usize| palette.get(channel * colors + index);
                let level =
                    |channel| level(channel).map_or(0, |&wide| (wide >> 8).to_le_bytes()[0]);
                [level(0), level(1), level(2), 0]
            }
            2 => [sample(0), sample(1), sample(2), 0],
            5 => {
                // Not inverted, as those of JPEGs are.
                let mut pixel = [0, 1, 2, 3].map(|index| 255 - sample(index));
                cmyk_to_rgb(&mut pixel);
                pixel
            }
            inverted => {
                let level = match bits {
                    1 => sample(0) * 255,
                    2 => sample(0) * 85,
                    4 => sample(0) * 17,
                    _ => sample(0),
                };
                let level = if inverted == 0 { 255 - level } else { level };
                [level, level, level, 0]
            }
        })
    }
}

/// Expands PackBits (TIFF 6.0, section 9), up to `wanted` bytes.
fn pack_bits(mut packed: &[u8], wanted: usize) -> Vec<u8> {
    let mut found = Vec::with_capacity(wanted);
    while found.len() < wanted
        && let Some((&count, rest)) = packed.split_first()
    {
        packed = match (count, rest.first()) {
            (..128, _) => {
                let (plain, rest) = rest.split_at(rest.len().min(usize::from(count) + 1));
                found.extend(plain);
                rest
            }
            (128, _) => rest,
            (_, Some(&byte)) => {
                found.extend(std::iter::repeat_n(byte, 257 - usize::from(count)));
                &rest[1..]
            }
            (_, None) => rest,
        };
    }
    found.truncate(wanted);
    found
}

/// Expands LZW (TIFF 6.0, section 13), up to `wanted` bytes.
fn lzw(packed: &[u8], wanted: usize) -> Result<Vec<u8>, ImageError> {
    const CLEAR: usize = 256;
    const END: usize = 257;
    let wrong = || broken("TIFF with a code that stands for nothing");
    let mut found = Vec::<u8>::with_capacity(wanted);
    // For each code from 258 on, where its string lies in what was found.
    let mut table: Vec<(usize, usize)> = Vec::with_capacity(4096);
    let (mut buffer, mut held, mut size) = (0_u32, 0, 9);
    let mut last: Option<(usize, usize)> = None;
    let mut bytes = packed.iter();
    while found.len() < wanted {
        while held < size {
            let Some(&byte) = bytes.next() else {
                return Ok(found);
            };
            buffer = buffer << 8 | u32::from(byte);
            held += 8;
        }
        held -= size;
        let code = (buffer >> held & ((1 << size) - 1)) as usize;
        match code {
            CLEAR => {
                table.clear();
                (size, last) = (9, None);
                continue;
            }
            END => break,
            _ => {}
        }
        let start = found.len();
        match (code, last) {
            (0..256, _) => found.push(code.to_le_bytes()[0]),
            (_, Some((from, len))) => {
                let (from, len) = match code - 258 {
                    index if index < table.len() => table[index],
                    // The string that this code is about to stand for.
                    index if index == table.len() => (from, len + 1),
                    _ => return Err(wrong()),
                };
                for at in from..from + len {
                    found.push(found[at]);
                }
            }
            (_, None) => return Err(wrong()),
        }
        if let Some((from, len)) = last
            && table.len() < 4096 - 258
        {
            table.push((from, len + 1));
        }
        // One code early.
        size = match table.len() + 258 {
            ..511 => 9,
            511..1023 => 10,
            1023..2047 => 11,
            _ => 12,
        };
        last = Some((start, found.len() - start));
    }
    found.truncate(wanted);
    Ok(found)
}
