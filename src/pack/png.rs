//! Decoding of a PNG to RGBX pixels, and its header.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, DecodingError, Reader, Transformations};

use super::ImageError;
use super::limits::check_size;
use super::orientation::Orientation;

/// A PNG whose header has been read.
pub(super) struct Png<'a>(Reader<Cursor<&'a [u8]>>);

impl<'a> Png<'a> {
    pub fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let mut decoder = Decoder::new(Cursor::new(bytes));
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        // Palettes become colours, and samples 8 bits: of 16 bits, the upper 8.
        decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
        let header = decoder.read_header_info().map_err(undecodable)?;
        check_size([header.width, header.height], None)?;
        let reader = decoder.read_info().map_err(undecodable)?;
        let info = reader.info();
        if (info.color_type, info.bit_depth) == (ColorType::Grayscale, BitDepth::Sixteen) {
            return Err(ImageError::Grey16);
        }
        Ok(Self(reader))
    }

    /// Width and height in pixels.
    pub fn size(&self) -> [u32; 2] {
        [self.0.info().width, self.0.info().height]
    }

    /// True for greyscale, with or without transparency.
    pub fn is_grey(&self) -> bool {
        let color = self.0.info().color_type;
        matches!(color, ColorType::Grayscale | ColorType::GrayscaleAlpha)
    }

    /// Decodes to `rgbx`, which is resized to fit. Every fourth byte has no meaning: transparency is
    /// dropped, as Pillow's `convert("RGB")` does. Returns the EXIF orientation.
    pub fn decode(
        mut self,
        samples: &mut Vec<u8>,
        rgbx: &mut Vec<u8>,
    ) -> Result<Orientation, ImageError> {
        let too_large =
            || ImageError::Undecodable("more pixels than memory has addresses".to_owned());
        let len = self.0.output_buffer_size().ok_or_else(too_large)?;
        samples.resize(len, 0);
        let info = self.0.next_frame(samples).map_err(undecodable)?;
        // EXIF data may follow the pixels; the end of the file may be missing.
        self.0.finish().map_err(undecodable)?;
        rgbx.clear();
        match info.color_type {
            ColorType::Rgba => std::mem::swap(samples, rgbx),
            ColorType::Rgb => {
                let pixels = samples.as_chunks::<3>().0.iter();
                rgbx.extend(pixels.flat_map(|&[red, green, blue]| [red, green, blue, 0]));
            }
            ColorType::GrayscaleAlpha => {
                let pixels = samples.as_chunks::<2>().0.iter();
                rgbx.extend(pixels.flat_map(|&[grey, _]| [grey, grey, grey, 0]));
            }
            ColorType::Grayscale | ColorType::Indexed => {
                rgbx.extend(samples.iter().flat_map(|&grey| [grey, grey, grey, 0]));
            }
        }
        if [info.width, info.height] != self.size() {
            return Err(ImageError::Undecodable(
                "its first frame and its header differ in size".to_owned(),
            ));
        }
        let exif = self.0.info().exif_metadata.as_deref();
        Ok(exif.map_or(Orientation::UPRIGHT, Orientation::of_exif))
    }
}

fn undecodable(error: DecodingError) -> ImageError {
    ImageError::Undecodable(error.to_string())
}
