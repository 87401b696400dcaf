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

/// The annotations of ILSVRC of a small tree, parted by the byte FF.
pub fn ilsvrc(data: &[u8]) -> bool {
    const TEXTS: [&str; 4] = [
        "ILSVRC/Annotations/CLS-LOC/train/n01/a.xml",
        "ILSVRC/Annotations/CLS-LOC/val/b.xml",
        "LOC_val_solution.csv",
        "LOC_synset_mapping.txt",
    ];
    thread_local!(static TREE: TempDir = ilsvrc_tree());
    TREE.with(|tree| {
        let mut parts = data.split(|&byte| byte == 0xFF);
        for name in TEXTS {
            let path = tree.path().join(name);
            match parts.next() {
                Some(text) => fs::write(path, text).expect("room for it"),
                None => drop(fs::remove_file(path)),
            }
        }
        let Some(source) = opened(tree.path()) else {
            return false;
        };
        for item in source.splits.iter().flat_map(|(_, items)| items) {
            if let Some([x0, y0, x1, y1]) = item.bbox {
                assert!(0 <= x0 && x0 <= x1 && 0 <= y0 && y0 <= y1);
            }
        }
        read_images(&source)
    })
}

/// The images of ILSVRC, one of train and one of val, and the folders of their annotations.
fn ilsvrc_tree() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory of its own");
    for folder in ["Annotations/CLS-LOC/train/n01", "Annotations/CLS-LOC/val"] {
        fs::create_dir_all(dir.path().join("ILSVRC").join(folder)).expect("room for it");
    }
    for image in ["train/n01/a.JPEG", "val/b.JPEG"] {
        let path = dir.path().join("ILSVRC/Data/CLS-LOC").join(image);
        fs::create_dir_all(path.parent().expect("a folder")).expect("room for it");
        fs::write(path, image).expect("room for it");
    }
    dir
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
