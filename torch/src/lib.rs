//! Trains ResNet18 from tinyres shards with libtorch.
//!
//! The parts: [`config`] and its recipes decide a run, [`model`], [`schedule`], [`optim`] and
//! [`augment`] carry it out. Nothing here prints; the binary does.
#![cfg(feature = "torch")]

pub mod augment;
pub mod boxes;
pub mod checkpoint;
pub mod config;
pub mod device;
pub mod doctor;
pub mod ema;
mod error;
pub mod evaluate;
pub mod export;
pub mod feed;
#[expect(unsafe_code, reason = "the one place where libtorch is called by hand")]
mod ffi;
pub mod init;
pub mod inputs;
pub mod model;
pub mod optim;
pub mod parity;
pub mod predict;
pub mod run;
pub mod schedule;
pub mod sizes;
pub mod tensorboard;
pub mod train;
pub mod tta;

pub use error::{Error, Result};
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
