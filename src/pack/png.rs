//! Decoding of a PNG to RGBX pixels, and its header.
//!
//! Takes what Pillow takes: it checks the checksums of the chunks before the pixels and no others, and asks for
//! nothing behind the pixels. Only the chunks that make pixels go to the decoder.

use std::io::{Cursor, Read};

use flate2::read::ZlibDecoder;
use png::{BitDepth, ColorType, DecodeOptions, Decoder, DecodingError, Reader, Transformations};

use super::ImageError;
use super::error::{broken, cut};
use super::facts::{Conversion, Facts};
use super::limits::{check_size, set_len};
use super::orientation::Orientation;

/// A PNG whose header has been read.
pub(super) struct Png {
    reader: Reader<Cursor<Vec<u8>>>,
    orientation: Orientation,
    /// The file ends within its pixels.
    cut: bool,
}

/// Maximum length of a text that is decompressed, and of all of them, in bytes. Pillow refuses longer ones, too:
/// `MAX_TEXT_CHUNK` and `MAX_TEXT_MEMORY`.
const MAX_TEXT: u64 = 1 << 20;
const MAX_TEXTS: usize = 1 << 26;

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

impl Png {
    pub fn open(bytes: &[u8]) -> Result<Self, ImageError> {
        let chunks = Chunks::read(bytes)?;
        let mut options = DecodeOptions::default();
        options.set_ignore_crc(true);
        options.set_ignore_adler32(false);
        let mut decoder = Decoder::new_with_options(Cursor::new(chunks.pixels), options);
        // Palettes become colours, and samples 8 bits: of 16 bits, the upper 8.
        decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
        let header = decoder.read_header_info().map_err(undecodable)?;
        check_size([header.width, header.height], None)?;
        if (header.color_type, header.bit_depth) == (ColorType::Grayscale, BitDepth::Sixteen) {
            decoder.set_transformations(Transformations::IDENTITY);
        }
        let reader = decoder.read_info().map_err(undecodable)?;
        let orientation = Orientation::of(chunks.exif.as_deref(), chunks.xmp.as_deref());
        Ok(Self {
            reader,
            cut: chunks.cut,
            orientation: match chunks.unreadable {
                true => Orientation::UPRIGHT,
                false => orientation,
            },
        })
    }

    /// Width and height in pixels.
    pub fn size(&self) -> [u32; 2] {
        [self.reader.info().width, self.reader.info().height]
    }

    pub fn facts(&self) -> Facts {
        let info = self.reader.info();
        Facts {
            grey: matches!(
                info.color_type,
                ColorType::Grayscale | ColorType::GrayscaleAlpha
            ),
            orientation: self.orientation,
            conversion: (info.bit_depth == BitDepth::Sixteen
                && info.color_type == ColorType::Grayscale)
                .then_some(Conversion::CutOff),
        }
    }

    /// Decodes to `rgbx`, which is resized to fit. Every fourth byte has no meaning: transparency is
    /// dropped, as Pillow's `convert("RGB")` does.
    pub fn decode(mut self, samples: &mut Vec<u8>, rgbx: &mut Vec<u8>) -> Result<(), ImageError> {
        let too_large =
            || ImageError::Undecodable("more pixels than memory has addresses".to_owned());
        let len = self.reader.output_buffer_size().ok_or_else(too_large)?;
        set_len(samples, len);
        let cut = self.cut;
        let info = self.reader.next_frame(samples).map_err(|error| match cut {
            true => broken("broken PNG: the file ends within its pixels"),
            false => undecodable(error),
        })?;
        rgbx.clear();
        match (info.color_type, info.bit_depth) {
            (ColorType::Rgba, _) => std::mem::swap(samples, rgbx),
            (ColorType::Rgb, _) => {
                let pixels = samples.as_chunks::<3>().0.iter();
                rgbx.extend(pixels.flat_map(|&[red, green, blue]| [red, green, blue, 0]));
            }
            (ColorType::GrayscaleAlpha, _) => {
                let pixels = samples.as_chunks::<2>().0.iter();
                rgbx.extend(pixels.flat_map(|&[grey, _]| [grey, grey, grey, 0]));
            }
            (ColorType::Grayscale, BitDepth::Sixteen) => {
                // Pillow cuts off at 255: what is stored as 16 bits is taken for a measured value.
                let pixels = samples
                    .as_chunks()
                    .0
                    .iter()
                    .map(|&grey| u16::from_be_bytes(grey));
                rgbx.extend(pixels.flat_map(|grey| {
                    let grey = u8::try_from(grey).unwrap_or(u8::MAX);
                    [grey, grey, grey, 0]
                }));
            }
            (ColorType::Grayscale | ColorType::Indexed, _) => {
                rgbx.extend(samples.iter().flat_map(|&grey| [grey, grey, grey, 0]));
            }
        }
        Ok(())
    }
}

/// The chunks of a file that matter here.
#[derive(Default)]
struct Chunks {
    /// A PNG of those that make pixels.
    pixels: Vec<u8>,
    /// The last EXIF data.
    exif: Option<Vec<u8>>,
    /// EXIF data as text, which counts if there are no others.
    raw_profile: Option<Vec<u8>>,
    xmp: Option<Vec<u8>>,
    /// The pixels are indices into a palette.
    indexed: bool,
    /// The last one before the pixels: whole colours, at most 256.
    palette: Option<Vec<u8>>,
    /// Bytes of the texts that were decompressed.
    texts: usize,
    /// Pillow fails to read the orientation.
    unreadable: bool,
    /// The file ends within its pixels. Pillow decodes it if no row is missing.
    cut: bool,
}

impl Chunks {
    /// Reads the chunks of `png` as Pillow does.
    fn read(png: &[u8]) -> Result<Self, ImageError> {
        let broken = |what: &str| broken(&format!("broken PNG: {what}"));
        let mut found = Self {
            pixels: SIGNATURE.to_vec(),
            ..Self::default()
        };
        let mut rest = png.get(SIGNATURE.len()..).unwrap_or(&[]);
        // True while the chunks of the pixels follow each other.
        let mut pixels = false;
        let (mut done, mut animated) = (false, false);
        while let Some((&[a, b, c, d, ref kind @ ..], after)) = rest.split_first_chunk::<8>() {
            if !kind
                .iter()
                .all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_')
            {
                if done || pixels {
                    break; // Pillow reads no further, either.
                }
                return Err(broken("no chunk where one should begin"));
            }
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            let whole = after.get(..length);
            let body = whole.unwrap_or(after);
            rest = after.get(length..).unwrap_or(&[]);
            let checksum = rest.split_off(..rest.len().min(4)).unwrap_or(&[]);
            if kind == b"IDAT" && !done {
                if !pixels && found.indexed {
                    let palette = found.palette.take();
                    // Black, for Pillow, without one.
                    found.keep(b"PLTE", &palette.unwrap_or_else(|| vec![0; 3 * 256]));
                }
                pixels = true;
                found.cut |= whole.is_none();
                found.keep(kind, body);
                continue;
            }
            done |= pixels;
            match kind {
                b"acTL" => animated = true,
                // Pillow has the first frame of an animation, and reads no further.
                b"fcTL" | b"fdAT" if done && animated => break,
                b"IEND" if done => break,
                _ => {}
            }
            if whole.is_none() {
                return Err(broken("the file ends within a chunk"));
            }
            if !done {
                let mut hash = crc32fast::Hasher::new();
                hash.update(kind);
                hash.update(body);
                if checksum != hash.finalize().to_be_bytes() {
                    return Err(broken("a wrong checksum before the pixels"));
                }
                match kind {
                    b"IHDR" => found.header(body)?,
                    // Whole colours only: the decoder relies on that.
                    b"PLTE" if body.len() >= 3 => {
                        found.palette = Some(body[..body.len().min(3 * 256) / 3 * 3].to_vec());
                    }
                    _ => {}
                }
            }
            if kind == b"IEND" {
                break;
            }
            found.note(kind, body)?;
        }
        found.keep(b"IEND", &[]);
        if found.exif.is_none()
            && let Some(text) = found.raw_profile.take()
        {
            found.exif = raw_profile(&text);
            found.unreadable |= found.exif.is_none();
        }
        Ok(found)
    }

    /// Adds the header. Pillow does not look at the method of compression, and takes any number but 0 for
    /// interlaced.
    fn header(&mut self, body: &[u8]) -> Result<(), ImageError> {
        let mut header: [u8; 13] = *body.first_chunk().ok_or_else(cut)?;
        header[10] = 0;
        header[12] = header[12].min(1);
        self.indexed = header[9] == 3;
        self.keep(b"IHDR", &header);
        Ok(())
    }

    /// Adds a chunk to the PNG for the decoder.
    fn keep(&mut self, kind: &[u8; 4], body: &[u8]) {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        self.pixels.extend(length.to_be_bytes());
        self.pixels.extend(kind);
        self.pixels.extend(body);
        self.pixels.extend([0; 4]); // Not checked.
    }

    /// Notes what may state an orientation.
    fn note(&mut self, kind: &[u8; 4], body: &[u8]) -> Result<(), ImageError> {
        match kind {
            b"eXIf" => self.exif = Some([b"Exif\0\0", body].concat()),
            b"tEXt" => {
                if let Some((keyword, text)) = split(body) {
                    if keyword == b"exif" {
                        self.exif = Some(text.to_vec());
                    } else {
                        self.text(keyword, text.to_vec());
                    }
                }
            }
            b"zTXt" => {
                if let Some((keyword, [0, compressed @ ..])) = split(body)
                    && is_of_use(keyword)
                {
                    let text = self.inflate(compressed)?;
                    self.text(keyword, text.unwrap_or_default());
                }
            }
            b"iTXt" => {
                let Some((keyword, [compressed, method, rest @ ..])) = split(body) else {
                    return Ok(());
                };
                let Some((_, text)) = split(rest).and_then(|(_, rest)| split(rest)) else {
                    return Ok(());
                };
                let text = match (compressed, method) {
                    (0, _) => Some(text.to_vec()),
                    (_, 0) if is_of_use(keyword) => self.inflate(text)?,
                    _ => None,
                };
                if let Some(text) = text {
                    self.text(keyword, text);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Decompresses a text. `None` if it is damaged.
    fn inflate(&mut self, compressed: &[u8]) -> Result<Option<Vec<u8>>, ImageError> {
        let mut text = Vec::new();
        let mut reader = ZlibDecoder::new(compressed).take(MAX_TEXT + 1);
        let whole = reader.read_to_end(&mut text).is_ok();
        self.texts += text.len();
        if text.len() as u64 > MAX_TEXT || self.texts > MAX_TEXTS {
            return Err(broken("PNG whose texts are too long"));
        }
        Ok(whole.then_some(text))
    }

    fn text(&mut self, keyword: &[u8], text: Vec<u8>) {
        match keyword {
            b"Raw profile type exif" => self.raw_profile = Some(text),
            b"XML:com.adobe.xmp" => self.xmp = Some(text),
            _ => {}
        }
    }
}

/// The bytes before and after the first zero.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// True for the keywords of texts that may state an orientation.
fn is_of_use(keyword: &[u8]) -> bool {
    matches!(keyword, b"Raw profile type exif" | b"XML:com.adobe.xmp")
}

/// EXIF data that ImageMagick wrote as text: a line that is empty, the name, the length, then digits. `None`
/// where Pillow cannot read it.
fn raw_profile(text: &[u8]) -> Option<Vec<u8>> {
    let lines = text.split(|&byte| byte == b'\n').skip(3);
    let joined: Vec<u8> = lines.flatten().copied().collect();
    let mut digits = joined.as_slice();
    let mut bytes = Vec::with_capacity(joined.len() / 2);
    loop {
        digits = digits.trim_ascii_start();
        match digits {
            [] => return Some(bytes),
            [high, low, rest @ ..] => {
                let value = |digit: u8| char::from(digit).to_digit(16);
                let byte = 16 * value(*high)? + value(*low)?;
                bytes.push(u8::try_from(byte).ok()?);
                digits = rest;
            }
            [_] => return None,
        }
    }
}

fn undecodable(error: DecodingError) -> ImageError {
    ImageError::Undecodable(error.to_string())
}
