//! `SetWriter`: the set it writes, and what it leaves behind where it does not finish.

use std::fs;
use std::num::NonZeroU32;
use std::path::Path;

use tinyres_format::{
    Class, Columns, Digest, Error, MANIFEST, Manifest, Metadata, SetOptions, SetWriter, Shape,
    Shard, Split, Writer,
};

const SHAPE: Shape = Shape {
    channels: 3,
    height: 1,
    width: 2,
};

fn options() -> SetOptions {
    let class = |id: &str| Class {
        id: id.into(),
        name: format!("class {id}"),
    };
    SetOptions {
        shape: SHAPE,
        classes: vec![class("n1"), class("n2")],
        creator: "test".into(),
        fingerprint: Digest::of(b"the set"),
        shard_images: NonZeroU32::new(20).unwrap(),
    }
}

fn pixels(split: Split, image: usize) -> Vec<u8> {
    (0..6)
        .map(|at| u8::try_from(split as usize * 90 + image + at * 7).unwrap())
        .collect()
}

fn label(image: usize) -> i64 {
    i64::try_from(image % 3).unwrap() - 1
}

fn sides(image: usize) -> [i32; 4] {
    [[-1; 4], [0, 0, 1, 0]][image % 2]
}

fn add(set: &mut SetWriter, split: Split, image: usize) {
    set.image(
        split,
        &pixels(split, image),
        label(image),
        sides(image),
        &format!("{split}/{image}.JPEG"),
    )
    .unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn shards_have_the_bytes_that_writer_gives_them() {
    let dir = tempfile::tempdir().unwrap();
    let (set, alone) = (dir.path().join("set"), dir.path().join("alone.bin"));
    let mut writer = SetWriter::create(&set, options()).unwrap();
    // Splits may take turns, and come in any order.
    for image in 0..50 {
        if image < 20 {
            add(&mut writer, Split::Val, image);
        }
        add(&mut writer, Split::Train, image);
    }
    let manifest = writer.finish().unwrap();
    assert_eq!(manifest, Manifest::load(&set).unwrap());
    let listed: Vec<_> = (manifest.shards())
        .map(|shard| (&shard.file[..], shard.images))
        .collect();
    let expected = [
        ("train-00000.bin", 20),
        ("train-00001.bin", 20),
        ("train-00002.bin", 10),
        ("val-00000.bin", 20),
    ];
    assert_eq!(listed, expected);
    let files = expected.map(|(file, _)| file);
    assert_eq!(names(&set), [&[MANIFEST], &files[..]].concat());

    for entry in &manifest.splits {
        let mut first = 0;
        for (index, listed) in entry.shards.iter().enumerate() {
            let images = first..first + usize::try_from(listed.images).unwrap();
            first = images.end;
            let mut writer = Writer::create(&alone, SHAPE).unwrap();
            for image in images.clone() {
                writer.append(&pixels(entry.split, image)).unwrap();
            }
            let columns = Columns {
                labels: images.clone().map(label).collect(),
                boxes: images.clone().map(sides).collect(),
                names: images
                    .map(|image| format!("{}/{image}.JPEG", entry.split))
                    .collect(),
            };
            let metadata = Metadata {
                creator: "test".into(),
                fingerprint: Digest::of(b"the set"),
                split: entry.split,
                shard: u32::try_from(index).unwrap(),
                shards: u32::try_from(entry.shards.len()).unwrap(),
                grey: 0,
                refused: vec![],
                warned: vec![],
                classes: options().classes,
            };
            let written = writer.finish(&columns, &metadata).unwrap();
            assert_eq!(written.file, "alone.bin");
            assert_eq!(written.digest, listed.digest);
            let bytes = fs::read(set.join(&listed.file)).unwrap();
            assert!(bytes == fs::read(&alone).unwrap(), "{}", listed.file);
            let shard = Shard::new(bytes).unwrap();
            shard.verify().unwrap();
            manifest.check(entry, index, &shard).unwrap();
        }
    }
}

#[test]
fn begin_shard_ends_the_one_before_early() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SetWriter::create(dir.path(), options()).unwrap();
    for images in [3, 0, 21] {
        writer.begin_shard(Split::Test).unwrap();
        (0..images).for_each(|image| add(&mut writer, Split::Test, image));
    }
    let manifest = writer.finish().unwrap();
    let images: Vec<_> = manifest.shards().map(|shard| shard.images).collect();
    assert_eq!(images, [3, 0, 20, 1]);
}

#[test]
fn dropped_unfinished_it_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set");
    let mut writer = SetWriter::create(&set, options()).unwrap();
    (0..30).for_each(|image| add(&mut writer, Split::Train, image));
    assert_eq!(names(&set).len(), 2, "two temporary files");
    drop(writer);
    assert!(!set.exists(), "it created the directory, and removes it");

    fs::write(dir.path().join("mine"), "").unwrap();
    let mut writer = SetWriter::create(dir.path(), options()).unwrap();
    add(&mut writer, Split::Train, 0);
    drop(writer);
    assert_eq!(names(dir.path()), ["mine"]);
}

#[test]
fn a_failed_finish_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set");
    let mut writer = SetWriter::create(&set, options()).unwrap();
    (0..30).for_each(|image| add(&mut writer, Split::Train, image));
    // The manifest cannot replace a directory, which is the last step.
    fs::create_dir(set.join(MANIFEST)).unwrap();
    let error = writer.finish().unwrap_err();
    assert!(error.to_string().contains(MANIFEST), "{error}");
    assert_eq!(names(&set), [MANIFEST]);
}

#[test]
fn an_image_that_is_refused_is_not_part_of_the_set() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SetWriter::create(dir.path(), options()).unwrap();
    let (split, good) = (Split::Train, pixels(Split::Train, 0));
    let long = writer.image(split, &[0; 12], 0, [-1; 4], "");
    assert!(
        matches!(
            long,
            Err(Error::Mismatch {
                got: 12,
                expected: 6,
                ..
            })
        ),
        "{long:?}"
    );
    let label = writer.image(split, &good, 2, [-1; 4], "");
    assert!(matches!(label, Err(Error::Label { got: 2, .. })));
    let sides = writer.image(split, &good, 1, [0, 0, 2, 0], "");
    assert!(matches!(sides, Err(Error::Box { .. })));
    assert!(names(dir.path()).is_empty());
    add(&mut writer, split, 7);
    let manifest = writer.finish().unwrap();
    assert_eq!(manifest.splits[0].images, 1);
}

#[test]
fn a_directory_with_shards_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SetWriter::create(dir.path(), options()).unwrap();
    add(&mut writer, Split::Train, 0);
    let other = SetWriter::create(dir.path(), options()).unwrap_err();
    assert!(other.to_string().contains("another process"), "{other}");
    writer.finish().unwrap();
    for left in [2, 1] {
        assert_eq!(names(dir.path()).len(), left);
        let error = SetWriter::create(dir.path(), options()).unwrap_err();
        assert!(error.to_string().contains("choose another"), "{error}");
        assert_eq!(names(dir.path()).len(), left, "nothing is lost");
        let _ = fs::remove_file(dir.path().join(MANIFEST));
    }
    fs::remove_file(dir.path().join("train-00000.bin")).unwrap();
    SetWriter::create(dir.path(), options()).unwrap();
}

#[test]
fn a_refused_image_shows_name_and_reason() {
    let refused = tinyres_format::Refused {
        name: "train/bad.JPEG".into(),
        reason: "cut short".into(),
    };
    assert_eq!(refused.to_string(), "train/bad.JPEG: cut short");
}
