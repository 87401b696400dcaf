//! Compiles the C++ shim against libtorch's headers, and sets the run path, so that the binaries load the
//! libtorch that they were built with, or that in the directory that TINYRES_RPATH names.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

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
        "ranks.h",
        "ranks.cpp",
        "exchange.cpp",
        "nccl.cpp",
        "gloo/stand_in.h",
    ] {
        println!("cargo:rerun-if-changed=src/libtorch/{file}");
    }
    println!("cargo:rerun-if-env-changed=DOCS_RS");
    // Neither documentation nor what clippy checks is linked.
    let is_set = |name| env::var_os(name).is_some();
    if !is_set("CARGO_FEATURE_TORCH") || is_set("DOCS_RS") || is_set("CLIPPY_ARGS") {
        return;
    }
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys names the libtorch that it links");
    let include = Path::new(&lib).with_file_name("include");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .flags(
            // Headers that c10d includes are in libtorch's C++ API.
            [include.clone(), include.join("torch/csrc/api/include")]
                .iter()
                .flat_map(|dir| [OsStr::new("-isystem"), dir.as_os_str()]),
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
            "src/libtorch/ranks.cpp",
            "src/libtorch/exchange.cpp",
            "src/libtorch/nccl.cpp",
        ])
        .include(gloo_headers())
        .compile("tinyres_shim");
    println!("cargo:rerun-if-env-changed=TINYRES_RPATH");
    let rpath = env::var("TINYRES_RPATH").unwrap_or(lib);
    println!("cargo:rustc-link-arg=-Wl,-rpath,{rpath}");
}

/// Makes headers under the names of gloo's that libtorch's headers include, with what stands in for them. Returns the
/// directory.
fn gloo_headers() -> PathBuf {
    let source = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let stand_in = Path::new(&source).join("src/libtorch/gloo/stand_in.h");
    let headers = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it")).join("headers");
    for name in [
        "algorithm.h",
        "common/error.h",
        "context.h",
        "rendezvous/store.h",
        "transport/device.h",
    ] {
        let header = headers.join("gloo").join(name);
        fs::create_dir_all(header.parent().expect("it is in gloo"))
            .and_then(|()| fs::write(&header, format!("#include \"{}\"\n", stand_in.display())))
            .expect("OUT_DIR can be written");
    }
    headers
}
