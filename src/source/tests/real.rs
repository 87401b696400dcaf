//! The real Tiny ImageNet, where `TINYRES_REAL_DATA` names its zip or its tree.

use std::io::Read;
use std::path::PathBuf;

use ::zip::ZipArchive;

use super::*;

#[test]
#[ignore = "needs TINYRES_REAL_DATA"]
fn the_real_zip_and_its_tree_give_the_same() {
    let path = std::env::var_os("TINYRES_REAL_DATA");
    let path = PathBuf::from(path.expect("names a Tiny ImageNet zip or tree"));
    let given = Source::open(&path).unwrap();
    // The other of the two is made by other means than ours.
    let (zip, dir, unpacked);
    if path.is_dir() {
        zip = open_zip(&listed(&given).zip("tiny-imagenet-200/")).unwrap();
        dir = given;
    } else {
        unpacked = unzipped(&path).dir();
        dir = Source::open(unpacked.path()).unwrap();
        zip = given;
    }
    assert_eq!(zip.classes, dir.classes);
    assert_eq!(zip.splits, dir.splits);
    let (mut a, mut b) = (zip.reader(), dir.reader());
    for item in zip.splits.iter().flat_map(|(_, items)| items) {
        assert_eq!(
            a.read(item).unwrap(),
            b.read(item).unwrap(),
            "{}",
            item.name
        );
    }

    // What is known of the full set and of its half.
    let counts: Vec<_> = zip
        .splits
        .iter()
        .map(|(split, items)| (*split, items.len()))
        .collect();
    let known = |counts: [usize; 3]| {
        [Split::Train, Split::Val, Split::Test]
            .into_iter()
            .zip(counts)
            .collect::<Vec<_>>()
    };
    assert!(
        [[50_000, 5_000, 500], [100_000, 10_000, 10_000]]
            .map(known)
            .contains(&counts),
        "{counts:?}"
    );
    assert_eq!(zip.classes.len(), 200);
    assert_eq!(
        (&*zip.classes[0].id, &*zip.classes[0].name),
        ("n02124075", "Egyptian cat")
    );
    assert!(!zip.classes.is_sorted_by_key(|class| &class.id));
    let (train, test) = (&zip.splits[0].1, &zip.splits[2].1);
    let per_class = train.len() / 200;
    assert!(
        train
            .iter()
            .enumerate()
            .all(|(index, item)| item.label == u32::try_from(index / per_class).ok())
    );
    assert_eq!(
        train[0],
        item("train/n02124075/images/n02124075_0.JPEG", 0, [1, 0, 53, 63])
    );
    assert!(
        test.iter()
            .all(|item| item.label.is_none() && item.bbox.is_none())
    );
}

/// The files of a zip, as the `zip` crate reads them.
fn unzipped(path: &Path) -> Files {
    let mut archive = ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let mut files = Files(BTreeMap::new());
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        if entry.is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.0.insert(entry.name().unwrap().into_owned(), bytes);
        }
    }
    files
}

/// The images of a directory, and the texts that tell of them.
fn listed(source: &Source) -> Files {
    let boxes = source
        .classes
        .iter()
        .map(|class| format!("train/{0}/{0}_boxes.txt", class.id));
    let texts = ["wnids.txt", "words.txt", VAL_LIST].map(String::from);
    let images = source
        .splits
        .iter()
        .flat_map(|(_, items)| items)
        .map(|item| item.name.clone());
    let Storage::Tree(tree) = &source.storage else {
        panic!("a directory of images is a tree");
    };
    let file = |name: String| {
        let bytes = fs::read(tree.display_path(&name)).unwrap();
        (name, bytes)
    };
    Files(
        texts
            .into_iter()
            .chain(boxes)
            .chain(images)
            .map(file)
            .collect(),
    )
}
