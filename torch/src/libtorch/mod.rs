//! The libtorch boundary: calls that `tch` lacks, the C++ kernels, and what differs between devices.
//! Nothing here knows of networks or data sets.

pub mod device;
#[expect(unsafe_code, reason = "the one place where libtorch is called by hand")]
pub(crate) mod ffi;
pub(crate) mod tensors;

pub use ffi::{exit_at_once, tune_allocator};

/// Threads that libtorch computes with.
#[must_use]
pub fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// Sets the threads that libtorch computes with.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
}
