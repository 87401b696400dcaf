//! Training losses, kept on the device until they are read: reading waits for a GPU.

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::libtorch::device;

/// Losses of the latest steps, on the device.
pub(super) struct Losses {
    /// `f32 [n]` with n the device's sync interval in steps.
    window: Tensor,
    filled: usize,
}

impl Losses {
    pub(super) fn new(device: Device) -> Result<Self> {
        let steps = i64::try_from(device::sync_interval(device)).unwrap_or(1);
        Ok(Self {
            window: Tensor::f_zeros([steps], (Kind::Float, device))?,
            filled: 0,
        })
    }

    /// Adds the loss of a step. Must be followed by [`take`](Self::take) if it made this [`full`](Self::full).
    pub(super) fn push(&mut self, loss: &Tensor) -> Result<()> {
        let place = i64::try_from(self.filled).unwrap_or(i64::MAX);
        self.window.f_get(place)?.f_copy_(loss)?;
        self.filled += 1;
        Ok(())
    }

    pub(super) fn full(&self) -> bool {
        self.filled == self.window.numel()
    }

    /// The losses since the last call. Here training waits for a GPU, between the steps of an epoch nowhere else.
    pub(super) fn take(&mut self) -> Result<Vec<f64>> {
        if self.filled == 0 {
            return Ok(Vec::new());
        }
        let mut losses = Vec::<f64>::try_from(self.window.f_to_kind(Kind::Double)?)?;
        losses.truncate(self.filled);
        self.filled = 0;
        Ok(losses)
    }
}
