//! Sets of shards, and all the ways in which a directory may hold another set than it says. The torch
//! crate's tests use it, too.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs::{self, File};
use std::num::NonZeroU32;
use std::path::Path;

use tinyres_format::{Class, Digest, MANIFEST, SetOptions, SetWriter, Shape, Split};

/// What distinguishes one small set from another.
#[derive(Clone, Copy)]
pub struct SetSpec {
    pub fingerprint: &'static str,
    pub side: u32,
    /// Added to every pixel.
    pub salt: usize,
    pub classes: usize,
}

pub const SPEC: SetSpec = SetSpec {
    fingerprint: "the set",
    side: 32,
    salt: 0,
    classes: 4,
};

/// Writes two shards of train images, 70 and 30, and one of 8 val images, in `dir`.
pub fn write(dir: &Path, spec: SetSpec) {
    let class = |id| Class {
        id: format!("n{id}"),
        name: format!("class {id}"),
    };
    let shape = Shape::rgb(spec.side);
    let options = SetOptions {
        shape,
        classes: (0..spec.classes).map(class).collect(),
        creator: "tests".into(),
        fingerprint: Digest::of(spec.fingerprint.as_bytes()),
        shard_images: NonZeroU32::new(70).unwrap(),
    };
    let mut set = SetWriter::create(dir, options).unwrap();
    for (split, shards) in [(Split::Train, &[70, 30][..]), (Split::Val, &[8])] {
        for (index, &images) in shards.iter().enumerate() {
            for image in 0..images {
                let pixel = |at| u8::try_from((at * 3 + image * 5 + index + spec.salt) % 256);
                let pixels: Vec<u8> = (0..shape.image_len())
                    .map(|at| pixel(at).unwrap())
                    .collect();
                let label = i64::try_from(image % spec.classes).unwrap();
                set.image(
                    split,
                    &pixels,
                    label,
                    [0, 0, 1, 1],
                    &format!("{image}.JPEG"),
                )
                .unwrap();
            }
        }
    }
    set.finish().unwrap();
}

/// A directory that does not hold the set that its `dataset.json` is of.
pub struct Corruption {
    pub name: &'static str,
    pub make: fn(&Path),
    /// What whoever opens the train split is told.
    pub says: &'static str,
    /// What `inspect` says, where that is something else.
    pub inspect: Option<&'static str>,
}

const FIRST: &str = "train-00000.bin";
const SECOND: &str = "train-00001.bin";

fn set_len(path: &Path, len: impl FnOnce(u64) -> u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(len(file.metadata().unwrap().len())).unwrap();
}

fn copy(dir: &Path, from: &str, to: &str) {
    fs::copy(dir.join(from), dir.join(to)).unwrap();
}

/// Puts the shard `file` of a set of another kind in the place of the one in `dir`.
fn replace(dir: &Path, file: &str, spec: SetSpec) {
    let other = tempfile::tempdir_in(dir.parent().unwrap()).unwrap();
    write(other.path(), spec);
    fs::rename(other.path().join(file), dir.join(file)).unwrap();
}

pub const CORRUPTIONS: &[Corruption] = &[
    Corruption {
        name: "cut by a byte",
        make: |dir| set_len(&dir.join(SECOND), |len| len - 1),
        says: "train-00001.bin: file is",
        inspect: None,
    },
    Corruption {
        name: "cut to its header",
        make: |dir| set_len(&dir.join(SECOND), |_| 4096),
        says: "train-00001.bin: file is 4096 bytes long",
        inspect: None,
    },
    Corruption {
        name: "cut to nothing",
        make: |dir| set_len(&dir.join(FIRST), |_| 0),
        says: "train-00000.bin: not a tinyres shard",
        inspect: None,
    },
    Corruption {
        name: "grown",
        make: |dir| set_len(&dir.join(FIRST), |len| len + 4096),
        says: "train-00000.bin: file is",
        inspect: None,
    },
    Corruption {
        name: "missing",
        make: |dir| fs::remove_file(dir.join(SECOND)).unwrap(),
        says: "train-00001.bin: No such file",
        inspect: Some("train-00001.bin: in dataset.json, but not here"),
    },
    Corruption {
        name: "doubled",
        make: |dir| copy(dir, FIRST, SECOND),
        says: "train-00001.bin: the shard's index is 0, but dataset.json says 1",
        inspect: None,
    },
    Corruption {
        name: "exchanged",
        make: |dir| {
            let aside = dir.join("aside");
            fs::rename(dir.join(FIRST), &aside).unwrap();
            fs::rename(dir.join(SECOND), dir.join(FIRST)).unwrap();
            fs::rename(aside, dir.join(SECOND)).unwrap();
        },
        says: "train-00000.bin: the shard's index is 1, but dataset.json says 0",
        inspect: None,
    },
    Corruption {
        name: "of another split",
        make: |dir| copy(dir, "val-00000.bin", FIRST),
        says: "train-00000.bin: the split is val, but dataset.json says train",
        inspect: None,
    },
    Corruption {
        name: "of another set",
        make: |dir| {
            let fingerprint = "another set";
            replace(
                dir,
                FIRST,
                SetSpec {
                    fingerprint,
                    ..SPEC
                },
            );
        },
        says: "train-00000.bin: the set's fingerprint is",
        inspect: None,
    },
    Corruption {
        name: "of another shape",
        make: |dir| replace(dir, FIRST, SetSpec { side: 16, ..SPEC }),
        says: "train-00000.bin: the image shape is 3x16x16, but dataset.json says 3x32x32",
        inspect: None,
    },
    Corruption {
        name: "of other classes",
        make: |dir| replace(dir, FIRST, SetSpec { classes: 3, ..SPEC }),
        says: "train-00000.bin: the number of classes is 3, but dataset.json says 4",
        inspect: None,
    },
    Corruption {
        name: "packed again from other pixels",
        make: |dir| replace(dir, SECOND, SetSpec { salt: 1, ..SPEC }),
        says: "train-00001.bin: the header's SHA-256 is",
        inspect: None,
    },
    Corruption {
        name: "a directory in its place",
        make: |dir| {
            fs::remove_file(dir.join(FIRST)).unwrap();
            fs::create_dir(dir.join(FIRST)).unwrap();
        },
        says: "train-00000.bin: ",
        inspect: None,
    },
    Corruption {
        name: "no manifest",
        make: |dir| fs::remove_file(dir.join(MANIFEST)).unwrap(),
        says: "no dataset.json here: the pack is unfinished",
        inspect: None,
    },
    Corruption {
        name: "half a manifest",
        make: |dir| set_len(&dir.join(MANIFEST), |len| len / 2),
        says: "dataset.json: EOF while parsing",
        inspect: None,
    },
    Corruption {
        name: "the manifest of another set",
        make: |dir| {
            replace(
                dir,
                MANIFEST,
                SetSpec {
                    fingerprint: "another set",
                    ..SPEC
                },
            )
        },
        says: "train-00000.bin: the set's fingerprint is",
        inspect: None,
    },
];
