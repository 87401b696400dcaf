//! The transport form: the identical shard comes back, or a named error, whatever was done to it.

use std::cell::RefCell;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use proptest::prelude::*;
use tinyres_format::transport::{Expander, Frame, Level, MAX_FRAME, ReadAt, compress};
use tinyres_format::{
    Class, Columns, Digest, Error, Metadata, PAGE, Part, Result, Shape, Shard, Split, Writer,
    ZstdShard,
};

/// A raw shard of 18 images of 3 x 2 x 5: header, two blocks, the rest.
const RAW: &[u8] = include_bytes!("golden/train-00001.bin");
/// The same, compressed by `tools/witness/transport.py` with Python's zstandard.
const FOREIGN: &[u8] = include_bytes!("golden/train-00001.bin.zst");
/// Offsets of the parts of [`RAW`].
const PARTS: [Range<usize>; 4] = [0..4096, 4096..4576, 4576..4636, 4636..RAW.len()];

fn in_turn(blocks: Range<u64>, job: &(dyn Fn(u64) -> Result<Frame> + Sync)) -> Result<Vec<Frame>> {
    blocks.map(job).collect()
}

fn compressed(raw: &[u8], level: i32) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard");
    let len = compress(&raw, &path, Level::new(level).unwrap(), in_turn).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(len, bytes.len() as u64);
    bytes
}

/// What [`ZstdShard::expand`] publishes.
fn expanded(transport: &[u8]) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard");
    let result = expand_to(&path, transport);
    if result.is_err() {
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    result.map(|()| std::fs::read(&path).unwrap())
}

fn expand_to(path: &Path, transport: &[u8]) -> Result<()> {
    let shard = ZstdShard::open(transport)?;
    let draft = shard.expand(path, |blocks, job| (0..blocks).try_for_each(job))?;
    assert!(!path.exists(), "not before it is published");
    Ok(draft.publish()?)
}

/// All that [`ZstdShard::expand`] compares, without a file: the raw shard.
fn expanded_in_memory(transport: &[u8]) -> Result<Vec<u8>> {
    let shard = ZstdShard::open(transport)?;
    shard.verify_columns()?;
    let mut raw = shard.part(Part::Header).to_vec();
    let mut expander = Expander::new()?;
    for block in 0..shard.blocks() {
        raw.extend(shard.expand_block(block, &mut expander)?);
    }
    raw.extend(shard.part(Part::Tail));
    Ok(raw)
}

/// What a tool that knows nothing of shards makes of the file: one stream, frame after frame.
fn streamed(transport: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    let mut stream = zstd::stream::read::Decoder::new(transport).unwrap();
    stream.read_to_end(&mut raw).unwrap();
    raw
}

#[test]
fn every_level_gives_back_the_shard() {
    for level in 1..=22 {
        let transport = compressed(RAW, level);
        assert!(expanded(&transport).unwrap() == RAW, "level {level}");
        assert!(streamed(&transport) == RAW, "level {level}");
    }
    assert!(matches!(Level::new(0), Err(Error::Level { got: 0 })));
    assert!(matches!(Level::new(23), Err(Error::Level { got: 23 })));
}

#[test]
fn a_file_made_by_another_program() {
    assert!(expanded(FOREIGN).unwrap() == RAW);
}

#[test]
fn bytes_stand_as_the_specification_says() {
    let transport = compressed(RAW, 3);
    let u32_at = |at: usize| u32::from_le_bytes(transport[at..at + 4].try_into().unwrap());
    let len = transport.len();
    assert_eq!(u32_at(len - 4), 0x8F92_EAB1);
    assert_eq!((u32_at(len - 9), transport[len - 5]), (4, 0));
    let table = len - 9 - 4 * 8;
    assert_eq!((u32_at(table - 8), u32_at(table - 4)), (0x184D_2A5E, 41));
    let mut at = 0;
    for (frame, part) in PARTS.iter().enumerate() {
        let size = u32_at(table + 8 * frame) as usize;
        assert_eq!(u32_at(table + 8 * frame + 4) as usize, part.len());
        let frame = &transport[at..at + size];
        assert_eq!(frame[..4], [0x28, 0xB5, 0x2F, 0xFD]);
        assert_eq!(frame[4] & 0b100, 0b100, "a checksum, for `zstd --test`");
        assert_eq!(
            zstd::bulk::decompress(frame, 1 << 20).unwrap(),
            RAW[part.clone()]
        );
        at += size;
    }
    assert_eq!(at, table - 8);
}

#[test]
fn all_but_the_pixels_is_there_at_once() {
    let raw = Shard::new(RAW).unwrap();
    let shard = ZstdShard::open(FOREIGN).unwrap();
    shard.verify_columns().unwrap();
    assert_eq!(shard.digest(), raw.digest());
    assert_eq!(shard.metadata(), raw.metadata());
    assert_eq!(shard.name(17).unwrap().unwrap(), "train/é17.JPEG");
    assert_eq!(shard.part(Part::Tail), raw.part(Part::Tail));
    assert_eq!(shard.inner().compressed_len(), FOREIGN.len() as u64);
    assert!(shard.images().iter().all(|&pixel| pixel == 0));
    assert!(shard.verify().is_err(), "no one takes them for pixels");
    let mut expander = Expander::new().unwrap();
    for block in [1, 0, 1] {
        let pixels = shard.expand_block(block, &mut expander).unwrap();
        assert_eq!(pixels, raw.part(Part::Block(block)));
    }
    for block in [2, u64::MAX - 1, u64::MAX] {
        let none = shard.expand_block(block, &mut expander);
        assert!(
            matches!(none, Err(Error::NoBlock { blocks: 2, .. })),
            "{none:?}"
        );
    }
}

#[test]
fn a_raw_shard_and_a_transport_file_are_told_apart() {
    assert!(matches!(Shard::new(FOREIGN), Err(Error::Compressed)));
    assert!(matches!(ZstdShard::open(RAW), Err(Error::NotTransport)));
    let dir = tempfile::tempdir().unwrap();
    let again = compress(
        &FOREIGN,
        &dir.path().join("shard"),
        Level::default(),
        in_turn,
    );
    assert!(matches!(again, Err(Error::Compressed)), "{again:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Neither the order in which blocks are compressed nor what a context did before shows.
#[test]
fn bytes_do_not_depend_on_the_order_of_work() {
    let dir = tempfile::tempdir().unwrap();
    let raw = shard(Shape::rgb(8), 64 * 9 + 5, |at| {
        u8::try_from((at * at / 97 + at / 5) % 251).unwrap()
    });
    for level in [1, 3, 9, 19] {
        let expected = compressed(&raw, level);
        let path = dir.path().join("shard");
        let level = Level::new(level).unwrap();
        let backwards = |blocks: Range<u64>, job: &(dyn Fn(u64) -> Result<Frame> + Sync)| {
            let mut frames: Vec<_> = blocks.rev().map(job).collect::<Result<_>>()?;
            frames.reverse();
            Ok(frames)
        };
        compress(&&raw[..], &path, level, backwards).unwrap();
        assert!(std::fs::read(&path).unwrap() == expected);
        let apart = |blocks: Range<u64>, job: &(dyn Fn(u64) -> Result<Frame> + Sync)| {
            std::thread::scope(|scope| {
                let jobs: Vec<_> = blocks
                    .map(|block| scope.spawn(move || job(block)))
                    .collect();
                jobs.into_iter().map(|job| job.join().unwrap()).collect()
            })
        };
        compress(&&raw[..], &path, level, apart).unwrap();
        assert!(std::fs::read(&path).unwrap() == expected);
    }
}

/// A damaged shard is not compressed: nobody would find out until it is expanded.
#[test]
fn a_damaged_shard_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (at, part) in [
        (0, None),
        (100, Some(Part::Header)),
        (4100, Some(Part::Block(0))),
        (4635, Some(Part::Block(1))),
        (4674, Some(Part::BlockCrcs)),
        (4742, Some(Part::Labels)),
    ] {
        let mut raw = RAW.to_vec();
        raw[at] ^= 1;
        let result = compress(
            &&raw[..],
            &dir.path().join("shard"),
            Level::default(),
            in_turn,
        );
        match (&result, part) {
            (Err(Error::Checksum { part, .. }), Some(expected)) => assert_eq!(*part, expected),
            (Err(Error::Magic { .. }), None) => {}
            _ => panic!("{at}: {result:?}"),
        }
    }
    for len in [0, 7, 4095, 4096, RAW.len() - 1] {
        let cut = compress(
            &&RAW[..len],
            &dir.path().join("shard"),
            Level::default(),
            in_turn,
        );
        assert!(
            matches!(cut, Err(Error::Length { .. } | Error::Magic { .. })),
            "{cut:?}"
        );
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn work_left_undone_is_no_shard() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard");
    let lazy = compress(&RAW, &path, Level::default(), |_, _| Ok(vec![]));
    assert!(
        matches!(lazy, Err(Error::Mismatch { got: 0, .. })),
        "{lazy:?}"
    );
    let shard = ZstdShard::open(FOREIGN).unwrap();
    let lazy = shard.expand(&path, |_, job| job(0)).map(drop);
    assert!(
        matches!(
            lazy,
            Err(Error::Mismatch {
                got: 1,
                expected: 2,
                ..
            })
        ),
        "{lazy:?}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn every_flipped_bit_is_found_or_changes_nothing() {
    let (mut flips, mut harmless) = (0, 0);
    for transport in [FOREIGN, &compressed(RAW, 3)] {
        for at in 0..transport.len() {
            for bit in 0..8 {
                let mut bytes = transport.to_vec();
                bytes[at] ^= 1 << bit;
                flips += 1;
                if let Ok(raw) = expanded_in_memory(&bytes) {
                    assert!(raw == RAW, "bit {bit} of byte {at} went unseen");
                    harmless += 1;
                }
            }
        }
    }
    // zstd leaves some bits unused, and can say some things in two ways.
    assert!(
        100 * harmless < flips,
        "{harmless} of {flips} change nothing"
    );
}

#[test]
fn every_cut_is_found() {
    for len in 0..FOREIGN.len() {
        let cut = expanded_in_memory(&FOREIGN[..len]);
        assert!(matches!(cut, Err(Error::NotTransport)), "{len}: {cut:?}");
    }
    let longer = expanded(&[FOREIGN, &[0]].concat());
    assert!(matches!(longer, Err(Error::NotTransport)), "{longer:?}");
    let before = expanded(&[&[0], FOREIGN].concat());
    assert!(matches!(before, Err(Error::SeekTable { .. })), "{before:?}");
}

#[test]
fn a_file_cut_while_it_is_in_use_is_an_error() {
    struct Cut(RefCell<Vec<u8>>);
    impl ReadAt for Cut {
        fn len(&self) -> std::io::Result<u64> {
            ReadAt::len(&&self.0.borrow()[..])
        }
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
            (&self.0.borrow()[..]).read_exact_at(buffer, offset)
        }
    }
    let shard = ZstdShard::open(Cut(RefCell::new(FOREIGN.to_vec()))).unwrap();
    shard.inner().source().0.borrow_mut().truncate(200);
    let error = shard
        .expand_block(1, &mut Expander::new().unwrap())
        .unwrap_err();
    assert!(
        matches!(&error, Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof)
    );
}

/// Frames and what the seek table says of them, to be forged.
#[derive(Clone)]
struct Forge {
    frames: Vec<(Vec<u8>, u32)>,
    magic: u32,
    len: u32,
    count: u32,
    descriptor: u8,
}

impl Forge {
    fn new() -> Self {
        Self {
            frames: PARTS.map(|part| Self::frame(&RAW[part])).to_vec(),
            magic: 0x184D_2A5E,
            len: 41,
            count: 4,
            descriptor: 0,
        }
    }

    fn frame(raw: &[u8]) -> (Vec<u8>, u32) {
        (
            zstd::bulk::compress(raw, 1).unwrap(),
            u32::try_from(raw.len()).unwrap(),
        )
    }

    /// The number of frames, and the table's length with it.
    fn count(&mut self) {
        self.count = u32::try_from(self.frames.len()).unwrap();
        self.len = 8 * self.count + 9;
    }

    /// Expands the file: to the shard, or the error.
    fn open(&self) -> Result<()> {
        let mut file: Vec<u8> = self
            .frames
            .iter()
            .flat_map(|(bytes, _)| bytes.clone())
            .collect();
        file.extend([self.magic, self.len].map(u32::to_le_bytes).concat());
        for (bytes, raw) in &self.frames {
            let compressed = u32::try_from(bytes.len()).unwrap();
            file.extend([compressed, *raw].map(u32::to_le_bytes).concat());
        }
        file.extend(self.count.to_le_bytes());
        file.push(self.descriptor);
        file.extend(0x8F92_EAB1_u32.to_le_bytes());
        expanded(&file).map(|raw| assert!(raw == RAW))
    }
}

macro_rules! assert_forged {
    ($change:expr, $pattern:pat $(if $guard:expr)?) => {{
        let mut forge = Forge::new();
        let change: fn(&mut Forge) = $change;
        change(&mut forge);
        let result = forge.open();
        assert!(matches!(&result, Err($pattern) $(if $guard)?), "{result:?}");
    }};
}

#[test]
fn forged_seek_tables() {
    Forge::new().open().unwrap();
    assert_forged!(
        |f| f.descriptor = 0x80,
        Error::SeekTable {
            what: "its descriptor",
            got: 0x80,
            expected: 0
        }
    );
    assert_forged!(
        |f| f.magic += 1,
        Error::SeekTable {
            what: "its magic number",
            ..
        }
    );
    assert_forged!(
        |f| f.len += 1,
        Error::SeekTable {
            what: "its length",
            got: 42,
            expected: 41
        }
    );
    // No memory is taken for a number that the file has no room for.
    assert_forged!(
        |f| f.count = u32::MAX,
        Error::SeekTable {
            what: "its number of frames",
            ..
        }
    );
    assert_forged!(
        |f| f.frames[1].1 = u32::try_from(MAX_FRAME).unwrap() + 1,
        Error::SeekTable {
            what: "a frame's expanded size",
            ..
        }
    );
    assert_forged!(
        |f| {
            f.frames.clear();
            f.count();
        },
        Error::SeekTable {
            what: "its number of frames",
            got: 0,
            expected: 2
        }
    );
    assert_forged!(
        |f| f.frames[0].1 = 4095,
        Error::Frame {
            part: Part::Header,
            got: 4095,
            expected: 4096,
            ..
        }
    );
    // The sum of the sizes is the length that the header states.
    assert_forged!(
        |f| f.frames[2].1 += 1,
        Error::Length {
            got: 5973,
            expected: 5972
        }
    );
    assert_forged!(
        |f| {
            f.frames[1].1 -= 1;
            f.frames[2].1 += 1;
        },
        Error::Frame {
            part: Part::Block(0),
            got: 479,
            expected: 480,
            ..
        }
    );
    // The same bytes in another number of frames.
    assert_forged!(
        |f| {
            let halves = [4096..4300, 4300..4576].map(|half| Forge::frame(&RAW[half]));
            f.frames.splice(1..2, halves);
            f.count();
        },
        Error::SeekTable {
            what: "its number of frames",
            got: 5,
            expected: 4
        }
    );
    assert_forged!(
        |f| {
            let halves = [4096..4300, 4300..4576].map(|half| Forge::frame(&RAW[half]));
            f.frames[1].0 = halves.map(|(bytes, _)| bytes).concat();
        },
        Error::Frame {
            part: Part::Block(0),
            ..
        }
    );
    assert_forged!(
        |f| f.frames.swap(1, 2),
        Error::Frame {
            part: Part::Block(0),
            ..
        }
    );
}

#[test]
fn forged_frames() {
    // A bomb: what it says of itself is not what the header demands, so no memory is taken for it.
    assert_forged!(
        |f| f.frames[1].0 = zstd::bulk::compress(&vec![0; 1 << 26], 1).unwrap(),
        Error::Frame { part: Part::Block(0), what: "expands to", got, .. } if *got == 1 << 26
    );
    assert_forged!(
        |f| f.frames[3].0 = zstd::bulk::compress(&vec![0; 1 << 26], 1).unwrap(),
        Error::Frame { part: Part::Tail, what: "expands to", got, .. } if *got == 1 << 26
    );
    // One that does not say how long it is.
    assert_forged!(
        |f| {
            let mut zstd = zstd::bulk::Compressor::new(1).unwrap();
            zstd.include_contentsize(false).unwrap();
            f.frames[1].0 = zstd.compress(&RAW[4096..4576]).unwrap();
        },
        Error::Frame {
            part: Part::Block(0),
            what: "expands to",
            got: 0,
            ..
        }
    );
    assert_forged!(
        |f| f.frames[1].0.extend(b"more"),
        Error::Frame {
            part: Part::Block(0),
            what: "has",
            ..
        }
    );
    assert_forged!(
        |f| f.frames[0].0 = b"\x50\x2A\x4D\x18\x04\0\0\0skip".to_vec(),
        Error::Frame {
            part: Part::Header,
            ..
        }
    );
    assert_forged!(
        |f| f.frames[2].0 = Forge::frame(&[7; 60]).0,
        Error::Checksum {
            part: Part::Block(1),
            ..
        }
    );
    assert_forged!(
        |f| f.frames[0].0 = Forge::frame(&[7; PAGE]).0,
        Error::Magic { .. }
    );
    assert_forged!(
        |f| {
            let mut tail = RAW[PARTS[3].clone()].to_vec();
            tail[4742 - 4636] ^= 1;
            f.frames[3].0 = Forge::frame(&tail).0;
        },
        Error::Checksum {
            part: Part::Labels,
            ..
        }
    );
    assert_forged!(
        |f| {
            let last = f.frames[1].0.len() - 1;
            f.frames[1].0.truncate(last);
        },
        Error::Frame {
            part: Part::Block(0),
            ..
        }
    );
}

/// One image so large that its block is past what a frame may hold: refused before it is read.
#[test]
fn a_block_past_the_limit_is_refused() {
    const SIDE: u64 = 10_000;
    let mut page = RAW[..PAGE].to_vec();
    let mut put = |at: usize, value: u64, len: usize| {
        page[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    };
    let (mut end, lens) = (4096, [3 * SIDE * SIDE, 4, 8, 16, 8, 0, 0]);
    for (at, len) in (64_usize..).step_by(24).zip(lens) {
        let start = u64::next_multiple_of(end, 64);
        put(at, start, 8);
        put(at + 8, len, 8);
        end = start + len;
    }
    for (at, value) in [(16, end), (24, 1)] {
        put(at, value, 8);
    }
    put(36, SIDE, 4);
    put(40, SIDE, 4);
    let crc = crc32fast::hash(&page[..PAGE - 4]);
    page[PAGE - 4..].copy_from_slice(&crc.to_le_bytes());

    struct Sparse(Vec<u8>, u64);
    impl ReadAt for Sparse {
        fn len(&self) -> std::io::Result<u64> {
            Ok(self.1)
        }
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
            assert_eq!((buffer.len(), offset), (PAGE, 0), "nothing more is read");
            buffer.copy_from_slice(&self.0);
            Ok(())
        }
    }
    let result = compress(
        &Sparse(page, end),
        Path::new("nowhere/shard"),
        Level::default(),
        in_turn,
    );
    assert!(
        matches!(result, Err(Error::FrameLimit { part: Part::Block(0), got, .. }) if got == 3 * SIDE * SIDE),
        "{result:?}"
    );
}

/// A shard of `count` images.
fn shard(shape: Shape, count: usize, pixel: impl Fn(usize) -> u8) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard");
    let mut writer = Writer::create(&path, shape).unwrap();
    let pixels: Vec<u8> = (0..count * shape.image_len()).map(pixel).collect();
    writer.append(&pixels).unwrap();
    let columns = Columns {
        labels: (0..count)
            .map(|image| i64::try_from(image % 2).unwrap())
            .collect(),
        boxes: vec![[0, 0, 0, 0]; count],
        names: (0..count).map(|image| format!("{image}.jpg")).collect(),
    };
    let class = Class {
        id: "n1".into(),
        name: "one".into(),
    };
    let metadata = Metadata {
        creator: "test".into(),
        fingerprint: Digest::of(b"the set"),
        split: Split::Test,
        shard: 0,
        shards: 1,
        grey: 0,
        refused: vec![],
        warned: vec![],
        classes: vec![class.clone(), class],
    };
    writer.finish(&columns, &metadata).unwrap();
    std::fs::read(&path).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_shard_comes_back(
        count in prop_oneof![Just(0_usize), Just(16), 0..50_usize],
        height in 1..9_u32,
        width in 1..9_u32,
        noise in any::<u64>(),
        rough in 1..256_u64,
        level in 1..=22,
    ) {
        let shape = Shape { channels: 3, height, width };
        let raw = shard(shape, count, |at| {
            let at = at as u64;
            u8::try_from((at / rough).wrapping_mul(noise | 1) >> 56).unwrap()
        });
        let transport = compressed(&raw, level);
        prop_assert!(expanded(&transport).unwrap() == raw);
        prop_assert!(streamed(&transport) == raw);
    }

    /// Garbage, and garbage before a true end, are errors and no more.
    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        keep in 0..FOREIGN.len(),
    ) {
        prop_assert!(expanded_in_memory(&bytes).is_err());
        let mut mixed = FOREIGN.to_vec();
        let end = mixed.len().min(keep + bytes.len());
        mixed[keep..end].copy_from_slice(&bytes[..end - keep]);
        if let Ok(raw) = expanded_in_memory(&mixed) {
            prop_assert!(raw == RAW);
        }
    }
}
