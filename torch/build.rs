//! Lets the binary, tests and benches of this package find libtorch wherever they are started from.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Set by torch-sys, and so only with the feature `torch`: the directory it linked against.
    if let Some(lib) = env::var_os("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
}
