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
    pub(super) fn apply(&self, planar: &[u8], out: &mut [f32]) {
        // Three planes side by side, in the plainest loop: it beats tables, blocks of pixels, and all
        // but AVX-512 where the writing of 48 kB an image does not hold it back anyway.
        let (red, others) = planar.split_at(planar.len() / 3);
        let (green, blue) = others.split_at(red.len());
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
