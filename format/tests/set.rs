//! Sets of shards: `dataset.json`, and files that appear whole or not at all.

use std::num::NonZeroU32;
use std::path::Path;

use tinyres_format::{
    Class, Columns, Digest, Error, MANIFEST, Manifest, Metadata, SetOptions, SetWriter, Shape,
    Shard, Split, SplitEntry, Writer, publish,
};

const SHAPE: Shape = Shape {
    channels: 3,
    height: 1,
    width: 2,
};

fn metadata(shard: u32) -> Metadata {
    Metadata {
        creator: "test".into(),
        fingerprint: Digest::of(b"the set"),
        split: Split::Val,
        shard,
        shards: 2,
        grey: 0,
        refused: vec![],
        warned: vec![],
        classes: vec![Class {
            id: "n1".into(),
            name: "one".into(),
        }],
    }
}

fn columns(images: usize) -> Columns {
    Columns {
        labels: vec![0; images],
        boxes: vec![[0, 0, 1, 0]; images],
        names: (0..images).map(|image| format!("{image}.jpg")).collect(),
    }
}

/// Writes a set of two shards to `dir`, with one and two images.
fn write_set(dir: &Path) -> Manifest {
    let options = SetOptions {
        shape: SHAPE,
        classes: metadata(0).classes,
        creator: "test".into(),
        fingerprint: Digest::of(b"the set"),
        shard_images: NonZeroU32::new(2).unwrap(),
    };
    let mut set = SetWriter::create(dir, options).unwrap();
    for images in [1, 2] {
        set.begin_shard(Split::Val).unwrap();
        for image in 0..images {
            set.image(
                Split::Val,
                &[7; 6],
                0,
                [0, 0, 1, 0],
                &format!("{image}.jpg"),
            )
            .unwrap();
        }
    }
    set.finish().unwrap()
}

#[test]
fn a_set_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let written = write_set(dir.path());
    let read = Manifest::load(dir.path()).unwrap();
    assert_eq!(read, written);
    let entry = read.split(Split::Val).unwrap();
    for (index, shard) in entry.shards.iter().enumerate() {
        let shard = Shard::new(std::fs::read(dir.path().join(&shard.file)).unwrap()).unwrap();
        read.check(entry, index, &shard).unwrap();
        let other = read.check(entry, 1 - index, &shard);
        assert!(
            matches!(
                other,
                Err(Error::Foreign {
                    what: "the shard's index",
                    ..
                })
            ),
            "{other:?}"
        );
    }
    assert!(read.split(Split::Train).is_none());
}

#[test]
fn a_shard_of_another_pack_is_foreign() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = write_set(dir.path());
    let entry = manifest.split(Split::Val).unwrap();
    let mut pixels = vec![7; 6];
    pixels[0] = 8;
    let path = dir.path().join("val-00000.bin");
    let check = |metadata: &Metadata, pixels: &[u8]| {
        let mut writer = Writer::create(&path, SHAPE).unwrap();
        writer.append(pixels).unwrap();
        writer.finish(&columns(pixels.len() / 6), metadata).unwrap();
        let shard = Shard::new(std::fs::read(&path).unwrap()).unwrap();
        match manifest.check(entry, 0, &shard) {
            Err(Error::Foreign { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    };
    // One pixel differs: the digest stands for all bytes.
    assert_eq!(check(&metadata(0), &pixels), "the header's SHA-256");
    assert_eq!(check(&metadata(0), &[7; 12]), "the number of images");
    let other = Metadata {
        fingerprint: Digest::of(b"another"),
        ..metadata(0)
    };
    assert_eq!(check(&other, &[7; 6]), "the set's fingerprint");
    let other = Metadata {
        split: Split::Train,
        ..metadata(0)
    };
    assert_eq!(check(&other, &[7; 6]), "the split");
    let other = Metadata {
        shards: 3,
        ..metadata(0)
    };
    assert_eq!(check(&other, &[7; 6]), "the number of shards");
}

#[test]
fn a_directory_without_a_manifest_is_unfinished() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path());
    std::fs::remove_file(dir.path().join(MANIFEST)).unwrap();
    let error = Manifest::load(dir.path()).unwrap_err();
    assert!(matches!(&error, Error::At { source, .. } if matches!(**source, Error::Unfinished)));
    assert!(
        error
            .to_string()
            .starts_with(&dir.path().display().to_string()),
        "{error}"
    );
    let missing = Manifest::load(&dir.path().join("nowhere")).unwrap_err();
    assert!(missing.to_string().contains("nowhere"), "{missing}");
    assert!(matches!(&missing, Error::At { source, .. } if matches!(**source, Error::Io(_))));
}

#[test]
fn an_oversize_manifest_is_too_large_not_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join(MANIFEST)).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    let error = Manifest::load(dir.path()).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "dataset.json: the manifest is too large: 67108865 bytes, at most 67108864 bytes are \
             allowed; pack the set again with --force and more images in each shard"
        ),
        "{error}"
    );
}

#[test]
fn oversize_metadata_is_too_large_not_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Writer::create(&dir.path().join("val-00000.bin"), SHAPE).unwrap();
    let mut large = metadata(0);
    large.classes[0].name = "x".repeat(16 << 20);
    let error = writer.finish(&columns(0), &large).unwrap_err().to_string();
    assert!(
        error.starts_with("the metadata is too large: 1677"),
        "{error}"
    );
    assert!(
        error.contains("at most 16777216 bytes are allowed; use fewer"),
        "{error}"
    );
}

#[test]
fn a_manifest_that_contradicts_itself() {
    let dir = tempfile::tempdir().unwrap();
    let good = write_set(dir.path());
    let json = |manifest: &Manifest| serde_json::to_vec(manifest).unwrap();
    let refused = |change: &dyn Fn(&mut Manifest), says: &str| {
        let mut manifest = good.clone();
        change(&mut manifest);
        let error = Manifest::parse(&json(&manifest)).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    };
    assert_eq!(Manifest::parse(&json(&good)).unwrap(), good);
    refused(&|m| m.version = 2, "version 2");
    refused(&|m| m.shape = Shape::rgb(0), "images of 3x0x0");
    refused(&|m| m.shape.width = u32::MAX, "images of 3x1x4294967295");
    refused(&|m| m.splits.push(m.splits[0].clone()), "listed twice");
    let train = SplitEntry {
        split: Split::Train,
        images: 0,
        shards: vec![],
    };
    refused(
        &|m| m.splits.push(train.clone()),
        "split train is listed after val",
    );
    refused(&|m| m.splits[0].images = 4, "has 4 images");
    refused(&|m| m.splits[0].shards[1].images = u64::MAX, "has 3 images");
    refused(
        &|m| m.splits[0].shards.swap(0, 1),
        "expected \"val-00000.bin\"",
    );
    refused(
        &|m| m.splits[0].shards[0].file = "../val-00000.bin".into(),
        "../val-00000.bin",
    );
    assert!(Manifest::parse(b"{}").is_err() && Manifest::parse(b"").is_err());
}

#[test]
fn a_writer_refuses_what_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("val-00000.bin");
    let writer = |images: usize| {
        let mut writer = Writer::create(&path, SHAPE).unwrap();
        writer.append(&vec![7; images * 6]).unwrap();
        writer
    };
    let odd = writer(1).append(&[0; 7]);
    assert!(
        matches!(odd, Err(Error::Mismatch { got: 1, .. })),
        "{odd:?}"
    );
    let few = writer(2).finish(&columns(1), &metadata(0));
    assert!(
        matches!(
            few,
            Err(Error::Mismatch {
                what: "labels",
                got: 1,
                expected: 2
            })
        ),
        "{few:?}"
    );
    let label = Columns {
        labels: vec![1],
        ..columns(1)
    };
    assert!(matches!(
        writer(1).finish(&label, &metadata(0)),
        Err(Error::Label { got: 1, .. })
    ));
    let sides = Columns {
        boxes: vec![[0, 0, 2, 0]],
        ..columns(1)
    };
    assert!(matches!(
        writer(1).finish(&sides, &metadata(0)),
        Err(Error::Box { .. })
    ));
    let flat = Writer::create(&path, Shape { height: 0, ..SHAPE });
    assert!(
        matches!(
            flat,
            Err(Error::Field {
                field: "height",
                ..
            })
        ),
        "{flat:?}"
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing is left"
    );
}

#[test]
fn an_empty_shard_is_a_shard() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("val-00000.bin");
    Writer::create(&path, SHAPE)
        .unwrap()
        .finish(&columns(0), &metadata(0))
        .unwrap();
    let shard = Shard::new(std::fs::read(&path).unwrap()).unwrap();
    shard.verify().unwrap();
    assert!(shard.is_empty() && shard.image(0).is_none() && shard.blocks() == 0);
}

#[test]
fn a_draft_appears_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "old").unwrap();
    let draft = publish::AtomicFile::create(&path).unwrap();
    std::io::Write::write_all(&mut draft.file(), b"half").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    drop(draft);
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "the draft is gone"
    );
    // What a killed process left is no obstacle.
    std::fs::write(dir.path().join(".file.tmp"), "a longer leftover").unwrap();
    publish::write(&path, b"new").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(publish::AtomicFile::create(Path::new("/")).is_err());
}
