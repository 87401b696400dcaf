//! From shards to what the network takes. A [`Feed`] brings batches of a split to the device, and a
//! [`Pipeline`] turns their pixels into [`Examples`]; a file for each of its steps. The order of images is
//! decided in `tinyres_load`, the loss in `train`.

mod erasing;
mod feed;
mod flip_shift;
mod mix;
mod normalize;
mod pipeline;
mod resize;

pub use feed::{Batch, Feed, Pass, Targets};
pub use flip_shift::FlipShift;
pub use normalize::Normalizer;
pub use pipeline::{Examples, MixedWith, Pipeline};
pub(crate) use resize::Resize;
