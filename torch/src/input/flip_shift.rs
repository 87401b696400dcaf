//! Random flips and shifts of training images, and of their boxes with them. Each image's move is drawn from
//! its own random draws (SPEC section 7), so it does not depend on how images are batched.

use std::ops::Range;

use tch::{Device, Kind, Tensor};
use tinyres_format::Draws;

use crate::Result;
use crate::libtorch::device;

/// Flips and shifts for the training images of one epoch. Pixels that a shift uncovers are filled by
/// reflection at the edge.
///
/// `rows` and `columns` are tables of source indices, one row for each possible move. There are
/// `shifts = 2 * shift + 1` shifts in each direction.
#[derive(Debug)]
pub struct FlipShift {
    /// For each image of the epoch, in their order: its row in `rows`, and its row in `columns`. `i64 [N]`
    /// each.
    moves: (Tensor, Tensor),
    /// `i64 [shifts, H]`: for each row of the result, the offset of its source row in the plane.
    rows: Tensor,
    /// `i64 [2 * shifts, W]`: for each column of the result, its source column. The second half is mirrored.
    columns: Tensor,
}

impl FlipShift {
    /// Draws the moves of `images`, of `(height, width)` pixels, from each image's own `draws` of the epoch:
    /// draw 0 mirrors it, draw 1 shifts it down, and draw 2 shifts it right, by up to `shift` pixels each way.
    /// `None` without `flip` and with a `shift` of 0.
    pub fn new(
        flip: bool,
        shift: u32,
        draws: Draws,
        images: &[u32],
        (height, width): (u32, u32),
        device: Device,
    ) -> Result<Option<Self>> {
        if !flip && shift == 0 {
            return Ok(None);
        }
        let shifts = 2 * u64::from(shift) + 1;
        let mut moves = (Vec::new(), Vec::new());
        for &image in images {
            let draws = draws.of(u64::from(image));
            let mirrored = u64::from(flip) * draws.below(0, 2);
            let (down, right) = (draws.below(1, shifts), draws.below(2, shifts));
            moves.0.push(down.cast_signed());
            moves.1.push((mirrored * shifts + right).cast_signed());
        }
        let (height, width, shift) = (i64::from(height), i64::from(width), i64::from(shift));
        let table = |side: i64, mirror: bool, stride: i64| {
            (-shift..=shift).flat_map(move |by| {
                (0..side).map(move |at| {
                    let from = reflect(at - by, side);
                    stride * if mirror { side - 1 - from } else { from }
                })
            })
        };
        let on_device = |values: Vec<i64>| device::upload(&Tensor::f_from_slice(&values)?, device);
        let rows = table(height, false, width).collect();
        let columns = table(width, false, 1)
            .chain(table(width, true, 1))
            .collect();
        Ok(Some(Self {
            moves: (on_device(moves.0)?, on_device(moves.1)?),
            rows: on_device(rows)?.f_view([-1, height])?,
            columns: on_device(columns)?.f_view([-1, width])?,
        }))
    }

    /// The same by handles, for another thread.
    pub(super) fn share(&self) -> Self {
        Self {
            moves: (self.moves.0.shallow_clone(), self.moves.1.shallow_clone()),
            rows: self.rows.shallow_clone(),
            columns: self.columns.shallow_clone(),
        }
    }

    /// Moves `pixels`, `[B, 3, H, W]`, which are those of the images in the range `at` of the epoch, with one
    /// gather. The result is channels last.
    pub fn apply(&self, pixels: &Tensor, at: &Range<i64>) -> Result<Tensor> {
        let (b, c, h, w) = pixels.size4()?;
        let pick = |moves: &Tensor, table: &Tensor| -> Result<Tensor> {
            Ok(table.f_index_select(0, &moves.f_narrow(0, at.start, b)?)?)
        };
        let rows = pick(&self.moves.0, &self.rows)?.f_unsqueeze(2)?;
        let columns = pick(&self.moves.1, &self.columns)?.f_unsqueeze(1)?;
        let sources = (rows.f_add(&columns)?)
            .f_view([b, h * w, 1])?
            .f_expand([b, h * w, c], false)?;
        let planes = pixels.f_view([b, c, h * w])?.f_transpose(1, 2)?;
        // [B, H * W, C] is channels last already.
        let moved = planes.f_gather(1, &sources, false)?;
        Ok(moved.f_view([b, h, w, c])?.f_permute([0, 3, 1, 2])?)
    }

    /// Moves `boxes`, edges `f32 [B, 4]`, with the images in the range `at` of the epoch. Boxes are clipped at
    /// the edges of the image, so one that has left it has no area.
    pub fn move_boxes(&self, boxes: &Tensor, at: &Range<i64>) -> Result<Tensor> {
        let pick = |moves: &Tensor| moves.f_narrow(0, at.start, at.end - at.start);
        let ((shifts, height), (_, width)) = (self.rows.size2()?, self.columns.size2()?);
        let fraction = |shifted: &Tensor, side: i64| {
            // Move number shifts / 2 is a shift of 0.
            let pixels = shifted.f_to_kind(Kind::Float)?.f_sub_scalar(shifts / 2)?;
            pixels.f_div_scalar(side)
        };
        let (rows, columns) = (pick(&self.moves.0)?, pick(&self.moves.1)?);
        let down = fraction(&rows, height)?;
        let right = fraction(&columns.f_remainder(shifts)?, width)?;
        // Mirroring takes x0 to 1 - x1 and x1 to 1 - x0: both move by 1 - (x0 + x1).
        let mirrored = columns.f_ge(shifts)?.f_to_kind(Kind::Float)?;
        let sum = boxes.f_select(1, 0)?.f_add(&boxes.f_select(1, 2)?)?;
        let right = right.f_add(&mirrored.f_mul(&sum.f_neg()?.f_add_scalar(1)?)?)?;
        let moves = Tensor::f_stack(&[&right, &down, &right, &down], 1)?;
        Ok(boxes.f_add(&moves)?.f_clamp(0, 1)?)
    }
}

/// The index `at`, reflected into `0..side` without repeating the edge: -1 becomes 1, `side` becomes `side
/// - 2`.
fn reflect(at: i64, side: i64) -> i64 {
    let last = side - 1;
    last - (last - at.abs()).abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tinyres_format::Stream;

    const SIDES: (u32, u32) = (6, 8);

    fn draws() -> Draws {
        Draws::new(7, Stream::Augment, 3)
    }

    /// Pixels of images, all different, as nested vectors: `[image][channel][row][column]`.
    fn pixels(images: usize) -> (Vec<u8>, Tensor) {
        let (h, w) = SIDES;
        let len = images * 3 * (h * w) as usize;
        let bytes: Vec<u8> = (0..len).map(|i| (i * 151 % 251).to_le_bytes()[0]).collect();
        let dims = [i64::try_from(images).unwrap(), 3, h.into(), w.into()];
        let tensor = Tensor::from_slice(&bytes).view(dims);
        (bytes, tensor)
    }

    /// The pixels after the moves, computed image by image and pixel by pixel.
    fn naive(bytes: &[u8], ids: &[u32], flip: bool, shift: i64) -> Vec<u8> {
        let (h, w) = (i64::from(SIDES.0), i64::from(SIDES.1));
        let mut out = Vec::new();
        for (n, &id) in ids.iter().enumerate() {
            let own = draws().of(u64::from(id));
            let range = u64::try_from(2 * shift + 1).unwrap();
            let mirrored = flip && own.below(0, 2) == 1;
            let down = i64::try_from(own.below(1, range)).unwrap() - shift;
            let right = i64::try_from(own.below(2, range)).unwrap() - shift;
            for c in 0..3 {
                for y in 0..h {
                    for x in 0..w {
                        let (mut from_y, mut from_x) = (y - down, x - right);
                        while !(0..h).contains(&from_y) {
                            from_y = if from_y < 0 {
                                -from_y
                            } else {
                                2 * (h - 1) - from_y
                            };
                        }
                        while !(0..w).contains(&from_x) {
                            from_x = if from_x < 0 {
                                -from_x
                            } else {
                                2 * (w - 1) - from_x
                            };
                        }
                        if mirrored {
                            from_x = w - 1 - from_x;
                        }
                        let n = i64::try_from(n).unwrap();
                        let at = ((n * 3 + c) * h + from_y) * w + from_x;
                        out.push(bytes[usize::try_from(at).unwrap()]);
                    }
                }
            }
        }
        out
    }

    #[test]
    fn moves_do_not_depend_on_the_batch() {
        let ids: Vec<u32> = (0..40).map(|i| i * 7 % 40).collect();
        let (bytes, tensor) = pixels(40);
        for (flip, shift) in [(true, 0), (false, 3), (true, 4)] {
            let moves = FlipShift::new(flip, shift, draws(), &ids, SIDES, Device::Cpu)
                .unwrap()
                .unwrap();
            let expected = naive(&bytes, &ids, flip, shift.into());
            assert_ne!(expected, bytes);
            // Two batches, so that the range of the second is used.
            let mut got = Vec::new();
            for (start, end) in [(0, 16), (16, 40)] {
                let batch = tensor.narrow(0, start, end - start);
                let moved = moves.apply(&batch, &(start..end)).unwrap();
                assert_eq!(moved.stride()[1], 1);
                got.extend(Vec::<u8>::try_from(moved.contiguous().view([-1])).unwrap());
            }
            assert_eq!(got, expected, "flip {flip}, shift {shift}");
        }
    }

    /// The loader gives these to Python.
    #[test]
    fn moves_equal_the_golden_ones() {
        let golden = include_bytes!("../../../load/tests/golden/moved.bin");
        let ids: Vec<u32> = (0..40).collect();
        let (_, tensor) = pixels(40);
        let moves = FlipShift::new(true, 3, draws(), &ids, SIDES, Device::Cpu);
        let moved = moves.unwrap().unwrap().apply(&tensor, &(0..40)).unwrap();
        let moved = Vec::<u8>::try_from(moved.contiguous().view([-1])).unwrap();
        assert_eq!(moved, golden);
    }

    #[test]
    fn half_are_mirrored_and_all_shifts_occur() {
        let ids: Vec<u32> = (0..2000).collect();
        let moves = FlipShift::new(true, 2, draws(), &ids, SIDES, Device::Cpu)
            .unwrap()
            .unwrap();
        let columns = Vec::<i64>::try_from(&moves.moves.1).unwrap();
        let mirrored = columns.iter().filter(|&&column| column >= 5).count();
        assert!((900..1100).contains(&mirrored), "{mirrored}");
        for shift in 0..10 {
            let times = columns.iter().filter(|&&column| column == shift).count();
            assert!((150..250).contains(&times), "{shift}: {times}");
        }
    }
}
