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
        let header = turbo.read_header(jpeg).map_err(undecodable)?;
        if matches!(header.colorspace, Colorspace::CMYK | Colorspace::YCCK) {
            return Err(Bad::Cmyk);
        }
        let (width, height) = (shape.width as usize, shape.height as usize);
        if (header.width, header.height) != (width, height) {
            let got = [header.width, header.height];
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
        let grey = header.colorspace == Colorspace::Gray;
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
            self.pixels.resize(3 * plane, 0);
            let pixels = &mut self.pixels[..];
            let image = Image {
                pixels,
                width,
                pitch: 3 * width,
                height,
                format: PixelFormat::RGB,
            };
            turbo.decompress(jpeg, image).map_err(undecodable)?;
            planar(&self.pixels, out);
        }
        Ok(grey)
    }
}

/// `[height, width, 3]` to `[3, height, width]`.
fn planar(interleaved: &[u8], out: &mut [u8]) {
    let (red, rest) = out.split_at_mut(out.len() / 3);
    let (green, blue) = rest.split_at_mut(rest.len() / 2);
    for (pixel, ((red, green), blue)) in interleaved
        .as_chunks::<3>()
        .0
        .iter()
        .zip(red.iter_mut().zip(green).zip(blue))
    {
        [*red, *green, *blue] = *pixel;
    }
}
