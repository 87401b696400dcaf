//! Epochs of random batches from a packed set, timed: tinyres in the comparison of this directory.
//!
//!     cargo run --release --example epoch -- SHARDS u8 --check
//!
//! Reports as `peer.py` does: a line when the first batch is there, and one at the end.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use tinyres::load::{Batches, Dataset, Prefetch, Rank, Verify, shuffled, slot};
use tinyres_format::Split;

/// Time epochs of random batches from a packed set
#[derive(Parser)]
struct Args {
    /// Directory of the set
    shards: PathBuf,
    /// What batches are made of
    dtype: Dtype,
    /// Images in a batch
    #[arg(long, default_value = "512")]
    batch: NonZeroUsize,
    /// Threads that gather
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// No epoch begins after this time
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Add up a checksum of all that the first epoch delivers
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Dtype {
    /// Pixels as they are stored
    U8,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    #[expect(unsafe_code, reason = "nobody writes to the shards of a benchmark")]
    // SAFETY: see above.
    let data = unsafe { Dataset::open(&args.shards, Split::Train, Verify::Lazy) }?;
    let data = Arc::new(data);
    let room = args.batch.get() * data.shape().image_len();
    let mut out = std::io::stdout().lock();
    let (mut seconds, mut checksum) = (Vec::new(), args.check.then_some(0));
    while seconds.len() < 2 || seconds.iter().sum::<f64>() < args.seconds {
        let begin = Instant::now();
        let order = shuffled(u32::try_from(data.len())?, 0, seconds.len() as u64);
        let batches = Arc::new(Batches::new(order, args.batch, false, Rank::ONLY));
        let slots = (0..args.threads + 2)
            .map(|_| slot(room))
            .collect::<Result<Vec<_>, _>>()?;
        let mut epoch = Prefetch::start(data.clone(), batches, 0, slots, args.threads)?;
        while let Some(batch) = epoch.next_batch() {
            let batch = batch?;
            if seconds.is_empty() {
                if batch.index == 0 {
                    writeln!(out, "{{\"first\": true}}")?;
                    out.flush()?;
                }
                if let Some(sum) = &mut checksum {
                    *sum += checksum_of(&data, &batch.images, &batch.slot);
                }
            }
            epoch.give_back(batch.slot);
        }
        seconds.push(begin.elapsed().as_secs_f64());
    }
    let report = serde_json::json!({
        "images": data.len(), "checksum": checksum, "seconds": seconds[1..],
    });
    writeln!(out, "{report}")?;
    Ok(())
}

/// The sum of a CRC for each image, of its pixels, interleaved, and its label: as `peer.py` has it.
fn checksum_of(data: &Dataset, images: &[u32], pixels: &[u8]) -> u64 {
    let len = data.shape().image_len();
    let crc = |(&image, planar): (&u32, &[u8])| {
        let plane = len / 3;
        let interleaved: Vec<u8> = (0..plane)
            .flat_map(|at| [planar[at], planar[plane + at], planar[2 * plane + at]])
            .collect();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&interleaved);
        crc.update(&rank(data, image).to_le_bytes());
        u64::from(crc.finalize())
    };
    images.iter().zip(pixels.chunks_exact(len)).map(crc).sum()
}

/// The place of an image's class in the order of the classes' names, by which the others number them.
fn rank(data: &Dataset, image: u32) -> u64 {
    let classes = data.classes();
    let label = usize::try_from(data.labels()[image as usize]).expect("train is labelled");
    classes
        .iter()
        .filter(|class| class.id < classes[label].id)
        .count() as u64
}
