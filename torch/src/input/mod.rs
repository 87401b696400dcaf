//! From shards to what the network takes: batches on the device, resized, augmented and normalised.

pub mod augment;
pub mod feed;
pub mod inputs;
