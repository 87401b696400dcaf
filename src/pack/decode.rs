use tinyres_format::Shape;
use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat};

/// Why an image cannot be packed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Bad {
    /// The decoder has given up on it: not a JPEG, damaged, or cut short.
    #[error("undecodable: {0}")]
    Undecodable(String),
    /// Its size is not that of the shards.
    #[error("{}x{} pixels, expected {}x{}", got[0], got[1], expected[0], expected[1])]
    Size {
        /// Width and height found.
        got: [usize; 2],
        /// Width and height that every image of the set must have.
        expected: [usize; 2],
    },
    /// Four colour components, which have no single meaning in RGB.
    #[error("CMYK colours: convert it to RGB first")]
    Cmyk,
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

/// Turns JPEGs into planar RGB. The pixels are those of Pillow's `convert("RGB")`: the same
/// library, the same integer inverse transform and the same upsampling.
pub(super) struct Decoder {
    turbo: Result<Decompressor, String>,
    pixels: Vec<u8>,
}

impl Decoder {
    pub fn new() -> Self {
        Self {
            turbo: Decompressor::new().map_err(|error| error.to_string()),
            pixels: Vec::new(),
        }
    }

    /// Decodes `jpeg` to `out`, `u8 [3, height, width]`, and says whether it was greyscale: one
    /// component, which becomes three equal channels. A box must lie inside the image.
    pub fn decode(
        &mut self,
        jpeg: &[u8],
        bbox: Option<[i32; 4]>,
        shape: Shape,
        out: &mut [u8],
    ) -> Result<bool, Bad> {
        let turbo = self
            .turbo
            .as_mut()
            .map_err(|error| Bad::Undecodable(error.clone()))?;
        let undecodable = |error| match error {
            turbojpeg::Error::TurboJpegError(reason) => Bad::Undecodable(reason),
            other => Bad::Undecodable(other.to_string()),
        };
        let frame = match Frame::find(jpeg) {
            Some(frame) => frame,
            None => Frame::read(turbo, jpeg).map_err(undecodable)?,
        };
        if frame.components == 4 {
            return Err(Bad::Cmyk);
        }
        let (width, height) = (shape.width as usize, shape.height as usize);
        if (frame.width, frame.height) != (width, height) {
            let got = [frame.width, frame.height];
            return Err(Bad::Size {
                got,
                expected: [width, height],
            });
        }
        if let Some(got @ [_, _, x1, y1]) = bbox
            && (i64::from(x1) >= shape.width.into() || i64::from(y1) >= shape.height.into())
        {
            return Err(Bad::Box {
                got,
                size: [shape.width, shape.height],
            });
        }
        let plane = width * height;
        let grey = frame.components == 1;
        if grey {
            let (first, rest) = out.split_at_mut(plane);
            let image = Image {
                pixels: &mut *first,
                width,
                pitch: width,
                height,
                format: PixelFormat::GRAY,
            };
            turbo.decompress(jpeg, image).map_err(undecodable)?;
            rest.chunks_exact_mut(plane)
                .for_each(|channel| channel.copy_from_slice(first));
        } else {
            // A word for each pixel: as quick to decode to as three bytes, and quicker to take apart.
            let rgbx = cached(&mut self.pixels, 4 * plane);
            let image = Image {
                pixels: &mut *rgbx,
                width,
                pitch: 4 * width,
                height,
                format: PixelFormat::RGBX,
            };
            turbo.decompress(jpeg, image).map_err(undecodable)?;
            planar(rgbx, out);
        }
        Ok(grey)
    }
}

/// What a JPEG says of its pixels.
struct Frame {
    width: usize,
    height: usize,
    /// Grey 1, colour 3, and 4 for CMYK.
    components: u8,
}

impl Frame {
    /// Looks for the frame header (ITU-T T.81, B.2.2) past the segments that commonly come before
    /// it. [`read`](Self::read) would parse them all, which takes 3% of the time of decoding.
    fn find(jpeg: &[u8]) -> Option<Self> {
        let mut rest = jpeg.strip_prefix(&[0xff, 0xd8])?;
        loop {
            let [0xff, marker, l0, l1, ..] = *rest else {
                return None;
            };
            let segment = rest.get(4..2 + usize::from(u16::from_be_bytes([l0, l1])))?;
            match (marker, segment) {
                // Not the tables (C4, CC) that lie in the same range, nor what is reserved (C8).
                (
                    0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf,
                    &[_, h0, h1, w0, w1, components @ (1 | 3 | 4), ..],
                ) => {
                    return Some(Self {
                        width: u16::from_be_bytes([w0, w1]).into(),
                        height: u16::from_be_bytes([h0, h1]).into(),
                        components,
                    });
                }
                (0xc4 | 0xdb | 0xdd | 0xe0..=0xef | 0xfe, _) => {
                    rest = &rest[4 + segment.len()..];
                }
                _ => return None,
            }
        }
    }

    /// Has the decoder read the header, who also says what is wrong with it.
    fn read(turbo: &mut Decompressor, jpeg: &[u8]) -> turbojpeg::Result<Self> {
        let header = turbo.read_header(jpeg)?;
        Ok(Self {
            width: header.width,
            height: header.height,
            components: match header.colorspace {
                Colorspace::Gray => 1,
                Colorspace::CMYK | Colorspace::YCCK => 4,
                _ => 3,
            },
        })
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
