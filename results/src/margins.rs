//! The margins of training images that `tinyres train --track` writes, an array for each epoch.

use std::path::Path;

use crate::arrays::read;
use crate::{Error, Result};

/// The area under the margin of each of the `images` of train in the run in directory `run`: the mean over the epochs of its
/// label's logit minus the largest other one (Pleiss et al. 2020, <https://arxiv.org/abs/2001.10528>). The lower, the
/// likelier the label is wrong. `None` for an image without a margin in any epoch, and for a run without margins.
///
/// # Errors
/// [`Error::Damaged`] if an epoch's are not `f16 [images]`.
pub fn areas_under_margin(run: &Path, images: usize) -> Result<Option<Vec<Option<f64>>>> {
    let (mut sums, mut counts) = (vec![0.0; images], vec![0_u32; images]);
    let mut epochs = 0;
    loop {
        let path = run.join(format!("margins/epoch-{:04}.npy", epochs + 1));
        let Some((margins, width)) = read(&path, "<f2", images)? else {
            break;
        };
        if width != 1 {
            return Err(Error::damaged(&path)(format!(
                "{width} margins of each image, expected one"
            )));
        }
        for ((sum, count), margin) in sums.iter_mut().zip(&mut counts).zip(margins) {
            if margin.is_finite() {
                *sum += f64::from(margin);
                *count += 1;
            }
        }
        epochs += 1;
    }
    let mean = |(sum, count)| (count > 0).then(|| sum / f64::from(count));
    Ok((epochs > 0).then(|| sums.into_iter().zip(counts).map(mean).collect()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use half::f16;

    use super::*;

    /// The bytes that NumPy saves for `values`.
    fn npy(values: &[f32]) -> Vec<u8> {
        let mut header = format!(
            "{{'descr': '<f2', 'fortran_order': False, 'shape': ({},), }}",
            values.len()
        );
        header.push_str(&" ".repeat(117 - header.len()));
        let values = values
            .iter()
            .flat_map(|&value| f16::from_f32(value).to_le_bytes());
        let mut bytes = b"\x93NUMPY\x01\x00v\x00".to_vec();
        bytes.extend(header.bytes().chain(*b"\n").chain(values));
        bytes
    }

    #[test]
    fn areas_are_means_over_the_epochs_that_showed_an_image() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(areas_under_margin(dir.path(), 3).unwrap(), None);
        fs::create_dir(dir.path().join("margins")).unwrap();
        let write = |epoch: u32, values: &[f32]| {
            fs::write(
                dir.path().join(format!("margins/epoch-{epoch:04}.npy")),
                npy(values),
            )
            .unwrap();
        };
        write(1, &[1.0, f32::NAN, -2.0]);
        write(2, &[2.0, f32::NAN, f32::NAN]);
        let areas = areas_under_margin(dir.path(), 3).unwrap();
        assert_eq!(areas, Some(vec![Some(1.5), None, Some(-2.0)]));
        let error = areas_under_margin(dir.path(), 4).unwrap_err().to_string();
        assert!(
            error.contains("epoch-0001.npy") && error.contains("4 rows"),
            "{error}"
        );
    }
}
