//! Arrays of images and labels: `.npz` files and the batches of Downsampled ImageNet.

use super::raw::{Pixels, Zipped};
use super::*;

/// An array as NumPy saves it.
pub(super) fn npy(dtype: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let text = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend(u16::try_from(text.len()).unwrap().to_le_bytes());
    bytes.extend(text.bytes());
    bytes.extend(values);
    bytes
}

fn npz(method: CompressionMethod, arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        let options = SimpleFileOptions::default().compression_method(method);
        writer.start_file(format!("{name}.npy"), options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Four images of 2 x 2 in grey, whose pixels are all their number.
fn four(images: &str, labels: &str) -> Vec<(&'static str, Vec<u8>)> {
    let pixels: Vec<u8> = (0..4).flat_map(|image| [image; 4]).collect();
    let [images, labels] = [images, labels].map(|name| &*name.to_owned().leak());
    vec![
        (images, npy("|u1", "4, 2, 2", &pixels)),
        (labels, npy("|u1", "4,", &[0, 1, 1, 0])),
    ]
}

fn stored(arrays: &[(&str, Vec<u8>)]) -> Result<Source, Error> {
    open_archive(&npz(CompressionMethod::Stored, arrays), ".npz")
}

fn reason(opened: Result<Source, Error>) -> String {
    match opened.unwrap_err() {
        Error::Table { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

/// The order of the values of each train image, and the values.
fn rows(source: &Source) -> Vec<(Order, Vec<u8>)> {
    let mut reader = source.reader();
    let items = source.splits[0].1.iter();
    let row = |item| {
        assert_eq!(reader.raw_size(item), Some([2, 2]));
        match reader.read(item).unwrap() {
            Image::Raw(image) => {
                assert_eq!(image.size, [2, 2]);
                (image.order, image.values.to_owned())
            }
            Image::Encoded(bytes) => panic!("{bytes:?}"),
        }
    };
    items.map(row).collect()
}

#[test]
fn arrays_are_found_by_every_common_pair_of_names() {
    for (images, labels) in [
        ("train_images", "train_labels"),
        ("x_train", "y_train"),
        ("X_train", "Y_train"),
        ("train_x", "train_y"),
        ("images", "labels"),
        ("X", "y"),
    ] {
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let source = open_archive(&npz(method, &four(images, labels)), ".npz").unwrap();
            let labels: Vec<_> = source.splits[0].1.iter().map(|item| item.label).collect();
            assert_eq!(labels, [0, 1, 1, 0].map(Some), "{images}");
            let expected = [0, 1, 2, 3].map(|image| (Order::Grey, vec![image; 4]));
            assert_eq!(rows(&source), expected);
        }
    }
}

#[test]
fn the_channels_of_an_array_may_be_anywhere() {
    let planar: Vec<u8> = [[1; 4], [2; 4], [3; 4]].concat();
    let interleaved = [1, 2, 3].repeat(4);
    for (shape, order, values) in [
        ("1, 2, 2, 3", Order::Interleaved, &interleaved),
        ("1, 3, 2, 2", Order::Planar, &planar),
        ("1, 12", Order::Planar, &planar),
    ] {
        let arrays = [
            ("images", npy("|u1", shape, values)),
            ("labels", npy("<i8", "1,", &[0; 8])),
        ];
        let expected = [(order, values.clone())];
        assert_eq!(rows(&stored(&arrays).unwrap()), expected, "{shape}");
    }
}

#[test]
fn an_array_that_is_not_used_is_counted_and_a_test_split_may_lack_labels() {
    let mut arrays = four("x_train", "y_train");
    arrays.push(("x_test", npy("|u1", "1, 2, 2", &[9; 4])));
    arrays.push(("mean", npy("<f8", "1,", &[0; 8])));
    let source = stored(&arrays).unwrap();
    assert_eq!(source.splits[1].0, Split::Test);
    assert_eq!(source.splits[1].1[0].label, None);
    let passed_over: Vec<_> = (source.passed_over.iter())
        .map(|it| (it.kind.as_str(), it.count, it.example.as_str()))
        .collect();
    assert_eq!(passed_over, [("array that is not used", 1, "mean.npy")]);
}

#[test]
fn arrays_that_are_no_images_and_labels_are_named() {
    let only = |name, array| stored(&[(name, array)]);
    insta::assert_snapshot!(reason(only("weights", npy("<f4", "1,", &[0; 4]))), @"holds the arrays weights; expected train_images and train_labels, x_train and y_train, or images and labels");
    insta::assert_snapshot!(reason(only("images", npy("<f4", "1, 1, 1", &[0; 4]))), @"holds <f4 [1, 1, 1], expected |u1 [N, H, W], [N, H, W, 3], [N, 3, H, W] or [N, 3 * S * S]; download it again, or write it by numpy.savez_compressed");
    insta::assert_snapshot!(reason(only("images", npy("|u1", "1, 1, 1", &[0]))), @"has no labels: expected an array of them next to it; download it again, or write it by numpy.savez_compressed");
    let mut arrays = four("images", "labels");
    arrays[1].1 = npy("|u1", "3,", &[0; 3]);
    insta::assert_snapshot!(reason(stored(&arrays)), @"3 labels for 4 images; download it again, or write it by numpy.savez_compressed");
    arrays[1].1 = npy("|u1", "4, 2", &[0; 8]);
    insta::assert_snapshot!(reason(stored(&arrays)), @"holds |u1 [4, 2], expected integers [N] or [N, 1]; download it again, or write it by numpy.savez_compressed");
    arrays[1].1 = npy("<i2", "4,", &[0, 0, 255, 255, 1, 0, 0, 0]);
    let problems = problems(stored(&arrays));
    let problem = problems.first()[0].to_string();
    assert!(
        problem.ends_with(
            "labels.npy: row 1: label -1, expected 0 to 65535; mend the label or remove the row"
        ),
        "{problem}"
    );
}

#[test]
fn damaged_pixels_are_an_error_of_the_first_image_read() {
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let whole = npz(method, &four("images", "labels"));
        let mut bytes = whole.clone();
        // The data of the images ends before the second local header.
        let second = (4..)
            .find(|&at| bytes[at..].starts_with(b"PK\x03\x04"))
            .unwrap();
        let descriptor = bytes[second - 16..].starts_with(b"PK\x07\x08");
        bytes[second - 5 - usize::from(descriptor) * 16] ^= 0x10;
        let source = open_archive(&bytes, ".npz").unwrap();
        let mut reader = source.reader();
        for item in &source.splits[0].1 {
            let error = reader.read(item).unwrap_err().to_string();
            assert!(error.contains("the zip is damaged"), "{error}");
        }
    }
}

#[test]
fn a_thread_that_would_wait_for_an_array_prepares_the_next() {
    let mut arrays = four("x_train", "y_train");
    arrays.extend(four("x_val", "y_val"));
    arrays.extend(four("x_test", "y_test"));
    for is_begun in [false, true] {
        let source = open_archive(&npz(CompressionMethod::Deflated, &arrays), ".npz").unwrap();
        let Storage::Raw(raw) = &source.storage else {
            panic!("{source:?}");
        };
        let [first, others @ ..] = [0, 1, 2].map(|at| match &raw.blocks[at].pixels {
            Pixels::Zipped(pixels) => pixels,
            other => panic!("{other:?}"),
        });
        if is_begun {
            assert!(first.begin());
        }
        assert_eq!(rows(&source).len(), 4);
        assert!(first.is_ready());
        assert_eq!(others.map(Zipped::is_ready), [is_begun; 2]);
    }
}

/// A hundred images of a megabyte each.
#[test]
fn an_array_longer_than_any_file_is_read() {
    const SIDE: usize = 1024;
    let mut values = vec![0; 100 * SIDE * SIDE];
    for (image, pixels) in (0..).zip(values.chunks_exact_mut(SIDE * SIDE)) {
        pixels[image] = u8::try_from(image).unwrap();
    }
    assert!(values.len() as u64 > MAX_FILE);
    let arrays = [
        ("x_train", npy("|u1", "100, 1024, 1024", &values)),
        ("y_train", npy("|u1", "100,", &[0; 100])),
    ];
    let source = stored(&arrays).unwrap();
    let mut reader = source.reader();
    for (image, item) in source.splits[0].1.iter().enumerate() {
        let Image::Raw(RawImage { values: pixels, .. }) = reader.read(item).unwrap() else {
            panic!("{} is encoded", item.name);
        };
        assert_eq!(usize::from(pixels[image]), image);
        assert_eq!(pixels.iter().filter(|&&it| it > 0).count(), image.min(1));
    }
}

/// A batch of Downsampled ImageNet of these labels and images of 1 x 1.
fn batch(labels: &[u8]) -> Vec<u8> {
    let rows = labels.len();
    let data = npy("|u1", &format!("{rows}, 3"), &vec![7; rows * 3]);
    let labels = npy("|u1", &format!("{rows},"), labels);
    npz(
        CompressionMethod::Stored,
        &[("data", data), ("labels", labels)],
    )
}

fn batches(files: &[(&str, Vec<u8>)]) -> Result<Source, Error> {
    let files = files
        .iter()
        .map(|(name, bytes)| ((*name).to_owned(), bytes.clone()));
    Files(files.collect()).open_dir()
}

fn labels(source: &Source) -> Vec<u32> {
    let items = source.splits.iter().flat_map(|(_, items)| items);
    items.map(|item| item.label.unwrap()).collect()
}

#[test]
fn labels_of_downsampled_imagenet_begin_at_1_unless_one_is_0() {
    let source = batches(&[
        ("val/val_data.npz", batch(&[1, 3])),
        ("train/train_data_batch_2.npz", batch(&[2])),
        ("train/train_data_batch_1.npz", batch(&[3, 3])),
    ])
    .unwrap();
    assert_eq!(labels(&source), [2, 2, 1, 0, 2]);
    assert_eq!(source.classes.len(), 3);
    assert_eq!(
        source.notes,
        ["labels begin at 1 in the files: class 0 is their label 1"]
    );
    let source = batches(&[
        ("train_data_batch_1.npz", batch(&[3, 1])),
        ("val_data.npz", batch(&[0])),
    ])
    .unwrap();
    assert_eq!(labels(&source), [3, 1, 0]);
    let alone = open_archive(&batch(&[2, 1]), ".npz").unwrap();
    assert_eq!(labels(&alone), [1, 0]);
}

#[test]
fn classes_of_downsampled_imagenet_are_called_as_the_devkit_says() {
    let names = b"n02 2 kit_fox\nn01 1 tabby\n".to_vec();
    let files = [
        ("a/train_data_batch_1.npz", batch(&[1, 2])),
        ("a/map_clsloc.txt", names),
    ];
    let source = batches(&files).unwrap();
    let classes: Vec<_> = (source.classes.iter())
        .map(|class| (class.id.as_str(), class.name.as_str()))
        .collect();
    assert_eq!(classes, [("n01", "tabby"), ("n02", "kit fox")]);
    let with = |labels: &[u8], names: &str| {
        batches(&[
            ("train_data_batch_1.npz", batch(labels)),
            ("map_clsloc.txt", names.into()),
        ])
    };
    assert!(reason(with(&[1], "n1 2 x")).starts_with("expected each label from 1 once"));
    assert!(reason(with(&[1], "n1 x")).starts_with("line 1: expected WNID LABEL NAME"));
    let problems = problems(with(&[1, 2], "n1 1 x"));
    assert!(
        problems
            .to_string()
            .contains("row 1: label 1, expected 0 to 0")
    );
}

#[test]
fn batches_that_are_missing_or_there_twice_are_named() {
    let one = || batch(&[1]);
    let missing = problems(batches(&[
        ("train_data_batch_1.npz", one()),
        ("train_data_batch_4.npz", one()),
    ]));
    insta::assert_snapshot!(missing, @"
    2 problems
      train_data_batch_2 is missing: batches are numbered from 1 without a gap; fetch it, too
      train_data_batch_3 is missing: batches are numbered from 1 without a gap; fetch it, too
    ");
    let twice = reason(batches(&[
        ("train_data_batch_1.npz", one()),
        ("train_data_batch_1", one()),
    ]));
    assert!(twice.starts_with("holds the same batch as "), "{twice}");
    let no_train = problems(batches(&[("val_data.npz", one())]));
    assert!(matches!(no_train.first(), [TreeProblem::NoImages]));
    let reason = reason(batches(&[("train_data_batch_1", b"\x80\x02}.".to_vec())]));
    insta::assert_snapshot!(reason, @"has no array `data` of bytes with 3 * S * S columns, as protocols 3 to 5 write it; download or unpack it again");
}
