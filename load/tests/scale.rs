//! Sets far larger than the disk that simulates them: headers, columns and manifest are real, and
//! the images are a hole in each file. And what a loader leaves behind when it is dropped.
//!
//! `TINYRES_SCALE=whole cargo test --release --test scale -- --nocapture` makes it 14 million images
//! in 1,709 shards, and prints what they take.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use tinyres_format::{
    BLOCK_IMAGES, Class, Columns, Digest, Header, Manifest, Metadata, PAGE, Part, Shape, Shard,
    ShardEntry, Split, SplitEntry, Writer,
};
use tinyres_load::{Batches, Dataset, Prefetch, Rank, Verify, alloc_slot, shuffled};

const SHAPE: Shape = Shape::rgb(64);
const LEN: usize = SHAPE.image_len();
const BATCH: usize = 512;

/// Writes shard `index` of `shards`, with `images` black images that take no room on the disk.
///
/// The writer makes it of images of one pixel; its header is then made that of larger ones, and all
/// behind the images moves to where these end.
fn write_shard(dir: &Path, index: usize, shards: usize, images: usize) -> ShardEntry {
    let classes = (0..1000).map(|class| Class {
        id: format!("n{class:08}"),
        name: format!("the class of number {class}"),
    });
    let columns = Columns {
        labels: (0..images)
            .map(|at| i64::try_from((index * 31 + at) % 1000).unwrap())
            .collect(),
        boxes: vec![[0, 0, 0, 0]; images],
        names: (0..images)
            .map(|at| format!("train/{index}/{at}.JPEG"))
            .collect(),
    };
    let metadata = Metadata {
        creator: "test".into(),
        fingerprint: Digest::of(b"scale"),
        split: Split::Train,
        shard: u32::try_from(index).unwrap(),
        shards: u32::try_from(shards).unwrap(),
        grey: 0,
        refused: vec![],
        warned: vec![],
        classes: classes.collect(),
    };
    let path = dir.join(Split::Train.shard_name(index));
    let mut writer = Writer::create(&path, Shape::rgb(1)).unwrap();
    writer.append(&vec![0; images * 3]).unwrap();
    let entry = writer.finish(&columns, &metadata).unwrap();

    let small = std::fs::read(&path).unwrap();
    let shard = Shard::new(&small[..]).unwrap();
    let address = |part| shard.part(part).as_ptr().addr() - small.as_ptr().addr();
    let columns = address(Part::Labels);
    // The checksums come first behind the images, the same for all blocks but the last.
    let block = crc32fast::hash(&vec![0; BLOCK_IMAGES * LEN]);
    let last = crc32fast::hash(&vec![0; (images - 1) % BLOCK_IMAGES * LEN + LEN]);
    let blocks = images.div_ceil(BLOCK_IMAGES);
    let mut crcs: Vec<u8> = (0..blocks)
        .flat_map(|at| if at + 1 < blocks { block } else { last }.to_le_bytes())
        .collect();
    let begins = (PAGE + images * LEN).next_multiple_of(64);
    let moved = begins - address(Part::BlockCrcs);
    let len = small.len() + moved;

    let mut page = small[..PAGE].to_vec();
    let header: &mut Header = bytemuck::from_bytes_mut(&mut page);
    header.file_len = (len as u64).into();
    header.height = SHAPE.height.into();
    header.width = SHAPE.width.into();
    header.sections[0].len = ((images * LEN) as u64).into();
    header.sections[1].crc = crc32fast::hash(&crcs).into();
    for section in &mut header.sections[1..] {
        section.offset = (section.offset.get() + moved as u64).into();
    }
    header.seal();

    crcs.resize(columns - address(Part::BlockCrcs), 0);
    let mut out = File::create(&path).unwrap();
    out.write_all(&page).unwrap();
    out.seek(SeekFrom::Start(begins as u64)).unwrap();
    out.write_all(&crcs).unwrap();
    out.write_all(&small[columns..]).unwrap();
    ShardEntry {
        bytes: len as u64,
        digest: Digest::of(&page),
        ..entry
    }
}

fn write_set(dir: &Path, images: usize, shard: usize) {
    let shards = images.div_ceil(shard);
    let entries = (0..shards).into_par_iter().map(|index| {
        let own = shard.min(images - index * shard);
        write_shard(dir, index, shards, own)
    });
    let split = SplitEntry {
        split: Split::Train,
        images: images as u64,
        shards: entries.collect(),
    };
    Manifest::new(
        "test".into(),
        Digest::of(b"scale"),
        SHAPE,
        1000,
        vec![split],
    )
    .save(dir)
    .unwrap();
}

#[expect(unsafe_code, reason = "nobody writes to the shards of a test")]
fn open(dir: &Path, verify: Verify) -> Arc<Dataset> {
    // SAFETY: see above.
    Arc::new(unsafe { Dataset::open(dir, Split::Train, verify) }.unwrap())
}

/// A field of `/proc/self/status`, in bytes where it has a unit.
fn status(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let mut words = line.unwrap().trim_start_matches(':').split_whitespace();
    let value: usize = words.next().unwrap().parse().unwrap();
    value * if words.next().is_some() { 1024 } else { 1 }
}

fn order(images: u32) -> Vec<u32> {
    shuffled(images, 7, 2)
}

fn cut(order: Vec<u32>, batch: usize, rank: Rank) -> Batches {
    let global = NonZeroUsize::new(batch * rank.count.get()).unwrap();
    Batches::new(order, global, false, rank)
}

/// The first batch as a user gets it: open, shuffle, start the threads, gather.
fn first_batch(dir: &Path, verify: Verify, batch: usize) -> (Duration, Duration, Vec<u32>) {
    let began = Instant::now();
    let data = open(dir, verify);
    let opened = began.elapsed();
    let batches = Arc::new(cut(order(data.len()), batch, Rank::ONLY));
    let slots = (0..2).map(|_| alloc_slot(batch * LEN).unwrap());
    let mut prefetch = Prefetch::start(data, batches, 0, slots, 1).unwrap();
    let batch = prefetch.next_batch().unwrap().unwrap();
    (opened, began.elapsed(), batch.images)
}

/// One test, as what it measures is the process.
#[test]
fn a_set_of_any_size() {
    let whole = std::env::var_os("TINYRES_SCALE").is_some_and(|scale| scale == "whole");
    let (images, ranks) = if whole {
        (14_000_000, 1000)
    } else {
        (140_000, 10)
    };
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), images, 8192);

    let (mut opened, mut first, mut small) = (Duration::MAX, Duration::MAX, Duration::MAX);
    let mut served = Vec::new();
    for _ in 0..5 {
        small = small.min(first_batch(dir.path(), Verify::Lazy, 128).1);
        let (open, all, images) = first_batch(dir.path(), Verify::Lazy, BATCH);
        (opened, first) = (opened.min(open), first.min(all));
        served = images;
    }
    let (peak, anonymous) = (status("VmHWM"), status("RssAnon"));

    let data = open(dir.path(), Verify::Lazy);
    assert_eq!(data.len() as usize, images);
    let (began, last) = (Instant::now(), images - 1);
    let labels = data.labels().unwrap();
    let labelled = began.elapsed();
    assert_eq!(
        labels[last],
        i64::try_from((last / 8192 * 31 + last % 8192) % 1000).unwrap()
    );
    let name = format!("train/{}/{}.JPEG", last / 8192, last % 8192);
    assert_eq!(data.name(u32::try_from(last).unwrap()).unwrap(), name);
    let began = Instant::now();
    let all = order(data.len());
    let ordered = began.elapsed();
    drop((data, labels));

    assert_eq!(all[..BATCH], served);
    let mut seen = vec![false; images];
    all.iter()
        .for_each(|&image| assert!(!std::mem::replace(&mut seen[image as usize], true)));

    // Each rank cuts its own copy of the order.
    let count = NonZeroUsize::new(ranks).unwrap();
    let mut joined = vec![Vec::new(); images.div_ceil(BATCH * ranks)];
    let began = Instant::now();
    for index in 0..ranks {
        let own = cut(all.clone(), BATCH, Rank { index, count });
        assert_eq!(own.len(), joined.len());
        for (at, joined) in joined.iter_mut().enumerate() {
            let images = own.get(at).unwrap();
            assert!(images.len() <= own.max_len());
            joined.extend_from_slice(images);
        }
    }
    assert!(
        joined.concat() == all,
        "the slices of {ranks} ranks are disjoint and complete"
    );
    let ranked = began.elapsed();

    println!(
        "{images} images: open {opened:?}, first batch of {BATCH} {first:?}, of 128 {small:?}, all labels {labelled:?}; peak {} MB by then, \
         of which {} MB are memory and the rest pages of the map; \
         order in {ordered:?}; \
         {ranks} ranks in {ranked:?}",
        peak / 1_000_000,
        anonymous / 1_000_000
    );
    // Far above what they take, as tests run unoptimised and side by side with others.
    assert!(opened < Duration::from_secs(2), "{opened:?}");
    leaves_nothing_behind(dir.path());
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter(|task| {
            let name = task.as_ref().unwrap().path().join("comm");
            std::fs::read_to_string(name).is_ok_and(|name| name.trim() == "gather")
        })
        .count()
}

/// A thread takes its name when it first runs, and is listed for a moment after it was joined.
fn until_threads_are(count: usize) {
    let began = Instant::now();
    while threads() != count {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{} threads, not {count}",
            threads()
        );
        std::thread::yield_now();
    }
}

/// A loader dropped in the midst of an epoch takes its threads and its memory with it.
fn leaves_nothing_behind(dir: &Path) {
    const SLOTS: usize = 8;
    let data = open(dir, Verify::Lazy);
    let batches = Arc::new(cut(order(data.len()), BATCH, Rank::ONLY));
    assert_eq!(threads(), 0);
    let before = status("RssAnon");
    for taken in 0..4 {
        let slots = (0..SLOTS).map(|_| alloc_slot(BATCH * LEN).unwrap());
        let mut prefetch = Prefetch::start(data.clone(), batches.clone(), taken, slots, 3).unwrap();
        for _ in 0..=taken {
            let batch = prefetch.next_batch().unwrap().unwrap();
            prefetch.give_back(batch.slot);
        }
        until_threads_are(3);
        assert!(status("RssAnon") > before + BATCH * LEN / 2);
        drop(prefetch);
        assert_eq!(Arc::strong_count(&data), 1);
        until_threads_are(0);
        let after = status("RssAnon");
        assert!(
            after < before + BATCH * LEN,
            "{before} bytes before, {after} after"
        );
    }
}
