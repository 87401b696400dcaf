//! Packing against its limit: decoding the same JPEGs from memory, on as many threads, and nothing else.
//!
//! Reads the set that TINYRES_REAL_DATA names, or else a synthetic one of 11,000 images: from a zip
//! and from a tree, both in the page cache. Shards go to the temporary directory (TMPDIR).

mod turns;

use std::path::PathBuf;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;
use tinyres::pack::{Config, pack};
use tinyres::source::{self, Source};
use turbojpeg::{Decompressor, Image, PixelFormat};
use turns::{by_turns, time};

fn packing(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = std::env::var_os("TINYRES_REAL_DATA")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let sample = dir.path().join("sample");
            let config = tinyres::sample::Config {
                classes: 100,
                train_per_class: 100,
                val_per_class: 10,
                test: 0,
                seed: 0,
                threads: 0,
            };
            tinyres::sample::write(&sample, &config, &mut ()).expect("a sample set");
            sample
        });
    let source = Source::open(&path).expect("a Tiny ImageNet zip or tree");
    let items = source.splits.iter().flat_map(|(_, items)| items);
    let mut reader = source.reader();
    let jpegs: Vec<Vec<u8>> = items
        .map(|item| match reader.read(item).expect("an image") {
            source::Image::Encoded(bytes) => bytes.to_owned(),
            source::Image::Raw(_) => panic!("a set of JPEGs"),
        })
        .collect();

    let mut group = criterion.benchmark_group("pack");
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(1))
        .throughput(Throughput::Elements(jpegs.len() as u64));
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("threads");
        let config = Config {
            output: dir.path().join("shards"),
            shard_images: 8192.try_into().expect("not zero"),
            resize: None,
            threads,
            skip_bad: None,
            zstd: None,
            force: false,
        };
        // Into a directory that does not exist: freeing the pages of an old set is not part of packing.
        let clear = || drop(std::fs::remove_dir_all(&config.output));
        by_turns(
            &mut group,
            &format!("pack, {threads} threads"),
            jpegs.len(),
            ("decoding alone", || {
                time(|| pool.install(|| decode(&jpegs)))
            }),
            || {
                clear();
                time(|| pack(&source, &config, &mut ()).expect("a set"))
            },
        );
        clear();
    }
    group.finish();
}

/// Pixels as the decoder makes them, to memory that is used again at once.
fn decode(jpegs: &[Vec<u8>]) {
    jpegs.par_iter().with_min_len(256).for_each_init(
        || {
            (
                Decompressor::new().expect("a decompressor"),
                vec![0; 64 * 64 * 4 + 48],
            )
        },
        |(turbo, memory), jpeg| {
            // Not aligned for vector registers: libjpeg-turbo would write past the cache, which takes
            // longer.
            let start = memory.as_ptr().align_offset(32) + 16;
            let image = Image {
                pixels: &mut memory[start..start + 64 * 64 * 4],
                width: 64,
                pitch: 256,
                height: 64,
                format: PixelFormat::RGBX,
            };
            turbo
                .decompress(jpeg, image)
                .expect("a JPEG of 64x64 pixels");
        },
    );
}

criterion_group!(benches, packing);
criterion_main!(benches);
