//! Decoding of a PBM, PGM, PPM or grey PFM to RGBX pixels, as Pillow's `PpmImagePlugin` does.
//!
//! The crate `image` 0.25.10 scales greys of 16 bits, which Pillow cuts off at 255, and does not read PFM: of Pillow's
//! own 15 test files it gives 10 as Pillow does, and this module all.

use super::ImageError;
use super::error::{broken, cut};
use super::facts::{Conversion, Facts};
use super::orientation::Orientation;

struct Header<'a> {
    /// The byte after the P: a digit from 1 to 6, or f.
    kind: u8,
    width: usize,
    height: usize,
    /// The sample of white; 1 for bitmaps and measured values.
    most: u32,
    /// Numbers of several bytes begin with the lowest.
    little: bool,
    samples: &'a [u8],
}

/// Width and height in pixels.
pub(super) fn size(bytes: &[u8]) -> Result<[u32; 2], ImageError> {
    let header = Header::read(bytes)?;
    Ok([header.width, header.height].map(|length| u32::try_from(length).unwrap_or(u32::MAX)))
}

/// Decodes to `rgbx`, which is resized to fit.
pub(super) fn decode(bytes: &[u8], rgbx: &mut Vec<u8>) -> Result<Facts, ImageError> {
    let header = Header::read(bytes)?;
    let channels = if matches!(header.kind, b'3' | b'6') {
        3
    } else {
        1
    };
    let count = header.width * header.height * channels;
    let levels = match header.kind {
        b'1' => header.digits(count)?,
        b'2' | b'3' => header.texts(count)?,
        b'4' => header.bits(),
        b'f' => header.floats(count),
        _ => header.binary(count),
    };
    let levels = levels.get(..count).ok_or_else(cut)?;
    rgbx.clear();
    match channels {
        3 => {
            let pixels = levels.as_chunks::<3>().0.iter();
            rgbx.extend(pixels.flat_map(|&[red, green, blue]| [red, green, blue, 0]));
        }
        _ => rgbx.extend(levels.iter().flat_map(|&grey| [grey, grey, grey, 0])),
    }
    Ok(Facts {
        grey: channels == 1,
        orientation: Orientation::UPRIGHT,
        conversion: (channels == 1 && header.most > 255 || header.kind == b'f')
            .then_some(Conversion::CutOff),
    })
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let mut rest = bytes;
        let kind = match *token(&mut rest)? {
            [b'P', kind @ (b'1'..=b'6' | b'f')] => kind,
            _ => return Err(broken("a kind of PNM that is not known here")),
        };
        let [width, height] = [number(token(&mut rest)?)?, number(token(&mut rest)?)?];
        let (mut most, mut little) = (1, false);
        match kind {
            b'1' | b'4' => {}
            b'f' => {
                let scale = std::str::from_utf8(token(&mut rest)?).ok();
                let scale = scale.and_then(|scale| scale.parse().ok());
                let scale = scale.filter(|scale: &f64| scale.is_finite() && *scale != 0.0);
                little = scale.ok_or_else(|| broken("PFM with a scale that is no number"))? < 0.0;
            }
            _ => most = number(token(&mut rest)?)?,
        }
        if width == 0 || height == 0 || !(1..1 << 16).contains(&most) {
            return Err(broken("PNM without pixels"));
        }
        Ok(Self {
            kind,
            width: width as usize,
            height: height as usize,
            most,
            little,
            samples: rest,
        })
    }

    /// The level of a sample. Grey samples of more than 8 bits are cut off at 255, others scaled.
    fn level(&self, sample: u32) -> u8 {
        let white = match (self.kind, self.most > 255) {
            (b'2' | b'5', true) => 65535.0,
            _ => 255.0,
        };
        let scaled = f64::from(sample) / f64::from(self.most) * white;
        let level = scaled.round_ties_even().clamp(0.0, 255.0);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a whole number between 0 and 255"
        )]
        let level = level as u8;
        level
    }

    fn bits(&self) -> Vec<u8> {
        let rows = self.samples.chunks_exact(self.width.div_ceil(8));
        let bit = |row: &[u8], x: usize| row[x / 8] >> (7 - x % 8) & 1;
        rows.take(self.height)
            .flat_map(|row| (0..self.width).map(move |x| if bit(row, x) == 0 { 255 } else { 0 }))
            .collect()
    }

    fn binary(&self, count: usize) -> Vec<u8> {
        if self.most < 256 {
            let levels: Vec<u8> = (0..256).map(|sample| self.level(sample)).collect();
            let samples = self.samples.iter().take(count);
            return samples.map(|&sample| levels[usize::from(sample)]).collect();
        }
        let samples = self.samples.as_chunks().0.iter().take(count);
        samples
            .map(|&sample| self.level(u16::from_be_bytes(sample).into()))
            .collect()
    }

    /// Measured values, from the last row to the first.
    fn floats(&self, count: usize) -> Vec<u8> {
        let samples = self.samples.as_chunks().0.get(..count).unwrap_or(&[]);
        let level = |&sample: &[u8; 4]| {
            Conversion::cut_off(match self.little {
                true => f32::from_le_bytes(sample),
                false => f32::from_be_bytes(sample),
            })
        };
        let rows = samples.chunks(self.width).rev();
        rows.flat_map(|row| row.iter().map(level)).collect()
    }

    fn digits(&self, count: usize) -> Result<Vec<u8>, ImageError> {
        let text = without_comments(self.samples);
        let digits = text.into_iter().filter(|&byte| !is_space(byte));
        let level = |digit| match digit {
            b'0' => Ok(255),
            b'1' => Ok(0),
            _ => Err(broken("PBM with a digit that is not 0 or 1")),
        };
        digits.take(count).map(level).collect()
    }

    fn texts(&self, count: usize) -> Result<Vec<u8>, ImageError> {
        let text = without_comments(self.samples);
        let words = text.split(|&byte| is_space(byte));
        let words = words.filter(|word| !word.is_empty()).take(count);
        words
            .map(|word| match number(word)? {
                sample if sample <= self.most => Ok(self.level(sample)),
                _ => Err(broken("PNM with a sample beyond the largest")),
            })
            .collect()
    }
}

fn number(text: &[u8]) -> Result<u32, ImageError> {
    let text = std::str::from_utf8(text).ok();
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| broken("PNM with a text that is no number"))
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// The next word of the header, without the byte after it. Comments reach to the end of their line.
fn token<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], ImageError> {
    loop {
        let (&byte, after) = rest.split_first().ok_or_else(cut)?;
        if is_space(byte) {
            *rest = after;
        } else if byte == b'#' {
            let end = after.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            *rest = &after[end.ok_or_else(cut)? + 1..];
        } else {
            break;
        }
    }
    let end = rest.iter().position(|&byte| is_space(byte));
    let (word, after) = rest.split_at(end.ok_or_else(cut)?);
    *rest = &after[1..];
    Ok(word)
}

/// The text without comments, each of which ends with its line.
fn without_comments(text: &[u8]) -> Vec<u8> {
    let mut comment = false;
    let kept = text.iter().filter(|&&byte| {
        comment |= byte == b'#';
        let keep = !comment;
        comment &= !matches!(byte, b'\r' | b'\n');
        keep
    });
    kept.copied().collect()
}
