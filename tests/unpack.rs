//! `tinyres unpack`, as a user runs it. `python/tests/test_unpack.py` reads its files with torchvision and `datasets`.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Tree, failure, tinyres};
use tinyres_format::{LeI32, LeI64, Manifest, Shard};

fn run(dir: &Path, args: &[&str]) {
    tinyres().current_dir(dir).args(args).assert().success();
}

/// An image, its label and its box.
type Row = (Vec<u8>, i64, [i32; 4]);

/// The classes of a set, and the images of each split, sorted.
fn content(set: &Path) -> (Vec<(String, String)>, Vec<Vec<Row>>) {
    let manifest = Manifest::load(set).unwrap();
    let mut classes = Vec::new();
    let mut splits = Vec::new();
    for entry in &manifest.splits {
        let mut rows = Vec::new();
        for listed in &entry.shards {
            let shard = Shard::new(fs::read(set.join(&listed.file)).unwrap()).unwrap();
            shard.verify().unwrap();
            let of_shard = shard.metadata().classes.iter();
            classes = of_shard
                .map(|it| (it.id.clone(), it.name.clone()))
                .collect();
            rows.extend((0..shard.len()).map(|at| {
                let pixels = shard.image(at).unwrap().to_vec();
                let label = LeI64::get(shard.labels()[at]);
                (pixels, label, shard.boxes()[at].map(LeI32::get))
            }));
        }
        rows.sort();
        splits.push(rows);
    }
    (classes, splits)
}

/// All files in a directory and in those inside it, by path.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => pending.push(path),
                false => {
                    let name = path.strip_prefix(dir).unwrap().to_owned();
                    found.insert(name, fs::read(path).unwrap());
                }
            }
        }
    }
    found
}

#[test]
fn packing_what_was_unpacked_gives_the_same_classes_images_labels_and_boxes() {
    let dir = tempfile::tempdir().unwrap();
    Tree::small().write_dir(&dir.path().join("set"));
    run(
        dir.path(),
        &["pack", "set", "-o", "shards", "--shard-images", "7"],
    );
    run(dir.path(), &["unpack", "shards", "images"]);
    run(dir.path(), &["pack", "images", "-o", "again"]);
    let expected = content(&dir.path().join("shards"));
    assert!(expected.1[0].iter().any(|(_, _, sides)| sides[0] >= 0));
    assert_eq!(expected.1.len(), 3);
    let ids: Vec<_> = expected.0.iter().map(|(id, _)| id).collect();
    assert!(
        !ids.is_sorted(),
        "the order of the classes is that of the file"
    );
    assert!(content(&dir.path().join("again")) == expected);
}

#[test]
fn a_compressed_set_gives_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    Tree::small().write_dir(&dir.path().join("set"));
    run(dir.path(), &["pack", "set", "-o", "raw"]);
    run(dir.path(), &["pack", "set", "-o", "small", "--zstd"]);
    run(dir.path(), &["unpack", "raw", "a"]);
    run(dir.path(), &["unpack", "small", "b"]);
    let [a, b] = ["a", "b"].map(|name| tree(&dir.path().join(name)));
    assert_eq!(
        a.len(),
        10 + 3 + 12 + 4,
        "images of three splits, and CSV files"
    );
    assert!(a == b);
}

#[test]
fn damage_or_a_directory_in_use_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    Tree::small().write_dir(&dir.path().join("set"));
    run(dir.path(), &["pack", "set", "-o", "shards"]);
    let unpack = |to: &str| {
        let mut command = tinyres();
        command
            .current_dir(dir.path())
            .args(["unpack", "shards", to]);
        failure(&mut command, 1)
    };
    fs::create_dir(dir.path().join("full")).unwrap();
    fs::write(dir.path().join("full/mine"), "").unwrap();
    assert!(unpack("full").contains("is not an empty directory"));
    let shard = dir.path().join("shards/train-00000.bin");
    let mut bytes = fs::read(&shard).unwrap();
    bytes[5000] ^= 1;
    fs::write(&shard, &bytes).unwrap();
    let error = unpack("images");
    assert!(
        error.contains("train-00000.bin") && error.contains("checksum"),
        "{error}"
    );
    bytes.truncate(bytes.len() - 1);
    fs::write(&shard, &bytes).unwrap();
    assert!(unpack("images").contains("train-00000.bin"));
    let mut left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["full", "set", "shards"]);
}

#[test]
fn a_folder_or_an_image_that_is_listed_twice_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Tree::small().write_dir(&dir.path().join("set"));
    run(dir.path(), &["pack", "set", "-o", "shards"]);
    run(dir.path(), &["unpack", "shards", "images"]);
    let add = |file: &str, line: &dyn Fn(&str) -> String| {
        let path = dir.path().join("images").join(file);
        let mut text = fs::read_to_string(&path).unwrap();
        text += &line(text.lines().last().unwrap());
        fs::write(path, text + "\n").unwrap();
    };
    add("classes.csv", &|last| {
        let (label, rest) = last.split_once(',').unwrap();
        format!("{},{rest}", label.parse::<u32>().unwrap() + 1)
    });
    add("train/metadata.csv", &str::to_owned);
    let mut again = tinyres();
    again
        .current_dir(dir.path())
        .args(["pack", "images", "-o", "again"]);
    let error = failure(&mut again, 1);
    for start in [
        "classes.csv: lists the class folder ",
        "train/metadata.csv: lists ",
    ] {
        let line = error.lines().find(|line| line.contains(start));
        assert!(
            line.is_some_and(|line| line.contains(" twice, expected once")),
            "{error}"
        );
    }
}
