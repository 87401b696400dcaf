//! The fuzzers' targets that read with this crate, on the stable toolchain. They need no libtorch.

#[path = "../../tests/common/mutate.rs"]
mod mutate;
#[path = "../../fuzz/src/tensors.rs"]
mod targets;

use std::path::Path;

const FUZZ: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz");

#[test]
fn pth() {
    mutate::run(Path::new(FUZZ), "pth", targets::pth, 10_000);
}

#[test]
fn tensors() {
    mutate::run(Path::new(FUZZ), "tensors", targets::tensors, 10_000);
}
