//! The fuzzers' targets on the stable toolchain: every seed, then seeds changed at random, the same
//! ones in every run. `tools/fuzz` runs them for longer, and with an eye on the code they reach.

#[path = "../fuzz/src/lib.rs"]
mod targets;

#[path = "common/mutate.rs"]
mod mutate;

use std::path::{Path, PathBuf};

use mutate::list;

const FUZZ: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz");
/// Targets that `torch/tests/fuzz.rs` runs, since they read with the torch crate.
const IN_TORCH: [&str; 5] = ["checkpoint", "config", "metrics", "pth", "tensors"];

macro_rules! targets {
    ($($name:ident $runs:literal),*) => {
        $(#[test]
        fn $name() {
            mutate::run(Path::new(FUZZ), stringify!($name), targets::$name, $runs);
        })*

        /// What libFuzzer runs and what has seeds, so that nothing is left out here.
        #[test]
        fn all_targets_run() {
            let stems = |dir: &str| -> Vec<_> {
                let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
                list(&Path::new(FUZZ).join(dir)).into_iter().map(stem).collect()
            };
            let mut here = vec![$(stringify!($name).to_owned()),*];
            here.extend(IN_TORCH.map(str::to_owned));
            here.sort_unstable();
            assert_eq!(stems("fuzz_targets"), here);
            assert_eq!(stems("seeds"), here);
        }
    };
}

targets!(
    shard 10_000,
    forged 20_000,
    metadata 20_000,
    manifest 20_000,
    annotations 5_000,
    transport 10_000,
    zip 10_000,
    tar 10_000,
    parquet 3_000,
    pickle 5_000,
    npz 5_000,
    batches 5_000,
    webdataset 5_000,
    ilsvrc 5_000,
    csv 5_000,
    order 5_000,
    pictures 3_000
);
