//! The gradients of a step, added up over all ranks: they come one after the other, those of the last layers first, and a
//! parameter can take its step as soon as its own is there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tch::Tensor;

use crate::Result;
use crate::libtorch::ffi::Exchange;

/// The sums of the gradients of a step. For one process all are there at once.
#[derive(Debug, Default)]
pub(crate) struct Sums<'a>(Option<Pending<'a>>);

#[derive(Debug)]
struct Pending<'a> {
    exchange: Exchange<'a>,
    /// The slot of each parameter, by its address in memory.
    slots: HashMap<usize, usize>,
    /// Nanoseconds that threads have waited.
    waited: AtomicU64,
}

impl<'a> Sums<'a> {
    pub(super) fn of(params: &[Tensor], exchange: Exchange<'a>) -> Self {
        Self(Some(Pending {
            exchange,
            slots: params.iter().map(address).zip(0..).collect(),
            waited: AtomicU64::new(0),
        }))
    }

    /// The exchange that takes the gradients still to come; `None` for one process.
    pub(crate) fn exchange(&self) -> Option<&Exchange<'a>> {
        self.0.as_ref().map(|pending| &pending.exchange)
    }

    /// The place of the gradient of `param` among those that come; `None` if there is none to wait for.
    pub(crate) fn slot(&self, param: &Tensor) -> Option<usize> {
        self.0.as_ref()?.slots.get(&address(param)).copied()
    }

    /// Waits for the gradient at `slot`, if there is one to wait for. One thread asks for each.
    ///
    /// # Errors
    /// Another rank is gone.
    pub(crate) fn wait_for(&self, slot: Option<usize>) -> Result<()> {
        let (Some(pending), Some(slot)) = (&self.0, slot) else {
            return Ok(());
        };
        let began = Instant::now();
        let done = pending.exchange.arrive(slot);
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        pending.waited.fetch_add(nanos, Ordering::Relaxed);
        done
    }

    /// Waits until all are there and this rank has passed them on. Returns the time that threads have waited before.
    pub(super) fn finish(self) -> (Duration, Result<()>) {
        match self.0 {
            Some(pending) => {
                let waited = Duration::from_nanos(pending.waited.into_inner());
                (waited, pending.exchange.finish())
            }
            None => (Duration::ZERO, Ok(())),
        }
    }
}

/// The address of the values of `tensor`, which tells the parameters apart.
fn address(tensor: &Tensor) -> usize {
    tensor.data_ptr().addr()
}
