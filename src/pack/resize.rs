//! Resizing of an image to the square that the shards hold, and of its box.

use std::num::NonZeroU32;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x4;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

/// Size that images are resized to, and how.
///
/// Each output pixel is the mean of the area that it covers in the image, weighted by a triangle:
/// Pillow's `BILINEAR`, the filter of torchvision's `Resize`. Pixels differ from torchvision's by 1
/// level at most. Smaller images are enlarged by the same filter. An image that already has the size
/// is not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resize {
    /// Width and height of the result, in pixels.
    pub side: NonZeroU32,
    /// Stretch the whole image to the result. Otherwise resize the shorter side and keep the middle
    /// of the longer one, as torchvision's `Resize(side)` and `CenterCrop(side)` do.
    pub squash: bool,
}

/// Square that is kept of a scaled image. All lengths are in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crop {
    side: u32,
    /// Width and height of the image.
    size: [u32; 2],
    /// Width and height that it is scaled to.
    scaled: [u32; 2],
    /// Left and top edge of the square in the scaled image.
    start: [u32; 2],
}

impl Resize {
    /// Left, top, right and bottom edge of the part that is kept of an image of `size`, width and
    /// height; in pixels of the image.
    #[must_use]
    pub fn kept(self, size: [u32; 2]) -> [f64; 4] {
        let crop = self.crop(size);
        let [(left, width), (top, height)] = [0, 1].map(|axis| crop.extent(axis));
        [left, top, left + width, top + height]
    }

    /// True if an image of `size`, width and height, has the size of the result already.
    pub(super) fn keeps(self, size: [u32; 2]) -> bool {
        size == [self.side.get(); 2]
    }

    /// The crop of an image of `size`, width and height, neither of them 0.
    pub(super) fn crop(self, size: [u32; 2]) -> Crop {
        let side = self.side.get();
        let shorter = size[0].min(size[1]);
        let scale = |length: u32| {
            if self.squash || length == shorter {
                side
            } else {
                to_u32(u64::from(side) * u64::from(length) / u64::from(shorter))
            }
        };
        let scaled = size.map(scale);
        let start = scaled.map(|length| {
            let half = (length - side) / 2;
            // Python's `round` rounds a half to the even number.
            half + (length - side) % 2 * (half % 2)
        });
        Crop {
            side,
            size,
            scaled,
            start,
        }
    }
}

impl Crop {
    /// The box, in inclusive pixels of the image, as inclusive pixels of the result: every pixel that
    /// it touches. `None` if it lies outside the crop.
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

    /// Start and length of the square along an axis, in pixels of the image.
    fn extent(self, axis: usize) -> (f64, f64) {
        let size = f64::from(self.size[axis]);
        let scale = size / f64::from(self.scaled[axis]);
        let start = f64::from(self.start[axis]) * scale;
        // Rounding may exceed the image by the last bit, which the resizer refuses.
        (start, (f64::from(self.side) * scale).min(size - start))
    }

    /// Resizes `rgbx` to `out`, `side` x `side` pixels. Every fourth byte has no meaning.
    pub fn resize(self, resizer: &mut Resizer, rgbx: &[u8], out: &mut [u8]) {
        let [(left, width), (top, height)] = [0, 1].map(|axis| self.extent(axis));
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
            .crop(left, top, width, height)
            .use_alpha(false);
        // With their type, a program has the code for this kind of pixels alone, and not 3 MB for all kinds.
        let image = TypedImageRef::<U8x4>::from_buffer(self.size[0], self.size[1], rgbx);
        let image = image.expect("the decoder filled width x height pixels");
        let result = TypedImage::<U8x4>::from_buffer(self.side, self.side, out);
        let mut result = result.expect("the caller has made room for side x side pixels");
        resizer
            .resize_typed(&image, &mut result, &options)
            .expect("the crop lies in the image");
    }
}

/// A scaled length, at most 4,294,967,295 as `side` and the longest image are bounded.
fn to_u32(length: u64) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resize(side: u32, squash: bool) -> Resize {
        let side = NonZeroU32::new(side).unwrap();
        Resize { side, squash }
    }

    /// torchvision: `int(side * long / short)`, then `int(round((long - side) / 2.0))`, which rounds a
    /// half to the even number.
    #[test]
    fn crop_is_that_of_torchvision() {
        let middle = |size| {
            let crop = resize(16, false).crop(size);
            (crop.scaled, crop.start)
        };
        assert_eq!(middle([64, 48]), ([21, 16], [2, 0]));
        assert_eq!(middle([48, 64]), ([16, 21], [0, 2]));
        assert_eq!(middle([41, 30]), ([21, 16], [2, 0]));
        assert_eq!(middle([36, 25]), ([23, 16], [4, 0]));
        assert_eq!(middle([43, 30]), ([22, 16], [3, 0]));
        assert_eq!(middle([16, 16]), ([16, 16], [0, 0]));
        assert_eq!(
            middle([1, 65535]),
            ([16, 16 * 65535], [0, (16 * 65535 - 16) / 2])
        );
        // 21 pixels of 64, without the first 2 and the last 3.
        let of = 64.0 / 21.0;
        let kept = [2.0 * of, 0.0, 18.0 * of, 48.0];
        assert_eq!(resize(16, false).kept([64, 48]), kept);
        assert_eq!(resize(16, true).kept([64, 48]), [0.0, 0.0, 64.0, 48.0]);
        let crop = resize(16, true).crop([64, 48]);
        assert_eq!((crop.scaled, crop.start), ([16, 16], [0, 0]));
    }

    proptest! {
        #[test]
        fn resized_box_covers_every_pixel_that_it_touches(
            size in [1..200_u32, 1..200],
            side in 1..40_u32,
            squash: bool,
            corners in [0..200_i32, 0..200, 0..200, 0..200],
        ) {
            let [w, h] = size.map(|length| i32::try_from(length).unwrap());
            let [a, b, c, d] = corners;
            let (a, b, c, d) = (a % w, b % h, c % w, d % h);
            let bbox = [a.min(c), b.min(d), a.max(c), b.max(d)];
            let crop = resize(side, squash).crop(size);
            // Pixel `at` of the result covers this much of the image, times `scaled`.
            let touched = |axis: usize| {
                let (scaled, size) = (u64::from(crop.scaled[axis]), u64::from(size[axis]));
                let [first, last] = [bbox[axis], bbox[axis + 2]].map(|at| at as u64);
                (0..u64::from(side)).filter(move |at| {
                    let from = (at + u64::from(crop.start[axis])) * size;
                    from < (last + 1) * scaled && from + size > first * scaled
                })
            };
            let ends = |axis| Some([touched(axis).min()?, touched(axis).max()?]);
            let expected = ends(0)
                .zip(ends(1))
                .map(|([x0, x1], [y0, y1])| [x0, y0, x1, y1].map(|at| i32::try_from(at).unwrap()));
            prop_assert_eq!(crop.bbox(bbox), expected);
        }

        /// The resizer accepts every size that `check_size` accepts, and writes every pixel.
        #[test]
        fn any_size_can_be_resized(size in [1..300_u32, 1..300], side in 1..100_u32, squash: bool) {
            let rgbx = vec![77; (size[0] * size[1] * 4) as usize];
            let mut out = vec![1; (side * side * 4) as usize];
            resize(side, squash).crop(size).resize(&mut Resizer::new(), &rgbx, &mut out);
            prop_assert!(out.iter().all(|&level| level == 77));
        }
    }
}
