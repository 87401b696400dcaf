//! The form that a batch gives its images: channels first or last, moved or as they are stored.

use tinyres_format::Shape;

use super::{FlipShift, Result};

/// Order of the axes of a batch in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// `[n, C, H, W]`, as the shards have it.
    #[default]
    ChannelsFirst,
    /// `[n, H, W, C]`: what PyTorch calls `channels_last`.
    ChannelsLast,
}

/// The form that a batch gives its images. The default is the one of the shards.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form {
    /// Order of the axes.
    pub layout: Layout,
    /// Flips and shifts; `None` for images as they are stored.
    pub moves: Option<FlipShift>,
}

/// An image of a batch in the map.
pub(super) struct Stored<'a> {
    /// Its number in the split.
    pub number: u32,
    /// `u8 [C, H, W]`.
    pub pixels: &'a [u8],
    /// The pixels of the batch's image after it, or of itself.
    pub next: &'a [u8],
}

/// Moves images one after the other, in memory that stays in the caches.
pub(super) struct Mover {
    moves: Option<FlipShift>,
    shape: Shape,
    /// The image moved last, `u8 [C, H, W]`.
    moved: Vec<u8>,
}

impl Mover {
    /// Checks that images of `shape` can be moved so.
    pub(super) fn new(form: &Form, shape: Shape) -> Result<Self> {
        if let Some(moves) = &form.moves {
            moves.check(shape)?;
        }
        Ok(Self {
            moves: form.moves,
            shape,
            moved: Vec::new(),
        })
    }

    /// The pixels of `image`, moved.
    pub(super) fn moved<'a>(&'a mut self, image: &Stored<'a>) -> &'a [u8] {
        let Some(moves) = &self.moves else {
            return image.pixels;
        };
        self.moved.resize(image.pixels.len(), 0);
        let own = moves.of(image.number);
        own.apply(self.shape, image.pixels, image.next, &mut self.moved);
        &self.moved
    }
}

/// Copies one image, `u8 [3, H, W]`, to `u8 [H, W, 3]`.
pub(super) fn interleave(planar: &[u8], out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "AVX2 is detected at run time")]
        // SAFETY: the processor has AVX2, as was just checked.
        unsafe {
            interleave_avx2(planar, out);
        }
        return;
    }
    interleave_portably(planar, out);
}

/// The same code, compiled for AVX2, whose shuffles make it nine times as fast.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn interleave_avx2(planar: &[u8], out: &mut [u8]) {
    interleave_portably(planar, out);
}

#[inline(always)]
fn interleave_portably(planar: &[u8], out: &mut [u8]) {
    let (red, others) = planar.split_at(planar.len() / 3);
    let (green, blue) = others.split_at(red.len());
    let pixels = out.as_chunks_mut::<3>().0.iter_mut();
    for (((pixel, &red), &green), &blue) in pixels.zip(red).zip(green).zip(blue) {
        *pixel = [red, green, blue];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_and_portable_code_interleave_alike() {
        for pixels in [1, 31, 32, 259] {
            let planar: Vec<u8> = (0..=255).cycle().take(3 * pixels).collect();
            let (mut portable, mut out) = (vec![0; planar.len()], vec![0; planar.len()]);
            interleave_portably(&planar, &mut portable);
            interleave(&planar, &mut out);
            assert_eq!(out, portable);
            for (at, &value) in out.iter().enumerate() {
                assert_eq!(value, planar[at % 3 * pixels + at / 3]);
            }
        }
    }
}
