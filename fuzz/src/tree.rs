use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use tinyres::source::{Error, Source, Split};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// The texts of a Tiny ImageNet, in the order in which [`annotations`] takes them.
const TEXTS: [&str; 5] = [
    "wnids.txt",
    "words.txt",
    "train/n1/n1_boxes.txt",
    "train/n2/n2_boxes.txt",
    "val/val_annotations.txt",
];
const IMAGES: [&str; 6] = [
    "train/n1/images/a.JPEG",
    "train/n1/images/b.JPEG",
    "train/n2/images/c.JPEG",
    "val/images/v_0.JPEG",
    "val/images/v_1.JPEG",
    "test/images/t_0.JPEG",
];

/// The annotations of a small tree: [`TEXTS`] as the bytes have them, parted by the byte FF. Texts
/// that the bytes lack are absent.
pub fn annotations(data: &[u8]) -> bool {
    let texts: BTreeMap<_, _> = TEXTS
        .into_iter()
        .zip(data.split(|&byte| byte == 0xFF))
        .collect();
    let images = IMAGES.iter().map(|&name| (name, name.as_bytes()));
    let files = texts
        .iter()
        .map(|(&name, &text)| (name, text))
        .chain(images);
    let source = match open(&archive(files)) {
        Ok(source) => source,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let text = |name| {
        std::str::from_utf8(texts.get(name).copied().unwrap_or_default()).expect("it was read")
    };
    let wnids = text("wnids.txt").trim_start_matches('\u{feff}').lines();
    assert!(wnids.eq(source.classes.iter().map(|class| class.id.as_str())));
    for class in &source.classes {
        let named =
            |line: &str| line.split_once('\t') == Some((class.id.as_str(), class.name.as_str()));
        assert!(class.name == class.id || text("words.txt").lines().any(named));
    }
    let mut seen = BTreeSet::new();
    for (split, items) in &source.splits {
        for item in items {
            assert!(item.name.starts_with(split.name()) && seen.insert(item.name.as_str()));
            if *split == Split::Test {
                assert_eq!((item.label, item.bbox), (None, None));
            } else {
                let class = &source.classes[item.label.expect("annotated") as usize].id;
                assert!(*split == Split::Val || item.name.starts_with(&format!("train/{class}/")));
                let [x0, y0, x1, y1] = item.bbox.expect("annotated");
                assert!(0 <= x0 && x0 <= x1 && 0 <= y0 && y0 <= y1);
            }
            let mut bytes = b"what was there before".to_vec();
            source.read(item, &mut bytes).expect("a file of the tree");
            assert_eq!(bytes, item.name.as_bytes());
        }
    }
    assert!(
        seen.into_iter()
            .eq(IMAGES.into_iter().collect::<BTreeSet<_>>())
    );
    true
}

/// Any bytes as a zip: what it gives must be what the `zip` crate's own reader gives.
pub fn zip(data: &[u8]) -> bool {
    let source = match open(data) {
        Ok(source) => source,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let mut archive = ZipArchive::new(Cursor::new(data)).expect("the reader that took it");
    let mut twins = Vec::new();
    for index in 0..archive.len() {
        if let Ok(mut entry) = archive.by_index(index)
            && let Ok(name) = entry.name().map(|name| name.replace('\\', "/"))
        {
            let mut bytes = Vec::new();
            if entry.read_to_end(&mut bytes).is_ok() {
                twins.push((name, bytes));
            }
        }
    }
    let mut bytes = Vec::new();
    for item in source.splits.iter().flat_map(|(_, items)| items) {
        match source.read(item, &mut bytes) {
            Ok(()) => {
                let same =
                    |(name, twin): &(String, _)| name.ends_with(&item.name) && *twin == bytes;
                assert!(twins.iter().any(same), "{}", item.name);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    true
}

/// Opens bytes as a file that has no name and goes with its thread.
fn open(bytes: &[u8]) -> Result<Source, Error> {
    thread_local!(static FILE: File = tempfile::tempfile().expect("a temporary file"));
    FILE.with(|file| {
        file.set_len(0)
            .and_then(|()| file.write_all_at(bytes, 0))
            .expect("room for it");
        Source::open(format!("/dev/fd/{}", file.as_raw_fd()).as_ref())
    })
}

fn archive<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in files {
        writer.start_file(name, stored).expect("a new name");
        writer.write_all(bytes).expect("memory");
    }
    writer.finish().expect("memory").into_inner()
}
