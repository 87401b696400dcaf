//! Sets that tests write.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tinyres_format::{Class, Digest, SetOptions, SetWriter, Shape, Split};
use tinyres_load::{Dataset, Verify};

pub const SIDE: u32 = 64;

pub fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// An image, `u8 [3, 64, 64]`, of the value of each colour at each place (y, x).
pub fn image(value: impl Fn(u32, u32, u32) -> u32) -> Vec<u8> {
    let area = SIDE * SIDE;
    let at = |at: u32| value(at / area, at % area / SIDE, at % SIDE);
    (0..3 * area)
        .map(|place| u8::try_from(at(place).min(255)).unwrap())
        .collect()
}

/// Pixels and labels of images.
pub type Images = Vec<(Vec<u8>, i64)>;

/// A set in `dir` of two classes.
pub fn set(dir: &Path, splits: &[(Split, Images)]) -> Vec<Arc<Dataset>> {
    let classes = ["cat", "dog"].map(|name| Class {
        id: name.into(),
        name: name.into(),
    });
    let options = SetOptions {
        shape: Shape::rgb(SIDE),
        classes: classes.to_vec(),
        creator: "a test".into(),
        fingerprint: Digest::of(b"results"),
        shard_images: NonZeroU32::new(300).unwrap(),
    };
    let mut writer = SetWriter::create(dir, options).unwrap();
    for (split, images) in splits {
        for (number, (pixels, label)) in images.iter().enumerate() {
            let name = format!("{split}-{number}");
            writer
                .image(*split, pixels, *label, [-1; 4], &name)
                .unwrap();
        }
    }
    writer.finish().unwrap();
    let open = |(split, _): &(Split, _)| {
        #[expect(unsafe_code, reason = "the test's own files")]
        // SAFETY: nobody else knows the directory.
        let data = unsafe { Dataset::open(dir, *split, Verify::Full) };
        Arc::new(data.unwrap())
    };
    splits.iter().map(open).collect()
}
