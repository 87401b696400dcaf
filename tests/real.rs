//! The real Tiny ImageNet, whole or its half: run by `tools/test` where `TINYRES_REAL_DATA` names
//! its zip or its tree.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::tinyres;
use sha2::{Digest as _, Sha256};
use tinyres_format::{Manifest, Shard};

/// What `tools/witness/pillow_pixels.py` found in the half set: all that Pillow sees in it.
const GOLDEN: &str = include_str!("golden/tiny-imagenet-200-half.json");

#[derive(serde::Deserialize)]
struct Golden {
    images: usize,
    grey: u64,
    pixels: String,
    annotations: String,
}

fn real_data() -> PathBuf {
    std::env::var_os("TINYRES_REAL_DATA")
        .expect("names a Tiny ImageNet zip or tree")
        .into()
}

fn pack(source: &Path, output: &Path, flags: &[&str]) {
    tinyres()
        .arg("pack")
        .arg(source)
        .arg("-o")
        .arg(output)
        .args(flags)
        .assert()
        .success();
}

fn hex(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
#[ignore = "needs TINYRES_REAL_DATA"]
fn every_pixel_and_annotation_is_pillows() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("shards");
    pack(&real_data(), &out, &[]);
    let manifest = Manifest::load(&out).unwrap();
    let golden: BTreeMap<String, Golden> = serde_json::from_str(GOLDEN).unwrap();
    let half = manifest
        .splits
        .iter()
        .all(|entry| entry.images == golden[entry.split.name()].images as u64);
    for entry in &manifest.splits {
        let (mut pixels, mut annotations, mut grey) = (Sha256::new(), Sha256::new(), 0);
        for (index, listed) in entry.shards.iter().enumerate() {
            let shard = Shard::new(fs::read(out.join(&listed.file)).unwrap()).unwrap();
            shard.verify().unwrap();
            manifest.check(entry, index, &shard).unwrap();
            assert!(shard.metadata().refused.is_empty());
            grey += shard.metadata().grey;
            pixels.update(shard.images());
            for image in 0..shard.len() {
                let name = shard.name(image).unwrap().unwrap();
                let name = name.rsplit_once('/').unwrap().1;
                let [x0, y0, x1, y1] = shard.boxes()[image].map(|side| side.get());
                annotations.update(match shard.labels()[image].get() {
                    -1 => format!("{name}\n"),
                    label => format!("{name}\t{label}\t{x0}\t{y0}\t{x1}\t{y1}\n"),
                });
            }
        }
        let golden = &golden[entry.split.name()];
        if half {
            assert_eq!(grey, golden.grey, "{}", entry.split);
            assert_eq!(hex(pixels), golden.pixels, "{}", entry.split);
            assert_eq!(hex(annotations), golden.annotations, "{}", entry.split);
        } else {
            println!("skipped: Pillow's pixels are known of the half set alone");
        }
    }
}

#[test]
#[ignore = "needs TINYRES_REAL_DATA"]
fn zip_and_tree_give_the_same_bytes() {
    let source = real_data();
    if source.is_dir() {
        println!("skipped: TINYRES_REAL_DATA is a tree already");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    zip::ZipArchive::new(fs::File::open(&source).unwrap())
        .unwrap()
        .extract(&tree)
        .unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    pack(&source, &a, &["--threads", "1"]);
    pack(&tree, &b, &["--threads", "3"]);
    let names = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&a), names(&b));
    for name in names(&a) {
        assert!(
            fs::read(a.join(&name)).unwrap() == fs::read(b.join(&name)).unwrap(),
            "{name:?}"
        );
    }
}
