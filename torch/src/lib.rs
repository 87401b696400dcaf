//! Trains ResNet18 from tinyres shards with libtorch.
//!
//! The parts: [`config`] and its recipes decide a run, [`model`], [`schedule`], [`optim`] and
//! [`augment`] carry it out. Nothing here prints; the binary does.
#![cfg(feature = "torch")]

pub mod augment;
pub mod checkpoint;
pub mod config;
pub mod device;
mod error;
pub mod evaluate;
pub mod feed;
#[expect(unsafe_code, reason = "the one place where libtorch is called by hand")]
mod ffi;
pub mod model;
pub mod optim;
pub mod parity;
pub mod run;
pub mod schedule;
pub mod train;

pub use error::{Error, Result};
