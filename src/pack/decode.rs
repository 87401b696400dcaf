use fast_image_resize::Resizer;
use tinyres_format::Shape;
use turbojpeg::{Decompressor, Image, PixelFormat};

use super::frame::Frame;
use super::orientation::Orientation;
use super::png::Png;
use super::resize::Resize;

/// Most pixels of an image, and of what it is while it is resized: 32 Mi, 128 MiB in memory. What a
/// header states is compared with this before anything is allocated.
pub const MAX_PIXELS: u64 = 1 << 25;

/// Why an image cannot be packed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Bad {
    /// The decoder has given up on it: damaged, or cut short.
    #[error("undecodable: {0}")]
    Undecodable(String),
    /// Its first bytes are those of no JPEG or PNG, whatever its name says.
    #[error("{found}, expected a JPEG or PNG image")]
    Kind {
        /// What they are those of.
        found: &'static str,
    },
    /// Its size is not that of the shards, and it is not to be resized.
    #[error("{}x{} pixels, expected {}x{} as the first image has; --size resizes all of them", got[0], got[1], expected[0], expected[1])]
    Size {
        /// Width and height found.
        got: [u32; 2],
        /// Width and height that every image of the set must have.
        expected: [u32; 2],
    },
    /// It has more than [`MAX_PIXELS`], or would have while it is resized.
    #[error("{}x{} pixels: too large, at most {MAX_PIXELS} pixels can be decoded, and the longer side times --size may be no more", got[0], got[1])]
    TooLarge {
        /// Width and height found.
        got: [u32; 2],
    },
    /// Four colour components, which have no single meaning in RGB.
    #[error("CMYK colours: convert it to RGB first")]
    Cmyk,
    /// Greys of 16 bits, which Pillow's `convert("RGB")` cuts off at 255.
    #[error("greys of 16 bits: convert it to 8 bits first")]
    Grey16,
    /// Its box ends past its pixels.
    #[error("box {got:?} is not inside {}x{} pixels", size[0], size[1])]
    Box {
        /// x0, y0, x1, y1 found.
        got: [i32; 4],
        /// Width and height of the image.
        size: [u32; 2],
    },
    /// Its bytes could not be read as they were written.
    #[error("unreadable: {0}")]
    Unreadable(String),
}

/// What is known of an image once it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Width and height in pixels, once it is upright and before it is resized.
    pub size: [u32; 2],
    /// Whether it had no colours, and has three equal channels now.
    pub grey: bool,
    /// Its box, if it has one of which something is left.
    pub bbox: Option<[i32; 4]>,
}

/// Turns encoded images into planar RGB. The pixels are those of Pillow's `convert("RGB")` after
/// `exif_transpose`: of a JPEG by the same library, with the same integer inverse transform and the
/// same upsampling. Images of the right size are left as they are; others are resized, if they may.
pub struct Decoder {
    resize: Option<Resize>,
    pixels: Vec<u8>,
    samples: Vec<u8>,
    canvas: Canvas,
}

impl Decoder {
    /// One that brings images to the size that `resize` says, if it is there.
    #[must_use]
    pub fn new(resize: Option<Resize>) -> Self {
        Self {
            resize,
            pixels: Vec::new(),
            samples: Vec::new(),
            canvas: Canvas::default(),
        }
    }

    /// Decodes `bytes` to `out`, `u8 [3, height, width]`, which has the length of `shape`. A box must lie
    /// inside the image, of which it tells before that is turned upright or resized.
    ///
    /// # Errors
    /// Why it is no image that can be used; what is in `out` then has no meaning.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        bbox: Option<[i32; 4]>,
        shape: Shape,
        out: &mut [u8],
    ) -> Result<Decoded, Bad> {
        let (rgbx, size, grey, orientation) = match kind(bytes)? {
            Kind::Jpeg => {
                let (mut turbo, frame) = frame(bytes)?;
                admit(frame.size, bbox, shape, self.resize)?;
                let [width, height] = frame.size.map(|length| length as usize);
                // A word for each pixel: as quick to decode to as three bytes, and quicker to take apart.
                let rgbx = cached(&mut self.pixels, 4 * width * height);
                let image = Image {
                    pixels: &mut *rgbx,
                    width,
                    pitch: 4 * width,
                    height,
                    format: PixelFormat::RGBX,
                };
                turbo.decompress(bytes, image).map_err(undecodable)?;
                let orientation = frame.exif.map(Orientation::of_exif);
                let orientation = orientation.unwrap_or(Orientation::UPRIGHT);
                (&*rgbx, frame.size, frame.components == 1, orientation)
            }
            Kind::Png => {
                let png = Png::open(bytes)?;
                let (size, grey) = (png.size(), png.is_grey());
                admit(size, bbox, shape, self.resize)?;
                let orientation = png.decode(&mut self.samples, &mut self.pixels)?;
                (&self.pixels[..], size, grey, orientation)
            }
        };
        let bbox = (self.canvas).place(rgbx, size, orientation, bbox, self.resize, out);
        let size = orientation.size(size);
        Ok(Decoded { size, grey, bbox })
    }

    /// Width and height of the image that `bytes` hold, as it is stored; only its header is read.
    pub(super) fn size(&self, bytes: &[u8]) -> Result<[u32; 2], Bad> {
        let size = match kind(bytes)? {
            Kind::Jpeg => frame(bytes)?.1.size,
            Kind::Png => Png::open(bytes)?.size(),
        };
        bounded(size, self.resize)?;
        Ok(size)
    }
}

/// Memory for the images between the decoder and the shard.
#[derive(Default)]
struct Canvas {
    upright: Vec<[u8; 4]>,
    resized: Vec<u8>,
    resizer: Resizer,
}

impl Canvas {
    /// Turns `rgbx`, an image of `size`, upright, resizes it if it is to be, and writes it to `out`.
    /// Returns what becomes of its box.
    fn place<'a>(
        &'a mut self,
        mut rgbx: &'a [u8],
        size: [u32; 2],
        orientation: Orientation,
        bbox: Option<[i32; 4]>,
        resize: Option<Resize>,
        out: &mut [u8],
    ) -> Option<[i32; 4]> {
        let mut bbox = bbox.map(|bbox| orientation.bbox(size, bbox));
        if orientation != Orientation::UPRIGHT {
            let (pixels, _) = rgbx.as_chunks();
            orientation.turn(pixels, size[0] as usize, &mut self.upright);
            rgbx = self.upright.as_flattened();
        }
        let size = orientation.size(size);
        if let Some(resize) = resize
            && size != [resize.side.get(); 2]
        {
            let window = resize.window(size);
            bbox = bbox.and_then(|bbox| window.bbox(bbox));
            self.resized.resize(out.len() / 3 * 4, 0);
            window.resize(&mut self.resizer, rgbx, &mut self.resized);
            rgbx = &self.resized;
        }
        planar(rgbx, out);
        bbox
    }
}

/// The kinds of files that are decoded.
enum Kind {
    Jpeg,
    Png,
}

/// What the first bytes of a file tell, which its name may not.
fn kind(bytes: &[u8]) -> Result<Kind, Bad> {
    let found = match bytes {
        [0xff, 0xd8, 0xff, ..] => return Ok(Kind::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => return Ok(Kind::Png),
        [] => "an empty file",
        [b'G', b'I', b'F', b'8', ..] => "a GIF image",
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => "a WebP image",
        [b'B', b'M', ..] => "a BMP image",
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => "a TIFF image",
        [b'P', b'1'..=b'6', b'\n' | b' ', ..] => "a PPM or PGM image",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "an AVIF, HEIF or video file",
        _ => "no kind of image known here",
    };
    Err(Bad::Kind { found })
}

/// Whether an image of `size`, width and height, can be packed, as far as its header tells.
fn admit(
    size: [u32; 2],
    bbox: Option<[i32; 4]>,
    shape: Shape,
    resize: Option<Resize>,
) -> Result<(), Bad> {
    bounded(size, resize)?;
    // The shards' images are squares: for this it does not matter which side is upright.
    let expected = [shape.width, shape.height];
    if resize.is_none() && size != expected {
        let got = size;
        return Err(Bad::Size { got, expected });
    }
    match bbox {
        Some(got @ [_, _, x1, y1])
            if i64::from(x1) >= size[0].into() || i64::from(y1) >= size[1].into() =>
        {
            Err(Bad::Box { got, size })
        }
        _ => Ok(()),
    }
}

/// Whether an image of `size` has no more pixels than there is memory for, as it is and halfway
/// through a resize: as wide as the result then, and as high as the image.
pub(super) fn bounded(size: [u32; 2], resize: Option<Resize>) -> Result<(), Bad> {
    let [width, height] = size.map(u64::from);
    let side = resize.map_or(1, |resize| resize.side.get().into());
    if (width * height).max(side * width.max(height)) > MAX_PIXELS {
        return Err(Bad::TooLarge { got: size });
    }
    Ok(())
}

/// A decompressor for `jpeg`, and what its header says.
///
/// A new one for each image, which takes 1% of the time of decoding: one that is used again keeps the
/// tables of the image before, and what it makes of an image that lacks some would depend on that.
fn frame(jpeg: &[u8]) -> Result<(Decompressor, Frame<'_>), Bad> {
    let mut turbo = Decompressor::new().map_err(undecodable)?;
    let frame = Frame::read(&mut turbo, jpeg).map_err(undecodable)?;
    match frame.components {
        4 => Err(Bad::Cmyk),
        _ => Ok((turbo, frame)),
    }
}

fn undecodable(error: turbojpeg::Error) -> Bad {
    match error {
        turbojpeg::Error::TurboJpegError(reason) => Bad::Undecodable(reason),
        other => Bad::Undecodable(other.to_string()),
    }
}

/// `len` bytes of `memory` that libjpeg-turbo leaves in the cache: to what is aligned for its vector
/// registers of 32 bytes it writes past the cache, and decoding takes 1.5 times as long.
fn cached(memory: &mut Vec<u8>, len: usize) -> &mut [u8] {
    memory.resize(len + 48, 0);
    let start = memory.as_ptr().align_offset(32) + 16;
    &mut memory[start..start + len]
}

/// `[height, width, 4]`, the fourth of no meaning, to `[3, height, width]`.
fn planar(rgbx: &[u8], out: &mut [u8]) {
    /// Pixels that fill a vector register of each channel.
    const LANES: usize = 16;
    let (pixels, _) = rgbx.as_chunks::<4>();
    let (red, rest) = out.split_at_mut(pixels.len());
    let (green, blue) = rest.split_at_mut(pixels.len());
    let (groups, last) = pixels.as_chunks::<LANES>();
    let (reds, last_red) = red.as_chunks_mut::<LANES>();
    let (greens, last_green) = green.as_chunks_mut::<LANES>();
    let (blues, last_blue) = blue.as_chunks_mut::<LANES>();
    for (((group, red), green), blue) in groups.iter().zip(reds).zip(greens).zip(blues) {
        // Words, not bytes: these shifts and narrowings are what compiles to vector instructions.
        let words = group.map(u32::from_le_bytes);
        *red = words.map(|word| word.to_le_bytes()[0]);
        *green = words.map(|word| word.to_le_bytes()[1]);
        *blue = words.map(|word| word.to_le_bytes()[2]);
    }
    for (((pixel, red), green), blue) in last.iter().zip(last_red).zip(last_green).zip(last_blue) {
        [*red, *green, *blue, _] = *pixel;
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    const PICTURES: [&[u8]; 5] = [
        include_bytes!("../../tests/golden/pictures/exact/exif/7.jpg"),
        include_bytes!("../../tests/golden/pictures/exact/exif/progressive-8.jpg"),
        include_bytes!("../../tests/golden/pictures/exact/exif/6.png"),
        include_bytes!("../../tests/golden/pictures/exact/png/interlaced.png"),
        include_bytes!("../../tests/golden/pictures/exact/png/palette4.png"),
    ];

    /// Makes the checksums of a PNG's chunks right, so that what they hold is looked at.
    fn mend(png: &mut [u8]) {
        let mut at = 8;
        while let Some(&[a, b, c, d]) = png.get(at..at + 4) {
            let end = at + 8 + u32::from_be_bytes([a, b, c, d]) as usize;
            if png.len() < end + 4 {
                return;
            }
            let crc = crc32fast::hash(&png[at + 4..end]);
            png[end..end + 4].copy_from_slice(&crc.to_be_bytes());
            at = end + 4;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_damage_makes_it_panic(
            picture in prop::sample::select(&PICTURES[..]),
            at: prop::sample::Index,
            garbage in prop::collection::vec(any::<u8>(), 0..8),
            end: prop::sample::Index,
            resize in prop::option::of((1..20_u32, any::<bool>())),
        ) {
            let mut bytes = picture.to_vec();
            let at = at.index(bytes.len());
            let length = garbage.len().min(bytes.len() - at);
            bytes[at..at + length].copy_from_slice(&garbage[..length]);
            mend(&mut bytes);
            let side = resize.map_or(16, |(side, _)| side);
            let resize = resize.map(|(side, squash)| Resize {
                side: NonZeroU32::new(side).unwrap(),
                squash,
            });
            let (mut decoder, shape) = (Decoder::new(resize), Shape::rgb(side));
            let mut out = vec![0; shape.image_len()];
            for bytes in [&bytes[..], &bytes[..end.index(bytes.len())]] {
                let _ = decoder.size(bytes);
                let _ = decoder.decode(bytes, Some([0, 3, 15, 15]), shape, &mut out);
            }
            // Whatever that left behind does not show in the next image.
            let bbox = Some([0, 3, 15, 15]);
            let again = decoder.decode(picture, bbox, shape, &mut out);
            let mut fresh = vec![0; out.len()];
            prop_assert_eq!(&again, &Decoder::new(resize).decode(picture, bbox, shape, &mut fresh));
            prop_assert!(again.is_ok() && out == fresh);
        }
    }
}
