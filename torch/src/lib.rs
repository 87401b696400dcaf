//! Trains ResNet18 from tinyres shards with libtorch.
#![cfg(feature = "torch")]
