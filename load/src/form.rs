//! The form that a batch gives its images: channels first or last, moved or as they are stored.

use std::mem::take;

use tinyres_format::Shape;

use super::{FlipShift, Result, stream};

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

/// Rows that are moved and then interleaved together. Interleaved one by one, each waits for its last pixels to be written;
/// whole images leave the first cache. On a Zen 3, both make a twentieth fewer images.
const ROWS: usize = 4;

/// Copies images one after the other, moved, by way of memory that stays in the caches.
pub(super) struct Mover {
    moves: Option<FlipShift>,
    shape: Shape,
    /// The image moved last, `u8 [C, H, W]`, or `u8 [H, W, C]` on its way to non-temporal stores.
    moved: Vec<u8>,
    /// Some rows of it, `u8 [C, n, W]`.
    rows: Vec<u8>,
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
            rows: vec![0; ROWS * shape.channels as usize * shape.width as usize],
        })
    }

    /// The pixels of `image`, moved, `u8 [C, H, W]`.
    pub(super) fn moved<'a>(&'a mut self, image: &Stored<'a>) -> &'a [u8] {
        if self.moves.is_none() {
            return image.pixels;
        }
        let mut moved = take(&mut self.moved);
        moved.resize(image.pixels.len(), 0);
        self.copy(image, Layout::ChannelsFirst, &mut moved, false);
        self.moved = moved;
        &self.moved
    }

    /// Copies the pixels of `image`, moved, to `out` in `layout`. With `streaming`, by non-temporal stores where `out` begins
    /// and ends at their bounds.
    pub(super) fn copy(
        &mut self,
        image: &Stored<'_>,
        layout: Layout,
        out: &mut [u8],
        streaming: bool,
    ) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            #[expect(unsafe_code, reason = "AVX2 is detected at run time")]
            // SAFETY: the processor has AVX2, as was just checked.
            unsafe {
                if streaming && stream::is_aligned(out) {
                    self.stream(image, layout, out);
                } else {
                    self.copy_avx2(image, layout, out);
                }
            }
            return;
        }
        self.copy_portably(image, layout, out);
    }

    /// The same code, compiled for AVX2, whose shuffles make interleaving nine times as fast.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn copy_avx2(&mut self, image: &Stored<'_>, layout: Layout, out: &mut [u8]) {
        self.copy_portably(image, layout, out);
    }

    /// Copies to `out`, which `stream` can write, by non-temporal stores.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn stream(&mut self, image: &Stored<'_>, layout: Layout, out: &mut [u8]) {
        if layout == Layout::ChannelsFirst && self.moves.is_none() {
            return stream::copy(image.pixels, out);
        }
        // By way of memory that stays in the caches: most of the stores that move an image are not of whole vectors.
        let mut moved = take(&mut self.moved);
        moved.resize(out.len(), 0);
        self.copy_avx2(image, layout, &mut moved);
        stream::copy(&moved, out);
        self.moved = moved;
    }

    #[inline(always)]
    fn copy_portably(&mut self, image: &Stored<'_>, layout: Layout, out: &mut [u8]) {
        let (shape, pixels, next) = (self.shape, image.pixels, image.next);
        let own = self.moves.map(|moves| moves.of(image.number));
        match (layout, own) {
            (Layout::ChannelsFirst, None) => out.copy_from_slice(pixels),
            (Layout::ChannelsFirst, Some(own)) => own.apply(shape, pixels, next, out),
            (Layout::ChannelsLast, None) => interleave(pixels, out),
            (Layout::ChannelsLast, Some(own)) => {
                own.interleave(shape, pixels, next, &mut self.rows, out);
            }
        }
    }
}

/// Copies one image, `u8 [3, H, W]`, to `u8 [H, W, 3]`.
#[inline(always)]
pub(super) fn interleave(planar: &[u8], out: &mut [u8]) {
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
    use crate::alloc_slot;

    #[test]
    fn vector_and_portable_code_copy_alike() {
        // At widths of 32 and 64, an image is whole vectors of 32 bytes, as non-temporal stores need it.
        for width in [2, 31, 32, 64, 90] {
            let shape = Shape {
                channels: 3,
                height: 5,
                width,
            };
            let planar: Vec<u8> = (0..=250).cycle().take(shape.image_len()).collect();
            let len = planar.len();
            for (moves, number) in [None, Some(FlipShift::new(true, 1, 0, 0))]
                .into_iter()
                .cycle()
                .zip(0..20)
            {
                let image = Stored {
                    number,
                    pixels: &planar,
                    next: &planar,
                };
                let [first, last] = [Layout::ChannelsFirst, Layout::ChannelsLast].map(|layout| {
                    let mut mover = Mover::new(&Form { layout, moves }, shape).unwrap();
                    let mut portable = vec![0; len];
                    mover.copy_portably(&image, layout, &mut portable);
                    // Non-temporal stores are used at the beginning of a page, and not after it.
                    let mut page = alloc_slot(len + 1).unwrap();
                    for (start, streaming) in [(0, false), (0, true), (1, true)] {
                        page.fill(255);
                        let out = &mut page[start..start + len];
                        mover.copy(&image, layout, out, streaming);
                        assert_eq!(out, portable);
                    }
                    portable
                });
                for (at, &value) in last.iter().enumerate() {
                    assert_eq!(value, first[at % 3 * (len / 3) + at / 3]);
                }
            }
        }
    }
}
