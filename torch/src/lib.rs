//! Trains ResNet18 from tinyres shards with libtorch. Nothing here prints; the binary does.
//!
//! ```no_run
//! use std::path::Path;
//! use tch::{Device, Kind, Tensor};
//! use tinyres_torch::run::{Run, checkpoint::Checkpoint};
//!
//! let weights = Run::weights(Path::new("runs/default-1"))?;
//! let network = Checkpoint::load(&weights)?.network(Device::Cpu)?;
//! let images = Tensor::zeros([1, 3, 64, 64], (Kind::Float, Device::Cpu)); // normalised
//! let logits = network.forward(&images, false)?; // f32 [1, classes]
//! # Ok::<(), tinyres_torch::Error>(())
//! ```
//!
//! The rooms, each of which imports only those before it:
//!
//! | room | what it holds |
//! |---|---|
//! | [`libtorch`] | the boundary: the C++ shim and kernels, devices, precision |
//! | [`ranks`] | several processes that train together |
//! | [`net`] | ResNet18, its box head, the boxes' geometry and loss |
//! | [`config`] | what decides a run: recipes, learning-rate schedule, image sizes |
//! | [`input`] | from shards to what the network takes: feeds, augmentation, normalisation |
//! | [`run`] | a run's directory: configuration, metrics, checkpoints, event files |
//! | [`tensor_file`] | the tensors of a file as data; the only room without libtorch |
//! | [`weights`] | a ResNet18 from a file of any program |
//! | [`infer`] | uses of trained weights: evaluation, prediction, export |
//! | [`train`] | initial weights, optimizers, the training loop |
//! | [`doctor`] | checks that every device and every placement of pixels compute the same |
//!
//! Each function that calls libtorch returns [`Error::Torch`] if libtorch fails. An `# Errors` section names
//! the other errors.
#![cfg_attr(
    not(feature = "torch"),
    allow(
        rustdoc::broken_intra_doc_links,
        reason = "without libtorch there is little"
    )
)]

#[cfg(feature = "torch")]
pub mod config;
#[cfg(feature = "torch")]
pub mod doctor;
#[cfg(feature = "torch")]
mod error;
#[cfg(feature = "torch")]
pub mod infer;
#[cfg(feature = "torch")]
pub mod input;
#[cfg(feature = "torch")]
pub mod libtorch;
#[cfg(feature = "torch")]
pub mod net;
#[cfg(feature = "torch")]
mod num;
#[cfg(feature = "torch")]
pub mod ranks;
#[cfg(feature = "torch")]
pub mod run;
pub mod tensor_file;
#[cfg(feature = "torch")]
pub mod train;
#[cfg(feature = "torch")]
pub mod weights;

#[cfg(feature = "torch")]
pub use error::{Error, Result};
#[cfg(feature = "torch")]
pub use libtorch::{set_threads, start_threads, threads, tune_allocator};
