//! Compiles the C++ shim against libtorch's headers, and sets the run path, so that the binaries load the
//! libtorch that they were built with, or that in the directory that TINYRES_RPATH names.

use std::{env, path::Path};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for file in [
        "guarded.h",
        "shim.cpp",
        "conv.h",
        "conv.cpp",
        "norm.h",
        "norm.cpp",
        "norm_passes.h",
        "parallel.h",
        "parallel.cpp",
        "processor.h",
        "processor.cpp",
        "vectors.h",
        "products.h",
        "matmul.h",
        "matmul.cpp",
        "muon.h",
        "muon.cpp",
        "winograd.h",
        "winograd_passes.h",
        "winograd.cpp",
        "script.cpp",
    ] {
        println!("cargo:rerun-if-changed=src/libtorch/{file}");
    }
    if env::var_os("CARGO_FEATURE_TORCH").is_none() {
        return;
    }
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys names the libtorch that it links");
    let include = Path::new(&lib).with_file_name("include");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .flag("-isystem")
        .flag(
            include
                .to_str()
                .expect("torch-sys printed this path as text"),
        )
        // In debug builds too: the shim has kernels.
        .opt_level(3)
        .files([
            "src/libtorch/shim.cpp",
            "src/libtorch/conv.cpp",
            "src/libtorch/matmul.cpp",
            "src/libtorch/muon.cpp",
            "src/libtorch/norm.cpp",
            "src/libtorch/parallel.cpp",
            "src/libtorch/processor.cpp",
            "src/libtorch/winograd.cpp",
            "src/libtorch/script.cpp",
        ])
        .compile("tinyres_shim");
    println!("cargo:rerun-if-env-changed=TINYRES_RPATH");
    let rpath = env::var("TINYRES_RPATH").unwrap_or(lib);
    println!("cargo:rustc-link-arg=-Wl,-rpath,{rpath}");
}
