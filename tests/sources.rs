//! Sets that the libraries of others wrote (`tools/witness/sources.py`), packed: every pixel and label is
//! what those libraries read from them.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use common::{failure, tinyres};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tinyres_format::{Manifest, Shard};

/// What a library read.
#[derive(Debug, Deserialize, PartialEq)]
struct Expected {
    classes: Vec<String>,
    /// Label and SHA-256 of the pixels of each image, by split.
    splits: BTreeMap<String, Vec<(i64, String)>>,
    /// Inclusive corners of the box of each image, -1 for one that has none, where a set has boxes.
    #[serde(default)]
    boxes: BTreeMap<String, Vec<[i32; 4]>>,
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/sources")
        .join(name)
}

/// Packs `source` and compares it with the golden file `expected`.
#[track_caller]
fn assert_equal(source: &Path, expected: &str) {
    let text = fs::read_to_string(golden(&format!("{expected}.json"))).unwrap();
    assert_equal_to(source, &text);
}

#[track_caller]
fn assert_equal_to(source: &Path, expected: &str) {
    let expected: Expected = serde_json::from_str(expected).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let digests = [1, 3].map(|threads: usize| {
        let out = dir.path().join(threads.to_string());
        tinyres()
            .arg("pack")
            .arg(source)
            .args([
                "--shard-images",
                "8",
                "--threads",
                &threads.to_string(),
                "-o",
            ])
            .arg(&out)
            .assert()
            .success();
        let manifest = Manifest::load(&out).unwrap();
        let mut packed = Expected {
            classes: Vec::new(),
            splits: BTreeMap::new(),
            boxes: BTreeMap::new(),
        };
        let mut digests = Vec::new();
        for entry in &manifest.splits {
            let images = packed.splits.entry(entry.split.to_string()).or_default();
            for shard in &entry.shards {
                let shard = Shard::new(fs::read(out.join(&shard.file)).unwrap()).unwrap();
                shard.verify().unwrap();
                digests.push(shard.digest());
                let classes = shard.metadata().classes.iter();
                packed.classes = classes.map(|class| class.name.clone()).collect();
                if !expected.boxes.is_empty() {
                    let boxes = packed.boxes.entry(entry.split.to_string()).or_default();
                    boxes.extend(shard.boxes().iter().map(|bbox| bbox.map(|side| side.get())));
                }
                let pixels = shard.images().chunks_exact(shard.shape().image_len());
                for (pixels, label) in pixels.zip(shard.labels()) {
                    let digest = Sha256::digest(pixels);
                    let hex = digest.iter().map(|byte| format!("{byte:02x}"));
                    images.push((label.get(), hex.collect()));
                }
            }
        }
        assert_eq!(packed, expected, "{}", source.display());
        digests
    });
    assert_eq!(digests[0], digests[1], "it depends on the threads");
}

#[test]
fn parquet_as_datasets_writes_it() {
    assert_equal(&golden("parquet"), "parquet");
    assert_equal(&golden("parquet/data"), "parquet");
}

#[test]
fn parquet_in_every_form_of_pages() {
    for file in fs::read_dir(golden("parquet-forms")).unwrap() {
        assert_equal(&file.unwrap().path(), "parquet-forms");
    }
}

#[test]
fn cifar_in_each_published_form() {
    for set in ["cifar-10", "cifar-100"] {
        for form in ["python", "binary"] {
            let archive = golden(&format!("{set}-{form}.tar.gz"));
            assert_equal(&archive, set);
            let dir = tempfile::tempdir().unwrap();
            let tar = std::process::Command::new("tar")
                .arg("-xzf")
                .arg(&archive)
                .arg("-C")
                .arg(dir.path())
                .status()
                .expect("tar, as any Linux has it");
            assert!(tar.success());
            assert_equal(dir.path(), set);
        }
    }
}

#[test]
fn npz_as_keras_publishes_it() {
    for file in ["keras", "keras-stored"] {
        assert_equal(&golden(&format!("{file}.npz")), "keras");
    }
}

#[test]
fn downsampled_imagenet_in_each_published_form() {
    for form in ["npz", "stored", "pickle"] {
        let archive = golden(&format!("downsampled-{form}.zip"));
        assert_equal(&archive, "downsampled");
        let dir = tempfile::tempdir().unwrap();
        let mut zip = zip::ZipArchive::new(fs::File::open(&archive).unwrap()).unwrap();
        zip.extract(dir.path()).unwrap();
        assert_equal(dir.path(), "downsampled");
    }
}

#[test]
fn webdataset_as_its_library_writes_it() {
    for set in ["webdataset", "webdataset-json"] {
        assert_equal(&golden(set), set);
    }
    for form in ["tar", "tar.gz"] {
        assert_equal(&golden(&format!("webdataset-one.{form}")), "webdataset-one");
    }
}

#[test]
fn ilsvrc_as_kaggle_publishes_it() {
    assert_equal(&golden("ilsvrc.zip"), "ilsvrc");
    let dir = tempfile::tempdir().unwrap();
    let mut zip = zip::ZipArchive::new(fs::File::open(golden("ilsvrc.zip")).unwrap()).unwrap();
    zip.extract(dir.path()).unwrap();
    assert_equal(dir.path(), "ilsvrc");
    // The official tree has no lists: val is labelled by its XML, classes are called by their ids.
    let mut text = fs::read_to_string(golden("ilsvrc.json")).unwrap();
    for (name, id) in [
        ("tench, Tinca tinca", "n01440764"),
        ("goldfish, Carassius auratus", "n01443537"),
        ("\"dog\"", "\"n02084071\""),
    ] {
        text = text.replace(name, id);
    }
    assert_equal_to(&dir.path().join("ILSVRC"), &text);
}

#[test]
fn npz_as_medmnist_publishes_it() {
    for set in ["medmnist-grey", "medmnist-colour"] {
        assert_equal(&golden(&format!("{set}.npz")), set);
    }
}

/// `--skip-bad` is for damaged images. Arrays that cannot be decompressed for want of room are whole.
#[test]
fn no_room_for_decompressed_pixels_ends_the_pack() {
    let npy = |shape: &str, values: &[u8]| {
        let head = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape}), }}\n");
        let len = u16::try_from(head.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\0", &len[..], head.as_bytes(), values].concat()
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.npz");
    let mut writer = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    for (split, method) in [
        ("train", zip::CompressionMethod::Stored),
        ("test", zip::CompressionMethod::Deflated),
    ] {
        let stored = zip::CompressionMethod::Stored;
        for (name, method, array) in [
            ("images", method, npy("4, 2, 2", &[7; 16])),
            ("labels", stored, npy("4,", &[0, 1, 0, 1])),
        ] {
            let options = zip::write::SimpleFileOptions::default().compression_method(method);
            let name = format!("{split}_{name}.npy");
            writer.start_file(name, options).unwrap();
            writer.write_all(&array).unwrap();
        }
    }
    writer.finish().unwrap();
    let pack = |folder: &Path| {
        let mut command = tinyres();
        command.arg("pack").arg(&path).arg("--skip-bad=90%");
        command.arg("-o").arg(dir.path().join("out"));
        command.env("TMPDIR", folder);
        command
    };
    let error = failure(&mut pack(&dir.path().join("none")), 1);
    assert!(
        error.contains("set.npz: test_images.npy: row 0: "),
        "{error}"
    );
    assert!(
        error.contains("cannot write temporary data there"),
        "{error}"
    );
    assert!(
        error.contains("set TMPDIR") && !error.contains("are bad"),
        "{error}"
    );
    pack(dir.path()).assert().success();
}

#[test]
fn a_parquet_file_cut_anywhere_is_an_error() {
    let whole = fs::read(golden("parquet-forms/train-snappy.parquet")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.parquet");
    for len in (8..whole.len()).step_by(1999) {
        fs::write(&path, &whole[..len]).unwrap();
        let error = failure(tinyres().arg("pack").arg(&path), 1);
        assert!(error.contains("not a whole Parquet file"), "{error}");
    }
}

/// A process may have 1,024 files open on most machines, and ImageNet comes in as many shards.
#[test]
fn a_set_may_have_more_shards_than_a_process_may_open_files() {
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set");
    fs::create_dir(&set).unwrap();
    for shard in 0..100 {
        let path = set.join(format!("train-{shard:06}.tar"));
        fs::copy(golden("webdataset-one.tar"), path).unwrap();
    }
    let out = dir.path().join("out");
    let packed = std::process::Command::new("sh")
        .args([
            "-c",
            "ulimit -n 60 && exec \"$0\" pack \"$1\" -o \"$2\" --threads 2",
        ])
        .arg(env!("CARGO_BIN_EXE_tinyres"))
        .args([&set, &out])
        .output()
        .unwrap();
    assert!(
        packed.status.success(),
        "{}",
        String::from_utf8_lossy(&packed.stderr)
    );
    let manifest = Manifest::load(&out).unwrap();
    assert_eq!(manifest.splits[0].shards[0].images, 600);
}

/// Each keeps a temporary file open: the program raises its soft limit.
#[test]
fn more_compressed_shards_than_the_soft_limit_of_open_files_are_packed() {
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set");
    fs::create_dir(&set).unwrap();
    for shard in 0..60 {
        let path = set.join(format!("train-{shard:03}.tar.gz"));
        fs::copy(golden("webdataset-one.tar.gz"), path).unwrap();
    }
    let out = dir.path().join("out");
    let packed = std::process::Command::new("sh")
        .args(["-c", "ulimit -S -n 40 && exec \"$0\" pack \"$1\" -o \"$2\""])
        .arg(env!("CARGO_BIN_EXE_tinyres"))
        .args([&set, &out])
        .output()
        .unwrap();
    assert!(
        packed.status.success(),
        "{}",
        String::from_utf8_lossy(&packed.stderr)
    );
    let manifest = Manifest::load(&out).unwrap();
    assert_eq!(manifest.splits[0].shards[0].images, 360);
}
