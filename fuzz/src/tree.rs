use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tar::{Archive, EntryType, Header};
use tempfile::TempDir;
use tinyres::source::{Image, Source, Split};
use zip::ZipArchive;

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

/// The CSV files that `tinyres unpack` writes, in the order in which [`csv`] takes them.
const LISTS: [&str; 4] = [
    "classes.csv",
    "train/metadata.csv",
    "val/metadata.csv",
    "test/metadata.csv",
];
const UNPACKED: [&str; 6] = [
    "train/a/1.png",
    "train/a/2.png",
    "train/b/3.png",
    "val/a/4.png",
    "val/b/5.png",
    "test/6.png",
];

/// The annotations of a small tree: [`TEXTS`] as the bytes have them, parted by the byte FF. Texts
/// that the bytes lack are absent.
pub fn annotations(data: &[u8]) -> bool {
    thread_local!(static TREE: TempDir = tree(&IMAGES).expect("a directory of its own"));
    let texts = parts(&TEXTS, data);
    let Some(source) = TREE.with(|tree| with_texts(tree, &TEXTS, &texts)) else {
        return false;
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
    let (mut seen, mut reader) = (BTreeSet::new(), source.reader());
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
            let image = reader.read(item).expect("a file of the tree");
            assert_eq!(image, Image::Encoded(item.name.as_bytes()));
        }
    }
    assert!(
        seen.into_iter()
            .eq(IMAGES.into_iter().collect::<BTreeSet<_>>())
    );
    true
}

/// The CSV files of an unpacked set: [`LISTS`] as the bytes have them, parted by the byte FF. Files that the bytes lack
/// are absent.
pub fn csv(data: &[u8]) -> bool {
    thread_local!(static TREE: TempDir = tree(&UNPACKED).expect("a directory of its own"));
    let Some(source) = TREE.with(|tree| with_texts(tree, &LISTS, &parts(&LISTS, data))) else {
        return false;
    };
    let (mut seen, mut reader) = (BTreeSet::new(), source.reader());
    // Whatever the lists say, a class has the images of one folder.
    let (mut classes, mut folders) = (BTreeMap::new(), BTreeMap::new());
    for item in source.splits.iter().flat_map(|(_, items)| items) {
        assert!(seen.insert(item.name.as_str()));
        let parts: Vec<_> = item.name.split('/').collect();
        match (item.label, &parts[..]) {
            (Some(label), [_, folder, _]) => {
                assert!((label as usize) < source.classes.len());
                assert_eq!(*classes.entry(label).or_insert(*folder), *folder);
                assert_eq!(*folders.entry(*folder).or_insert(label), label);
            }
            (label, _) => assert!(label.is_none() && parts[0] == "test"),
        }
        if let Some([x0, y0, x1, y1]) = item.bbox {
            assert!(0 <= x0 && x0 <= x1 && 0 <= y0 && y0 <= y1);
        }
        let image = reader.read(item).expect("a file of the tree");
        assert_eq!(image, Image::Encoded(item.name.as_bytes()));
    }
    assert!(seen.into_iter().eq(BTreeSet::from(UNPACKED)));
    true
}

/// Any bytes as a zip: what it gives must be what the `zip` crate's own reader gives.
pub fn zip(data: &[u8]) -> bool {
    let Some(source) = unpacked(data) else {
        return false;
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
    compare(&source, &twins);
    true
}

/// Any bytes as a tar, as they are and then with the checksums that its headers should have: what it
/// gives must be what the `tar` crate reads from its beginning to its end.
pub fn tar(data: &[u8]) -> bool {
    let mut mended = data.to_vec();
    mend(&mut mended);
    let plain = examine(data);
    examine(&mended) || plain
}

fn examine(data: &[u8]) -> bool {
    let Some(source) = unpacked(data) else {
        return false;
    };
    let mut twins = Vec::new();
    for entry in Archive::new(data).entries().expect("at its beginning") {
        let mut entry = entry.expect("the reader that took it");
        let name = escaped(&entry.path_bytes());
        // What a sparse file expands to may have any length, and is not read here.
        if entry.header().entry_type() != EntryType::GNUSparse {
            let mut bytes = Vec::new();
            let whole = entry.read_to_end(&mut bytes).is_ok();
            twins.extend(whole.then_some((name, bytes)));
        }
    }
    compare(&source, &twins);
    true
}

/// A name as a source shows it: with `%` and two digits for each byte that is not UTF-8.
fn escaped(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        let digits = chunk.invalid().iter().map(|byte| format!("%{byte:02X}"));
        text.extend(digits);
    }
    text
}

/// Makes good the checksum of each header, and the mark of the first, by which a tar is told.
pub(super) fn mend(file: &mut [u8]) {
    const BLOCK: usize = size_of::<Header>();
    if let Some(mark) = file.get_mut(257..262) {
        mark.copy_from_slice(b"ustar");
    }
    let mut at = Some(0);
    while let Some(block) = at.and_then(|at| file.get_mut(at..)?.first_chunk_mut::<BLOCK>()) {
        let mut header = Header::from_byte_slice(block).clone();
        let mut size = 0;
        if *block != [0; BLOCK] {
            header.set_cksum();
            *block = *header.as_bytes();
            size = header.entry_size().unwrap_or_default();
        }
        at = usize::try_from(size).ok().and_then(|size| {
            size.checked_next_multiple_of(BLOCK)?
                .checked_add(at? + BLOCK)
        });
    }
}

/// Each image that can be read must be one of `twins`, names and bytes in the archive.
fn compare(source: &Source, twins: &[(String, Vec<u8>)]) {
    let items: Vec<_> = source.splits.iter().flat_map(|(_, items)| items).collect();
    let mut reader = source.reader();
    reader.load(&items);
    for item in items {
        match reader.read(item) {
            Ok(image) => {
                let same = |(name, twin): &(String, Vec<u8>)| {
                    name.ends_with(&item.name) && Image::Encoded(twin) == image
                };
                assert!(twins.iter().any(same), "{}", item.name);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// The source at this path, if it is one.
pub(super) fn opened(path: &Path) -> Option<Source> {
    Source::open(path)
        .map_err(|error| assert!(!error.to_string().is_empty()))
        .ok()
}

/// The source in an archive of these bytes, if it is one. The file has no name and goes with its thread.
pub(super) fn unpacked(bytes: &[u8]) -> Option<Source> {
    thread_local!(static FILE: File = tempfile::tempfile().expect("a temporary file"));
    FILE.with(|file| {
        file.set_len(0)
            .and_then(|()| file.write_all_at(bytes, 0))
            .expect("room for it");
        opened(format!("/dev/fd/{}", file.as_raw_fd()).as_ref())
    })
}

/// The text of each file, as the bytes have them, parted by the byte FF.
fn parts<'d>(names: &[&'static str], data: &'d [u8]) -> BTreeMap<&'static str, &'d [u8]> {
    (names.iter().copied())
        .zip(data.split(|&byte| byte == 0xFF))
        .collect()
}

/// The source in `tree` with these files, and without those of `names` that `texts` lacks.
fn with_texts(tree: &TempDir, names: &[&str], texts: &BTreeMap<&str, &[u8]>) -> Option<Source> {
    for name in names {
        let path = tree.path().join(name);
        match texts.get(name) {
            Some(text) => fs::write(path, text).expect("room for it"),
            None => drop(fs::remove_file(path)),
        }
    }
    opened(tree.path())
}

/// A directory with files of these names, each of which holds its own name.
fn tree(names: &[&str]) -> io::Result<TempDir> {
    let tree = tempfile::tempdir()?;
    for name in names {
        let path = tree.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder"))?;
        fs::write(path, name)?;
    }
    Ok(tree)
}
