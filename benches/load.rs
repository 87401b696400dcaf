//! Batches against their limits: a bare loop that copies the same records from the same map, and
//! for checksums a read of the same memory.
//!
//! Reads the packed set that TINYRES_SHARDS names, or else packs a synthetic one of 11,000 images.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tinyres::load::{Batches, Dataset, Prefetch, Rank, Verify, shuffled, slot};
use tinyres::pack;
use tinyres::source::Source;
use tinyres_format::Split;

const BATCH: usize = 512;

fn sample(dir: &Path) -> PathBuf {
    let (set, output) = (dir.join("sample"), dir.join("shards"));
    let config = tinyres::sample::Config {
        classes: 100,
        train_per_class: 100,
        val_per_class: 10,
        test: 0,
        seed: 0,
        threads: 0,
    };
    tinyres::sample::write(&set, &config, &mut ()).expect("a sample set");
    let source = Source::open(&set).expect("the sample set");
    let config = pack::Config {
        output: output.clone(),
        shard_images: 8192.try_into().expect("not zero"),
        side: 64,
        threads: 0,
        skip_bad: false,
        zstd: None,
        force: false,
    };
    pack::pack(&source, &config, &mut ()).expect("a packed set");
    output
}

fn loading(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let shards =
        std::env::var_os("TINYRES_SHARDS").map_or_else(|| sample(dir.path()), PathBuf::from);
    #[expect(unsafe_code, reason = "nobody writes to the shards of a benchmark")]
    // SAFETY: see above.
    let open =
        |verify| unsafe { Dataset::open(&shards, Split::Train, verify) }.expect("a packed set");
    let data = Arc::new(open(Verify::Lazy));
    let images = data.len() / BATCH * BATCH;
    let len = data.shape().image_len();
    let order = shuffled(u32::try_from(data.len()).expect("a small set"), 0, 0);
    let batches = Arc::new(Batches::new(
        order.clone(),
        NonZeroUsize::new(BATCH).expect("not zero"),
        true,
        Rank::ONLY,
    ));
    // The bare loop's view of the same map. This also checks every block, as a first epoch would.
    let views: Vec<&[u8]> = data
        .sequential(usize::MAX)
        .map(|(_, view)| view.expect("whole"))
        .collect();
    let records: Vec<&[u8]> = views
        .iter()
        .flat_map(|view| view.chunks_exact(len))
        .collect();
    let mut out = slot(BATCH * len).expect("memory");

    let mut group = criterion.benchmark_group("random batches of 512");
    group
        .sample_size(20)
        .throughput(Throughput::Elements(images as u64));
    group.bench_function("bare copy loop", |bench| {
        bench.iter(|| {
            for batch in order.chunks_exact(BATCH) {
                for (&image, place) in batch.iter().zip(out.chunks_exact_mut(len)) {
                    place.copy_from_slice(records[image as usize]);
                }
                black_box(&mut out);
            }
        });
    });
    group.bench_function("gather", |bench| {
        bench.iter(|| {
            for batch in order.chunks_exact(BATCH) {
                data.gather(batch, &mut out).expect("a batch");
                black_box(&mut out);
            }
        });
    });
    for threads in [1, 2] {
        group.bench_function(format!("prefetch, {threads} threads"), |bench| {
            bench.iter(|| {
                let slots = (0..threads + 2).map(|_| slot(BATCH * len).expect("memory"));
                let mut prefetch =
                    Prefetch::start(data.clone(), batches.clone(), 0, slots, threads)
                        .expect("threads");
                while let Some(batch) = prefetch.next_batch() {
                    let batch = black_box(batch.expect("a batch"));
                    prefetch.give_back(batch.slot);
                }
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("sequential batches of 512");
    group.throughput(Throughput::Elements(data.len() as u64));
    group.bench_function("views", |bench| {
        bench.iter(|| {
            data.sequential(BATCH)
                .for_each(|batch| drop(black_box(batch)))
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("every checksum of a split");
    group
        .sample_size(20)
        .throughput(Throughput::Bytes((data.len() * len) as u64));
    group.bench_function("read only, all threads", |bench| {
        use rayon::prelude::*;
        bench.iter(|| {
            let sum: u64 = views
                .par_iter()
                .flat_map(|view| view.par_chunks(1 << 20))
                .map(|part| {
                    part.as_chunks::<8>()
                        .0
                        .iter()
                        .fold(0, |sum, word| sum ^ u64::from_le_bytes(*word))
                })
                .reduce(|| 0, |a, b| a ^ b);
            black_box(sum)
        });
    });
    group.bench_function("verify, all threads", |bench| {
        bench.iter(|| open(Verify::Full))
    });
    group.finish();
}

criterion_group!(benches, loading);
criterion_main!(benches);
