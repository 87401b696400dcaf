//! Trains ResNet18 from tinyres shards with libtorch.
#![cfg(feature = "torch")]

mod error;
#[expect(unsafe_code, reason = "the one place where libtorch is called by hand")]
mod ffi;
pub mod model;

pub use error::Error;
