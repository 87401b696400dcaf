//! The libtorch boundary: calls that `tch` lacks, the C++ kernels, and what differs between devices.
//! Nothing here knows of networks or data sets.

pub mod device;
#[expect(unsafe_code, reason = "the one place where libtorch is called by hand")]
pub(crate) mod ffi;
pub(crate) mod tensors;
mod workers;

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use tinyres::threads::startable;

use crate::{Error, Result};

pub use ffi::tune_allocator;
pub use workers::Workers;
pub(crate) use workers::{PerWorker, equal_parts};

/// Variables by which people choose the number of threads.
const CHOSEN: [&str; 2] = ["OMP_NUM_THREADS", "MKL_NUM_THREADS"];

/// Threads that libtorch computes with.
#[must_use]
pub fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// Threads that the loader needs at least, next to libtorch's.
const LOADER: usize = 1;

/// Starts the threads that libtorch computes with: `wanted`, or if nobody says how many, one for each core, but no more
/// than a CPU quota keeps busy and than can be started. libtorch itself knows the cores alone, and its OpenMP ends the
/// process if it cannot start a thread. Those that are started now are there when others are not to be had any more.
///
/// # Errors
/// [`Error::TooFewThreads`] if `wanted` cannot be started.
pub fn start_threads(wanted: Option<NonZeroUsize>) -> Result<()> {
    let chosen = CHOSEN.iter().any(|name| std::env::var_os(name).is_some());
    let own = threads();
    let most = match wanted {
        Some(wanted) => wanted.get(),
        None if chosen => own,
        None => available_parallelism()
            .map_or(own, NonZeroUsize::get)
            .min(own),
    };
    // The first of them is the calling one.
    let found = 1 + startable(most - 1 + LOADER).saturating_sub(LOADER);
    if found < most && wanted.is_some() {
        return Err(Error::TooFewThreads {
            found,
            wanted: most,
        });
    }
    if found != own {
        set_threads(found);
    }
    ffi::start_threads()
}

/// Sets the threads that libtorch computes with when the calling thread calls it, and others that begin to.
pub fn set_threads(threads: usize) {
    // The first call of a thread takes the number that any thread has set last: it must come before.
    let _ = tch::get_num_threads();
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
}
