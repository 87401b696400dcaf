//! Reads one epoch of random batches, and prints how many images each class has and their mean colour.
//!
//!     cargo run --release -p tinyres-load --example read_batches -- shards
//!
//! The set is one that `tinyres pack` wrote, or the example `write_set` of tinyres-format.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use tinyres_format::Split;
use tinyres_load::{Dataset, Verify};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os()
        .nth(1)
        .ok_or("usage: read_batches DIR")?;
    for line in read(Path::new(&dir))? {
        println!("{line}");
    }
    Ok(())
}

/// Reads the split train of the set in `dir`, and describes each class on a line.
pub fn read(dir: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    #[expect(unsafe_code, reason = "only the user can keep others off the files")]
    // SAFETY: whoever runs this example writes to no shard at the same time.
    let data = Arc::new(unsafe { Dataset::open(dir, Split::Train, Verify::Lazy) }?);
    let image_len = data.shape().image_len();
    let mut images_of = vec![0_u64; data.classes().len()];
    let mut sums = vec![[0_u64; 3]; data.classes().len()];

    let batch = NonZeroUsize::new(128).ok_or("a batch has images")?;
    let mut epoch = data.epoch(42, 0, batch)?; // seed 42, epoch 0
    while let Some(batch) = epoch.next_batch() {
        let (images, pixels) = batch?; // numbers in the split, and u8 [n, 3, H, W]
        for (&image, pixels) in images.iter().zip(pixels.chunks_exact(image_len)) {
            let label = usize::try_from(data.label(image)?)?;
            images_of[label] += 1;
            for (sum, plane) in sums[label]
                .iter_mut()
                .zip(pixels.chunks_exact(image_len / 3))
            {
                *sum += plane.iter().map(|&value| u64::from(value)).sum::<u64>();
            }
        }
    }

    let plane = (image_len / 3) as u64;
    let classes = data.classes().iter().zip(images_of.iter().zip(sums));
    Ok(classes
        .map(|(class, (&images, sums))| {
            let rgb = sums.map(|sum| sum / (plane * images).max(1));
            format!("{}: {images} images, mean RGB {rgb:?}", class.name)
        })
        .collect())
}
