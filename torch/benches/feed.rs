//! Batches on the CPU against what libtorch takes for the same copy, and their way to floats.
//!
//! Reads the packed set that TINYRES_SHARDS names, or else one of 20,000 made-up images.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tch::{Device, Kind, Tensor};
use tinyres_format::{Draws, Split, Stream};
use tinyres_load::{Dataset, Verify, shuffled};
use tinyres_torch::config::Normalize;
use tinyres_torch::input::{FlipShift, Normalizer};
use tinyres_torch::libtorch::device::Placement;

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../../benches/turns/mod.rs"]
mod turns;

use turns::{by_turns, time};

const BATCH: usize = 512;

fn open(dir: &Path) -> Arc<Dataset> {
    let Some(shards) = std::env::var_os("TINYRES_SHARDS").map(PathBuf::from) else {
        return common::splits(dir, 8, 20_000, 1).train;
    };
    #[expect(unsafe_code, reason = "nobody writes to the shards of a benchmark")]
    // SAFETY: see above.
    let data = unsafe { Dataset::open(&shards, Split::Train, Verify::Lazy) };
    Arc::new(data.expect("a packed set"))
}

fn feeding(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = open(dir.path());
    let (len, shape) = (data.shape().image_len(), data.shape());
    let images = data.len() as usize / BATCH * BATCH;
    let batch = NonZeroUsize::new(BATCH).expect("not zero");
    let order = || shuffled(data.len(), 0, 0);
    let throughput = |images: usize| Throughput::ElementsAndBytes {
        elements: images as u64,
        bytes: (images * len) as u64,
    };

    let mut group = criterion.benchmark_group("resident batches of 512");
    group.sample_size(20).throughput(throughput(images));
    let mut all = Vec::with_capacity(data.len() as usize * len);
    for (_, view) in data.sequential(BATCH) {
        all.extend_from_slice(view.expect("whole"));
    }
    let sides = [shape.channels, shape.height, shape.width].map(i64::from);
    let all = Tensor::from_slice(&all).view([-1, sides[0], sides[1], sides[2]]);
    let ids: Vec<i64> = order()[..images].iter().copied().map(i64::from).collect();
    let ids = Tensor::from_slice(&ids).view([-1, 512]);
    let feed = common::feed(&data, false, Placement::Resident);
    by_turns(
        &mut group,
        "pass",
        images,
        ("index_select alone", || {
            time(|| {
                for row in 0..ids.size()[0] {
                    drop(black_box(all.index_select(0, &ids.select(0, row))));
                }
            })
        }),
        || {
            time(|| {
                let mut pass = feed.pass(order(), batch, true, 0).expect("a pass");
                while let Some(done) = pass.next_batch(|batch| Ok(black_box(batch).at)) {
                    done.expect("a batch");
                }
            })
        },
    );
    group.finish();

    let mut group = criterion.benchmark_group("a batch of 512 to floats");
    group.throughput(throughput(BATCH));
    let normalizer = Normalizer::new(Normalize::Imagenet, Device::Cpu).expect("two tensors");
    let planar = all.narrow(0, 0, 512).copy();
    let ids: Vec<u32> = (0..512).collect();
    let draws = Draws::new(0, Stream::Augment, 0);
    let moves = FlipShift::new(
        true,
        4,
        draws,
        &ids,
        (shape.height, shape.width),
        Device::Cpu,
    );
    let moved = moves
        .expect("tensors")
        .expect("moves")
        .apply(&planar, &(0..512));
    for (what, pixels) in [
        ("planar", planar),
        ("channels last", moved.expect("a batch")),
    ] {
        assert_eq!(pixels.kind(), Kind::Uint8);
        group.bench_function(format!("normalize, {what}"), |bench| {
            bench.iter(|| black_box(normalizer.apply(&pixels).expect("floats")));
        });
    }
    group.finish();
}

criterion_group!(benches, feeding);
criterion_main!(benches);
