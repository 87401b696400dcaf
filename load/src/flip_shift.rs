//! Random flips and shifts of training images, and of their boxes with them: section 7 of the specification,
//! draws 0 to 2 of stream 1. An image's move follows from (seed, epoch, image) alone, and its pixels are moved
//! while they are copied from the map. What a shift uncovers shows the image reflected at its edge, so every
//! pixel of the result is one of the image, in whatever unit it is given out.

use tinyres_format::{Draws, Shape, Stream};

use super::fetch::fetch;
use super::form::interleave;
use super::{Error, Result};

/// Flips and shifts of the training images of one epoch: those of `tinyres train` with the same `flip`, `shift`,
/// seed and epoch, at the size of the shards.
#[derive(Clone, Copy, Debug)]
pub struct FlipShift {
    flip: bool,
    shift: u32,
    draws: Draws,
}

/// The move of one image: first the mirroring, then the shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Left and right are exchanged.
    pub mirrored: bool,
    /// Pixels by which the image is shifted down; negative for up.
    pub down: i32,
    /// Pixels by which the image is shifted right; negative for left.
    pub right: i32,
}

impl FlipShift {
    /// Moves of `epoch`: with `flip`, half of the images are mirrored; each is shifted by up to `shift` pixels down
    /// or up, and right or left, all shifts equally likely.
    #[must_use]
    pub fn new(flip: bool, shift: u32, seed: u64, epoch: u64) -> Self {
        Self {
            flip,
            shift,
            draws: Draws::new(seed, Stream::Augment, epoch),
        }
    }

    /// The move of an image, by its number in the split.
    #[must_use]
    pub fn of(&self, image: u32) -> Move {
        let draws = self.draws.of(u64::from(image));
        let shift = |draw| {
            let shifts = 2 * u64::from(self.shift) + 1;
            let by = draws.below(draw, shifts).cast_signed() - i64::from(self.shift);
            i32::try_from(by).expect("images have at most 65,535 rows and columns")
        };
        Move {
            mirrored: self.flip && draws.below(0, 2) == 1,
            down: shift(1),
            right: shift(2),
        }
    }

    /// Checks that images of `shape` are large enough to be reflected at their edges.
    pub(super) fn check(&self, shape: Shape) -> Result<()> {
        let side = shape.height.min(shape.width);
        if self.shift < side {
            return Ok(());
        }
        let shift = self.shift;
        Err(Error::Shift { shift, side })
    }
}

impl Move {
    /// The box of a moved image, in inclusive pixels (x0, y0, x1, y1), from that of the image of `shape`. It is
    /// clipped at the edges; one that has left the image becomes four times -1, as no box does.
    #[must_use]
    pub fn bbox(self, bbox: [i32; 4], shape: Shape) -> [i32; 4] {
        const NONE: [i32; 4] = [-1; 4];
        let [mut x0, y0, mut x1, y1] = bbox;
        if bbox == NONE {
            return NONE;
        }
        let last = |side: u32| i32::try_from(side).unwrap_or(i32::MAX) - 1;
        let (right, bottom) = (last(shape.width), last(shape.height));
        if self.mirrored {
            (x0, x1) = (right - x1, right - x0);
        }
        let (x0, x1) = ((x0 + self.right).max(0), (x1 + self.right).min(right));
        let (y0, y1) = ((y0 + self.down).max(0), (y1 + self.down).min(bottom));
        if x0 > x1 || y0 > y1 {
            return NONE;
        }
        [x0, y0, x1, y1]
    }

    /// Moves one image of `shape`, `u8 [C, H, W]`. A shift is smaller than both sides. `next` is the image after
    /// it: its rows are fetched into the caches between those of this one. Rows are too short for the processor to
    /// do so by itself, and without it they come at half the speed of one long copy.
    #[inline(always)]
    pub(super) fn apply(self, shape: Shape, image: &[u8], next: &[u8], out: &mut [u8]) {
        if self.mirrored {
            self.planes::<true>(shape, image, next, out);
        } else {
            self.planes::<false>(shape, image, next, out);
        }
    }

    /// Moves one image like [`apply`](Self::apply), but to `u8 [H, W, 3]`. It is interleaved as many rows at a time as
    /// `rows`, `u8 [3, n, W]`, has room for.
    #[inline(always)]
    pub(super) fn interleave(
        self,
        shape: Shape,
        image: &[u8],
        next: &[u8],
        rows: &mut [u8],
        out: &mut [u8],
    ) {
        if self.mirrored {
            self.stripes::<true>(shape, image, next, rows, out);
        } else {
            self.stripes::<false>(shape, image, next, rows, out);
        }
    }

    #[inline(always)]
    fn planes<const MIRRORED: bool>(self, shape: Shape, image: &[u8], next: &[u8], out: &mut [u8]) {
        let (height, width) = (shape.height as usize, shape.width as usize);
        let planes = image.chunks_exact(height * width);
        let mut next = next.chunks_exact(width);
        for (out, plane) in out.chunks_exact_mut(height * width).zip(planes) {
            for (y, out) in out.chunks_exact_mut(width).enumerate() {
                fetch(next.next().unwrap_or_default());
                let row = width * reflected(y, self.down, height);
                shift::<MIRRORED>(&plane[row..row + width], self.right, out);
            }
        }
    }

    #[inline(always)]
    fn stripes<const MIRRORED: bool>(
        self,
        shape: Shape,
        image: &[u8],
        next: &[u8],
        rows: &mut [u8],
        out: &mut [u8],
    ) {
        let (height, width) = (shape.height as usize, shape.width as usize);
        let (red, others) = image.split_at(height * width);
        let (green, blue) = others.split_at(height * width);
        let mut next = next.chunks_exact(3 * width);
        let mut top = 0;
        for out in out.chunks_mut(rows.len()) {
            let rows = &mut rows[..out.len()];
            let (reds, others) = rows.split_at_mut(out.len() / 3);
            let (greens, blues) = others.split_at_mut(out.len() / 3);
            let [reds, greens, blues] =
                [reds, greens, blues].map(|rows| rows.chunks_exact_mut(width));
            for (((to_red, to_green), to_blue), y) in reds.zip(greens).zip(blues).zip(top..) {
                fetch(next.next().unwrap_or_default());
                let row = width * reflected(y, self.down, height);
                shift::<MIRRORED>(&red[row..row + width], self.right, to_red);
                shift::<MIRRORED>(&green[row..row + width], self.right, to_green);
                shift::<MIRRORED>(&blue[row..row + width], self.right, to_blue);
            }
            interleave(rows, out);
            top += out.len() / (3 * width);
        }
    }
}

/// The row that a shift by `by` brings to row `at` of `side` rows; beyond the edges it is reflected without repeating
/// the edge.
fn reflected(at: usize, by: i32, side: usize) -> usize {
    let last = side.cast_signed() - 1;
    let from = at.cast_signed() - by as isize;
    (last - (last - from.abs()).abs()).unsigned_abs()
}

/// Copies a row, mirrored if so, and shifted by `right` pixels, fewer than it has.
#[inline(always)]
fn shift<const MIRRORED: bool>(row: &[u8], right: i32, out: &mut [u8]) {
    let by = right.unsigned_abs() as usize;
    let kept = row.len() - by;
    // The part of the row that stays; a shift to the left takes it from the other end.
    let at_end = (right < 0) != MIRRORED;
    let from = if at_end { &row[by..] } else { &row[..kept] };
    let to = if right < 0 {
        &mut out[..kept]
    } else {
        &mut out[by..]
    };
    match kept {
        32.. => copy::<32, MIRRORED>(from, to),
        8.. => copy::<8, MIRRORED>(from, to),
        _ => copy::<1, MIRRORED>(from, to),
    }
    if by > 0 {
        uncover::<MIRRORED>(row, right, out);
    }
}

/// Copies a row of at least `N` pixels, `N` at a time, and the last ones once more where they do not fill `N`.
#[inline(always)]
fn copy<const N: usize, const MIRRORED: bool>(from: &[u8], to: &mut [u8]) {
    if MIRRORED {
        let (_, chunks) = from.as_rchunks::<N>();
        for (to, from) in to.as_chunks_mut().0.iter_mut().zip(chunks.iter().rev()) {
            put::<N, MIRRORED>(Some(from), Some(to));
        }
        put::<N, MIRRORED>(from.first_chunk(), to.last_chunk_mut());
    } else {
        let (chunks, _) = from.as_chunks::<N>();
        for (to, from) in to.as_chunks_mut().0.iter_mut().zip(chunks) {
            put::<N, MIRRORED>(Some(from), Some(to));
        }
        put::<N, MIRRORED>(from.last_chunk(), to.last_chunk_mut());
    }
}

#[inline(always)]
fn put<const N: usize, const MIRRORED: bool>(from: Option<&[u8; N]>, to: Option<&mut [u8; N]>) {
    if let (Some(from), Some(to)) = (from, to) {
        *to = *from;
        if MIRRORED {
            to.reverse();
        }
    }
}

/// Fills the pixels that a shift to the right uncovers at the left edge, or the other way round, with the reflection
/// of those next to them.
#[inline(always)]
fn uncover<const MIRRORED: bool>(row: &[u8], right: i32, out: &mut [u8]) {
    let by = right.unsigned_abs() as usize;
    let last = row.len() - 1;
    // Eight pixels at once: a shift by 3 to the right makes d c b a b c d e of a b c d e f g h.
    if by < 8
        && let (Some(first), Some(end)) = (row.first_chunk(), row.last_chunk())
        && let Some(left) = out.first_chunk_mut()
    {
        let [first, end] = [first, end].map(|pixels| u64::from_le_bytes(*pixels));
        let [first, end] = if MIRRORED {
            [end.swap_bytes(), first.swap_bytes()]
        } else {
            [first, end]
        };
        let (away, back) = (8 * by, 8 * (7 - by));
        if right > 0 {
            *left = (first.swap_bytes() >> back | first << away).to_le_bytes();
        } else if let Some(out) = out.last_chunk_mut() {
            *out = (end.swap_bytes() << back | end >> away).to_le_bytes();
        }
        return;
    }
    let at = |column: usize| row[if MIRRORED { last - column } else { column }];
    for column in 1..=by {
        if right > 0 {
            out[by - column] = at(column);
        } else {
            out[last - by + column] = at(last - column);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// SPEC section 7, pixel by pixel.
    fn naive(mv: Move, shape: Shape, image: &[u8]) -> Vec<u8> {
        let (h, w) = (i64::from(shape.height), i64::from(shape.width));
        let reflect = |mut at: i64, side: i64| {
            while !(0..side).contains(&at) {
                at = if at < 0 { -at } else { 2 * (side - 1) - at };
            }
            at
        };
        let mut out = Vec::new();
        for c in 0..3 {
            for y in 0..h {
                for x in 0..w {
                    let (row, mut column) = (
                        reflect(y - i64::from(mv.down), h),
                        reflect(x - i64::from(mv.right), w),
                    );
                    if mv.mirrored {
                        column = w - 1 - column;
                    }
                    out.push(image[usize::try_from((c * h + row) * w + column).unwrap()]);
                }
            }
        }
        out
    }

    proptest! {
        /// Rows of every length modulo the 8 or 32 pixels that are copied together, and every shift up to the largest.
        #[test]
        fn moves_equal_those_of_the_specification(
            height in 1_u32..12, width in 1_u32..90, mirrored: bool, down: i32, right: i32,
        ) {
            let shape = Shape { channels: 3, height, width };
            let within = |by: i32, side: u32| by % i32::try_from(side).unwrap();
            let mv = Move { mirrored, down: within(down, height), right: within(right, width) };
            let image: Vec<u8> = (0..shape.image_len()).map(|i| (i * 151 % 251).to_le_bytes()[0]).collect();
            let mut out = vec![0; image.len()];
            mv.apply(shape, &image, &image, &mut out);
            prop_assert_eq!(&out, &naive(mv, shape, &image));
            let (mut last, mut rows) = (vec![0; image.len()], vec![0; 4 * 3 * width as usize]);
            mv.interleave(shape, &image, &image, &mut rows, &mut last);
            for (at, &value) in last.iter().enumerate() {
                prop_assert_eq!(value, out[at % 3 * (image.len() / 3) + at / 3]);
            }
        }

        /// The box of a moved image bounds the pixels that were in the box, without their reflections.
        #[test]
        fn boxes_move_with_their_pixels(
            x in (0_i32..9, 0_i32..9), y in (0_i32..7, 0_i32..7), mirrored: bool, down in -6_i32..=6, right in -8_i32..=8,
        ) {
            let shape = Shape { channels: 3, height: 7, width: 9 };
            let bbox = [x.0.min(x.1), y.0.min(y.1), x.0.max(x.1), y.0.max(y.1)];
            let mv = Move { mirrored, down, right };
            let mut bounds: Option<[i32; 4]> = None;
            for y in bbox[1]..=bbox[3] {
                for x in bbox[0]..=bbox[2] {
                    let (x, y) = (if mirrored { 8 - x } else { x } + right, y + down);
                    if (0..9).contains(&x) && (0..7).contains(&y) {
                        let [x0, y0, x1, y1] = bounds.unwrap_or([x, y, x, y]);
                        bounds = Some([x0.min(x), y0.min(y), x1.max(x), y1.max(y)]);
                    }
                }
            }
            prop_assert_eq!(mv.bbox(bbox, shape), bounds.unwrap_or([-1; 4]));
            prop_assert_eq!(mv.bbox([-1; 4], shape), [-1; 4]);
        }
    }

    #[test]
    fn moves_equal_the_golden_ones() {
        let shape = Shape {
            channels: 3,
            height: 6,
            width: 8,
        };
        let golden = include_bytes!("../tests/golden/moved.bin");
        let stored: Vec<u8> = (0..golden.len())
            .map(|i| (i * 151 % 251).to_le_bytes()[0])
            .collect();
        let moves = FlipShift::new(true, 3, 7, 3);
        let mut moved = vec![0; golden.len()];
        let images = stored.chunks_exact(shape.image_len());
        for ((image, out), number) in images
            .zip(moved.chunks_exact_mut(shape.image_len()))
            .zip(0..)
        {
            moves.of(number).apply(shape, image, &[], out);
        }
        assert_eq!(moved, golden);
    }

    #[test]
    fn half_are_mirrored_and_all_shifts_occur() {
        let moves = FlipShift::new(true, 2, 7, 3);
        let moves: Vec<Move> = (0..2000).map(|image| moves.of(image)).collect();
        let mirrored = moves.iter().filter(|mv| mv.mirrored).count();
        assert!((900..1100).contains(&mirrored), "{mirrored}");
        for by in -2..=2 {
            for times in [
                moves.iter().filter(|mv| mv.down == by).count(),
                moves.iter().filter(|mv| mv.right == by).count(),
            ] {
                assert!((320..480).contains(&times), "{by}: {times}");
            }
        }
        let still = FlipShift::new(false, 0, 7, 3).of(5);
        assert_eq!((still.mirrored, still.down, still.right), (false, 0, 0));
    }
}
