//! Files that hold many images, fed anything: every image that opening finds is read.

use std::fs;

use tempfile::TempDir;
use tinyres::source::Source;

use super::tree::{mend, opened, unpacked};

/// Any bytes as a Parquet file.
pub fn parquet(data: &[u8]) -> bool {
    let whole = [b"PAR1", data.get(4..).unwrap_or_default()].concat();
    read_all(&whole)
}

/// Any bytes as an `.npz` file.
pub fn npz(data: &[u8]) -> bool {
    read_all(data)
}

/// Any bytes as a zip of batches of Downsampled ImageNet.
pub fn batches(data: &[u8]) -> bool {
    read_all(data)
}

/// Any bytes as a tar of samples, with the checksums that its headers should have.
pub fn webdataset(data: &[u8]) -> bool {
    let mut mended = data.to_vec();
    mend(&mut mended);
    read_all(&mended)
}

/// Any bytes as the pickled train batch of CIFAR-100.
pub fn pickle(data: &[u8]) -> bool {
    thread_local!(static SET: TempDir = cifar());
    SET.with(|set| {
        fs::write(set.path().join("train"), data).expect("room for it");
        opened(set.path()).is_some_and(|source| read_images(&source))
    })
}

/// A directory of CIFAR-100 without its train batch.
fn cifar() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory of its own");
    let mut names = b"\x80\x02}U\x10fine_label_names](".to_vec();
    for class in 0..100 {
        names.extend(format!("U\x02{class:02}").bytes());
    }
    names.extend(b"es.");
    fs::write(dir.path().join("meta"), names).expect("room for it");
    fs::write(
        dir.path().join("test"),
        include_bytes!("../seeds/pickle/whole"),
    )
    .expect("room for it");
    dir
}

fn read_all(data: &[u8]) -> bool {
    unpacked(data).is_some_and(|source| read_images(&source))
}

fn read_images(source: &Source) -> bool {
    let mut reader = source.reader();
    for (_, items) in &source.splits {
        for item in items {
            assert!(
                item.label
                    .is_none_or(|label| (label as usize) < source.classes.len())
            );
            if let Err(error) = reader.read(item) {
                assert!(!error.to_string().is_empty());
            }
        }
    }
    true
}
