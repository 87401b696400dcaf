use std::sync::LazyLock;

use serde_json::Value;
use tinyres_format::{Manifest, Metadata, Shape, Shard, Split};

use super::forge;

/// Any bytes as the metadata of a shard that is whole but for them.
pub fn metadata(data: &[u8]) -> bool {
    let shard = match with_metadata(data) {
        Ok(shard) => shard,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let metadata = shard.metadata();
    assert!(metadata.shard < metadata.shards && metadata.grey <= 2);
    assert!(std::str::from_utf8(data).is_ok());
    if let Ok(json) = serde_json::from_slice(data) {
        compare(metadata, &json);
    } // else there is a number or an escape past what it takes, in a field that nobody reads.

    let text = serde_json::to_vec(metadata).expect("it came from JSON");
    let again = with_metadata(&text).expect("what we wrote");
    assert_eq!(again.metadata(), metadata);
    true
}

/// Compares what was read with the JSON, wherever that has a field of that name: `serde` takes an
/// array of the values for an object, too.
fn compare(metadata: &Metadata, json: &Value) {
    let same = |value: &Value, field: &str, read: Value| {
        assert!(
            value.get(field).is_none_or(|value| *value == read),
            "{field}"
        );
    };
    same(json, "creator", metadata.creator.as_str().into());
    same(json, "fingerprint", metadata.fingerprint.to_string().into());
    same(json, "split", metadata.split.name().into());
    same(json, "shard", metadata.shard.into());
    same(json, "shards", metadata.shards.into());
    same(json, "grey", metadata.grey.into());
    let pairs = |list: &str, read: Vec<[&str; 2]>, fields: [&str; 2]| {
        let Some(items) = json.get(list) else { return };
        let items = items.as_array().expect("it was read as a list");
        assert_eq!(items.len(), read.len());
        for (item, read) in items.iter().zip(read) {
            (0..2).for_each(|at| same(item, fields[at], read[at].into()));
        }
    };
    let refused = metadata.refused.iter();
    let refused = refused.map(|it| [&*it.name, &*it.reason]).collect();
    pairs("refused", refused, ["name", "reason"]);
    let classes = metadata.classes.iter();
    let classes = classes.map(|it| [&*it.id, &*it.name]).collect();
    pairs("classes", classes, ["id", "name"]);
}

/// Any bytes as `dataset.json`, checked against a shard that it may or may not list.
pub fn manifest(data: &[u8]) -> bool {
    let manifest = match Manifest::parse(data) {
        Ok(manifest) => manifest,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    assert!(std::str::from_utf8(data).is_ok());
    let text = serde_json::to_vec(&manifest).expect("it came from JSON");
    assert_eq!(Manifest::parse(&text).expect("what we wrote"), manifest);

    let Shape {
        channels,
        height,
        width,
    } = manifest.shape;
    assert!(channels == 3 && (1..=65_535).contains(&height) && (1..=65_535).contains(&width));
    assert!(
        manifest
            .splits
            .iter()
            .map(|entry| entry.split)
            .is_sorted_by(|a, b| a < b)
    );
    for split in [Split::Train, Split::Val, Split::Test] {
        let entry = manifest.splits.iter().find(|entry| entry.split == split);
        assert_eq!(manifest.split(split), entry);
    }
    let shard = &*SHARD;
    for entry in &manifest.splits {
        let images: u128 = entry
            .shards
            .iter()
            .map(|shard| u128::from(shard.images))
            .sum();
        assert_eq!(images, entry.images.into());
        for index in 0..=entry.shards.len() {
            let Some(listed) = entry.shards.get(index) else {
                assert!(manifest.check(entry, index, shard).is_err());
                continue;
            };
            assert_eq!(listed.file, format!("{}-{index:05}.bin", entry.split));
            let same_set = (manifest.fingerprint, manifest.shape, manifest.classes)
                == (shard.metadata().fingerprint, Shape::rgb(1), 1);
            let same_place = (entry.split, index, entry.shards.len()) == (Split::Val, 0, 1);
            let same_file = (listed.images, listed.bytes, listed.digest)
                == (2, shard.bytes().len() as u64, shard.digest());
            let checked = manifest.check(entry, index, shard);
            assert_eq!(
                checked.is_ok(),
                same_set && same_place && same_file,
                "{checked:?}"
            );
        }
    }
    true
}

/// The shard that `seeds/manifest/whole.json` lists.
static SHARD: LazyLock<Shard<Vec<u8>>> = LazyLock::new(|| {
    let metadata = include_bytes!("../seeds/metadata/whole.json");
    with_metadata(metadata).expect("good metadata")
});

/// A shard of two images of one pixel.
fn with_metadata(metadata: &[u8]) -> tinyres_format::Result<Shard<Vec<u8>>> {
    let sections = [
        &[1, 2, 3, 4, 5, 6][..],
        &[0; 4],
        &[0xFF; 16],
        &[0xFF; 32],
        &[0; 12],
        &[],
        metadata,
    ];
    Shard::new(forge::shard(2, [1, 1], sections))
}
