//! Pixels to normalised `f32`, channels last or first: a portable loop, and AVX2 where the processor has it. Both
//! give the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;

/// Size of a batch, in bytes, from which on it is written by non-temporal stores. A smaller batch is still in
/// the caches when it is read. A larger one is not, and an ordinary store first fetches the line that it
/// overwrites. On two threads that also read each batch back, non-temporal stores were slower for 128 and
/// 256 images of 64 pixels (12.6 MB), and faster for 384 (18.9 MB) and 512.
pub(super) const STREAMING_BYTES: usize = 16 << 20;

/// Affine map of pixels to `f32`: `x = pixel * scale + offset` for each channel, rounded after the product
/// and after the sum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// Factor of red, green and blue.
    pub scale: [f32; 3],
    /// Summand of red, green and blue.
    pub offset: [f32; 3],
}

impl Normalization {
    /// Normalises channels of the given `mean` and `std` to mean 0 and standard deviation 1. Both are in
    /// torchvision's unit, in which a pixel of 255 is 1.
    #[must_use]
    pub fn new(mean: [f64; 3], std: [f64; 3]) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rounded to the precision that batches have"
        )]
        let round = |value: f64| value as f32;
        Self {
            scale: std.map(|std| round(1.0 / (255.0 * std))),
            offset: [0, 1, 2].map(|channel| round(-mean[channel] / std[channel])),
        }
    }

    /// Converts one image, `u8 [3, H, W]`, to channels last, `f32 [H, W, 3]`. With `streaming`, by
    /// non-temporal stores where `out` is aligned to 16 bytes.
    pub(super) fn apply(&self, planar: &[u8], out: &mut [f32], streaming: bool) {
        let (red, others) = planar.split_at(planar.len() / 3);
        let (green, blue) = others.split_at(red.len());
        let planes = [red, green, blue];
        #[cfg(target_arch = "x86_64")]
        let done = avx2::apply(self, planes, out, streaming);
        #[cfg(not(target_arch = "x86_64"))]
        let done = 0;
        self.apply_portably(planes.map(|plane| &plane[done..]), &mut out[3 * done..]);
    }

    /// Converts one image, `u8 [3, H, W]`, to `f32 [3, H, W]`. With `streaming`, by non-temporal stores where a plane
    /// of `out` is aligned to 16 bytes.
    pub(super) fn apply_by_planes(&self, planar: &[u8], out: &mut [f32], streaming: bool) {
        let plane = planar.len() / 3;
        let planes = planar.chunks_exact(plane).zip(out.chunks_exact_mut(plane));
        for ((plane, out), by) in planes.zip(self.scale.into_iter().zip(self.offset)) {
            #[cfg(target_arch = "x86_64")]
            let done = avx2::apply_plane(by, plane, out, streaming);
            #[cfg(not(target_arch = "x86_64"))]
            let done = 0;
            for (number, &pixel) in out[done..].iter_mut().zip(&plane[done..]) {
                *number = f32::from(pixel) * by.0 + by.1;
            }
        }
    }

    /// The plain loop over pixels. It is faster than lookup tables and than blocks of pixels.
    fn apply_portably(&self, [red, green, blue]: [&[u8]; 3], out: &mut [f32]) {
        let ([r, g, b], [dr, dg, db]) = (self.scale, self.offset);
        let pixels = out.as_chunks_mut::<3>().0.iter_mut();
        for (((pixel, &red), &green), &blue) in pixels.zip(red).zip(green).zip(blue) {
            *pixel = [
                f32::from(red) * r + dr,
                f32::from(green) * g + dg,
                f32::from(blue) * b + db,
            ];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_and_portable_code_give_the_same_bits() {
        let how = Normalization::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        // Every value in every channel, at different places of a register, and three pixels left over.
        let planar: Vec<u8> = (0..=255).cycle().take(3 * 259).collect();
        let (red, others) = planar.split_at(259);
        let (green, blue) = others.split_at(259);
        let mut portable = vec![0.0; planar.len()];
        how.apply_portably([red, green, blue], &mut portable);
        let last = f32::from(planar[3 * 259 - 1]) * how.scale[2] + how.offset[2];
        assert_eq!(portable.last(), Some(&last));
        for streaming in [false, true] {
            let mut out = vec![0.0; planar.len()];
            how.apply(&planar, &mut out, streaming);
            assert_eq!(out, portable);
            how.apply_by_planes(&planar, &mut out, streaming);
            let by_pixels =
                (0..259).flat_map(|pixel| [0, 1, 2].map(|channel| out[channel * 259 + pixel]));
            assert!(by_pixels.eq(portable.iter().copied()));
        }
    }
}
