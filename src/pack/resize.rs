use std::num::NonZeroU32;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

/// To what size images are brought, and how.
///
/// Each output pixel is the mean of the area that it covers in the image, weighted by a triangle:
/// Pillow's `BILINEAR`, the filter of torchvision's `Resize`, from which the pixels differ by 1 level
/// at most. Smaller images are enlarged by the same filter. An image that has the size already is
/// left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resize {
    /// Width and height to bring them to, in pixels.
    pub side: NonZeroU32,
    /// Stretch the whole image to it. Otherwise the shorter side is brought to it and the middle of
    /// the longer one kept, as torchvision's `Resize(side)` and `CenterCrop(side)` do.
    pub squash: bool,
}

/// The part of a scaled image that is kept, all in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    side: u32,
    /// Width and height of the image, and what it is scaled to.
    size: [u32; 2],
    scaled: [u32; 2],
    /// Where in the scaled image the kept square begins.
    start: [u32; 2],
}

impl Resize {
    /// What is kept of an image of `size`, width and height, neither of them 0.
    pub(super) fn window(self, size: [u32; 2]) -> Window {
        let side = self.side.get();
        let shorter = size[0].min(size[1]);
        let scale = |length: u32| match self.squash || length == shorter {
            true => side,
            false => to_u32(u64::from(side) * u64::from(length) / u64::from(shorter)),
        };
        let scaled = size.map(scale);
        let start = scaled.map(|length| {
            let half = (length - side) / 2;
            // Python's `round` takes a half to the even number.
            half + (length - side) % 2 * (half % 2)
        });
        Window {
            side,
            size,
            scaled,
            start,
        }
    }
}

impl Window {
    /// The part of a box, in inclusive pixels of the image, that is kept: every pixel that it touches.
    /// None where it lies outside.
    pub fn bbox(self, [x0, y0, x1, y1]: [i32; 4]) -> Option<[i32; 4]> {
        let [x0, x1] = self.span(0, x0, x1)?;
        let [y0, y1] = self.span(1, y0, y1)?;
        Some([x0, y0, x1, y1])
    }

    fn span(self, axis: usize, first: i32, last: i32) -> Option<[i32; 2]> {
        let (scaled, size) = (i64::from(self.scaled[axis]), i64::from(self.size[axis]));
        let start = i64::from(self.start[axis]);
        let most = i64::from(self.side) - 1;
        let from = i64::from(first) * scaled / size - start;
        let to = ((i64::from(last) + 1) * scaled + size - 1) / size - 1 - start;
        if to < 0 || from > most {
            return None;
        }
        let clip = |at: i64| i32::try_from(at.clamp(0, most)).ok();
        Some([clip(from)?, clip(to)?])
    }

    /// Resizes `rgbx`, whose fourth bytes have no meaning, to `out`, `side` x `side` pixels.
    pub fn resize(self, resizer: &mut Resizer, rgbx: &[u8], out: &mut [u8]) {
        let [(left, width), (top, height)] = [0, 1].map(|axis| {
            let size = f64::from(self.size[axis]);
            let scale = size / f64::from(self.scaled[axis]);
            let start = f64::from(self.start[axis]) * scale;
            // A last bit too much is outside the image.
            (start, (f64::from(self.side) * scale).min(size - start))
        });
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
            .crop(left, top, width, height)
            .use_alpha(false);
        let image = ImageRef::new(self.size[0], self.size[1], rgbx, PixelType::U8x4);
        let image = image.expect("the decoder filled width x height pixels");
        let result = Image::from_slice_u8(self.side, self.side, out, PixelType::U8x4);
        let mut result = result.expect("the caller has made room for side x side pixels");
        resizer
            .resize(&image, &mut result, &options)
            .expect("the window lies in the image, and both have the same kind of pixels");
    }
}

/// A scaled length, at most 4,294,967,295 as `side` and the longest image are bounded.
fn to_u32(length: u64) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
