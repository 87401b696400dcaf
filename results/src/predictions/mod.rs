//! The predictions file: what a network says of each image of a split. The columns are described in
//! `torch/src/infer/predictions/columns.rs`, which writes them.

mod table;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tinyres_format::{Class, Digest, Split};

use crate::{Error, Logits, Result};
use table::Table;

/// The largest file that is read, in bytes: a row takes about 100.
const MAX_FILE: u64 = 4 << 30;

/// The predictions for a split, a column for each field and an element for each image, in the split's order. Classes
/// are numbers in label order: places in [`Origin::classes`].
#[derive(Clone, Debug)]
pub struct Predictions {
    /// The file.
    pub path: PathBuf,
    /// Network, data and settings that they were made with.
    pub origin: Origin,
    /// Number of the image in the split.
    pub image: Vec<u32>,
    /// File of the image's shard.
    pub shard: Vec<String>,
    /// Number of the image in its shard.
    pub shard_image: Vec<u32>,
    /// Name in the source.
    pub name: Vec<String>,
    /// Class that the image is labelled with.
    pub label: Vec<u32>,
    /// The likeliest class.
    pub predicted: Vec<u32>,
    /// Probability of the likeliest class.
    pub confidence: Vec<f32>,
    /// Probability of the label.
    pub label_prob: Vec<f32>,
    /// Cross-entropy in nats.
    pub loss: Vec<f32>,
    /// Logit of the label minus the largest other logit.
    pub margin: Vec<f32>,
    /// Entropy of the probabilities in nats.
    pub entropy: Vec<f32>,
    /// Place of the label among the classes by probability, from 1.
    pub rank: Vec<u32>,
    /// The likeliest five classes, or all if there are fewer.
    pub top5: Lists<u32>,
    /// Their probabilities.
    pub top5_prob: Lists<f32>,
    /// Box of the image in inclusive pixels, x0, y0, x1, y1, or four times -1.
    pub bbox: Vec<[i32; 4]>,
    /// The predicted boxes, if the network predicts any.
    pub boxes: Option<Boxes>,
}

/// Predicted boxes, one for each image.
#[derive(Clone, Debug)]
pub struct Boxes {
    /// The box in inclusive pixels, x0, y0, x1, y1.
    pub predicted: Vec<[f32; 4]>,
    /// Its intersection over union with the image's box; NaN for an image without one.
    pub iou: Vec<f32>,
}

/// Rows of equal width.
#[derive(Clone, Debug)]
pub struct Lists<T> {
    values: Vec<T>,
    width: usize,
}

impl<T> Lists<T> {
    /// Elements of a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The elements of a row.
    ///
    /// # Panics
    /// There is no such row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[T] {
        &self.values[row * self.width..][..self.width]
    }

    /// The elements of all rows, one row after the other.
    #[must_use]
    pub fn values(&self) -> &[T] {
        &self.values
    }
}

/// Origin of predictions: the entry `tinyres` of the file's metadata.
#[derive(Clone, Debug, Deserialize)]
pub struct Origin {
    /// Version of tinyres.
    pub version: String,
    /// The split.
    pub split: Split,
    /// Fingerprint of the set.
    pub fingerprint: Digest,
    /// Digest over the digests of the split's shards.
    pub shards: Digest,
    /// The file of weights.
    pub weights: PathBuf,
    /// SHA-256 of the file of weights.
    pub weights_digest: Digest,
    /// Side of the images that the network was given, in pixels.
    pub size: u32,
    /// Precision of the forward pass.
    pub precision: String,
    /// Views of an image that were averaged.
    pub tta: String,
    /// The classes, in label order.
    pub classes: Vec<Class>,
}

impl Predictions {
    /// Reads the file at `path`, such as `RUN/eval/val.parquet`. Columns that it has besides those of tinyres are
    /// ignored.
    ///
    /// # Errors
    /// [`Error::NoPredictions`] if there is no such file; [`Error::Damaged`] if it is not a predictions file, or a
    /// class or a probability in it is out of range.
    pub fn read(path: &Path) -> Result<Self> {
        let io = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Error::NoPredictions {
                path: path.to_owned(),
            },
            _ => Error::io(path)(error),
        };
        let damaged = Error::damaged(path);
        let len = fs::metadata(path).map_err(io)?.len();
        if len > MAX_FILE {
            return Err(damaged(format!(
                "{len} bytes, more than the {MAX_FILE} of any predictions"
            )));
        }
        let bytes = fs::read(path).map_err(io)?;
        Self::parse(path, bytes).map_err(damaged)
    }

    /// The predictions in `bytes`, the content of a file at `path`.
    ///
    /// # Errors
    /// The fault, in words that follow the name of the file.
    pub fn parse(path: &Path, bytes: Vec<u8>) -> std::result::Result<Self, String> {
        let table = Table::open(bytes)?;
        let origin: Origin = serde_json::from_str(table.metadata("tinyres")?)
            .map_err(|reason| format!("its metadata is not that of predictions ({reason})"))?;
        let classes = u32::try_from(origin.classes.len()).unwrap_or(u32::MAX);
        let class = |name: &str| table.integers(name, 0..classes);
        let any = |name: &str| table.integers(name, 0..u32::MAX);
        let (image, shard_image) = (any("image")?, any("shard_image")?);
        let width = origin.classes.len().min(5);
        let boxes = match table.has("iou") {
            true => Some(Boxes {
                predicted: table.sides(
                    [
                        "predicted_x0",
                        "predicted_y0",
                        "predicted_x1",
                        "predicted_y1",
                    ],
                    |name| table.floats(name),
                )?,
                iou: table.floats("iou")?,
            }),
            false => None,
        };
        let predictions = Self {
            path: path.to_owned(),
            image,
            shard: table.texts("shard")?,
            shard_image,
            name: table.texts("name")?,
            label: class("label")?,
            predicted: class("predicted")?,
            confidence: table.floats("confidence")?,
            label_prob: table.floats("label_prob")?,
            loss: table.floats("loss")?,
            margin: table.floats("margin")?,
            entropy: table.floats("entropy")?,
            rank: table.integers("rank", 1..classes.saturating_add(1))?,
            top5: Lists {
                values: table.integer_lists("top5", width, 0..classes)?,
                width,
            },
            top5_prob: Lists {
                values: table.float_lists("top5_prob", width)?,
                width,
            },
            bbox: table.sides(["box_x0", "box_y0", "box_x1", "box_y1"], |name| {
                table.signed(name)
            })?,
            boxes,
            origin,
        };
        for (name, values) in [
            ("confidence", &predictions.confidence),
            ("label_prob", &predictions.label_prob),
        ] {
            // A network that has diverged predicts NaN.
            let is_probability = |value: &f32| value.is_nan() || (0.0..=1.0001).contains(value);
            if let Some(row) = values.iter().position(|value| !is_probability(value)) {
                return Err(format!("{name} of image {row} is {}", values[row]));
            }
        }
        Ok(predictions)
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.image.len()
    }

    /// True if there are no images.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.image.is_empty()
    }

    /// Number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.origin.classes.len()
    }

    /// True if the likeliest class of image `row` is its label.
    ///
    /// # Panics
    /// There is no such image.
    #[must_use]
    pub fn is_right(&self, row: usize) -> bool {
        self.label[row] == self.predicted[row]
    }

    /// Fraction of the images whose label is the likeliest class; NaN without images.
    #[must_use]
    pub fn top1(&self) -> f64 {
        let right = (0..self.len()).filter(|&row| self.is_right(row)).count();
        right as f64 / self.len() as f64
    }

    /// Fraction of the images whose label is among the five likeliest classes; NaN without images.
    #[must_use]
    pub fn top5_accuracy(&self) -> f64 {
        let right = self.rank.iter().filter(|&&rank| rank <= 5).count();
        right as f64 / self.len() as f64
    }

    /// Mean overlap of the predicted boxes with the images', over the images that have one; `None` if no boxes are
    /// predicted.
    #[must_use]
    pub fn mean_iou(&self) -> Option<f64> {
        let iou = self.boxes.as_ref()?.iou.iter().filter(|iou| !iou.is_nan());
        let (sum, images) = iou.fold((0.0, 0_u32), |(sum, images), &iou| {
            (sum + f64::from(iou), images + 1)
        });
        (images > 0).then(|| sum / f64::from(images))
    }

    /// Mean cross-entropy; NaN without images.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        let sum: f64 = self.loss.iter().copied().map(f64::from).sum();
        sum / self.len() as f64
    }

    /// The logits next to the file, if they are there.
    ///
    /// # Errors
    /// Those of [`Logits::next_to`].
    pub fn logits(&self) -> Result<Option<Logits>> {
        Logits::next_to(&self.path, self.len(), self.classes())
    }
}
