//! Decoding of the first image of a TIFF or BigTIFF to RGBX pixels: what Pillow's `TiffImagePlugin` reads, with its
//! pixels. The module puts strips, tiles and planes together and makes colours of samples; crates expand what is
//! compressed, JPEGs by the library that libtiff uses, too.
//!
//! The crates `image` 0.25.10 and `tiff` 0.11.3 refuse 44 of Pillow's own 96 test files that Pillow reads, and give other
//! pixels for 27: they lack palettes, 2 and 4 bits, YCbCr, signed numbers and Group 3, refuse directories that break the
//! standard, decode JPEGs by another library, and panic at tiles of separate planes. This module gives 89 of them as
//! Pillow does (`tools/witness/pillow_own.py`).
//!
//! Not read: LAB, which Pillow converts by a colour management library; JPEG from before TIFF 6.0; YCbCr that is not
//! JPEG; LZMA and WebP within a TIFF.

mod chunk;
mod fax;

use std::borrow::Cow;

use super::ImageError;
use super::error::{broken, cut};
use super::exif::Directory;
use super::facts::{Conversion, Facts};
use super::jpeg::cmyk_to_rgb;
use super::limits::{check_size, set_len};
use super::orientation::Orientation;
use chunk::{Chunk, Compression};

/// Tags of TIFF 6.0, and of its supplements.
mod tag {
    pub const WIDTH: u16 = 256;
    pub const HEIGHT: u16 = 257;
    pub const BITS: u16 = 258;
    pub const COMPRESSION: u16 = 259;
    pub const PHOTOMETRIC: u16 = 262;
    pub const FILL_ORDER: u16 = 266;
    pub const STRIP_OFFSETS: u16 = 273;
    pub const SAMPLES: u16 = 277;
    pub const ROWS: u16 = 278;
    pub const STRIP_LENGTHS: u16 = 279;
    pub const PLANAR: u16 = 284;
    pub const T4_OPTIONS: u16 = 292;
    pub const PREDICTOR: u16 = 317;
    pub const COLORS: u16 = 320;
    pub const TILE_WIDTH: u16 = 322;
    pub const TILE_HEIGHT: u16 = 323;
    pub const TILE_OFFSETS: u16 = 324;
    pub const TILE_LENGTHS: u16 = 325;
    pub const EXTRA: u16 = 338;
    pub const FORMAT: u16 = 339;
    pub const JPEG_TABLES: u16 = 347;
    pub const XMP: u16 = 700;
}

/// How a sample becomes a level of 8 bits, or an index.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sample {
    /// This many bits: 1, 2, 4 or 8.
    Bits(usize),
    /// The upper byte of 16 bits.
    Upper,
    /// Numbers that stand for measured values, cut off at 0 and 255.
    Unsigned12,
    Unsigned16,
    Signed16,
    Signed32,
    Float32,
}

impl Sample {
    fn bits(self) -> usize {
        match self {
            Self::Bits(bits) => bits,
            Self::Unsigned12 => 12,
            Self::Upper | Self::Unsigned16 | Self::Signed16 => 16,
            Self::Signed32 | Self::Float32 => 32,
        }
    }

    /// True if levels beyond 255 are cut off.
    fn is_cut_off(self) -> bool {
        !matches!(self, Self::Bits(_) | Self::Upper)
    }
}

/// Colours that the samples of a pixel are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Color {
    Grey {
        inverted: bool,
    },
    Palette,
    Rgb,
    /// RGB that was multiplied with its opacity, the fourth sample.
    Premultiplied,
    Cmyk,
    /// Which only JPEGs have here, and their decoder makes RGB of it.
    YCbCr,
}

/// An image as its directory describes it.
struct Image<'a> {
    bytes: &'a [u8],
    directory: Directory<'a>,
    size: [u32; 2],
    compression: Compression,
    sample: Sample,
    color: Color,
    /// Samples of a pixel in the file.
    samples: usize,
    /// Each sample has strips or tiles of its own.
    planar: bool,
    /// Bits of a byte are stored the other way round.
    reversed: bool,
    /// Samples are differences to those on their left.
    differences: bool,
}

/// The place of the samples of an image: in strips, which are as wide as the image, or in tiles.
struct Layout {
    offsets: Vec<u64>,
    /// Bytes of each.
    lengths: Option<Vec<u64>>,
    /// Pixels in a row of each, and rows.
    width: usize,
    height: usize,
}

/// Width and height in pixels, as stored.
pub(super) fn size(bytes: &[u8]) -> Result<[u32; 2], ImageError> {
    Ok(Image::read(bytes)?.size)
}

/// Decodes to `rgbx`, which is resized to fit. Transparency is dropped.
pub(super) fn decode(bytes: &[u8], rgbx: &mut Vec<u8>) -> Result<Facts, ImageError> {
    let image = Image::read(bytes)?;
    let [width, height] = image.size.map(|length| length as usize);
    set_len(rgbx, 4 * width * height);
    image.read_samples(rgbx)?;
    image.make_colors(rgbx);
    Ok(Facts {
        grey: matches!(image.color, Color::Grey { .. }),
        orientation: Orientation::of_stated(
            image.directory.orientation(),
            image.directory.bytes(tag::XMP),
        ),
        conversion: match image.color {
            Color::Cmyk => Some(Conversion::Cmyk),
            _ => image.sample.is_cut_off().then_some(Conversion::CutOff),
        },
    })
}

impl<'a> Image<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let directory = Directory::of_file(bytes).ok_or_else(cut)?;
        let numbers = |tag| directory.numbers(tag).unwrap_or_default();
        let number = |tag, or: u64| numbers(tag).first().copied().unwrap_or(or);
        let size =
            [tag::WIDTH, tag::HEIGHT].map(|tag| u32::try_from(number(tag, 0)).unwrap_or(u32::MAX));
        check_size(size, None)?;
        let planar = number(tag::PLANAR, 1) == 2;
        let (mut samples, mut extra) = (number(tag::SAMPLES, 1), numbers(tag::EXTRA));
        if planar && !extra.is_empty() && extra.iter().all(|&kind| kind == 0) {
            // Planes of no known meaning at the end can be left out.
            samples = samples.saturating_sub(extra.len() as u64);
            extra.clear();
        }
        let mut bits = directory.numbers(tag::BITS).unwrap_or_else(|| vec![1]);
        bits.truncate(usize::try_from(samples).unwrap_or(usize::MAX));
        // One number for several samples is that of each.
        let even = bits.iter().all(|other| *other == bits[0]);
        let listed = bits.len() == 1 || bits.len() as u64 == samples;
        let depth = bits.first().copied().unwrap_or(0);
        let formats = directory.numbers(tag::FORMAT).unwrap_or_else(|| vec![1]);
        let format = formats
            .iter()
            .all(|other| *other == formats[0])
            .then(|| formats[0]);
        let photometric = number(tag::PHOTOMETRIC, 0);
        let compression = number(tag::COMPRESSION, 1);
        let unknown = || {
            broken(&format!(
                "TIFF of a kind that is not read: compression {compression}, photometric interpretation \
                 {photometric}, samples a pixel {samples}, bits a sample {depth}"
            ))
        };
        let (sample, color) = kind(photometric, format.unwrap_or(0), depth, samples, &extra)
            .filter(|_| even && listed)
            .ok_or_else(unknown)?;
        let compression = Compression::new(compression, number(tag::T4_OPTIONS, 0));
        let compression = compression.ok_or_else(unknown)?;
        let color = match compression {
            Compression::None => color,
            // libtiff takes a fourth plane of no kind for opacity that the colors were multiplied with.
            _ if planar && color == Color::Rgb && samples == 4 && extra.is_empty() => {
                Color::Premultiplied
            }
            _ => color,
        };
        let fits = match compression {
            Compression::Fax(_) => depth == 1 && samples == 1,
            Compression::Jpeg => depth == 8 && !(planar && color == Color::YCbCr),
            _ => color != Color::YCbCr,
        };
        let predictor = match compression.predicts() {
            true => number(tag::PREDICTOR, 1),
            false => 1,
        };
        if !fits || predictor > 2 || (predictor == 2 && !matches!(depth, 8 | 16 | 32)) {
            return Err(unknown());
        }
        Ok(Self {
            bytes,
            size,
            compression,
            sample,
            color,
            // At most 6.
            samples: usize::try_from(samples).map_err(|_| unknown())?,
            planar: planar && samples > 1,
            reversed: number(tag::FILL_ORDER, 1) == 2,
            differences: predictor == 2,
            directory,
        })
    }

    /// The place of the samples.
    fn layout(&self) -> Result<Layout, ImageError> {
        let numbers = |tag| self.directory.numbers(tag).unwrap_or_default();
        let number = |tag| {
            let number = numbers(tag).first().copied();
            number.map(|number| usize::try_from(number).unwrap_or(usize::MAX))
        };
        let [width, height] = self.size.map(|length| length as usize);
        let strips = numbers(tag::STRIP_OFFSETS);
        if !strips.is_empty() {
            return Ok(Layout {
                offsets: strips,
                lengths: self.directory.numbers(tag::STRIP_LENGTHS),
                width,
                height: number(tag::ROWS).unwrap_or(height).clamp(1, height),
            });
        }
        let tiles = numbers(tag::TILE_OFFSETS);
        let found = (
            number(tag::TILE_WIDTH),
            number(tag::TILE_HEIGHT),
            &tiles[..],
        );
        let (Some(tile_width @ 1..), Some(tile_height @ 1..), [_, ..]) = found else {
            return Err(broken("TIFF without strips and tiles"));
        };
        if tile_width.saturating_mul(tile_height) > (width * height).max(MAX_TILE) {
            return Err(broken(&format!(
                "TIFF with tiles of {tile_width}x{tile_height} pixels"
            )));
        }
        Ok(Layout {
            offsets: tiles,
            lengths: self.directory.numbers(tag::TILE_LENGTHS),
            width: tile_width,
            height: tile_height,
        })
    }

    /// Writes the samples of each pixel to its place in `levels`, the first 4 of them.
    fn read_samples(&self, levels: &mut [u8]) -> Result<(), ImageError> {
        let layout = self.layout()?;
        let [width, height] = self.size.map(|length| length as usize);
        let (together, planes) = match self.planar {
            true => (1, self.samples),
            false => (self.samples, 1),
        };
        let (across, down) = (width.div_ceil(layout.width), height.div_ceil(layout.height));
        if layout.offsets.len() < planes * across * down {
            return Err(cut());
        }
        let stride = (layout.width * together * self.sample.bits()).div_ceil(8);
        let places = (0..planes).flat_map(|plane| {
            let rows = (0..down).map(|row| row * layout.height);
            rows.flat_map(move |y| (0..across).map(move |column| (plane, y, column * layout.width)))
        });
        for (index, (plane, top, left)) in places.enumerate() {
            let offset = usize::try_from(layout.offsets[index]).unwrap_or(usize::MAX);
            let from = self.bytes.get(offset..).ok_or_else(cut)?;
            let len = layout
                .lengths
                .as_ref()
                .and_then(|lengths| lengths.get(index));
            let data = match (len, self.compression) {
                // Pillow reads as many raw bytes as there are pixels.
                (_, Compression::None) | (None, _) => from,
                (Some(&len), _) => {
                    &from[..from.len().min(usize::try_from(len).unwrap_or(usize::MAX))]
                }
            };
            let data = match self.reversed && !matches!(self.compression, Compression::Jpeg) {
                true => Cow::Owned(data.iter().map(|byte| byte.reverse_bits()).collect()),
                false => Cow::Borrowed(data),
            };
            let pixels = layout.width.min(width - left);
            let chunk = Chunk {
                data: &data,
                size: [layout.width, layout.height],
                height: layout.height.min(height - top),
                stride,
                used: (pixels * together * self.sample.bits()).div_ceil(8),
                samples: together,
                ycbcr: self.color == Color::YCbCr,
                jpeg_tables: self.directory.bytes(tag::JPEG_TABLES),
            };
            let mut rows = chunk.expand(self.compression)?;
            if self.differences {
                let rows = rows.to_mut().chunks_exact_mut(stride);
                rows.for_each(|row| self.add_differences(row, together));
            }
            for (y, row) in (top..top + chunk.height).zip(rows.chunks(stride)) {
                let levels = &mut levels[4 * (y * width + left)..][..4 * pixels];
                for (x, pixel) in levels.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    for (index, level) in
                        pixel[plane.min(4)..].iter_mut().take(together).enumerate()
                    {
                        *level = self.level(row, x * together + index);
                    }
                }
            }
        }
        Ok(())
    }

    /// Undoes horizontal differencing (TIFF 6.0, section 14) in a row of so many samples a pixel.
    fn add_differences(&self, row: &mut [u8], samples: usize) {
        let bytes = self.sample.bits() / 8;
        let little = self.directory.is_little();
        for at in samples..row.len() / bytes {
            let (before, rest) = row.split_at_mut(at * bytes);
            let (left, here) = (
                &before[(at - samples) * bytes..][..bytes],
                &mut rest[..bytes],
            );
            // From the lowest byte to the highest.
            let mut carry = 0;
            for place in 0..bytes {
                let place = if little { place } else { bytes - 1 - place };
                let sum = u16::from(left[place]) + u16::from(here[place]) + carry;
                [here[place], _] = sum.to_le_bytes();
                carry = sum >> 8;
            }
        }
    }

    /// Sample number `at` of a row as a level, or as an index.
    fn level(&self, row: &[u8], at: usize) -> u8 {
        let order = |bytes: &mut [u8]| {
            if !self.directory.is_little() {
                bytes.reverse();
            }
        };
        let two = || {
            let mut bytes = [row[2 * at], row[2 * at + 1]];
            order(&mut bytes);
            u16::from_le_bytes(bytes)
        };
        let four = || {
            let mut bytes = [0, 1, 2, 3].map(|byte| row[4 * at + byte]);
            order(&mut bytes);
            u32::from_le_bytes(bytes)
        };
        let cut_off = |number: i32| u8::try_from(number.clamp(0, 255)).unwrap_or(u8::MAX);
        match self.sample {
            Sample::Bits(8) => row[at],
            Sample::Bits(bits) => {
                let first = at * bits;
                row[first / 8] >> (8 - bits - first % 8) & ((1 << bits) - 1)
            }
            Sample::Upper => two().to_be_bytes()[0],
            Sample::Unsigned12 => {
                let first = at * 3 / 2;
                let word = u16::from_be_bytes([row[first], row[first + 1]]);
                cut_off((word >> (4 - at % 2 * 4) & 0xfff).into())
            }
            Sample::Unsigned16 => cut_off(two().into()),
            Sample::Signed16 => cut_off(two().cast_signed().into()),
            Sample::Signed32 => cut_off(four().cast_signed()),
            Sample::Float32 => Conversion::cut_off(f32::from_bits(four())),
        }
    }

    /// Makes RGBX of the samples of each pixel.
    fn make_colors(&self, levels: &mut [u8]) {
        let (pixels, _) = levels.as_chunks_mut::<4>();
        match self.color {
            Color::Rgb | Color::YCbCr => {}
            Color::Premultiplied => {
                for [colors @ .., opacity] in pixels {
                    for level in colors {
                        let whole = u16::from(*level) * 255;
                        let whole = whole.checked_div((*opacity).into()).unwrap_or(0);
                        *level = u8::try_from(whole).unwrap_or(u8::MAX);
                    }
                }
            }
            Color::Cmyk => {
                for pixel in pixels {
                    // Not inverted, as those of JPEGs are.
                    *pixel = pixel.map(|level| 255 - level);
                    cmyk_to_rgb(pixel);
                }
            }
            Color::Grey { inverted } => {
                let scale = match self.sample {
                    Sample::Bits(bits @ ..8) => 255 / ((1 << bits) - 1),
                    _ => 1,
                };
                for pixel in pixels {
                    let level = pixel[0] * scale;
                    let level = if inverted { 255 - level } else { level };
                    *pixel = [level, level, level, 0];
                }
            }
            Color::Palette => {
                let colors = self.directory.numbers(tag::COLORS).unwrap_or_default();
                let count = colors.len() / 3;
                let level = |channel: usize, index: usize| {
                    let wide = colors
                        .get(channel * count + index)
                        .filter(|_| index < count);
                    wide.map_or(0, |wide| (wide >> 8).to_le_bytes()[0])
                };
                for pixel in pixels {
                    let index = usize::from(pixel[0]);
                    *pixel = [level(0, index), level(1, index), level(2, index), 0];
                }
            }
        }
    }
}

/// Pixels that a tile may have, if the image does not have more.
const MAX_TILE: usize = 1 << 24;

/// The kinds of pixels that Pillow reads (`OPEN_INFO`) and converts to RGB.
fn kind(
    photometric: u64,
    format: u64,
    bits: u64,
    samples: u64,
    extra: &[u64],
) -> Option<(Sample, Color)> {
    let small = Sample::Bits(usize::try_from(bits).ok()?);
    let wide = if bits == 16 { Sample::Upper } else { small };
    let grey = Color::Grey { inverted: false };
    Some(match (photometric, format, bits, samples, extra) {
        (0, 1, 1 | 2 | 4 | 8, 1, []) => (small, Color::Grey { inverted: true }),
        (1, 1, 1 | 2 | 4 | 8, 1, []) | (1, 2, 8, 1, []) | (6, 1, 8, 1, []) => (small, grey),
        (1, 1, 8, 2, [0 | 2]) => (small, grey),
        (1, 1, 12, 1, []) => (Sample::Unsigned12, grey),
        // Those where white is 0 are not inverted, either.
        (0 | 1, 1, 16, 1, []) => (Sample::Unsigned16, grey),
        (1, 2, 16, 1, []) => (Sample::Signed16, grey),
        (1, 1 | 2, 32, 1, []) => (Sample::Signed32, grey),
        (0 | 1, 3, 32, 1, []) => (Sample::Float32, grey),
        (2, 1, 8 | 16, 3, []) | (2, 1, 8 | 16, 4, [] | [0 | 2]) => (wide, Color::Rgb),
        (2, 1, 8, 4, [999]) | (2, 1, 8, 5, [0 | 2, 0]) | (2, 1, 8, 6, [0 | 2, 0, 0]) => {
            (small, Color::Rgb)
        }
        (2, 1, 8 | 16, 4, [1]) => (wide, Color::Premultiplied),
        (2, 1, 8, 5, [1, 0]) | (2, 1, 8, 6, [1, 0, 0]) => (small, Color::Premultiplied),
        (3, 1, 1 | 2 | 4 | 8, 1, []) | (3, 1, 8, 2, [0 | 2]) => (small, Color::Palette),
        (5, 1, 8 | 16, 4, []) => (wide, Color::Cmyk),
        (5, 1, 8, 5, [0]) | (5, 1, 8, 6, [0, 0]) => (small, Color::Cmyk),
        (6, 1, 8, 3, []) => (small, Color::YCbCr),
        _ => return None,
    })
}
