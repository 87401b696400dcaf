//! What is trained on, and whether it can be.

use std::sync::Arc;

use tinyres_load::Dataset;

use crate::config::Config;
use crate::input::feed::expect_labels;
use crate::libtorch::device;
use crate::net::boxes;
use crate::{Error, Result};

/// The splits of a data set that training takes.
#[derive(Clone, Debug)]
pub struct Splits {
    /// What is trained on.
    pub train: Arc<Dataset>,
    /// What it is scored on.
    pub val: Arc<Dataset>,
}

/// Whether `data` can be trained on as `config` says, on this machine: what is worth knowing before a
/// run is begun.
///
/// # Errors
/// A value that does not fit the data, an image without a label, or no such device.
pub fn check(config: &Config, data: &Splits) -> Result<()> {
    expect_labels(&data.train)?;
    expect_labels(&data.val)?;
    let device = device::open(config.device)?;
    device::place(config.placement, device, 0)?;
    let shape = data.train.shape();
    let images = data.train.len();
    if images < config.batch {
        return Err(Error::Value {
            key: "batch",
            got: config.batch.to_string(),
            expected: format!("at most the {images} images of the training split"),
        });
    }
    if config.boxes && boxes::mean(&boxes::of(&data.train)?).is_none() {
        return Err(Error::Value {
            key: "boxes",
            got: "true".to_owned(),
            expected: "false, as no image of the training split has a box".to_owned(),
        });
    }
    let side = shape.height.min(shape.width);
    if let Some(largest) = config.sizes.largest().filter(|&largest| largest > side) {
        return Err(Error::Value {
            key: "sizes",
            got: largest.to_string(),
            expected: format!("at most the {side} pixels of an image"),
        });
    }
    if config.shift >= side {
        return Err(Error::Value {
            key: "shift",
            got: config.shift.to_string(),
            expected: format!("less than the {side} pixels of an image"),
        });
    }
    Ok(())
}
