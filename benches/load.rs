//! Batches against their limits, by turns: a bare loop that copies the same
//! records from the same map with as many threads, the same with a conversion to `f32` behind it,
//! and for checksums a read of the same memory.
//!
//! Reads the packed set that TINYRES_SHARDS names, or else packs a synthetic one of 11,000 images.

mod turns;

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytemuck::cast_slice_mut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use memmap2::MmapMut;
use rayon::prelude::*;
use tinyres::inspect::Set;
use tinyres::pack;
use tinyres::source::Source;
use tinyres_format::{Map, PAGE, Shard, Split, shards_in};
use tinyres_load::{
    Batches, Dataset, Normalization, Prefetch, Rank, Result, Verify, alloc_slot, shuffled,
};
use turns::{by_turns, time};

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
        resize: None,
        threads: 0,
        skip_bad: None,
        zstd: None,
        force: false,
    };
    pack::pack(&source, &config, &mut ()).expect("a packed set");
    output
}

#[expect(unsafe_code, reason = "nobody writes to the shards of a benchmark")]
fn open(shards: &Path, verify: Verify) -> Arc<Dataset> {
    // SAFETY: see above.
    let data = unsafe { Dataset::open(shards, Split::Train, verify) };
    Arc::new(data.expect("a packed set"))
}

#[expect(unsafe_code, reason = "nobody writes to the shards of a benchmark")]
fn map(shard: &Path) -> tinyres_format::Result<Shard<Map>> {
    // SAFETY: see above.
    unsafe { tinyres_format::map(shard) }
}

fn throughput(images: usize, data: &Dataset) -> Throughput {
    Throughput::ElementsAndBytes {
        elements: images as u64,
        bytes: (images * data.shape().image_len()) as u64,
    }
}

fn order(data: &Dataset) -> Vec<u32> {
    shuffled(data.len(), 0, 0)
}

/// The first epoch's batches.
fn batches(data: &Dataset) -> Arc<Batches> {
    let batch = NonZeroUsize::new(BATCH).expect("not zero");
    Arc::new(Batches::new(order(data), batch, true, Rank::ONLY))
}

/// Memory for so many batches, in place: a loader makes it once.
fn slots(count: usize, bytes: usize) -> Vec<MmapMut> {
    let slots = (0..count).map(|_| {
        let mut slot = alloc_slot(bytes).expect("memory");
        slot.fill(1);
        slot
    });
    slots.collect()
}

/// An epoch as a user sees it, the making of its order and threads included.
fn epoch(
    data: &Arc<Dataset>,
    slots: Vec<MmapMut>,
    threads: usize,
    gather: impl Fn(&Dataset, &[u32], &mut MmapMut) -> Result<()> + Send + Sync + 'static,
) -> Prefetch<MmapMut> {
    let own = Arc::clone(data);
    let fill = move |images: &[u32], slot: &mut MmapMut| gather(&own, images, slot);
    let mut prefetch = Prefetch::with(fill, batches(data), 0, slots, threads).expect("threads");
    while let Some(batch) = prefetch.next_batch() {
        let batch = black_box(batch.expect("a batch"));
        prefetch.give_back(batch.slot);
    }
    prefetch
}

/// The same work with nothing around it: threads take batches and fill a slot of their own each.
fn bare<T: Send>(order: &[u32], slots: &mut [T], fill: impl Fn(&[u32], &mut T) + Sync) {
    let (next, fill) = (&AtomicUsize::new(0), &fill);
    std::thread::scope(|scope| {
        for slot in slots {
            scope.spawn(move || {
                let next = || {
                    order
                        .chunks_exact(BATCH)
                        .nth(next.fetch_add(1, Ordering::Relaxed))
                };
                while let Some(images) = next() {
                    fill(images, slot);
                }
                black_box(slot);
            });
        }
    });
}

/// The images of the map, for the bare loop. This also checks every block, as a first epoch would.
fn records(data: &Dataset) -> Vec<&[u8]> {
    let len = data.shape().image_len();
    data.sequential(usize::MAX)
        .flat_map(|(_, view)| view.expect("whole").chunks_exact(len))
        .collect()
}

fn copy(records: &[&[u8]], images: &[u32], out: &mut [u8]) {
    let len = records[0].len();
    for (&image, place) in images.iter().zip(out.chunks_exact_mut(len)) {
        place.copy_from_slice(records[image as usize]);
    }
}

fn random(criterion: &mut Criterion, shards: &Path) {
    let data = open(shards, Verify::Lazy);
    let len = data.shape().image_len();
    let images = data.len() as usize / BATCH * BATCH;
    let order = order(&data);
    let records = records(&data);

    let mut group = criterion.benchmark_group("random u8 batches of 512");
    group.sample_size(20).throughput(throughput(images, &data));
    for threads in [1, 2] {
        let mut own = slots(threads, BATCH * len);
        by_turns(
            &mut group,
            &format!("prefetch, {threads} threads"),
            images,
            ("bare copy loop", || {
                time(|| bare(&order, &mut own, |images, out| copy(&records, images, out)))
            }),
            || {
                let slots = slots(threads + 1, BATCH * len);
                let gather =
                    |data: &Dataset, images: &[u32], out: &mut MmapMut| data.gather(images, out);
                time(|| epoch(&data, slots, threads, gather))
            },
        );
    }
    let mut out = alloc_slot(BATCH * len + PAGE).expect("memory");
    for (what, from) in [("on a page", 0), ("16 bytes behind", 16)] {
        let out = &mut out[from..from + BATCH * len];
        group.bench_function(format!("copy loop, 1 thread, to a slot {what}"), |bench| {
            bench.iter(|| {
                order
                    .chunks_exact(BATCH)
                    .for_each(|images| copy(&records, images, out))
            });
        });
    }
    group.bench_function("first epoch, every checksum included, 2 threads", |bench| {
        bench.iter_batched(
            || slots(3, BATCH * len),
            |slots| {
                let data = open(shards, Verify::Lazy);
                epoch(&data, slots, 2, |data, images, out| {
                    data.gather(images, out)
                })
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();

    let normalization = Normalization::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let mut group = criterion.benchmark_group("random f32 batches of 512");
    group.sample_size(20).throughput(throughput(images, &data));
    for threads in [1, 2] {
        let mut own: Vec<_> = slots(threads, BATCH * len)
            .into_iter()
            .zip(slots(threads, 4 * BATCH * len))
            .collect();
        let convert_all = |images: &[u32], (bytes, floats): &mut (MmapMut, MmapMut)| {
            copy(&records, images, bytes);
            let floats: &mut [f32] = cast_slice_mut(floats);
            for (bytes, floats) in bytes.chunks_exact(len).zip(floats.chunks_exact_mut(len)) {
                convert(&normalization, bytes, floats);
            }
        };
        by_turns(
            &mut group,
            &format!("prefetch, {threads} threads"),
            images,
            ("copy loop, then convert", || {
                time(|| bare(&order, &mut own, convert_all))
            }),
            || {
                let slots = slots(threads + 1, 4 * BATCH * len);
                let gather = move |data: &Dataset, images: &[u32], out: &mut MmapMut| {
                    data.gather_f32(images, &normalization, cast_slice_mut(out))
                };
                time(|| epoch(&data, slots, threads, gather))
            },
        );
    }
    group.finish();
}

/// A conversion that a compiler makes vectors of: two numbers a channel, and one pass.
fn convert(how: &Normalization, planar: &[u8], out: &mut [f32]) {
    let plane = planar.len() / 3;
    for (at, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        for (channel, x) in pixel.iter_mut().enumerate() {
            *x = f32::from(planar[channel * plane + at]) * how.scale[channel] + how.offset[channel];
        }
    }
}

fn sequential(criterion: &mut Criterion, shards: &Path) {
    let data = open(shards, Verify::Lazy);
    let views = || {
        data.sequential(BATCH).for_each(|(_, view)| {
            black_box(view.expect("whole"));
        })
    };
    views(); // checks every block
    let mut group = criterion.benchmark_group("sequential batches of 512");
    group.throughput(throughput(data.len() as usize, &data));
    group.bench_function("views", |bench| bench.iter(views));
    group.finish();
}

/// XOR of all words: what it costs to read.
fn read(pixels: &[u8]) -> u64 {
    let words = pixels.as_chunks::<8>().0;
    words
        .iter()
        .fold(0, |sum, word| sum ^ u64::from_le_bytes(*word))
}

/// Every pixel of the set, read or verified by all threads, where the files are mapped already and
/// where mapping them, with a fault for every few pages, is part of the work.
fn checksums(criterion: &mut Criterion, shards: &Path) {
    let files = shards_in(shards).expect("a packed set");
    let map_all = || -> Vec<_> {
        files
            .iter()
            .map(|file| map(file).expect("a shard"))
            .collect()
    };
    let read_all = |mapped: &[Shard<Map>]| {
        let parts = mapped
            .par_iter()
            .flat_map(|shard| shard.images().par_chunks(1 << 20));
        black_box(parts.map(read).reduce(|| 0, |a, b| a ^ b));
    };
    let inspect = || Set::open(shards, map).expect("a packed set");
    let verify = |set: &Set<Map>| assert!(set.verify(&mut ()).unwrap().damaged.is_empty());
    let (mapped, set) = (map_all(), inspect());
    let images = mapped.iter().map(|shard| shard.len()).sum();
    let bytes = mapped.iter().map(|shard| shard.images().len() as u64).sum();
    let mut group = criterion.benchmark_group("every pixel, all threads");
    group.sample_size(20).throughput(Throughput::Bytes(bytes));
    by_turns(
        &mut group,
        "verify",
        images,
        ("reading", || time(|| read_all(&mapped))),
        || time(|| verify(&set)),
    );
    by_turns(
        &mut group,
        "map and verify",
        images,
        ("mapping and reading", || time(|| read_all(&map_all()))),
        || time(|| verify(&inspect())),
    );
    group.finish();
}

fn first_batch(criterion: &mut Criterion, shards: &Path) {
    let len = open(shards, Verify::Off).shape().image_len();
    let mut group = criterion.benchmark_group("first batch of 512");
    for (what, verify) in [("checked", Verify::Lazy), ("unchecked", Verify::Off)] {
        group.bench_function(format!("open, shuffle, gather, {what}"), |bench| {
            bench.iter_with_large_drop(|| {
                let data = open(shards, verify);
                let batches = batches(&data);
                let mut prefetch =
                    Prefetch::start(data, batches, 0, slots(2, BATCH * len), 1).expect("a thread");
                let batch = prefetch.next_batch().expect("a batch").expect("whole");
                (prefetch, batch)
            });
        });
    }
    group.finish();
}

fn loading(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let shards =
        std::env::var_os("TINYRES_SHARDS").map_or_else(|| sample(dir.path()), PathBuf::from);
    random(criterion, &shards);
    sequential(criterion, &shards);
    checksums(criterion, &shards);
    first_batch(criterion, &shards);
}

criterion_group!(benches, loading);
criterion_main!(benches);
