//! Decoding of a WebP, or of the first frame of an animated one, to RGBX pixels by the crate `image-webp`.
//!
//! Pillow decodes by libwebp. Lossless images have equal pixels by their definition. Lossy ones had equal pixels, too, in
//! all of some thousands that were compared, but for damaged ones, of which each decoder makes noise of its own.

use std::io::Cursor;

use image_webp::{DecodingError, WebPDecoder};

use super::ImageError;
use super::error::cut;
use super::facts::Facts;
use super::orientation::Orientation;

/// Width and height in pixels.
pub(super) fn size(bytes: &[u8]) -> Result<[u32; 2], ImageError> {
    let (width, height) = open(bytes)?.dimensions();
    Ok([width, height])
}

/// Decodes to `rgbx`, which is resized to fit. Transparency is dropped.
pub(super) fn decode(bytes: &[u8], rgbx: &mut Vec<u8>) -> Result<Facts, ImageError> {
    let mut webp = open(bytes)?;
    let len = webp.output_buffer_size().ok_or_else(cut)?;
    let mut samples = vec![0; len];
    webp.read_image(&mut samples).map_err(undecodable)?;
    if webp.has_alpha() {
        *rgbx = samples;
    } else {
        rgbx.clear();
        let pixels = samples.as_chunks::<3>().0.iter();
        rgbx.extend(pixels.flat_map(|&[red, green, blue]| [red, green, blue, 0]));
    }
    let exif = webp.exif_metadata().map_err(undecodable)?;
    let xmp = webp.xmp_metadata().map_err(undecodable)?;
    Ok(Facts {
        grey: false,
        orientation: Orientation::of(exif.as_deref(), xmp.as_deref()),
        conversion: None,
    })
}

fn open(bytes: &[u8]) -> Result<WebPDecoder<Cursor<&[u8]>>, ImageError> {
    WebPDecoder::new(Cursor::new(bytes)).map_err(undecodable)
}

fn undecodable(error: DecodingError) -> ImageError {
    ImageError::Undecodable(error.to_string())
}
