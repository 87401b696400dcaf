#[cfg(target_arch = "x86_64")]
mod avx2;

/// Bytes of a batch from which on its numbers are written past the caches. A smaller one is still in them
/// when it is read, which is the faster for it; of a larger one only the beginning would be, and to fetch what
/// is overwritten anyway takes as long as to write it. On two threads, with every batch read again behind,
/// 128 and 256 images of 64 pixels (12.6 MB) are the slower for it, 384 (18.9 MB) and 512 the faster.
pub(super) const PAST_CACHES: usize = 16 << 20;

/// How pixels become `f32`: `x = pixel * scale + offset` for each channel, rounded after each of the
/// two operations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// Factor of red, green and blue.
    pub scale: [f32; 3],
    /// What is added to the product.
    pub offset: [f32; 3],
}

impl Normalization {
    /// Gives each channel mean 0 and deviation 1, where those of the data are `mean` and `deviation`
    /// with 255 taken as 1, as torchvision states them.
    #[must_use]
    pub fn new(mean: [f64; 3], deviation: [f64; 3]) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rounded to the precision that batches have"
        )]
        let round = |value: f64| value as f32;
        Self {
            scale: deviation.map(|deviation| round(1.0 / (255.0 * deviation))),
            offset: [0, 1, 2].map(|channel| round(-mean[channel] / deviation[channel])),
        }
    }

    /// One image, planar `u8 [3, H, W]`, to channels last, `f32 [H, W, 3]`.
    pub(super) fn apply(&self, planar: &[u8], out: &mut [f32], past_caches: bool) {
        let (red, others) = planar.split_at(planar.len() / 3);
        let (green, blue) = others.split_at(red.len());
        let planes = [red, green, blue];
        #[cfg(target_arch = "x86_64")]
        let done = avx2::apply(self, planes, out, past_caches);
        #[cfg(not(target_arch = "x86_64"))]
        let done = 0;
        self.apply_portably(planes.map(|plane| &plane[done..]), &mut out[3 * done..]);
    }

    /// Three planes side by side, in the plainest loop: it beats tables and blocks of pixels.
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
    fn every_pixel_is_the_same_with_and_without_vectors() {
        let how = Normalization::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        // Each value in each channel, at different places of a register, and three pixels that fill none.
        let planar: Vec<u8> = (0..=255).cycle().take(3 * 259).collect();
        let (red, others) = planar.split_at(259);
        let (green, blue) = others.split_at(259);
        let mut portable = vec![0.0; planar.len()];
        how.apply_portably([red, green, blue], &mut portable);
        let last = f32::from(planar[3 * 259 - 1]) * how.scale[2] + how.offset[2];
        assert_eq!(portable.last(), Some(&last));
        for past_caches in [false, true] {
            let mut out = vec![0.0; planar.len()];
            how.apply(&planar, &mut out, past_caches);
            assert_eq!(out, portable);
        }
    }
}
