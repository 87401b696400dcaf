//! Decoding of a JPEG to RGBX pixels by libjpeg-turbo, and its header.
//!
//! Takes what Pillow takes. libjpeg warns where a file breaks the standard and goes on; TurboJPEG reports
//! the first warning as an error, and leaves a picture that is whole.

use std::borrow::Cow;

use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat};

use super::ImageError;
use super::error::broken;
use super::facts::{Conversion, Facts};
use super::limits::MAX_PIXELS;
use super::orientation::Orientation;

/// A JPEG whose header has been read.
pub(super) struct Jpeg<'a> {
    bytes: &'a [u8],
    turbo: Decompressor,
    header: Header<'a>,
}

/// Facts that the header of a JPEG states.
#[derive(Default)]
struct Header<'a> {
    /// Width and height in pixels, as stored.
    size: [u32; 2],
    /// 1 for grey, 3 for colour, 4 for CMYK.
    components: u8,
    /// All pixels are in one scan, from first row to last.
    one_scan: bool,
    /// The EXIF segments, one after the other.
    exif: Option<Cow<'a, [u8]>>,
    /// The last XMP segment.
    xmp: Option<&'a [u8]>,
    /// Offset of the coded data of the first scan, in bytes.
    data: usize,
}

/// A marker (ITU-T T.81, B.1.1) and what belongs to it.
struct Segment<'a> {
    marker: u8,
    /// Empty for the markers that stand alone.
    content: &'a [u8],
    /// From the marker to the end of the content.
    range: std::ops::Range<usize>,
}

/// A marker that no JPEG has. Where libjpeg reads it, it has not found the end of the image before.
const BEHIND_THE_END: [u8; 2] = [0xff, 0xf1];
/// Copies of that marker: more than the longest segment swallows.
const COPIES: usize = 1 << 16;

/// Scans that a JPEG of `size` may have. A scan of a few bytes costs as much time as any other, so without a
/// limit a file of a megabyte takes minutes. libjpeg-turbo advises 500 scans, for images of any size (LJT-01-004);
/// those of more than 11 million pixels may have fewer here. Encoders write 10 for colour, 18 for CMYK.
fn scan_limit([width, height]: [u32; 2]) -> u32 {
    const LEAST: u64 = 32;
    const MOST: u64 = 500;
    let pixels = (u64::from(width) * u64::from(height)).max(1);
    let limit = (LEAST * MAX_PIXELS / pixels).clamp(LEAST, MOST);
    u32::try_from(limit).unwrap_or(u32::MAX)
}

impl<'a> Jpeg<'a> {
    /// Reads the header of `bytes`.
    ///
    /// Every image gets a new decompressor, which takes 1% of the time of decoding. A reused one would
    /// keep the tables of the previous image, and an image that lacks tables would depend on them.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let mut turbo = Decompressor::new().map_err(undecodable)?;
        let header = match Header::scan(bytes) {
            Some(header) => header,
            // libjpeg says what is wrong with it, or knows better.
            None => {
                let header = turbo.read_header(bytes).map_err(undecodable)?;
                Header {
                    // A JPEG has 16 bits for each.
                    size: [header.width, header.height]
                        .map(|length| u32::try_from(length).unwrap_or(u32::MAX)),
                    components: match header.colorspace {
                        Colorspace::Gray => 1,
                        Colorspace::CMYK | Colorspace::YCCK => 4,
                        _ => 3,
                    },
                    ..Header::default()
                }
            }
        };
        let limit = scan_limit(header.size);
        turbo.set_scan_limit(limit).map_err(undecodable)?;
        Ok(Self {
            bytes,
            turbo,
            header,
        })
    }

    /// Width and height in pixels, as stored.
    pub fn size(&self) -> [u32; 2] {
        self.header.size
    }

    pub fn facts(&self) -> Facts {
        Facts {
            grey: self.header.components == 1,
            orientation: Orientation::of(self.header.exif.as_deref(), self.header.xmp),
            conversion: (self.header.components == 4).then_some(Conversion::Cmyk),
        }
    }

    /// Decodes to a part of `memory`, as `[height, width, 4]`; every fourth byte has no meaning. Returns
    /// libjpeg's first warning with the pixels.
    pub fn decode(mut self, memory: &mut Vec<u8>) -> Result<(&[u8], Option<String>), ImageError> {
        let [width, height] = self.header.size.map(|length| length as usize);
        let cmyk = self.header.components == 4;
        let mut image = Image {
            // Four bytes a pixel: decoding is as fast as to three, splitting channels is faster.
            pixels: cached(memory, 4 * width * height),
            width,
            pitch: 4 * width,
            height,
            format: if cmyk {
                PixelFormat::CMYK
            } else {
                PixelFormat::RGBX
            },
        };
        let warning = match self.turbo.decompress(self.bytes, image.as_deref_mut()) {
            Ok(()) => None,
            Err(error) => Some(self.decode_warned(error, image.as_deref_mut())?),
        };
        if cmyk {
            let (pixels, _) = image.pixels.as_chunks_mut();
            pixels.iter_mut().for_each(cmyk_to_rgb);
        }
        Ok((image.pixels, warning))
    }

    /// Decodes an image of which libjpeg said `error`. Returns the warning, if it is no more than that
    /// and the file has its end.
    fn decode_warned(
        &mut self,
        error: turbojpeg::Error,
        mut image: Image<&mut [u8]>,
    ) -> Result<String, ImageError> {
        let warning = warning(error)?;
        let mut copy = self.without_warnings_in_header();
        let whole = copy.len();
        copy.extend(std::iter::repeat_n(BEHIND_THE_END, COPIES).flatten());
        let Err(error) = self.turbo.decompress(&copy, image.as_deref_mut()) else {
            return Ok(warning);
        };
        let behind = format!("Unsupported marker type 0x{:02x}", BEHIND_THE_END[1]);
        if !message(&error).starts_with(&behind) {
            return self::warning(error).map(|_| warning);
        }
        // Cut short, unless all rows and more bytes are there, and only the marker of the end is not. Pillow
        // takes such an image if libjpeg, which reads up to 8 bytes ahead, has not reached the end.
        let cut = ImageError::Undecodable("Premature end of JPEG file".to_owned());
        if !self.header.one_scan {
            return Err(cut);
        }
        copy.truncate(whole);
        copy.extend([0xff, 0xd9]);
        match self.turbo.decompress(&copy, image) {
            Err(error) if left_over(&message(&error)).is_some_and(|bytes| bytes > 0) => {
                Ok("no end of image".to_owned())
            }
            _ => Err(cut),
        }
    }

    /// The file with a header that libjpeg has nothing to say about: TurboJPEG does not go on to the pixels
    /// where the header has warnings. What libjpeg makes of the header stays the same.
    fn without_warnings_in_header(&self) -> Vec<u8> {
        let mut copy = vec![0xff, 0xd8];
        for segment in segments(self.bytes) {
            let at = copy.len();
            // An ICC profile in pieces that do not fit together is no matter here: it is not used.
            if segment.marker != 0xe2 {
                copy.extend(&self.bytes[segment.range]);
            }
            match (segment.marker, segment.content) {
                (0xe0, [b'J', b'F', b'I', b'F', 0, rest @ ..]) if rest.len() >= 9 => {
                    copy[at + 4 + 5] = 1; // Version 1.
                }
                (0xee, [b'A', b'd', b'o', b'b', b'e', rest @ ..]) if rest.len() >= 7 => {
                    // libjpeg takes an unknown transform for the usual one.
                    let transform = &mut copy[at + 4 + 11];
                    match (self.header.components, *transform) {
                        (3, 2..) => *transform = 1,
                        (4, 1 | 3..) => *transform = 2,
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        copy.extend(&self.bytes[self.header.data..]);
        copy
    }
}

impl<'a> Header<'a> {
    /// Reads all segments up to the first scan, as Pillow does. `None` for what is not usual.
    fn scan(jpeg: &'a [u8]) -> Option<Self> {
        let mut found = Self::default();
        for Segment {
            marker,
            content,
            range,
        } in segments(jpeg)
        {
            match (marker, content) {
                // Frame headers. C4 and CC in this range are tables, C8 is reserved.
                (
                    0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf,
                    &[_, h0, h1, w0, w1, components @ (1 | 3 | 4), ..],
                ) => {
                    found.size =
                        [[w0, w1], [h0, h1]].map(|length| u16::from_be_bytes(length).into());
                    found.components = components;
                    found.one_scan = matches!(marker, 0xc0 | 0xc1 | 0xc9);
                }
                (0xe1, _) => found.application(content),
                (0xda, &[components, ..]) => {
                    found.one_scan &= components == found.components;
                    found.data = range.end;
                    return (found.components > 0).then_some(found);
                }
                _ => {}
            }
        }
        None
    }

    /// Notes an application segment that holds EXIF or XMP.
    fn application(&mut self, content: &'a [u8]) {
        if content.starts_with(b"Exif\0\0") {
            match &mut self.exif {
                None => self.exif = Some(Cow::Borrowed(content)),
                Some(exif) => exif.to_mut().extend(&content[6..]),
            }
        } else if let Some(xmp) = content.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
            self.xmp = Some(xmp);
        }
    }
}

/// The segments up to the first scan header and with it. Passes over bytes between them, and ends early
/// where a length or a marker cannot be.
fn segments(jpeg: &[u8]) -> impl Iterator<Item = Segment<'_>> {
    let mut at = 2;
    std::iter::from_fn(move || {
        loop {
            match *jpeg.get(at..at + 2)? {
                [0xff, 0xff] => at += 1,
                [0xff, 0] => at += 2,
                [0xff, marker] => {
                    // TEM, RST0 to RST7, SOI, EOI, and those that no JPEG has.
                    let alone = matches!(marker, 0x01..=0xbf | 0xc8 | 0xd0..=0xd9 | 0xf0..=0xfd);
                    let length = match alone {
                        true => 0,
                        false => {
                            usize::from(u16::from_be_bytes(*jpeg.get(at + 2..)?.first_chunk()?))
                        }
                    };
                    let start = if alone { at + 2 } else { at + 4 };
                    let range = at..at + 2 + length;
                    let content = jpeg.get(start..range.end)?;
                    at = if marker == 0xda {
                        jpeg.len()
                    } else {
                        range.end
                    };
                    return Some(Segment {
                        marker,
                        content,
                        range,
                    });
                }
                _ => at += 1,
            }
        }
    })
}

/// Decodes a JPEG that is a part of another image, of `width` pixels in a row and at most `height` rows, to pixels in
/// `format`. libjpeg's warnings do not matter.
pub(super) fn decode_part(
    bytes: &[u8],
    format: PixelFormat,
    [width, height]: [usize; 2],
) -> Result<Vec<u8>, ImageError> {
    let mut turbo = Decompressor::new().map_err(undecodable)?;
    let header = turbo.read_header(bytes).map_err(undecodable)?;
    if header.width != width || header.height > height {
        return Err(broken(&format!(
            "a part of {}x{} pixels, expected {width}x{height}",
            header.width, header.height
        )));
    }
    let height = header.height;
    let size = [width, height].map(|length| u32::try_from(length).unwrap_or(u32::MAX));
    turbo
        .set_scan_limit(scan_limit(size))
        .map_err(undecodable)?;
    let mut image = Image {
        pixels: vec![0; width * height * format.size()],
        width,
        pitch: width * format.size(),
        height,
        format,
    };
    turbo
        .decompress(bytes, image.as_deref_mut())
        .or_else(|error| warning(error).map(drop))?;
    Ok(image.pixels)
}

/// Pillow's `convert("RGB")` of what it reads from a CMYK JPEG. It takes all of them for inverted, as Adobe
/// writes them; `cmyk` is as libjpeg gives it.
pub(super) fn cmyk_to_rgb(cmyk: &mut [u8; 4]) {
    let [.., black] = *cmyk;
    for level in &mut cmyk[..3] {
        let product = u16::from(255 - *level) * u16::from(black) + 128;
        let scaled = ((product >> 8) + product) >> 8;
        // At most `black`, as the other factor is at most 255.
        *level = black - scaled.to_le_bytes()[0];
    }
}

/// libjpeg's words for `error`, if it is a warning: the image has been decoded nevertheless.
fn warning(error: turbojpeg::Error) -> Result<String, ImageError> {
    /// Beginnings of the texts of libjpeg's warnings (`JWRN_` in jerror.h). No text of an error begins so.
    const WARNINGS: [&str; 7] = [
        "Corrupt JPEG data: ",
        "Unknown Adobe color transform code ",
        "Inconsistent progression sequence ",
        "Warning: unknown JFIF revision number ",
        "Premature end of JPEG file",
        "Invalid SOS parameters for sequential JPEG",
        "Application transferred too many scanlines",
    ];
    let message = message(&error);
    match WARNINGS.iter().any(|begin| message.starts_with(begin)) {
        true => Ok(message),
        false => Err(failure(message)),
    }
}

/// Bytes that libjpeg passed over before the end of the image, if `message` is the warning that says so.
fn left_over(message: &str) -> Option<u64> {
    let rest = message.strip_prefix("Corrupt JPEG data: ")?;
    let (count, rest) = rest.split_once(' ')?;
    (rest == "extraneous bytes before marker 0xd9").then(|| count.parse().ok())?
}

fn message(error: &turbojpeg::Error) -> String {
    match error {
        turbojpeg::Error::TurboJpegError(reason) => reason.clone(),
        other => other.to_string(),
    }
}

fn undecodable(error: turbojpeg::Error) -> ImageError {
    failure(message(&error))
}

/// The error of these words of libjpeg or TurboJPEG: no fault of the image if it is one of memory.
fn failure(message: String) -> ImageError {
    let memory = ["Insufficient memory", "Memory allocation failure"];
    match memory.iter().any(|words| message.contains(words)) {
        true => ImageError::Memory,
        false => ImageError::Undecodable(message),
    }
}

/// `len` bytes of `memory`, deliberately not aligned to 32 bytes. libjpeg-turbo writes aligned rows
/// with non-temporal stores, which miss the cache and make decoding take 1.5 times as long.
fn cached(memory: &mut Vec<u8>, len: usize) -> &mut [u8] {
    memory.resize(len + 48, 0);
    let start = memory.as_ptr().align_offset(32) + 16;
    &mut memory[start..start + len]
}
