//! The margins of training images, by epoch (`--track`): what the network says of an image when it is trained on it,
//! changed by augmentation as it is. Images that are mixed in an epoch have none there.

use std::fs;
use std::path::Path;

use tch::{Device, Kind, Tensor};
use tinyres_format::publish;

use super::setup::Setup;
use crate::infer::predictions::npy;
use crate::libtorch::tensors;
use crate::{Error, Result};

/// Name of the margins in a checkpoint.
const NAME: &str = "track/margins";

/// The margins of an epoch, as far as it is done.
#[derive(Debug)]
pub(super) struct Margins {
    /// Those of each image in the order of the epoch, `f32 [batches, B]`, NaN for an image without one.
    in_order: Tensor,
}

impl Margins {
    /// Of an epoch that begins.
    pub(super) fn new(setup: &Setup) -> Result<Self> {
        let sides = [setup.batches_per_epoch(), setup.batch.get()];
        let sides = sides.map(|side| i64::try_from(side).unwrap_or(i64::MAX));
        let kind = (Kind::Float, setup.device);
        Ok(Self {
            in_order: Tensor::f_full(sides, f64::NAN, kind)?,
        })
    }

    /// Takes those of batch `number`, `f32 [B]`.
    pub(super) fn put(&mut self, number: u64, own: &Tensor) -> Result<()> {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.in_order.f_select(0, number)?.f_copy_(own)?;
        Ok(())
    }

    /// Forgets all, for the next epoch.
    pub(super) fn clear(&mut self) -> Result<()> {
        let _ = self.in_order.f_fill_(f64::NAN)?;
        Ok(())
    }

    /// Name and values, for a checkpoint.
    pub(super) fn state(&self) -> (String, Tensor) {
        (NAME.to_owned(), self.in_order.shallow_clone())
    }

    /// Copies the values of a [`state`](Self::state).
    ///
    /// # Errors
    /// [`Error::Weights`] if it is missing or has another shape.
    pub(super) fn load(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        tensors::restore(&[self.state()], state)
    }

    /// Writes the margins of `epoch` to `path`: `f16 [N]` in the order of the split, NaN for an image without one.
    pub(super) fn save(&self, setup: &Setup, epoch: u32, path: &Path) -> Result<()> {
        let batches = setup.batches(epoch);
        let images = (0..batches.len()).filter_map(|number| batches.get(number));
        let images: Vec<i64> = images.flatten().map(|&image| image.into()).collect();
        let margins = self.in_order.f_to_device(Device::Cpu)?.f_flatten(0, 1)?;
        let all = i64::from(setup.train.data().len());
        let all = Tensor::f_full([all], f64::NAN, (Kind::Float, Device::Cpu))?;
        let all = all.f_scatter(0, &Tensor::f_from_slice(&images)?, &margins)?;
        let file = npy::encode(&all.f_to_kind(Kind::Half)?)?;
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(Error::io(dir))?;
        }
        publish::write(path, &file).map_err(Error::io(path))
    }
}
