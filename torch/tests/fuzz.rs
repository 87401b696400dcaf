//! The fuzzers' targets that read with this crate, on the stable toolchain.

#[path = "../../tests/common/mutate.rs"]
mod mutate;
#[cfg(feature = "torch")]
#[path = "../../fuzz/src/runs.rs"]
mod runs;
#[path = "../../fuzz/src/tensors.rs"]
mod tensors;

use std::path::Path;

macro_rules! targets {
    ($($room:ident::$name:ident $runs:literal),*) => {
        $(#[test]
        fn $name() {
            let fuzz = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz"));
            mutate::run(fuzz, stringify!($name), $room::$name, $runs);
        })*
    };
}

targets!(
    tensors::pth 10_000,
    tensors::tensors 10_000
);

#[cfg(feature = "torch")]
targets!(
    runs::checkpoint 5_000,
    runs::config 5_000,
    runs::metrics 1_000
);
