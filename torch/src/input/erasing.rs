//! Random erasing (Zhong et al. 2017): a rectangle of some training images is set to 0, the mean colour of
//! normalised pixels.

use std::ops::Range;

use tch::{Device, Kind, Tensor};
use tinyres_format::Draws;

use crate::Result;
use crate::libtorch::device;
use crate::num::to_f32;

/// Smallest and largest fraction of an image that is erased: Zhong et al. 2017, section 5.
const AREA: (f64, f64) = (0.02, 0.4);
/// Smallest and largest height / width of the rectangle. Its logarithm is uniform, as in torchvision.
const ASPECT: (f64, f64) = (0.3, 1.0 / 0.3);
/// Rectangles tried before the image is left whole, as in torchvision.
const ATTEMPTS: u64 = 10;
/// First draw of an image that is used here: flip and shift use those before it.
const FIRST_DRAW: u64 = 3;

/// The rectangles to erase from the training images of one epoch.
#[derive(Debug)]
pub(super) struct Erasing {
    /// `f32 [4, N, 1]`: top, bottom, left and right of each image's rectangle as fractions of the sides, for
    /// the images of the epoch in their order. Zeros if nothing is erased.
    edges: Tensor,
}

impl Erasing {
    /// Draws the rectangles of `images`, which have `sides = (height, width)` in pixels, from each image's
    /// own `draws` of the epoch. Draw 3 decides whether to erase, with `probability`. The draws from 4 on
    /// give, four at a time, area, aspect, top and left, until a rectangle fits. `None` if the probability
    /// is 0.
    pub(super) fn new(
        probability: f64,
        draws: Draws,
        images: &[u32],
        sides: (u32, u32),
        device: Device,
    ) -> Result<Option<Self>> {
        if probability == 0.0 {
            return Ok(None);
        }
        let mut edges = [(); 4].map(|()| Vec::with_capacity(images.len()));
        for &image in images {
            let draws = draws.of(u64::from(image));
            let erased = draws.unit(FIRST_DRAW) < probability;
            let rectangle = erased.then(|| rectangle(draws, sides)).flatten();
            for (edges, edge) in edges.iter_mut().zip(rectangle.unwrap_or_default()) {
                edges.push(edge);
            }
        }
        let edges = Tensor::f_from_slice(&edges.concat())?.f_view([4, -1, 1])?;
        Ok(Some(Self {
            edges: device::upload(&edges, device)?,
        }))
    }

    /// The same by handles, for another thread.
    pub(super) fn share(&self) -> Self {
        Self {
            edges: self.edges.shallow_clone(),
        }
    }

    /// Erases from `images`, `f32 [B, 3, H, W]`, normalised, which are those in the range `at` of the epoch.
    /// A pixel is erased if its centre is in the rectangle, so the images may have been resized.
    pub(super) fn apply(&self, mut images: Tensor, at: &Range<i64>) -> Result<Tensor> {
        let (_, _, height, width) = images.size4()?;
        let edges = self.edges.f_narrow(1, at.start, at.end - at.start)?;
        let within = |low: i64, side: i64| -> Result<Tensor> {
            let centres = Tensor::f_arange(side, (Kind::Float, images.device()))?
                .f_add_scalar(0.5)?
                .f_div_scalar(side)?;
            let after = centres.f_ge_tensor(&edges.f_get(low)?)?;
            Ok(after.f_logical_and(&centres.f_lt_tensor(&edges.f_get(low + 1)?)?)?)
        };
        let rows = within(0, height)?.f_unsqueeze(2)?;
        let columns = within(2, width)?.f_unsqueeze(1)?;
        let erased = rows.f_logical_and(&columns)?.f_unsqueeze(1)?;
        Ok(images.f_masked_fill_(&erased, 0)?)
    }
}

/// Top, bottom, left and right of the first rectangle that fits, as fractions of the sides.
fn rectangle(draws: Draws, (height, width): (u32, u32)) -> Option<[f32; 4]> {
    let (all_rows, all_columns) = (f64::from(height), f64::from(width));
    (0..ATTEMPTS).find_map(|attempt| {
        let draw = |n| draws.unit(FIRST_DRAW + 1 + 4 * attempt + n);
        let area = all_rows * all_columns * (AREA.0 + draw(0) * (AREA.1 - AREA.0));
        let (low, high) = (ASPECT.0.ln(), ASPECT.1.ln());
        let aspect = (low + draw(1) * (high - low)).exp();
        let rows = (area * aspect).sqrt().round();
        let columns = (area / aspect).sqrt().round();
        // At least one pixel smaller than the image, as in torchvision.
        (rows < all_rows && columns < all_columns).then(|| {
            let top = (draw(2) * (all_rows - rows + 1.0)).floor();
            let left = (draw(3) * (all_columns - columns + 1.0)).floor();
            [
                top / all_rows,
                (top + rows) / all_rows,
                left / all_columns,
                (left + columns) / all_columns,
            ]
            .map(to_f32)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tinyres_format::Stream;

    const SIDES: (u32, u32) = (12, 20);

    fn draws() -> Draws {
        Draws::new(4, Stream::Augment, 2)
    }

    #[test]
    fn erasing_does_not_depend_on_the_batch() {
        let ids: Vec<u32> = (0..60).map(|i| i * 7 % 60).collect();
        let erasing = Erasing::new(0.5, draws(), &ids, SIDES, Device::Cpu);
        let erasing = erasing.unwrap().unwrap();
        let (height, width) = (12_usize, 20_usize);
        let mut times = 0;
        // Two batches, so that the range of the second is used.
        for (start, end) in [(0, 25), (25, 60)] {
            let ones = Tensor::ones([end - start, 3, 12, 20], (Kind::Float, Device::Cpu));
            let got = erasing.apply(ones, &(start..end)).unwrap();
            let got = Vec::<f32>::try_from(got.contiguous().view([-1])).unwrap();
            let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
            for (pixels, &id) in got.chunks(3 * height * width).zip(&ids[range]) {
                let own = draws().of(u64::from(id));
                let mut expected = vec![1.0; 3 * height * width];
                if own.unit(3) < 0.5 {
                    let whole = 240.0;
                    for first in (4..44).step_by(4) {
                        let area = whole * (0.02 + 0.38 * own.unit(first));
                        let aspect = 0.3 * (1.0_f64 / 0.09).powf(own.unit(first + 1));
                        let rows = (area * aspect).sqrt().round();
                        let columns = (area / aspect).sqrt().round();
                        if rows >= 12.0 || columns >= 20.0 {
                            continue;
                        }
                        let top = (own.unit(first + 2) * (13.0 - rows)).floor();
                        let left = (own.unit(first + 3) * (21.0 - columns)).floor();
                        for (at, pixel) in expected.iter_mut().enumerate() {
                            let real = |at: usize| f64::from(u32::try_from(at).unwrap());
                            let (y, x) = (real(at / width % height), real(at % width));
                            if (top..top + rows).contains(&y) && (left..left + columns).contains(&x)
                            {
                                *pixel = 0.0;
                            }
                        }
                        times += 1;
                        break;
                    }
                }
                assert_eq!(pixels, expected, "image {id}");
            }
        }
        assert!((15..45).contains(&times), "{times} of 60");
    }

    #[test]
    fn rectangles_scale_with_the_image() {
        let ids: Vec<u32> = (0..40).collect();
        let erasing = Erasing::new(1.0, draws(), &ids, (32, 32), Device::Cpu);
        let erasing = erasing.unwrap().unwrap();
        let erased = |side: i64| {
            let ones = Tensor::ones([40, 3, side, side], (Kind::Float, Device::Cpu));
            let kept = erasing.apply(ones, &(0..40)).unwrap();
            1.0 - f64::try_from(kept.mean(Kind::Float)).unwrap()
        };
        let (small, large) = (erased(32), erased(64));
        assert!((small - large).abs() < 1e-6, "{small} {large}");
        assert!((0.1..0.35).contains(&small), "{small}");
        let none = Erasing::new(0.0, draws(), &ids, (32, 32), Device::Cpu);
        assert!(none.unwrap().is_none());
    }
}
