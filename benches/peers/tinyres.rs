//! Times epochs of random batches from a packed set: tinyres's part of the comparison in this directory.
//!
//!     cargo run --release -p tinyres-peers -- shards u8 --check
//!
//! Reports as `peer.py` does: a line of JSON when the first batch is there, and one at the end.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytemuck::{cast_slice, cast_slice_mut};
use clap::Parser;
use memmap2::MmapMut;
use tinyres_format::Split;
use tinyres_load::{
    Batches, Dataset, Normalization, Prefetch, Rank, Result, Verify, alloc_slot, shuffled,
};

// Of ImageNet's training images.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f64; 3] = [0.229, 0.224, 0.225];

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
    /// Pixels as they are stored, planar
    U8,
    /// Normalised and channels last
    F32,
}

impl Dtype {
    /// Bytes of a number.
    fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F32 => 4,
        }
    }

    fn fill(self, data: &Dataset, images: &[u32], slot: &mut MmapMut) -> Result<()> {
        let out = &mut slot[..images.len() * data.shape().image_len() * self.size()];
        match self {
            Self::U8 => data.gather(images, out),
            Self::F32 => data.gather_f32(
                images,
                &Normalization::new(MEAN, DEVIATION),
                cast_slice_mut(out),
            ),
        }
    }

    /// The pixels of an image of a batch, interleaved.
    fn pixels(self, image: &[u8]) -> Vec<u8> {
        match self {
            Self::U8 => {
                let plane = image.len() / 3;
                let pixel = |at| [image[at], image[plane + at], image[2 * plane + at]];
                (0..plane).flat_map(pixel).collect()
            }
            Self::F32 => {
                let channels = MEAN.iter().zip(DEVIATION).cycle();
                let back =
                    |(&x, (mean, std)): (&f32, (&f64, f64))| (f64::from(x) * std + mean) * 255.0;
                #[expect(clippy::cast_possible_truncation, reason = "saturates")]
                let byte = |pixel: f64| pixel.round() as u8;
                cast_slice(image)
                    .iter()
                    .zip(channels)
                    .map(back)
                    .map(byte)
                    .collect()
            }
        }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    #[expect(unsafe_code, reason = "nobody writes to the shards of a benchmark")]
    // SAFETY: see above.
    let data = Arc::new(unsafe { Dataset::open(&args.shards, Split::Train, Verify::Lazy) }?);
    let image_len = data.shape().image_len() * args.dtype.size();
    let count = args.threads + 1;
    let mut slots = (0..count)
        .map(|_| alloc_slot(args.batch.get() * image_len))
        .collect::<std::io::Result<Vec<_>>>()?;
    let mut out = std::io::stdout().lock();
    let (mut seconds, mut images, mut checksum) = (Vec::new(), 0, args.check.then_some(0));
    while seconds.len() < 2 || seconds.iter().sum::<f64>() < args.seconds {
        let begin = Instant::now();
        let first = seconds.is_empty();
        let order = shuffled(data.len(), 0, seconds.len() as u64);
        let batches = Arc::new(Batches::new(order, args.batch, false, Rank::ONLY));
        let own = Arc::clone(&data);
        let fill = move |images: &[u32], slot: &mut MmapMut| args.dtype.fill(&own, images, slot);
        let last = batches.len();
        let mut epoch = Prefetch::with(fill, batches, 0, std::mem::take(&mut slots), args.threads)?;
        while let Some(batch) = epoch.next_batch() {
            let batch = batch?;
            if first && batch.index == 0 {
                writeln!(out, "{{\"first\": true}}")?;
                out.flush()?;
            }
            if first {
                images += batch.images.len();
            }
            if let (true, Some(sum)) = (first, &mut checksum) {
                for (&image, pixels) in batch.images.iter().zip(batch.slot.chunks_exact(image_len))
                {
                    *sum += image_checksum(&args.dtype.pixels(pixels), rank(&data, image)?);
                }
            }
            // The last ones serve the next epoch.
            if batch.index + count < last {
                epoch.give_back(batch.slot);
            } else {
                slots.push(batch.slot);
            }
        }
        seconds.push(begin.elapsed().as_secs_f64());
    }
    let report = serde_json::json!({
        "images": images, "checksum": checksum, "first_epoch": seconds[0], "seconds": seconds[1..],
    });
    writeln!(out, "{report}")?;
    Ok(())
}

/// As `peer.py` has it.
fn image_checksum(pixels: &[u8], label: u64) -> u64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(pixels);
    crc.update(&label.to_le_bytes());
    crc.finalize().into()
}

/// The place of an image's class in the order of the classes' names, by which the others number them.
fn rank(data: &Dataset, image: u32) -> anyhow::Result<u64> {
    let own = &data.classes()[usize::try_from(data.label(image)?)?];
    Ok(data
        .classes()
        .iter()
        .filter(|class| class.id < own.id)
        .count() as u64)
}
