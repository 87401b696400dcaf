//! Pixels to normalised `f32`, channels last or first: a portable loop, and AVX-512 or AVX2 where the processor has it.
//! All give the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

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
    /// non-temporal stores where `out` is aligned to their width.
    pub(super) fn apply(&self, planar: &[u8], out: &mut [f32], streaming: bool) {
        let (red, others) = planar.split_at(planar.len() / 3);
        let (green, blue) = others.split_at(red.len());
        let planes = [red, green, blue];
        #[cfg(target_arch = "x86_64")]
        let done = match avx512::apply(self, planes, out, streaming) {
            0 => avx2::apply(self, planes, out, streaming),
            done => done,
        };
        #[cfg(not(target_arch = "x86_64"))]
        let done = 0;
        self.apply_portably(planes.map(|plane| &plane[done..]), &mut out[3 * done..]);
    }

    /// Converts one image, `u8 [3, H, W]`, to `f32 [3, H, W]`. With `streaming`, by non-temporal stores where a plane
    /// of `out` is aligned to their width.
    pub(super) fn apply_by_planes(&self, planar: &[u8], out: &mut [f32], streaming: bool) {
        let plane = planar.len() / 3;
        let planes = planar.chunks_exact(plane).zip(out.chunks_exact_mut(plane));
        for ((plane, out), by) in planes.zip(self.scale.into_iter().zip(self.offset)) {
            #[cfg(target_arch = "x86_64")]
            let done = match avx512::apply_plane(by, plane, out, streaming) {
                0 => avx2::apply_plane(by, plane, out, streaming),
                done => done,
            };
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
    use crate::alloc_slot;

    #[test]
    fn vector_and_portable_code_give_the_same_bits() {
        let how = Normalization::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        // Every value in every channel, at different places of a register, and three pixels left over.
        const PIXELS: usize = 259;
        let planar: Vec<u8> = (0..=255).cycle().take(3 * PIXELS).collect();
        let (red, others) = planar.split_at(PIXELS);
        let (green, blue) = others.split_at(PIXELS);
        let planes = [red, green, blue];
        let mut portable = vec![0.0; planar.len()];
        how.apply_portably(planes, &mut portable);
        let last = f32::from(planar[3 * PIXELS - 1]) * how.scale[2] + how.offset[2];
        assert_eq!(portable.last(), Some(&last));
        // Non-temporal stores are used at the beginning of a page, and not after it.
        let mut page = alloc_slot(4 * (planar.len() + 1)).unwrap();
        let page: &mut [f32] = bytemuck::cast_slice_mut(&mut page);
        for (start, streaming) in [(0, false), (0, true), (1, true)] {
            let out = &mut page[start..start + planar.len()];
            out.fill(0.0);
            how.apply(&planar, out, streaming);
            assert_eq!(out, portable);
            #[cfg(target_arch = "x86_64")]
            for apply in [avx2::apply, avx512::apply] {
                out.fill(0.0);
                // None on a processor without these instructions.
                let done = 3 * apply(&how, planes, out, streaming);
                assert_eq!(out[..done], portable[..done]);
                assert!(out[done..].iter().all(|&number| number == 0.0));
            }
            out.fill(0.0);
            how.apply_by_planes(&planar, out, streaming);
            let number = |pixel: usize, channel: usize| out[channel * PIXELS + pixel];
            let by_pixels = (0..PIXELS).flat_map(|pixel| [0, 1, 2].map(|c| number(pixel, c)));
            assert!(by_pixels.eq(portable.iter().copied()));
            #[cfg(target_arch = "x86_64")]
            for apply in [avx2::apply_plane, avx512::apply_plane] {
                let green_alone = &mut page[start..start + PIXELS];
                green_alone.fill(0.0);
                let done = apply((how.scale[1], how.offset[1]), green, green_alone, streaming);
                let expected = portable.iter().skip(1).step_by(3);
                assert!(green_alone[..done].iter().eq(expected.take(done)));
            }
        }
    }
}
