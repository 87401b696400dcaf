//! The splits that a run trains and is scored on, and the check that they fit its configuration.

use std::sync::Arc;

use tch::Device;
use tinyres::text::counted;
use tinyres_format::Digest;
use tinyres_load::Dataset;

use crate::config::{Config, sizes};
use crate::input::Targets;
use crate::libtorch::device;
use crate::run::SetId;
use crate::{Error, Result};

/// The splits of a data set that training takes.
#[derive(Clone, Debug)]
pub struct Splits {
    /// Images to train on.
    pub train: Arc<Dataset>,
    /// Images to score on.
    pub val: Arc<Dataset>,
}

impl Splits {
    /// What tells this data set from others, pixels and all.
    #[must_use]
    pub fn id(&self) -> SetId {
        let digests = format!("{}{}", self.train.digest(), self.val.digest());
        SetId {
            fingerprint: self.train.fingerprint(),
            shards: Some(Digest::of(digests.as_bytes())),
        }
    }
}

/// Splits that fit a configuration, and their labels and boxes: what [`check`] returns and
/// [`train`](super::train()) takes.
#[derive(Clone, Debug)]
pub struct Checked {
    pub(super) train: Arc<Dataset>,
    pub(super) val: Arc<Dataset>,
    pub(super) train_targets: Targets,
    pub(super) val_targets: Targets,
}

/// Checks that `data` can be trained on with `config` on `device`, and reads labels and boxes. Meant to be
/// called before a run's directory is created.
///
/// # Errors
/// [`Error::Value`] for a value that does not fit the data or the device; an image has no label; or
/// labels or boxes are damaged.
pub fn check(config: &Config, data: &Splits, device: Device) -> Result<Checked> {
    let train_targets = Targets::read(&data.train, config.boxes.learn)?;
    let val_targets = Targets::read(&data.val, config.boxes.learn)?;
    device::place(config.placement, device, 0)?;
    let unfit = |key, got: String, expected: String| Error::Value { key, got, expected };
    let images = data.train.len();
    if images < config.batch {
        let expected = format!(
            "at most the {} of the training split",
            counted(images, "image")
        );
        return Err(unfit("batch", config.batch.to_string(), expected));
    }
    if config.boxes.learn && train_targets.mean_box().is_none() {
        let expected = "false, as no image of the training split has a box";
        return Err(unfit("boxes", "true".to_owned(), expected.to_owned()));
    }
    let shape = data.train.shape();
    let side = shape.height.min(shape.width);
    let most = sizes::largest(side);
    if let Some(largest) = config.sizes.largest().filter(|&largest| largest > most) {
        let expected = format!("at most {most} for images of {side} pixels");
        return Err(unfit("sizes", largest.to_string(), expected));
    }
    if config.augment.shift >= side {
        let expected = format!("less than {side}, the side of an image in pixels");
        return Err(unfit("shift", config.augment.shift.to_string(), expected));
    }
    Ok(Checked {
        train: Arc::clone(&data.train),
        val: Arc::clone(&data.val),
        train_targets,
        val_targets,
    })
}
