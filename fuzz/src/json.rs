use std::sync::LazyLock;

use serde_json::Value;
use tinyres_format::{Manifest, Shape, Shard, Split};

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
    let json: Value = serde_json::from_slice(data).expect("it was read as JSON");
    assert_eq!(json["creator"], metadata.creator.as_str());
    assert_eq!(json["fingerprint"], metadata.fingerprint.to_string());
    assert_eq!(json["split"], metadata.split.name());
    for (field, number) in [
        ("shard", metadata.shard.into()),
        ("shards", metadata.shards.into()),
        ("grey", metadata.grey),
    ] {
        assert_eq!(json[field], number, "{field}");
    }
    let pairs = |field: &str, names: [&str; 2]| -> Vec<[String; 2]> {
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let list = json[field].as_array().expect("an array");
        list.iter()
            .map(|item| names.map(|name| text(&item[name])))
            .collect()
    };
    let refused = metadata.refused.iter().cloned();
    assert!(
        refused
            .map(|it| [it.name, it.reason])
            .eq(pairs("refused", ["name", "reason"]))
    );
    let classes = metadata.classes.iter().cloned();
    assert!(
        classes
            .map(|it| [it.id, it.name])
            .eq(pairs("classes", ["id", "name"]))
    );

    let text = serde_json::to_vec(metadata).expect("it came from JSON");
    let again = with_metadata(&text).expect("what we wrote");
    assert_eq!(again.metadata(), metadata);
    true
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
