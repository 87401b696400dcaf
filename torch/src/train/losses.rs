//! The training losses, looked at now and then: looking waits for a GPU.

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::libtorch::device;

/// Losses of the latest steps, kept on the device until somebody looks.
pub(super) struct Losses {
    window: Tensor,
    filled: usize,
}

impl Losses {
    pub(super) fn new(device: Device) -> Result<Self> {
        let steps = i64::try_from(device::steps_per_look(device)).unwrap_or(1);
        Ok(Self {
            window: Tensor::f_zeros([steps], (Kind::Float, device))?,
            filled: 0,
        })
    }

    pub(super) fn push(&mut self, loss: &Tensor) -> Result<()> {
        let place = i64::try_from(self.filled).unwrap_or(i64::MAX);
        self.window.f_get(place)?.f_copy_(loss)?;
        self.filled += 1;
        Ok(())
    }

    pub(super) fn full(&self) -> bool {
        self.filled == self.window.numel()
    }

    /// The losses since the last call: the one place where training waits for a GPU.
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
