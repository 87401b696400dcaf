//! Measures how fast the batches of shuffled epochs come, by turns: `u8` as stored, `f32` normalised, channels last
//! and first, and with flips and shifts, each with its labels. Prints the median of images a second, over the epochs of each.
//!
//!     cargo run --release -p tinyres-load --example epoch -- shards [EPOCHS [THREADS]]

use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tinyres_format::Split;
use tinyres_load::{
    Batches, Dataset, FlipShift, Form, Layout, Normalization, Prefetch, Rank, Verify, alloc_slot,
    shuffled,
};

const BATCH: usize = 512;
const SLOTS: usize = 4;
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("usage: epoch DIR [EPOCHS [THREADS]]")?;
    let epochs = args.next().map_or(Ok(9), |epochs| epochs.parse())?;
    let threads = args.next().map_or(Ok(2), |threads| threads.parse())?;
    for line in measure(Path::new(&dir), epochs, threads)? {
        println!("{line}");
    }
    Ok(())
}

/// A line for each form of a batch, with the median rate of so many epochs.
pub fn measure(dir: &Path, epochs: u64, threads: usize) -> Result<Vec<String>, Box<dyn Error>> {
    #[expect(unsafe_code, reason = "only the user can keep others off the files")]
    // SAFETY: whoever runs this example writes to no shard at the same time.
    let data = Arc::new(unsafe { Dataset::open(dir, Split::Train, Verify::Lazy) }?);
    let labels = data.labels()?;
    let mut rates = BTreeMap::<_, Vec<f64>>::new();
    // The first epoch checks every block, and is not counted.
    for epoch in 0..=epochs {
        for floats in [false, true] {
            for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                for moved in [false, true] {
                    let moves = moved.then(|| FlipShift::new(true, 4, 0, epoch));
                    let rate = run(
                        &data,
                        &labels,
                        Form { layout, moves },
                        floats,
                        epoch,
                        threads,
                    )?;
                    let pixels = if floats { "f32" } else { "u8" };
                    let moves = if moved { ", flip and shift" } else { "" };
                    let form = format!("{pixels}, {layout:?}{moves}");
                    let rates = rates.entry(form).or_default();
                    if epoch > 0 {
                        rates.push(rate);
                    }
                }
            }
        }
    }
    let lines = rates.into_iter().map(|(form, mut rates)| {
        rates.sort_by(f64::total_cmp);
        format!("{form}: {:.0} images/s", rates[rates.len() / 2])
    });
    Ok(lines.collect())
}

/// Images a second of one epoch.
fn run(
    data: &Arc<Dataset>,
    labels: &[i64],
    form: Form,
    floats: bool,
    epoch: u64,
    threads: usize,
) -> Result<f64, Box<dyn Error>> {
    let image_len = data.shape().image_len();
    let bytes = BATCH * image_len * if floats { 4 } else { 1 };
    let mut slots = (0..SLOTS)
        .map(|_| alloc_slot(bytes))
        .collect::<Result<Vec<_>, _>>()?;
    // A run uses its slots again and again: the first touch of new memory does not count.
    slots.iter_mut().for_each(|slot| slot.fill(0));
    let began = Instant::now();
    let order = shuffled(data.len(), 0, epoch);
    let batch = NonZeroUsize::new(BATCH).ok_or("a batch has images")?;
    let batches = Arc::new(Batches::new(order, batch, true, Rank::ONLY));
    let source = Arc::clone(data);
    let normalization = Normalization::new(MEAN, STD);
    let fill = move |images: &[u32], slot: &mut memmap2::MmapMut| {
        if floats {
            source.gather_f32_in(
                images,
                &form,
                &normalization,
                bytemuck::cast_slice_mut(slot),
            )
        } else {
            source.gather_in(images, &form, slot)
        }
    };
    let mut prefetch = Prefetch::with(fill, batches, 0, slots, threads)?;
    let mut images = 0;
    while let Some(batch) = prefetch.next_batch() {
        let batch = batch?;
        let own = batch.images.iter().map(|&image| labels[image as usize]);
        images += black_box(own.collect::<Vec<_>>()).len();
        prefetch.give_back(batch.slot);
    }
    Ok(images as f64 / began.elapsed().as_secs_f64())
}
