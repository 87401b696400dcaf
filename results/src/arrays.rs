//! The arrays next to a predictions file: logits and features, as `.npy` files.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use half::f16;
use half::slice::HalfFloatSliceExt;
use tinyres::npy::Npy;

use crate::{Error, Result};

/// Logits of a split, `f32 [N, C]`.
#[derive(Clone, Debug)]
pub struct Logits {
    values: Vec<f32>,
    width: usize,
}

/// Outputs of the last pooled layer for a split, `f32 [N, D]`, of a file of `f16`.
#[derive(Clone, Debug)]
pub struct Features {
    values: Vec<f32>,
    width: usize,
}

impl Logits {
    /// Reads the logits next to the predictions file `table`, `SPLIT.logits.npy` next to `SPLIT.parquet`. `None` if
    /// there are none.
    ///
    /// # Errors
    /// [`Error::Damaged`] if they are not `f32 [rows, classes]` with finite values.
    pub fn next_to(table: &Path, rows: usize, classes: usize) -> Result<Option<Self>> {
        let path = table.with_extension("logits.npy");
        let Some((values, width)) = read(&path, "<f4", rows)? else {
            return Ok(None);
        };
        let damaged = Error::damaged(&path);
        if width != classes {
            return Err(damaged(format!(
                "logits of {width} classes, expected {classes}"
            )));
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(damaged(format!(
                "the logits of image {} are not finite",
                at / width.max(1)
            )));
        }
        Ok(Some(Self { values, width }))
    }

    /// Logits `[N, C]` in a row-major list.
    ///
    /// # Panics
    /// The list is not made of whole rows.
    #[must_use]
    pub fn new(values: Vec<f32>, classes: usize) -> Self {
        assert!(
            classes > 0 && values.len().is_multiple_of(classes),
            "whole rows"
        );
        Self {
            values,
            width: classes,
        }
    }

    /// Number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.width
    }

    /// The logits of each image.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> + Clone {
        self.values.chunks_exact(self.width.max(1))
    }

    /// The logits of image `row`.
    ///
    /// # Panics
    /// There is no such image.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..][..self.width]
    }

    /// The probabilities of image `row`, the softmax of its logits.
    ///
    /// # Panics
    /// There is no such image.
    pub fn probabilities(&self, row: usize) -> impl Iterator<Item = f64> + '_ {
        let logits = self.row(row);
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = move |&logit: &f32| f64::from(logit - largest).exp();
        let sum: f64 = logits.iter().map(weight).sum();
        logits.iter().map(move |logit| weight(logit) / sum)
    }
}

impl Features {
    /// Features `[N, D]` in a row-major list.
    ///
    /// # Panics
    /// The list is not made of whole rows.
    #[must_use]
    pub fn new(values: Vec<f32>, width: usize) -> Self {
        assert!(values.len().is_multiple_of(width.max(1)), "whole rows");
        Self { values, width }
    }

    /// Reads the features next to the predictions file `table`, `SPLIT.features.npy` next to `SPLIT.parquet`. `None`
    /// if there are none: `tinyres eval --features` writes them.
    ///
    /// # Errors
    /// [`Error::Damaged`] if they are not `f16 [rows, D]` with finite values.
    pub fn next_to(table: &Path, rows: usize) -> Result<Option<Self>> {
        let path = table.with_extension("features.npy");
        let Some((values, width)) = read(&path, "<f2", rows)? else {
            return Ok(None);
        };
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let image = at / width.max(1);
            let what = format!("the features of image {image} are not finite");
            return Err(Error::damaged(&path)(what));
        }
        Ok(Some(Self { values, width }))
    }

    /// Number of features of an image.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The features of all images, row-major `[N, D]`.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The features of image `row`.
    ///
    /// # Panics
    /// There is no such image.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..][..self.width]
    }
}

/// The values and the width of the array `[rows, width]` of type `dtype` in the file at `path`.
pub(crate) fn read(path: &Path, dtype: &str, rows: usize) -> Result<Option<(Vec<f32>, usize)>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(Error::io(path))?,
    };
    let damaged = Error::damaged(path);
    let array = Npy::parse(&bytes, bytes.len() as u64).map_err(&damaged)?;
    let width = match array.shape[..] {
        [images] if images == rows as u64 && array.dtype == dtype => 1,
        [images, width] if images == rows as u64 && array.dtype == dtype => width,
        _ => {
            return Err(damaged(format!(
                "holds {} {:?}, expected {dtype} with {rows} rows",
                array.dtype, array.shape
            )));
        }
    };
    // The parser has checked that the values fill the file.
    let start = usize::try_from(array.start).unwrap_or(usize::MAX);
    let width = usize::try_from(width).unwrap_or(usize::MAX);
    let values = bytes.get(start..).unwrap_or_default();
    let values = match dtype {
        "<f2" => {
            let halves = values.chunks_exact(2);
            let halves: Vec<_> = halves
                .map(|half| f16::from_le_bytes([half[0], half[1]]))
                .collect();
            halves.to_f32_vec()
        }
        _ => {
            let (values, _) = values.as_chunks();
            values
                .iter()
                .map(|&value| f32::from_le_bytes(value))
                .collect()
        }
    };
    Ok(Some((values, width)))
}
