//! The golden shard, written by `tools/witness/golden_shard.py` from `SPEC.md`, against this crate.

use tinyres_format::{Class, Columns, Digest, Metadata, Refused, Shape, Shard, Split, Writer};

const GOLDEN: &[u8] = include_bytes!("golden/train-00001.bin");
const COUNT: usize = 18;
const SHAPE: Shape = Shape {
    channels: 3,
    height: 2,
    width: 5,
};

fn pixels(image: usize) -> Vec<u8> {
    let mut pixels = Vec::new();
    for c in 0..3 {
        for y in 0..2 {
            for x in 0..5 {
                pixels.push(u8::try_from((7 * image + 31 * c + 13 * y + 5 * x) % 256).unwrap());
            }
        }
    }
    pixels
}

fn label(image: usize) -> i64 {
    i64::try_from(image % 4).unwrap() - 1
}

fn sides(image: usize) -> [i32; 4] {
    let rest = |by: usize| i32::try_from(image % by).unwrap();
    if image.is_multiple_of(5) {
        [-1; 4]
    } else {
        [rest(3), rest(2), 4 - rest(2), 1]
    }
}

fn name(image: usize) -> String {
    if image == 7 {
        String::new()
    } else {
        format!("train/é{image}.JPEG")
    }
}

fn class(id: &str, name: &str) -> Class {
    Class {
        id: id.into(),
        name: name.into(),
    }
}

fn metadata() -> Metadata {
    Metadata {
        creator: "golden_shard.py".into(),
        fingerprint: Digest::try_from("0123456789abcdef".repeat(4)).unwrap(),
        split: Split::Train,
        shard: 1,
        shards: 3,
        grey: 5,
        warned: vec![],
        refused: vec![Refused {
            name: "train/bad.JPEG".into(),
            reason: "cut short".into(),
        }],
        classes: vec![
            class("n02124075", "Egyptian cat"),
            class("n04067472", "reel"),
            class("n04540053", "volleyball"),
        ],
    }
}

#[test]
fn bytes_stand_at_the_offsets_of_the_specification() {
    let u32_at = |at: usize| u32::from_le_bytes(GOLDEN[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(GOLDEN[at..at + 8].try_into().unwrap());
    assert_eq!(
        GOLDEN[..8],
        [0x89, 0x54, 0x52, 0x53, 0x0d, 0x0a, 0x1a, 0x0a]
    );
    assert_eq!((u32_at(8), u32_at(12)), (1, 0), "version, flags");
    assert_eq!(u64_at(16), GOLDEN.len() as u64);
    assert_eq!(u64_at(24), 18);
    let small = [32, 36, 40, 44, 48, 52].map(u32_at);
    assert_eq!(small, [3, 2, 5, 0, 16, 7]);
    let sections = [0, 1, 2, 3, 4, 5, 6].map(|at| (u64_at(64 + 24 * at), u64_at(72 + 24 * at)));
    assert_eq!(
        sections[..5],
        [(4096, 540), (4672, 8), (4736, 144), (4928, 288), (5248, 76)]
    );
    assert_eq!(u32_at(4092), crc32fast::hash(&GOLDEN[..4092]));
    assert_eq!(
        GOLDEN[4096 + 30..][..5],
        [7, 12, 17, 22, 27],
        "image 1, red, first row"
    );
    let (block, last) = GOLDEN[4096..4096 + 18 * 30].split_at(16 * 30);
    assert_eq!(
        [4672, 4676].map(u32_at),
        [block, last].map(crc32fast::hash),
        "checksums of blocks"
    );
    assert_eq!(u64_at(4736), u64::MAX, "image 0 has no label");
    assert_eq!(
        [4928 + 16, 4948, 4952, 4956].map(u32_at),
        [1, 1, 3, 1],
        "box of image 1"
    );
}

#[test]
fn the_reader_reads_the_golden_shard() {
    let shard = Shard::new(GOLDEN).unwrap();
    shard.verify().unwrap();
    assert_eq!(
        (shard.len(), shard.shape(), shard.blocks()),
        (COUNT, SHAPE, 2)
    );
    assert_eq!(shard.metadata(), &metadata());
    for image in 0..COUNT {
        assert_eq!(shard.image(image), Some(&pixels(image)[..]));
        assert_eq!(shard.labels()[image].get(), label(image));
        assert_eq!(shard.boxes()[image].map(|side| side.get()), sides(image));
        assert_eq!(shard.name(image).unwrap().unwrap(), name(image));
    }
    assert!(shard.image(COUNT).is_none() && shard.name(COUNT).is_none());
}

#[test]
fn the_writer_writes_the_golden_shard() {
    let dir = tempfile::tempdir().unwrap();
    // However the images are handed over.
    for chunk in [1, 7, 16, 18] {
        let path = dir.path().join("train-00001.bin");
        let mut writer = Writer::create(&path, SHAPE).unwrap();
        for first in (0..COUNT).step_by(chunk) {
            let images = first..COUNT.min(first + chunk);
            writer
                .append(&images.flat_map(pixels).collect::<Vec<_>>())
                .unwrap();
        }
        let columns = Columns {
            labels: (0..COUNT).map(label).collect(),
            boxes: (0..COUNT).map(sides).collect(),
            names: (0..COUNT).map(name).collect(),
        };
        let published = writer.finish(&columns, &metadata()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes == GOLDEN, "handed over by {chunk}");
        assert_eq!(
            (published.images, published.bytes),
            (18, GOLDEN.len() as u64)
        );
        assert_eq!(published.digest, Shard::new(GOLDEN).unwrap().digest());
        assert_eq!(published.digest, Digest::of(&GOLDEN[..4096]));
    }
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "no temporary file is left"
    );
}

#[test]
fn constants_that_never_change() {
    assert_eq!(
        (tinyres_format::PAGE, tinyres_format::BLOCK_IMAGES),
        (4096, 16)
    );
    assert_eq!(tinyres_format::VERSION, 1);
    assert_eq!(tinyres_format::MANIFEST, "dataset.json");
    assert_eq!(Split::Val.shard_name(12), "val-00012.bin");
}
