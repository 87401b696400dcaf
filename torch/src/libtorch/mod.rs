//! The libtorch boundary: calls that `tch` lacks, the C++ kernels, and what differs between devices.
//! Nothing here knows of networks or data sets.

pub mod device;
#[expect(unsafe_code, reason = "the one place where libtorch is called by hand")]
pub(crate) mod ffi;
pub(crate) mod tensors;

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use tinyres::threads::startable;

pub use ffi::tune_allocator;

/// Variables by which people choose the number of threads.
const CHOSEN: [&str; 2] = ["OMP_NUM_THREADS", "MKL_NUM_THREADS"];

/// Threads that libtorch computes with.
#[must_use]
pub fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// Sets the threads that libtorch computes with to `wanted`. If nobody says how many, they are one for each core, but
/// no more than a CPU quota keeps busy and can be started. libtorch knows the cores alone, and ends the process if it cannot start
/// as many.
pub fn choose_threads(wanted: Option<NonZeroUsize>) {
    if let Some(wanted) = wanted {
        return set_threads(wanted.get());
    }
    if CHOSEN.iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let own = threads();
    let busy = available_parallelism()
        .map_or(own, NonZeroUsize::get)
        .min(own);
    let most = 1 + startable(busy - 1);
    if most < own {
        set_threads(most);
    }
}

/// Sets the threads that libtorch computes with.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
}
