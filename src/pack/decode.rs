//! Decoding of one image to planar RGB, upright and resized. Reads and writes no file.

use fast_image_resize::Resizer;
use tinyres_format::Shape;

use super::error::broken;
use super::facts::Facts;
use super::jpeg::Jpeg;
use super::limits::{Permit, check_size};
use super::orientation::Orientation;
use super::png::Png;
use super::{ImageError, Resize, bmp, gif, pnm, raw, signature, tiff, webp};
use crate::source::{Image, Order, RawImage};

/// Facts about a decoded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Width and height in pixels, upright, before the resize.
    pub size: [u32; 2],
    /// True if the image was greyscale: its three channels are equal.
    pub grey: bool,
    /// Box in inclusive pixels of the result; `None` without one, or if the resize cut it off.
    pub bbox: Option<[i32; 4]>,
    /// Damage that the decoder found in the file, or a conversion that a person may want to know of. The
    /// pixels are those that Pillow gives all the same.
    pub warning: Option<String>,
}

/// Decodes images to planar RGB. The pixels are those of Pillow's `convert("RGB")` after
/// `exif_transpose`: JPEGs are decoded by the same library, with the same integer inverse transform
/// and the same upsampling. Images of another size than the shards' are resized, if that was asked for.
pub struct Decoder {
    resize: Option<Resize>,
    pixels: Vec<u8>,
    samples: Vec<u8>,
    canvas: Canvas,
}

impl Decoder {
    /// Creates a decoder that resizes images as `resize` says; without it, never.
    #[must_use]
    pub fn new(resize: Option<Resize>) -> Self {
        Self {
            resize,
            pixels: Vec::new(),
            samples: Vec::new(),
            canvas: Canvas::default(),
        }
    }

    /// Decodes `image` to `out`, `u8 [3, height, width]` of the size of `shape`. `bbox` is in inclusive
    /// pixels of the stored image (before it is turned upright or resized) and must lie inside it.
    ///
    /// # Errors
    /// Why the image cannot be packed; `out` then has no meaning.
    pub fn decode(
        &mut self,
        image: Image<'_>,
        bbox: Option<[i32; 4]>,
        shape: Shape,
        out: &mut [u8],
    ) -> Result<Decoded, ImageError> {
        let decoded = caught(|| self.decode_whole(image, bbox, shape, out));
        if decoded.is_err() {
            *self = Self::new(self.resize); // A decoder that panicked has left who knows what behind.
        }
        decoded
    }

    fn decode_whole(
        &mut self,
        image: Image<'_>,
        bbox: Option<[i32; 4]>,
        shape: Shape,
        out: &mut [u8],
    ) -> Result<Decoded, ImageError> {
        let picture = Picture::open(image)?;
        let size = picture.size();
        check(size, bbox, shape, self.resize)?;
        let permit = Permit::wait(size, self.resize);
        // Most of what it takes, and a little more. If a smaller part cannot be had, the program ends.
        let needed = 4 * size[0] as usize * size[1] as usize + 64;
        let missing = needed.saturating_sub(self.pixels.len());
        let room = self.pixels.try_reserve_exact(missing);
        room.map_err(|_| ImageError::Memory)?;
        let decoded = self.decode_picture(picture, bbox, out);
        if permit.is_large() {
            *self = Self::new(self.resize); // Gives the memory back before another large image gets it.
        }
        decoded
    }

    fn decode_picture(
        &mut self,
        picture: Picture<'_>,
        bbox: Option<[i32; 4]>,
        out: &mut [u8],
    ) -> Result<Decoded, ImageError> {
        let size = picture.size();
        let mut warnings = Vec::new();
        let (rgbx, facts) = match picture {
            Picture::Jpeg(jpeg) => {
                let facts = jpeg.facts();
                let (rgbx, warned) = jpeg.decode(&mut self.pixels)?;
                warnings.extend(warned);
                (rgbx, facts)
            }
            Picture::Png(png) => {
                let facts = png.facts();
                png.decode(&mut self.samples, &mut self.pixels)?;
                (&self.pixels[..], facts)
            }
            Picture::Raw(image) if self.resize.is_none_or(|resize| resize.keeps(size)) => {
                raw::planes(&image, out);
                return Ok(Decoded {
                    size,
                    grey: image.order == Order::Grey,
                    bbox,
                    warning: None,
                });
            }
            Picture::Raw(image) => {
                raw::rgbx(&image, &mut self.pixels);
                let facts = Facts {
                    grey: image.order == Order::Grey,
                    orientation: Orientation::UPRIGHT,
                    conversion: None,
                };
                (&self.pixels[..], facts)
            }
            Picture::Other { bytes, decode, .. } => {
                let facts = decode(bytes, &mut self.pixels)?;
                (&self.pixels[..], facts)
            }
        };
        let Facts {
            grey,
            orientation,
            conversion,
        } = facts;
        warnings.extend(conversion.map(|conversion| conversion.text().to_owned()));
        let bbox = (self.canvas).place(rgbx, size, orientation, bbox, self.resize, out);
        let size = orientation.size(size);
        Ok(Decoded {
            size,
            grey,
            bbox,
            warning: (!warnings.is_empty()).then(|| warnings.join("; ")),
        })
    }

    /// Width and height of `image`, as stored. Reads only its header.
    ///
    /// # Errors
    /// The image is of no kind known here, its header is broken, or it is too large.
    pub fn size(&self, image: Image<'_>) -> Result<[u32; 2], ImageError> {
        self.checked(caught(|| Ok(Picture::open(image)?.size()))?)
    }

    /// `size`, the width and height of an image, if such an image can be decoded.
    pub(super) fn checked(&self, size: [u32; 2]) -> Result<[u32; 2], ImageError> {
        check_size(size, self.resize)?;
        Ok(size)
    }
}

/// Calls `decode`. A decoder of others that panics has met an image that it cannot read.
fn caught<T>(decode: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    crate::caught::caught(decode)
        .unwrap_or_else(|text| Err(broken(&format!("its decoder failed: {text}"))))
}

/// Memory for the image between decoding and the shard, used again for each.
#[derive(Default)]
struct Canvas {
    upright: Vec<[u8; 4]>,
    resized: Vec<u8>,
    resizer: Resizer,
}

impl Canvas {
    /// Turns `rgbx`, an image of `size`, upright, resizes it where needed, and writes it to `out`.
    /// Returns the box in pixels of the result.
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
            && !resize.keeps(size)
        {
            let crop = resize.crop(size);
            bbox = bbox.and_then(|bbox| crop.bbox(bbox));
            self.resized.resize(out.len() / 3 * 4, 0);
            crop.resize(&mut self.resizer, rgbx, &mut self.resized);
            rgbx = &self.resized;
        }
        planar(rgbx, out);
        bbox
    }
}

/// An image whose header has been read.
enum Picture<'a> {
    Jpeg(Jpeg<'a>),
    Png(Box<Png>),
    Raw(RawImage<'a>),
    Other {
        bytes: &'a [u8],
        size: [u32; 2],
        decode: fn(&[u8], &mut Vec<u8>) -> Result<Facts, ImageError>,
    },
}

impl<'a> Picture<'a> {
    fn open(image: Image<'a>) -> Result<Self, ImageError> {
        match image {
            Image::Encoded(bytes) => Self::of_file(bytes),
            Image::Raw(image) => Ok(Self::Raw(raw::checked(image)?)),
        }
    }

    /// Tells the format of a file by its first bytes, and reads its header. Its name does not count.
    fn of_file(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let other = |size: fn(&[u8]) -> Result<[u32; 2], ImageError>, decode| {
            Ok(Self::Other {
                bytes,
                size: size(bytes)?,
                decode,
            })
        };
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg(Jpeg::open(bytes)?)),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => {
                Ok(Self::Png(Box::new(Png::open(bytes)?)))
            }
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => other(gif::size, gif::decode),
            _ if bytes.starts_with(b"RIFF") && bytes[4..].get(4..8) == Some(b"WEBP") => {
                other(webp::size, webp::decode)
            }
            [b'B', b'M', ..] => other(bmp::size, bmp::decode),
            // Pillow takes the number in the other byte order, too.
            [b'I', b'I', b'*' | b'+', 0, ..]
            | [b'I', b'I', 0, b'*', ..]
            | [b'M', b'M', 0, b'*' | b'+', ..]
            | [b'M', b'M', b'*', 0, ..] => other(tiff::size, tiff::decode),
            [b'P', b'1'..=b'6' | b'f', b'\t'..=b'\r' | b' ', ..] => other(pnm::size, pnm::decode),
            _ => Err(ImageError::Kind {
                found: signature::kind(bytes),
            }),
        }
    }

    /// Width and height in pixels, as stored.
    fn size(&self) -> [u32; 2] {
        match self {
            Self::Jpeg(jpeg) => jpeg.size(),
            Self::Png(png) => png.size(),
            Self::Raw(image) => image.size,
            Self::Other { size, .. } => *size,
        }
    }
}

/// Checks what the header tells: that an image of `size`, width and height, can be packed.
fn check(
    size: [u32; 2],
    bbox: Option<[i32; 4]>,
    shape: Shape,
    resize: Option<Resize>,
) -> Result<(), ImageError> {
    check_size(size, resize)?;
    // Shards hold squares, so it does not matter here which side is upright.
    let expected = [shape.width, shape.height];
    if resize.is_none() && size != expected {
        let got = size;
        return Err(ImageError::Size { got, expected });
    }
    match bbox {
        Some(got @ [_, _, x1, y1])
            if i64::from(x1) >= size[0].into() || i64::from(y1) >= size[1].into() =>
        {
            Err(ImageError::Box { got, size })
        }
        _ => Ok(()),
    }
}

/// Converts `[height, width, 4]`, whose fourth channel has no meaning, to `[3, height, width]`.
fn planar(rgbx: &[u8], out: &mut [u8]) {
    /// Pixels of one step: a vector register for each channel.
    const LANES: usize = 16;
    let (pixels, _) = rgbx.as_chunks::<4>();
    let (red, rest) = out.split_at_mut(pixels.len());
    let (green, blue) = rest.split_at_mut(pixels.len());
    let (groups, last) = pixels.as_chunks::<LANES>();
    let (reds, last_red) = red.as_chunks_mut::<LANES>();
    let (greens, last_green) = green.as_chunks_mut::<LANES>();
    let (blues, last_blue) = blue.as_chunks_mut::<LANES>();
    for (((group, red), green), blue) in groups.iter().zip(reds).zip(greens).zip(blues) {
        // Shifting and narrowing 32-bit words compiles to vector instructions; picking bytes does not.
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

    /// Corrects the checksums of a PNG's chunks, so that the decoder reads their damaged contents.
    fn fix_checksums(png: &mut [u8]) {
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

    #[test]
    fn decoder_that_panics_has_met_a_bad_image() {
        let decoded: Result<(), _> = caught(|| panic!("row {} of 3", 4));
        let error = decoded.unwrap_err().to_string();
        assert_eq!(error, "undecodable: its decoder failed: row 4 of 3");
        assert_eq!(caught(|| Ok(1)), Ok(1));
    }

    /// A PNM file of the same pixels is the witness, as they are and resized.
    #[test]
    fn raw_pixels_become_those_of_a_file() {
        let [width, height] = [5, 7];
        let colours: Vec<[u8; 3]> = (0..width * height)
            .map(|at: u32| [3, 5, 7].map(|by| u8::try_from(at * by).unwrap()))
            .collect();
        let grey: Vec<u8> = colours.iter().map(|&[red, ..]| red).collect();
        let planes = [0, 1, 2].map(|at| colours.iter().map(move |colour| colour[at]));
        let planes: Vec<u8> = planes.into_iter().flatten().collect();
        for (order, values) in [
            (Order::Grey, &grey[..]),
            (Order::Planar, &planes),
            (Order::Interleaved, colours.as_flattened()),
        ] {
            let (magic, file) = match order {
                Order::Grey => ("P5", &grey[..]),
                _ => ("P6", colours.as_flattened()),
            };
            let head = format!("{magic}\n{width} {height}\n255\n");
            let file = [head.as_bytes(), file].concat();
            let raw = Image::Raw(RawImage {
                size: [width, height],
                order,
                values,
            });
            let side = NonZeroU32::new(4);
            for resize in [None, side.map(|side| Resize { side, squash: true })] {
                let shape = match resize {
                    Some(_) => Shape::rgb(4),
                    None => Shape {
                        channels: 3,
                        height,
                        width,
                    },
                };
                let [(raw, pixels), (file, expected)] = [raw, Image::Encoded(&file)].map(|image| {
                    let mut out = vec![0; shape.image_len()];
                    let decoded =
                        Decoder::new(resize).decode(image, Some([1, 2, 3, 4]), shape, &mut out);
                    (decoded.unwrap(), out)
                });
                assert_eq!(pixels, expected, "{order:?} {resize:?}");
                assert_eq!(raw, file, "{order:?} {resize:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn damaged_images_do_not_panic(
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
            fix_checksums(&mut bytes);
            let side = resize.map_or(16, |(side, _)| side);
            let resize = resize.map(|(side, squash)| Resize {
                side: NonZeroU32::new(side).unwrap(),
                squash,
            });
            let (mut decoder, shape) = (Decoder::new(resize), Shape::rgb(side));
            let mut out = vec![0; shape.image_len()];
            for bytes in [&bytes[..], &bytes[..end.index(bytes.len())]] {
                let _ = decoder.size(Image::Encoded(bytes));
                let _ = decoder.decode(Image::Encoded(bytes), Some([0, 3, 15, 15]), shape, &mut out);
            }
            // State left by a damaged image does not change the next one.
            let (picture, bbox) = (Image::Encoded(picture), Some([0, 3, 15, 15]));
            let again = decoder.decode(picture, bbox, shape, &mut out);
            let mut fresh = vec![0; out.len()];
            prop_assert_eq!(&again, &Decoder::new(resize).decode(picture, bbox, shape, &mut fresh));
            prop_assert!(again.is_ok() && out == fresh);
        }
    }
}
