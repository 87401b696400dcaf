//! The loader against a naive twin that reads whole files.

use std::collections::HashSet;
use std::fs;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tinyres_format::{
    Class, Digest, MANIFEST, Manifest, Part, SetOptions, SetWriter, Shape, Shard, Split,
};
use tinyres_load::{
    Batches, Dataset, Error, FlipShift, Form, Layout, Normalization, Prefetch, Rank, Verify,
    alloc_slot, shuffled,
};

const SHAPE: Shape = Shape::rgb(5);
const LEN: usize = SHAPE.image_len();

/// The pixels of image `image` of the split: no two images share a byte sequence.
fn pixels(image: usize) -> Vec<u8> {
    pixels_of(SHAPE, image)
}

fn pixels_of(shape: Shape, image: usize) -> Vec<u8> {
    let byte = |at: usize| u8::try_from((image * 31 + at * (image % 7 + 1)) % 251).unwrap();
    (0..shape.image_len()).map(byte).collect()
}

/// Writes a train split with so many images in each of its shards.
fn write_set(dir: &Path, shards: &[usize]) {
    write_set_of(SHAPE, dir, shards);
}

fn write_set_of(shape: Shape, dir: &Path, shards: &[usize]) {
    let class = |id| Class {
        id: format!("n{id}"),
        name: format!("class {id}"),
    };
    let options = SetOptions {
        shape,
        classes: (0..3).map(class).collect(),
        creator: "test".into(),
        fingerprint: Digest::of(b"set"),
        shard_images: NonZeroU32::MAX,
    };
    let mut set = SetWriter::create(dir, options).unwrap();
    let mut first = 0;
    for &images in shards {
        set.begin_shard(Split::Train).unwrap();
        for image in first..first + images {
            let label = i64::try_from(image % 3).unwrap();
            let sides = [0, 0, i32::try_from(image % 5).unwrap(), 4];
            let name = format!("train/{image}.JPEG");
            let pixels = pixels_of(shape, image);
            set.image(Split::Train, &pixels, label, sides, &name)
                .unwrap();
        }
        first += images;
    }
    set.finish().unwrap();
}

#[expect(
    unsafe_code,
    reason = "the tests write to no shard while a data set is open"
)]
fn open(dir: &Path, split: Split, verify: Verify) -> Result<Dataset, Error> {
    // SAFETY: see above.
    unsafe { Dataset::open(dir, split, verify) }
}

fn set(shards: &[usize]) -> (tempfile::TempDir, Arc<Dataset>) {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), shards);
    let data = open(dir.path(), Split::Train, Verify::Lazy).unwrap();
    (dir, Arc::new(data))
}

fn batches(data: &Dataset, batch: usize, seed: u64) -> Arc<Batches> {
    cut(data, batch, seed, false, Rank::ONLY)
}

fn cut(data: &Dataset, batch: usize, seed: u64, drop_last: bool, rank: Rank) -> Arc<Batches> {
    let order = shuffled(data.len(), seed, 0);
    let batch = NonZeroUsize::new(batch).unwrap();
    Arc::new(Batches::new(order, batch, drop_last, rank))
}

fn slots(data: &Dataset, batches: &Batches, count: usize) -> Vec<memmap2::MmapMut> {
    (0..count)
        .map(|_| alloc_slot((batches.max_len() * data.shape().image_len()).max(1)).unwrap())
        .collect()
}

#[test]
fn many_shards_are_one_list() {
    let (_dir, data) = set(&[70, 0, 1, 130]);
    assert_eq!(
        (data.len(), data.shape(), data.split()),
        (201, SHAPE, Split::Train)
    );
    assert_eq!(data.classes().len(), 3);
    let order = [200, 0, 69, 70, 71, 70, 199];
    let mut out = vec![0; order.len() * LEN];
    data.gather(&order, &mut out).unwrap();
    for (&image, got) in order.iter().zip(out.chunks_exact(LEN)) {
        assert_eq!(got, pixels(image as usize));
        assert_eq!(data.name(image).unwrap(), format!("train/{image}.JPEG"));
        assert_eq!(data.label(image).unwrap(), i64::from(image % 3));
        assert_eq!(
            data.boxes().unwrap()[image as usize],
            data.bbox(image).unwrap()
        );
        assert_eq!(
            i64::from(data.bbox(image).unwrap()[2]),
            i64::from(image % 5)
        );
    }
    assert!(matches!(
        data.gather(&[201], &mut out[..LEN]),
        Err(Error::NoImage {
            image: 201,
            len: 201
        })
    ));
    assert!(matches!(
        data.gather(&[0], &mut out[..LEN - 1]),
        Err(Error::Slot { .. })
    ));
    assert!(data.name(201).is_err());
}

/// Where the kernel says that the file is mapped.
fn maps_of(path: &Path) -> Vec<std::ops::Range<usize>> {
    let path = path.canonicalize().unwrap();
    fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .filter(|line| line.ends_with(path.to_str().unwrap()))
        .map(|line| {
            let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            usize::from_str_radix(start, 16).unwrap()..usize::from_str_radix(end, 16).unwrap()
        })
        .collect()
}

#[test]
fn sequential_batches_are_views_of_the_map() {
    let (dir, data) = set(&[70, 33]);
    let mut next = 0;
    for (images, view) in data.sequential(32) {
        let view = view.unwrap();
        assert_eq!(images.start, next);
        next = images.end;
        assert_eq!(
            view,
            images
                .clone()
                .flat_map(|image| pixels(image as usize))
                .collect::<Vec<_>>()
        );
        let (shard, first) = if images.start < 70 { (0, 0) } else { (1, 70) };
        let maps = maps_of(&dir.path().join(Split::Train.shard_name(shard)));
        let offset = 4096 + (images.start - first) as usize * LEN;
        let address = view.as_ptr().addr();
        assert!(
            maps.iter().any(|map| map.start + offset == address),
            "{images:?} was copied"
        );
    }
    assert_eq!(next, 103);
}

#[test]
fn images_of_all_shards_are_one_view() {
    // 4096 images of any shape are whole pages.
    let (dir, data) = set(&[4096, 0, 4096, 70]);
    let images = data.images().unwrap();
    let expected: Vec<u8> = (0..4096 + 4096 + 70).flat_map(pixels).collect();
    assert!(images[..] == expected);
    let map = &maps_of(&dir.path().join(Split::Train.shard_name(2)))[0];
    assert!(
        !map.contains(&images.as_ptr().addr()),
        "it is a map of its own"
    );
    drop(data);
    assert!(images[..] == expected);

    let (_dir, odd) = set(&[70, 70]);
    let error = odd.images().unwrap_err().to_string();
    assert!(
        error.contains("train-00000.bin: its images take 5250 bytes"),
        "{error}"
    );
    let (_dir, one) = set(&[70]);
    assert_eq!(one.images().unwrap().len(), 70 * LEN);
}

#[test]
fn damage_is_found_in_its_part_and_again() {
    let (dir, data) = set(&[200, 100]);
    let path = dir.path().join("train-00001.bin");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 40 * LEN] ^= 4;
    data.verify_images(0..300, false).unwrap();
    data.verify_columns().unwrap();
    // In place, so that the map sees it.
    fs::write(&path, bytes).unwrap();
    data.verify_images(0..300, false).unwrap();
    let error = data.verify_images(0..300, true).unwrap_err().to_string();
    assert!(error.contains("train-00001.bin: image block 2"), "{error}");
    data.verify_images(0..200, true).unwrap();
    assert_eq!(data.images_of(&path, 2), Some(232..248));
    assert_eq!(data.images_of(&path, 6), Some(296..300));
    assert_eq!(data.images_of(&path, 7), None);
    assert_eq!(data.images_of(dir.path(), 0), None);
    // Blocks 0 and 3 of the second shard.
    data.verify_images(190..216, true).unwrap();
    data.verify_images(248..1000, true).unwrap();
    assert!(data.verify_images(247..248, true).is_err());
    data.verify_images(300..300, true).unwrap();
    let off = open(dir.path(), Split::Train, Verify::Off).unwrap();
    off.verify_images(0..300, false).unwrap();
    assert!(off.verify_images(0..300, true).is_err());
}

#[test]
fn damage_is_met_where_it_is_touched() {
    let (dir, data) = set(&[200]);
    drop(data);
    let path = dir.path().join("train-00000.bin");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 130 * LEN] ^= 4;
    fs::write(&path, bytes).unwrap();
    let mut out = vec![0; LEN];
    let data = open(dir.path(), Split::Train, Verify::Lazy).unwrap();
    for image in [0, 63, 127, 144] {
        data.gather(&[image], &mut out).unwrap();
    }
    // Every image of block 8, each time.
    for image in [128, 130, 143, 143] {
        let error = data.gather(&[image], &mut out).unwrap_err().to_string();
        assert!(
            error.contains("train-00000.bin: image block 8 has checksum"),
            "{error}"
        );
    }
    let views: Vec<bool> = data.sequential(64).map(|(_, view)| view.is_ok()).collect();
    assert_eq!(views, [true, true, false, true]);
    let off = open(dir.path(), Split::Train, Verify::Off).unwrap();
    off.gather(&[130], &mut out).unwrap();
    let full = open(dir.path(), Split::Train, Verify::Full)
        .unwrap_err()
        .to_string();
    assert!(full.contains("image block 8"), "{full}");

    let data = Arc::new(data);
    let batches = batches(&data, 50, 1);
    let mut prefetch = Prefetch::start(
        data.clone(),
        batches.clone(),
        0,
        slots(&data, &batches, 4),
        2,
    )
    .unwrap();
    let results: Vec<bool> = std::iter::from_fn(|| prefetch.next_batch())
        .map(|batch| batch.is_ok())
        .collect();
    assert_eq!(
        results.iter().filter(|ok| !**ok).count(),
        1,
        "the error ends the epoch: {results:?}"
    );
    assert!(!results.last().unwrap());
}

#[test]
fn sets_that_are_not_whole_are_refused() {
    let refused = |change: &dyn Fn(&Path), says: &str| {
        let dir = tempfile::tempdir().unwrap();
        write_set(dir.path(), &[70, 70]);
        change(dir.path());
        let error = open(dir.path(), Split::Train, Verify::Lazy)
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{error}");
    };
    let shard = |dir: &Path, index| dir.join(Split::Train.shard_name(index));
    refused(
        &|dir| fs::remove_file(dir.join(MANIFEST)).unwrap(),
        "pack is unfinished",
    );
    refused(
        &|dir| fs::remove_file(shard(dir, 1)).unwrap(),
        "train-00001.bin: No such file",
    );
    refused(
        &|dir| assert!(fs::copy(shard(dir, 0), shard(dir, 1)).is_ok()),
        "train-00001.bin: the shard's index is 0",
    );
    refused(
        &|dir| {
            let bytes = fs::read(shard(dir, 0)).unwrap();
            fs::write(shard(dir, 0), &bytes[..bytes.len() - 1]).unwrap();
        },
        "train-00000.bin: file is",
    );
    refused(
        &|dir| {
            let other = tempfile::tempdir().unwrap();
            write_set(other.path(), &[71, 69]);
            fs::copy(shard(other.path(), 0), shard(dir, 0)).unwrap();
        },
        "train-00000.bin: the number of images is 71",
    );
    refused(
        &|dir| {
            let file = fs::File::options().write(true).open(shard(dir, 1));
            file.unwrap().set_len(20_000).unwrap();
        },
        "train-00001.bin: file is 20000 bytes long",
    );
    refused(
        &|dir| {
            let mut bytes = fs::read(shard(dir, 1)).unwrap();
            bytes[100] ^= 1;
            fs::write(shard(dir, 1), bytes).unwrap();
        },
        "train-00001.bin: header has checksum",
    );
    refused(
        &|dir| {
            // A manifest that contradicts a shard, whose start in the split it would move.
            let mut manifest = Manifest::load(dir).unwrap();
            manifest.splits[0].shards[0].images = 69;
            manifest.splits[0].shards[1].images = 71;
            manifest.save(dir).unwrap();
        },
        "train-00000.bin: the number of images is 70, but dataset.json says 69",
    );
    refused(
        &|dir| {
            let mut manifest = Manifest::load(dir).unwrap();
            manifest.shape = Shape::rgb(6);
            manifest.save(dir).unwrap();
        },
        "train-00000.bin: the image shape is 3x5x5, but dataset.json says 3x6x6",
    );
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), &[3]);
    let error = open(dir.path(), Split::Val, Verify::Lazy)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no val split here, only train"), "{error}");
}

#[test]
fn damaged_columns_are_met_where_they_are_touched() {
    type Touch = fn(&Dataset, u32) -> Result<(), Error>;
    let touches: [(&str, Touch); 6] = [
        ("labels", |data, image| data.label(image).map(drop)),
        ("labels", |data, _| data.labels().map(drop)),
        ("boxes", |data, image| data.bbox(image).map(drop)),
        ("boxes", |data, _| data.boxes().map(drop)),
        ("names", |data, image| data.name(image).map(drop)),
        ("block checksums", |data, image| {
            data.gather(&[image], &mut [0; LEN])
        }),
    ];
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), &[70, 70]);
    let path = dir.path().join("train-00001.bin");
    let whole = fs::read(&path).unwrap();
    let shard = Shard::new(&whole[..]).unwrap();
    let column = |part| shard.part(part).as_ptr().addr() - whole.as_ptr().addr();
    for (damaged, part) in [
        ("labels", Part::Labels),
        ("boxes", Part::Boxes),
        ("names", Part::Names),
        ("block checksums", Part::BlockCrcs),
    ] {
        let mut bytes = whole.clone();
        bytes[column(part)] ^= 1;
        fs::write(&path, bytes).unwrap();
        let data = open(dir.path(), Split::Train, Verify::Lazy).unwrap();
        for (touched, touch) in touches {
            // Again, since what fails once must not pass for checked.
            for _ in 0..2 {
                match touch(&data, 75) {
                    Ok(()) => assert_ne!(touched, damaged),
                    Err(error) => {
                        assert_eq!(touched, damaged);
                        let says = format!("train-00001.bin: {damaged} has checksum");
                        assert!(error.to_string().contains(&says), "{error}");
                    }
                }
            }
        }
        // The other shard is as good as ever.
        assert_eq!(data.label(69).unwrap(), 0);
        assert_eq!(data.name(69).unwrap(), "train/69.JPEG");
        let full = open(dir.path(), Split::Train, Verify::Full).unwrap_err();
        assert!(
            full.to_string()
                .contains(&format!("{damaged} has checksum")),
            "{full}"
        );
    }
    // The bytes between sections belong to the one behind them.
    let mut bytes = whole.clone();
    bytes[column(Part::Boxes) - 1] = 1;
    fs::write(&path, bytes).unwrap();
    let data = open(dir.path(), Split::Train, Verify::Lazy).unwrap();
    assert!(data.label(75).is_ok());
    let error = data.bbox(75).unwrap_err().to_string();
    assert!(error.contains("reserved byte"), "{error}");
}

#[test]
fn labels_of_a_split_are_those_of_its_images() {
    let (_dir, data) = set(&[70, 0, 1, 130]);
    let labels = data.labels().unwrap();
    assert_eq!(labels.len(), 201);
    for (image, label) in (0..).zip(labels) {
        assert_eq!(label, data.label(image).unwrap());
    }
    assert!(matches!(data.label(201), Err(Error::NoImage { .. })));
    assert!(matches!(data.bbox(201), Err(Error::NoImage { .. })));
}

#[test]
fn floats_are_the_pixels_scaled_and_channels_last() {
    let (_dir, data) = set(&[70, 33]);
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let normalization = Normalization::new(mean, std);
    let images = [102, 0, 69, 70];
    let mut out = vec![0.0; images.len() * LEN];
    data.gather_f32(&images, &normalization, &mut out).unwrap();
    for (&image, got) in images.iter().zip(out.chunks_exact(LEN)) {
        let planar = pixels(image as usize);
        for (at, &got) in got.iter().enumerate() {
            let (place, channel) = (at / 3, at % 3);
            let pixel = planar[channel * 25 + place];
            let exact = (f64::from(pixel) / 255.0 - mean[channel]) / std[channel];
            assert!((f64::from(got) - exact).abs() < 1e-6, "{got}, not {exact}");
            // To the bit, a product and a sum rounded one after the other.
            let product = f32::from(pixel) * normalization.scale[channel];
            assert_eq!(
                got.to_bits(),
                (product + normalization.offset[channel]).to_bits()
            );
        }
    }
    // A batch of this size takes non-temporal stores, with images aligned to 16 bytes or not. The numbers
    // before and after it are not touched.
    let many = images.repeat(14_500);
    assert!(4 * many.len() * LEN > 16 << 20);
    for before in [0, 1, 4] {
        let mut memory = alloc_slot(4 * (before + many.len() * LEN + 1)).unwrap();
        let numbers: &mut [f32] = bytemuck::cast_slice_mut(&mut memory);
        numbers.fill(-9.0);
        let (end, own) = numbers[before..].split_last_mut().unwrap();
        data.gather_f32(&many, &normalization, own).unwrap();
        assert!(own.chunks_exact(out.len()).all(|own| own == out));
        assert_eq!(*end, -9.0);
        assert!(numbers[..before].iter().all(|&number| number == -9.0));
    }
    let mut short = vec![0.0; 3 * LEN];
    assert!(matches!(
        data.gather_f32(&images, &normalization, &mut short),
        Err(Error::Slot {
            got: 900,
            expected: 1200
        })
    ));
}

#[test]
fn batches_that_no_cache_keeps_have_the_same_pixels() {
    // Images of 3,072 bytes, each at the bounds of a store: 6,000 are more than the 16 MiB from which on all are streamed.
    let shape = Shape::rgb(32);
    let len = shape.image_len();
    let dir = tempfile::tempdir().unwrap();
    write_set_of(shape, dir.path(), &[7, 4]);
    let data = open(dir.path(), Split::Train, Verify::Lazy).unwrap();
    let normalization = Normalization::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let images: Vec<u32> = (0..11).cycle().take(6000).collect();
    let (mut large, mut small) = (alloc_slot(6000 * len).unwrap(), vec![0; 50 * len]);
    let (mut large_f32, mut small_f32) = (alloc_slot(6000 * len * 4).unwrap(), vec![0.0; 50 * len]);
    for moves in [None, Some(FlipShift::new(true, 4, 3, 11))] {
        for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
            let form = Form { layout, moves };
            large.fill(255);
            data.gather_in(&images, &form, &mut large).unwrap();
            large_f32.fill(255);
            let numbers: &mut [f32] = bytemuck::cast_slice_mut(&mut large_f32);
            data.gather_f32_in(&images, &form, &normalization, numbers)
                .unwrap();
            for (at, images) in images.chunks(50).enumerate() {
                let own = at * 50 * len..(at + 1) * 50 * len;
                data.gather_in(images, &form, &mut small).unwrap();
                assert!(large[own.clone()] == small, "{form:?}, {at}");
                data.gather_f32_in(images, &form, &normalization, &mut small_f32)
                    .unwrap();
                assert!(numbers[own] == small_f32, "{form:?}, {at}");
            }
        }
    }
}

#[test]
fn each_form_has_the_pixels_moved_as_the_specification_says() {
    let (_dir, data) = set(&[70, 33]);
    let normalization = Normalization::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let images = [102, 0, 69, 70, 5, 6, 7, 8];
    for moves in [None, Some(FlipShift::new(true, 4, 3, 11))] {
        // SPEC section 7, pixel by pixel, channels first.
        let mut expected = Vec::new();
        for image in images {
            let planar = pixels(image as usize);
            let own = moves.map(|moves| moves.of(image));
            for (channel, y, x) in (0..LEN).map(|at| (at / 25, at / 5 % 5, at % 5)) {
                let from = |at: usize, by: i32| {
                    let at = i32::try_from(at).unwrap() - by;
                    usize::try_from(if at < 0 {
                        -at
                    } else if at > 4 {
                        8 - at
                    } else {
                        at
                    })
                    .unwrap()
                };
                let (mut row, mut column) = (y, x);
                if let Some(own) = own {
                    (row, column) = (from(y, own.down), from(x, own.right));
                    column = if own.mirrored { 4 - column } else { column };
                }
                expected.push(planar[channel * 25 + row * 5 + column]);
            }
        }
        for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
            let form = Form { layout, moves };
            let place = |at: usize| match layout {
                Layout::ChannelsFirst => at,
                Layout::ChannelsLast => at / LEN * LEN + at % 25 * 3 + at % LEN / 25,
            };
            let mut bytes = vec![0; images.len() * LEN];
            data.gather_in(&images, &form, &mut bytes).unwrap();
            let mut numbers = vec![0.0; images.len() * LEN];
            data.gather_f32_in(&images, &form, &normalization, &mut numbers)
                .unwrap();
            for (at, &pixel) in expected.iter().enumerate() {
                assert_eq!(bytes[place(at)], pixel, "{form:?}, {at}");
                let channel = at % LEN / 25;
                let number = f32::from(pixel) * normalization.scale[channel];
                let number = number + normalization.offset[channel];
                assert_eq!(
                    numbers[place(at)].to_bits(),
                    number.to_bits(),
                    "{form:?}, {at}"
                );
            }
        }
    }
    let form = Form {
        moves: Some(FlipShift::new(false, 5, 0, 0)),
        ..Form::default()
    };
    let error = data
        .gather_in(&images, &form, &mut [0; 8 * LEN])
        .unwrap_err();
    assert!(error.to_string().contains("shift by at most 4"), "{error}");
    data.gather_in(&[], &Form::default(), &mut []).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The same batches whatever the threads and slots, for each of several ranks, stopped anywhere and
    /// resumed with other threads; and what was handed out stays as it was.
    #[test]
    fn prefetch_serves_the_order(
        images in 1usize..300, batch in 1usize..80, threads in (1usize..5, 1usize..5), count in 1usize..5,
        ranks in 1usize..4, drop_last: bool, seed: u64, stop in 0usize..8, keep: bool,
    ) {
        let (_dir, data) = set(&[images / 3, images - images / 3]);
        let order = shuffled(u32::try_from(images).unwrap(), seed, 0);
        let mut served = vec![Vec::new(); images.div_ceil(batch)];
        for index in 0..ranks {
            let rank = Rank { index, count: NonZeroUsize::new(ranks).unwrap() };
            let batches = cut(&data, batch, seed, drop_last, rank);
            let mut kept = Vec::new();
            let mut next = 0;
            for (threads, end) in [(threads.0, stop), (threads.1, usize::MAX)] {
                let count = if keep { batches.len().max(1) } else { count };
                let slots = slots(&data, &batches, count);
                let mut prefetch =
                    Prefetch::start(data.clone(), batches.clone(), next, slots, threads).unwrap();
                while next < end && let Some(got) = prefetch.next_batch() {
                    let got = got.unwrap();
                    prop_assert_eq!(got.index, next);
                    let expected: Vec<u8> = got.images.iter().flat_map(|&image| pixels(image as usize)).collect();
                    prop_assert_eq!(&got.slot[..expected.len()], &expected[..]);
                    served[next].extend(got.images);
                    next += 1;
                    if keep {
                        kept.push((got.slot, expected));
                    } else {
                        prefetch.give_back(got.slot);
                    }
                }
            }
            prop_assert_eq!(next, batches.len());
            for (slot, expected) in kept {
                prop_assert_eq!(&slot[..expected.len()], &expected[..]);
            }
        }
        let whole = if drop_last { images / batch * batch } else { images };
        prop_assert_eq!(served.concat(), &order[..whole]);
    }
}

/// A slot that tells when it is dropped, and panics at its use if asked to.
struct Watched {
    bytes: Vec<u8>,
    panics: bool,
    _alive: Arc<()>,
}

impl AsMut<[u8]> for Watched {
    fn as_mut(&mut self) -> &mut [u8] {
        assert!(!self.panics, "a panic on purpose");
        &mut self.bytes
    }
}

fn watched(alive: &Arc<()>, data: &Dataset, panics: bool) -> Watched {
    Watched {
        bytes: vec![0; 10 * data.shape().image_len()],
        panics,
        _alive: alive.clone(),
    }
}

#[test]
fn prefetch_ends_when_dropped_and_never_hangs() {
    let (_dir, data) = set(&[100]);
    let batches = batches(&data, 10, 3);
    let alive = Arc::new(());
    let make = |count: usize, panics: bool| {
        let slots: Vec<_> = (0..count).map(|_| watched(&alive, &data, panics)).collect();
        Prefetch::start(data.clone(), batches.clone(), 0, slots, 3).unwrap()
    };
    // Dropped in the middle, with batches waiting, and at once.
    for taken in [0, 1, 4] {
        let mut prefetch = make(4, false);
        for _ in 0..taken {
            prefetch.next_batch().unwrap().unwrap();
        }
        drop(prefetch);
        assert_eq!(Arc::strong_count(&alive), 1, "all slots are freed");
        assert_eq!(Arc::strong_count(&data), 1, "all threads have ended");
    }
    let mut held = make(2, false);
    let mine: Vec<_> = (0..2)
        .map(|_| held.next_batch().unwrap().unwrap())
        .collect();
    assert!(matches!(held.next_batch(), Some(Err(Error::NoSlot))));
    mine.into_iter()
        .for_each(|batch| held.give_back(batch.slot));
    assert!(held.next_batch().unwrap().is_ok());
    let mut panicking = make(2, true);
    assert!(matches!(
        panicking.next_batch(),
        Some(Err(Error::Panicked { batch: 0 }))
    ));
    assert!(panicking.next_batch().is_none());
    let mut small = Prefetch::start(data.clone(), batches.clone(), 0, [vec![0; 9]], 1).unwrap();
    assert!(matches!(
        small.next_batch(),
        Some(Err(Error::Slot { got: 9, .. }))
    ));
    drop((held, panicking, small));
    assert_eq!(Arc::strong_count(&data), 1);
}

#[test]
fn wait_gives_up_in_time_and_knows_when_a_batch_is_there() {
    let (_dir, data) = set(&[100]);
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let fill = move |_: &[u32], _: &mut u8| gate.lock().unwrap().recv().map_err(|_| Error::NoSlot);
    let mut prefetch = Prefetch::with(fill, batches(&data, 50, 3), 0, [0], 1).unwrap();
    let soon = std::time::Duration::from_millis(1);
    let long = std::time::Duration::from_secs(600);
    assert!(!prefetch.wait(soon));
    open.send(()).unwrap();
    assert!(prefetch.wait(long));
    assert!(prefetch.wait(soon));
    assert_eq!(prefetch.slots(), 1);
    assert!(prefetch.next_batch().unwrap().is_ok());
    assert_eq!(prefetch.slots(), 0);
    // No slot is left, so waiting is of no use. A new one will do.
    assert!(prefetch.wait(long));
    assert!(matches!(prefetch.next_batch(), Some(Err(Error::NoSlot))));
    prefetch.give_back(0);
    assert!(!prefetch.wait(soon));
    open.send(()).unwrap();
    assert!(prefetch.next_batch().unwrap().is_ok());
    assert!(prefetch.wait(long));
    assert!(prefetch.next_batch().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever fails first ends the epoch: each batch before it comes, then its error, then nothing.
    #[test]
    fn a_failure_in_a_thread_is_an_error_of_its_batch(
        fails in 0usize..12, panics: bool, threads in 1usize..5, count in 1usize..5,
    ) {
        let (_dir, data) = set(&[100]);
        let batches = batches(&data, 10, 3);
        let fatal = batches.get(fails).map(|images| images[0]);
        let fill = move |images: &[u32], _: &mut u8| {
            if Some(images[0]) != fatal {
                return Ok(());
            }
            assert!(!panics, "a panic on purpose");
            Err(Error::NoSlot)
        };
        let mut prefetch = Prefetch::with(fill, batches, 0, vec![0; count], threads).unwrap();
        let mut good = 0;
        while let Some(batch) = prefetch.next_batch() {
            match batch {
                Ok(batch) => {
                    good += 1;
                    prefetch.give_back(batch.slot);
                }
                Err(Error::Panicked { batch }) => prop_assert!(panics && batch == fails),
                Err(error) => prop_assert!(!panics && matches!(error, Error::NoSlot), "{error}"),
            }
        }
        prop_assert_eq!(good, fails.min(10));
    }
}

#[test]
fn short_way_serves_the_order_of_the_epoch() {
    let (_dir, data) = set(&[64, 65, 66]);
    let mut epoch = data.epoch(9, 4, NonZeroUsize::new(17).unwrap()).unwrap();
    let mut served = Vec::new();
    while let Some(batch) = epoch.next_batch() {
        let (images, bytes) = batch.unwrap();
        let expected: Vec<u8> = images
            .iter()
            .flat_map(|&image| pixels(image as usize))
            .collect();
        assert_eq!(bytes, expected);
        served.extend_from_slice(images);
    }
    assert_eq!(served, shuffled(195, 9, 4));
}

#[test]
fn an_epoch_takes_every_image_once() {
    let (_dir, data) = set(&[64, 65, 66]);
    let batches = batches(&data, 17, 9);
    let mut prefetch = Prefetch::start(
        data.clone(),
        batches.clone(),
        0,
        slots(&data, &batches, 3),
        2,
    )
    .unwrap();
    let mut seen = HashSet::new();
    while let Some(batch) = prefetch.next_batch() {
        let batch = batch.unwrap();
        seen.extend(
            batch.slot[..batch.images.len() * LEN]
                .chunks_exact(LEN)
                .map(<[u8]>::to_vec),
        );
        prefetch.give_back(batch.slot);
    }
    assert_eq!(seen.len(), 195);
}
