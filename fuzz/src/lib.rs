//! What the fuzzers run: each target takes any bytes, must come back without a panic, and says
//! whether it took them for valid. `fuzz_targets/` hands them to libFuzzer, `tests/fuzz.rs` to the
//! stable toolchain, so that both run the same.

mod forge;
mod json;
mod order;
mod pictures;
mod shard;
mod sources;
mod spec;
mod transport;
mod tree;

pub use json::{manifest, metadata};
pub use order::order;
pub use pictures::pictures;
pub use shard::{forged, shard};
pub use sources::{batches, ilsvrc, npz, parquet, pickle, webdataset};
pub use transport::transport;
pub use tree::{annotations, csv, tar, zip};
