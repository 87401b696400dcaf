//! Compressing a shard and expanding it, in memory, on one thread and on all.
//!
//! Reads `train-00000.bin` of the packed set that TINYRES_SHARDS names: synthetic images compress
//! unlike real ones, so there is no other.

use std::ops::Range;
use std::path::PathBuf;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;
use tinyres_format::transport::{Expander, Frame, Level, compress};
use tinyres_format::{Result, ZstdShard};

fn transport(criterion: &mut Criterion) {
    let Some(shards) = std::env::var_os("TINYRES_SHARDS").map(PathBuf::from) else {
        eprintln!("skipped: TINYRES_SHARDS names no packed set");
        return;
    };
    let raw = std::fs::read(shards.join("train-00000.bin")).expect("a packed set");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("shard.zst");
    let mut group = criterion.benchmark_group("transport");
    group
        .sample_size(10)
        .throughput(Throughput::Bytes(raw.len() as u64));
    type Job<'a> = &'a (dyn Fn(u64) -> Result<Frame> + Sync);
    let one = |blocks: Range<u64>, job: Job| blocks.map(job).collect::<Result<Vec<_>>>();
    let all = |blocks: Range<u64>, job: Job| blocks.into_par_iter().map(job).collect();
    for number in [1, 3, 9] {
        let level = Level::new(number).expect("a level");
        group.bench_function(format!("compress, level {number}, one thread"), |b| {
            b.iter(|| compress(&&raw[..], &path, level, one).expect("a whole shard"));
        });
        group.bench_function(format!("compress, level {number}, all threads"), |b| {
            b.iter(|| compress(&&raw[..], &path, level, all).expect("a whole shard"));
        });
        compress(&&raw[..], &path, level, all).expect("a whole shard");
        let packed = std::fs::read(&path).expect("just written");
        println!(
            "level {number}: ratio {:.4}",
            raw.len() as f64 / packed.len() as f64
        );
        let shard = ZstdShard::open(&packed[..]).expect("a whole shard");
        group.bench_function(format!("expand, level {number}, one thread"), |b| {
            let mut expander = Expander::new().expect("memory");
            let mut block = |block| shard.expand_block(block, &mut expander).map(drop);
            b.iter(|| (0..shard.blocks()).try_for_each(&mut block).expect("whole"));
        });
        group.bench_function(format!("expand, level {number}, all threads"), |b| {
            let block =
                |expander: &mut Expander, block| shard.expand_block(block, expander).map(drop);
            b.iter(|| {
                (0..shard.blocks())
                    .into_par_iter()
                    .try_for_each_init(|| Expander::new().expect("memory"), block)
                    .expect("whole");
            });
        });
    }
}

criterion_group!(benches, transport);
criterion_main!(benches);
