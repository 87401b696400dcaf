//! Faults that only a zip can have.

use std::io::Read;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::*;

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";

/// Offsets of fields in an entry of the zip's directory.
const FLAGS: usize = 8;
const METHOD: usize = 10;
const SIZE: usize = 24;
const MODE: usize = 38;
const OFFSET: usize = 42;

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes
        .windows(what.len())
        .position(|window| window == what)
        .unwrap()
}

/// The offset of the header of `name`, which `fixed` bytes part from the name.
fn header(bytes: &[u8], magic: &[u8], fixed: usize, name: &str) -> usize {
    let is_header = |&at: &usize| {
        bytes[at..].starts_with(magic) && bytes[at + fixed..].starts_with(name.as_bytes())
    };
    (0..bytes.len()).find(is_header).unwrap()
}

/// Overwrites a field of the entry of `name` in the zip's directory.
fn forge<const N: usize>(bytes: &mut [u8], name: &str, field: usize, value: [u8; N]) {
    let at = header(bytes, CENTRAL, 46, name) + field;
    bytes[at..at + N].copy_from_slice(&value);
}

/// The problem that such a change to the entry of an image makes, which must be the only one.
fn forged<const N: usize>(field: usize, value: [u8; N]) -> String {
    let mut bytes = Files::good().zip("");
    forge(&mut bytes, CAT_IMAGE, field, value);
    problems(open_zip(&bytes)).to_string()
}

/// Why the image whose local header has been changed by `edit` cannot be read.
fn damaged(edit: impl Fn(&mut Vec<u8>, usize)) -> ReadError {
    let mut bytes = Files::good().zip("");
    let at = header(&bytes, LOCAL, 30, CAT_IMAGE);
    edit(&mut bytes, at);
    let source = open_zip(&bytes).unwrap();
    match source.reader().read(&source.splits[0].1[0]) {
        Err(Error::Read { file, reason }) if file.ends_with(CAT_IMAGE) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn entries_of_any_shape_are_read() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for folder in ["t\\", "t\\train\\", "t\\val\\images\\"] {
        writer
            .start_file(folder, SimpleFileOptions::default())
            .unwrap();
    }
    for (index, (name, bytes)) in Files::good().0.iter().enumerate() {
        let mut options = ::zip::write::FullFileOptions::default();
        if index % 2 == 0 {
            options = options.compression_method(CompressionMethod::Deflated);
        }
        // Headers longer than the read that is meant to cover them, and zip64 sizes.
        if index % 3 == 0 {
            options.add_extra_field(0x7777, [7; 1000], false).unwrap();
        }
        options = options.large_file(index % 5 == 0);
        writer
            .start_file(format!("t\\{}", name.replace('/', "\\")), options)
            .unwrap();
        writer.write_all(bytes).unwrap();
    }
    assert_good(&open_zip(&writer.finish().unwrap().into_inner()).unwrap());
}

#[test]
fn a_zip_may_follow_other_bytes() {
    let bytes = [&[b'#'; 999], &*Files::good().zip("t/")].concat();
    assert_good(&open_zip(&bytes).unwrap());
}

#[test]
fn entries_that_cannot_be_read() {
    insta::assert_snapshot!(forged(FLAGS, [1]), @r#"
    1 problem
      train/n02/images/n02_0.JPEG: encrypted in the zip; unpack it with its password and pack the directory
    "#);
    insta::assert_snapshot!(forged(METHOD, [12]), @r#"
    1 problem
      train/n02/images/n02_0.JPEG: compressed in the zip by Bzip2, expected stored or deflated; zip it again
    "#);
    insta::assert_snapshot!(forged(SIZE, [1, 0, 0, 4]), @r#"
    1 problem
      train/n02/images/n02_0.JPEG: 67108865 bytes long or longer, expected at most 67108864
    "#);
    insta::assert_snapshot!(forged(MODE, (0o120_777_u32 << 16).to_le_bytes()), @r#"
    1 problem
      train/n02/images/n02_0.JPEG: a link in the archive; archive the file that it stands for (tar has --dereference --hard-dereference)
    "#);

    let mut bytes = Files::good().zip("");
    forge(&mut bytes, CAT_BOXES, FLAGS, [1]);
    let problems = problems(open_zip(&bytes));
    assert!(
        matches!(problems.first(), [TreeProblem::Unreadable { name, reason: ReadError::Encrypted }] if name == CAT_BOXES)
    );
}

#[test]
fn entries_that_are_damaged() {
    insta::assert_snapshot!(damaged(|bytes, at| bytes[at] = 0), @"the zip is damaged at byte 1576: no entry begins there; copy or download it again");
    insta::assert_snapshot!(damaged(|bytes, at| bytes[at + 27] = 0xff), @"the zip is damaged at byte 1576: its data goes on past the end of the file; copy or download it again");
    // One bit of the first byte of the data, behind a header without extra fields.
    insta::assert_snapshot!(damaged(|bytes, at| bytes[at + 30 + CAT_IMAGE.len()] ^= 1), @"the zip is damaged: checksum 5afdc174, expected 64ef7e4e; copy or download it again");
    let short = damaged(|bytes, _| forge(bytes, CAT_IMAGE, SIZE, [9, 0, 0, 0]));
    assert!(matches!(short, ReadError::Entry { .. }));
    let outside = damaged(|bytes, _| forge(bytes, CAT_IMAGE, OFFSET, [0xff, 0xff, 0xff, 0x7f]));
    assert!(matches!(
        outside,
        ReadError::Entry {
            offset: 0x7fff_ffff,
            ..
        }
    ));
}

#[test]
fn a_bomb_is_stopped() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    writer
        .start_file("train/n02/images/n02_0.JPEG", options)
        .unwrap();
    let mut zeros = io::repeat(0).take(MAX_FILE / 8);
    io::copy(&mut zeros, &mut writer).unwrap();
    for (name, text) in [("wnids.txt", "n02"), (CAT_BOXES, "n02_0.JPEG\t0\t0\t9\t9")] {
        writer.start_file(name, options).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    let mut bytes = writer.finish().unwrap().into_inner();
    // 8 MiB inflate from an entry that states 1,000 bytes.
    forge(&mut bytes, CAT_IMAGE, SIZE, 1000_u32.to_le_bytes());
    let source = open_zip(&bytes).unwrap();
    let mut reader = source.reader();
    assert!(reader.read(&source.splits[0].1[0]).is_err());
    assert!(reader.state.buffer.bytes.capacity() < 1 << 20);
}

#[test]
fn names_in_the_zip() {
    let mut files = Files::good();
    files.image("../secret.JPEG");
    files.image("/etc/secret.JPEG");
    insta::assert_snapshot!(problems(files.open_zip()), @r#"
    2 problems
      archive entry "../secret.JPEG": expected a relative path without `..`; make the archive again
      archive entry "/etc/secret.JPEG": expected a relative path without `..`; make the archive again
    "#);
    assert_eq!(problems(open_zip(&Files::good().zip("/"))).count(), 18);

    // The writer refuses to repeat a name, so one is overwritten afterwards.
    let mut files = Files::good();
    files.image("val/images/val_X.JPEG");
    let mut bytes = files.zip("");
    for (magic, fixed) in [(LOCAL, 30), (CENTRAL, 46)] {
        let at = header(&bytes, magic, fixed, "val/images/val_X.JPEG") + fixed;
        bytes[at..][.."val/images/val_1.JPEG".len()].copy_from_slice(b"val/images/val_1.JPEG");
    }
    let problems = problems(open_zip(&bytes));
    assert!(
        matches!(problems.first(), [TreeProblem::RepeatedEntry { name }] if name == "val/images/val_1.JPEG")
    );

    let mut files = Files::good();
    files.image("val\\images\\val_1.JPEG");
    let problems = super::problems(files.open_zip());
    assert!(
        matches!(problems.first(), [TreeProblem::RepeatedEntry { name }] if name == "val/images/val_1.JPEG")
    );
}

#[test]
fn a_zip_that_counts_too_few_is_refused() {
    let files = Files::good();
    let mut bytes = files.zip("");
    let end = find(&bytes, END);
    for count in [end + 8, end + 10] {
        bytes[count] -= 3;
    }
    let counted = files.0.len() - 3;
    assert!(
        matches!(open_zip(&bytes), Err(Error::ZipCount { counted: got, listed, .. }) if got == counted && listed == counted + 3)
    );
}

/// A zip of more than 4 GiB as Archive Utility and `ditto` of macOS write it: offsets of 32 bits, and no zip64. Here
/// most of it is a hole in the file.
#[test]
fn a_zip_of_macos_beyond_4_gib_is_read() {
    const HOLE: u64 = 9 << 30;
    let files = Files::good();
    let mut bytes = files.zip("");
    let cut = header(&bytes, LOCAL, 30, "train/n02/images/n02_10.JPEG");
    let end = find(&bytes, END);
    let directory = find(&bytes, CENTRAL);
    let beyond = |offset: u32| {
        let moved = u64::from(offset) + HOLE;
        u32::try_from(moved % (1 << 32)).unwrap().to_le_bytes()
    };
    let mut fields = vec![end + 16];
    for name in files.0.keys() {
        fields.push(header(&bytes, CENTRAL, 46, name) + OFFSET);
    }
    for at in fields {
        let offset = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        if offset as usize >= cut {
            bytes[at..at + 4].copy_from_slice(&beyond(offset));
        }
    }
    let write = |bytes: &[u8]| {
        let file = tempfile::Builder::new().suffix(".zip").tempfile().unwrap();
        file.as_file().write_all_at(&bytes[..cut], 0).unwrap();
        let rest = cut as u64 + HOLE;
        file.as_file().write_all_at(&bytes[cut..], rest).unwrap();
        Source::open(file.path())
    };
    assert_good(&write(&bytes).unwrap());
    // Python's zipfile, unzip and others count the entries before they trust such offsets.
    let mut fewer = bytes.clone();
    fewer[end + 10] -= 1;
    fewer[end + 8] -= 1;
    assert!(matches!(write(&fewer), Err(Error::ZipCount { .. })));
    assert!(directory > cut);
}

#[test]
fn a_zip_cut_anywhere_is_refused() {
    let bytes = Files::good().zip("");
    for length in (0..bytes.len()).step_by(7) {
        assert!(
            matches!(open_zip(&bytes[..length]), Err(Error::Zip { .. })),
            "cut to {length} bytes"
        );
    }
}

#[test]
fn a_deep_path_costs_little() {
    let mut files = Files::good();
    files.image(&"a/".repeat(30_000));
    assert_good(&files.open_zip().unwrap());
}

/// Opens and reads what there is. What is read of a labelled image must be what was zipped: a test
/// image has nothing but its name to know it by.
fn never_other_bytes(zip: &[u8]) {
    let Ok(source) = open_zip(zip) else { return };
    let (files, mut reader) = (Files::good(), source.reader());
    for item in source.splits.iter().flat_map(|(_, items)| items) {
        if let Ok(image) = reader.read(item)
            && item.label.is_some()
        {
            assert_eq!(image, Image::Encoded(&files.0[&item.name]));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_flipped_bit_gives_other_bytes(place: prop::sample::Index, bit in 0..8) {
        let mut bytes = Files::good().zip("");
        let at = place.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        never_other_bytes(&bytes);
    }

    #[test]
    fn no_damage_makes_it_panic(
        at: prop::sample::Index,
        garbage in prop::collection::vec(any::<u8>(), 0..64),
        end: prop::sample::Index,
    ) {
        let mut bytes = Files::good().zip("t/");
        let at = at.index(bytes.len());
        let length = garbage.len().min(bytes.len() - at);
        bytes[at..at + length].copy_from_slice(&garbage[..length]);
        let _ = open_zip(&bytes);
        let _ = open_zip(&bytes[end.index(bytes.len())..]);
        let _ = open_zip(&garbage);
    }

    #[test]
    fn no_text_makes_it_panic(
        file in prop::sample::select(&["wnids.txt", "words.txt", CAT_BOXES, VAL_LIST][..]),
        text in prop_oneof!["[n0123\t\n\r_.JPEG/-]{0,80}", "\\PC{0,80}"],
        bytes: Vec<u8>,
        binary: bool,
    ) {
        let mut files = Files::good();
        files.0.insert(file.to_owned(), if binary { bytes } else { text.into_bytes() });
        match files.open_zip() {
            Ok(source) => assert_bytes(&source, &files),
            Err(error) => prop_assert!(matches!(error, Error::Tree { .. }), "{error}"),
        }
    }
}
