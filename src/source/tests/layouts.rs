//! The layouts that common scripts and download pages leave behind.

use super::*;

const VAL: [(&str, &str); 3] = [
    ("val_2.JPEG", "n01"),
    ("val_0.JPEG", "n02"),
    ("val_1.JPEG", "n03"),
];

/// Files that hold their own names.
fn files(names: &[&str]) -> Files {
    let mut files = Files::default();
    names.iter().for_each(|name| files.image(name));
    files
}

/// The source as all storages have it, which must be one.
#[track_caller]
fn open(files: &Files) -> Source {
    let dir = files.dir();
    let source = Source::open(dir.path()).unwrap();
    for other in [files.open_zip().unwrap(), files.open_tar().unwrap()] {
        assert_eq!(other.classes, source.classes);
        assert_eq!(other.splits, source.splits);
        assert_eq!(other.layout, source.layout);
        assert_eq!(other.notes, source.notes);
        assert_eq!(other.passed_over, source.passed_over);
        assert_bytes(&other, files);
    }
    assert_bytes(&source, files);
    source
}

/// The problems that all storages have.
#[track_caller]
fn broken(files: &Files) -> Problems<TreeProblem> {
    let [dir, zip, tar] = [files.open_dir(), files.open_zip(), files.open_tar()].map(problems);
    assert_eq!(dir.to_string(), zip.to_string());
    assert_eq!(dir.to_string(), tar.to_string());
    dir
}

/// Name, label and box of an image.
type Listed<'a> = (&'a str, Option<u32>, Option<[i32; 4]>);

/// The images of a split.
fn listing(source: &Source, split: Split) -> Vec<Listed<'_>> {
    let splits = source.splits.iter().filter(|(it, _)| *it == split);
    splits
        .flat_map(|(_, items)| items)
        .map(|item| (&*item.name, item.label, item.bbox))
        .collect()
}

fn names(source: &Source, split: Split) -> Vec<(&str, Option<u32>)> {
    let listing = listing(source, split).into_iter();
    listing.map(|(name, label, _)| (name, label)).collect()
}

impl Files {
    fn rename(&mut self, from: &str, to: &str) {
        let bytes = self.0.remove(from).unwrap();
        self.0.insert(to.to_owned(), bytes);
    }

    /// Renames everything whose path begins with `from`.
    fn rename_all(&mut self, from: &str, to: &str) {
        let all = std::mem::take(&mut self.0).into_iter();
        self.0 = all
            .map(|(name, bytes)| match name.strip_prefix(from) {
                Some(rest) => (format!("{to}{rest}"), bytes),
                None => (name, bytes),
            })
            .collect();
    }

    /// The good tree with its val images in the class folders that `folder` names.
    fn sorted_val(folder: impl Fn(&str) -> String) -> Self {
        let mut files = Self::good();
        for (name, wnid) in VAL {
            let to = format!("{}/{name}", folder(wnid));
            files.rename(&format!("val/images/{name}"), &to);
        }
        files
    }
}

#[test]
fn val_in_class_folders_is_read_with_and_without_annotations() {
    let boxes = [[1, 2, 3, 4], [0, 0, 0, 9], [0, 0, 63, 63]];
    for folder in ["val/WNID/images", "val/WNID", "val/images/WNID"] {
        for list in [
            Some("val/val_annotations.txt"),
            Some("val/images/val_annotations.txt"),
            Some("val_annotations.txt"),
            None,
        ] {
            let place = |wnid: &str| folder.replace("WNID", wnid);
            let mut files = Files::sorted_val(place);
            match list {
                Some(VAL_LIST) => {}
                Some(other) => files.rename(VAL_LIST, other),
                None => files.remove(VAL_LIST),
            }
            let source = open(&files);
            // In the order of the classes: n02, n03, n01.
            let expected = [
                format!("{}/val_0.JPEG", place("n02")),
                format!("{}/val_1.JPEG", place("n03")),
                format!("{}/val_2.JPEG", place("n01")),
            ];
            let found = listing(&source, Split::Val);
            for (at, (name, label, bbox)) in found.iter().enumerate() {
                assert_eq!((*name, *label), (&*expected[at], u32::try_from(at).ok()));
                assert_eq!(*bbox, list.map(|_| boxes[at]), "{folder} {list:?}");
            }
            assert_eq!(found.len(), 3);
            assert!(source.layout.contains("val/ in class folders"));
            assert_eq!((source.splits[0].1.len(), source.splits[2].1.len()), (6, 3));
        }
    }
}

#[test]
fn annotations_of_sorted_val_must_agree_with_the_folders() {
    let place = |wnid: &str| format!("val/{wnid}");
    let mut files = Files::sorted_val(place);
    files.rename("val/n02/val_0.JPEG", "val/n03/val_0.JPEG");
    insta::assert_snapshot!(broken(&files), @r"
    1 problem
      val/val_annotations.txt:2: val_0.JPEG is of class n02 here, but lies in val/n03; correct the line, or move the image
    ");
    files.replace(VAL_LIST, "val_0.JPEG\tn02", "val_0.JPEG\tn03");
    assert_eq!(open(&files).splits[1].1.len(), 3);

    let mut files = Files::sorted_val(place);
    files.remove("val/n02/");
    insta::assert_snapshot!(broken(&files), @r#"
    1 problem
      val/val_annotations.txt:2: "val_0.JPEG" is not in val/n02; restore the image or remove the line
    "#);
    let mut files = Files::sorted_val(place);
    files.image("val/n04/val_9.JPEG");
    insta::assert_snapshot!(broken(&files), @r"
    1 problem
      val/n04: wnids.txt does not list this class; add it there or remove the folder
    ");
}

#[test]
fn flattened_train_keeps_its_boxes() {
    let mut files = Files::good();
    for wnid in ["n01", "n02", "n03"] {
        files.rename_all(&format!("train/{wnid}/images/"), &format!("train/{wnid}/"));
    }
    let source = open(&files);
    let first = listing(&source, Split::Train)[0];
    assert_eq!(
        first,
        ("train/n02/n02_0.JPEG", Some(0), Some([0, 1, 62, 63]))
    );
    // Without any list of boxes there are none; a list that one class alone lacks is missed.
    files.remove("train/n01/n01_boxes.txt");
    assert!(
        matches!(broken(&files).first(), [TreeProblem::Missing { name, .. }] if name == "train/n01/n01_boxes.txt")
    );
    files.remove("train/n02/n02_boxes.txt");
    files.remove("train/n03/n03_boxes.txt");
    let source = open(&files);
    let train = listing(&source, Split::Train);
    assert_eq!(train[1], ("train/n02/n02_10.JPEG", Some(0), None));
    assert_eq!(train.len(), 6);
    assert!(source.layout.contains("no boxes of train"));
}

#[test]
fn train_of_tiny_imagenet_alone_is_a_set() {
    let mut files = Files::good();
    for part in ["val/", "test/", "wnids.txt", "words.txt"] {
        files.remove(part);
    }
    files.rename_all("train/", "");
    for flat in [false, true] {
        if flat {
            for wnid in ["n01", "n02", "n03"] {
                files.rename_all(&format!("{wnid}/images/"), &format!("{wnid}/"));
            }
        }
        let source = open(&files);
        let images = if flat { "" } else { "images/" };
        let expected = (
            &*format!("n01/{images}n01_0.JPEG"),
            Some(0),
            Some([0, 1, 62, 63]),
        );
        assert_eq!(listing(&source, Split::Train)[0], expected);
        assert_eq!(source.splits.len(), 1);
        let mut source = source;
        source.hold_out(0.5).unwrap();
    }
    // The lists of boxes removed, too: class folders, whose images may lie deeper.
    for wnid in ["n01", "n02", "n03"] {
        files.remove(&format!("{wnid}/{wnid}_boxes.txt"));
        files.rename_all(&format!("{wnid}/"), &format!("{wnid}/images/"));
    }
    assert_eq!(open(&files).splits[0].1.len(), 6);
}

#[test]
fn test_images_lie_in_test_itself_too() {
    let mut files = Files::good();
    files.rename_all("test/images/", "test/");
    let source = open(&files);
    let expected = ["test/test_0.JPEG", "test/test_2.JPEG", "test/test_10.JPEG"];
    assert_eq!(
        names(&source, Split::Test),
        expected.map(|name| (name, None))
    );
}

#[test]
fn pngs_of_tiny_imagenet_are_packed_or_named() {
    let mut files = Files::good();
    files.image("test/images/test_11.png");
    files.rename(CAT_IMAGE, "train/n02/images/n02_0.png");
    files.replace(CAT_BOXES, "n02_0.JPEG", "n02_0.png");
    let source = open(&files);
    assert_eq!(names(&source, Split::Test)[3].0, "test/images/test_11.png");
    assert_eq!(
        names(&source, Split::Train)[0].0,
        "train/n02/images/n02_0.png"
    );
    files.image("train/n02/images/more.png");
    assert!(
        matches!(broken(&files).first(), [TreeProblem::Unlisted { image, .. }] if image == "train/n02/images/more.png")
    );
}

#[test]
fn split_names_are_known_in_any_case() {
    for (train, val, test) in [
        ("Train", "Val", "Test"),
        ("TRAINING", "VALIDATION", "TESTING"),
        ("training", "dev", "testing"),
        ("seg_train", "seg_val", "seg_test"),
        ("seg_train/seg_train", "seg_valid", "seg_test/seg_test"),
        ("train/train", "val/val", "test/test"),
        ("train_images/images", "Valid", "test2017"),
    ] {
        let all: Vec<String> = [train, val, test]
            .iter()
            .flat_map(|split| ["cat", "dog"].map(|class| format!("{split}/{class}/1.jpg")))
            .collect();
        let source = open(&files(&all.iter().map(String::as_str).collect::<Vec<_>>()));
        let splits: Vec<_> = (source.splits.iter())
            .map(|(split, items)| (*split, items.len()))
            .collect();
        let expected = [(Split::Train, 2), (Split::Val, 2), (Split::Test, 2)];
        assert_eq!(splits, expected, "{train}");
        assert!(source.passed_over.is_empty(), "{:?}", source.passed_over);
        assert!(source.splits[2].1.iter().all(|item| item.label.is_some()));
    }
    // Names that differ only in case: splits clash, and classes are told.
    let problems = broken(&files(&["Train/cat/1.jpg", "train/cat/1.jpg"]));
    insta::assert_snapshot!(problems, @r"
    1 problem
      Train/ and train/ are both there, expected one train split; remove one of the two
    ");
    let source = open(&files(&[
        "train/Cat/1.jpg",
        "train/dog/1.jpg",
        "val/cat/1.jpg",
    ]));
    assert_eq!(names(&source, Split::Val), [("val/cat/1.jpg", Some(0))]);
    let source = open(&files(&["train/Cat/1.jpg", "train/cat/1.jpg"]));
    assert_eq!(
        source.notes,
        ["the classes Cat and cat differ only in case"]
    );
}

#[test]
fn other_folders_than_splits_are_counted() {
    let source = open(&files(&[
        "seg_train/cat/1.jpg",
        "seg_train/dog/1.jpg",
        "seg_pred/1.jpg",
        "README.md",
    ]));
    let counted: Vec<_> = (source.passed_over.iter())
        .map(|it| (&*it.kind, it.count, &*it.example))
        .collect();
    let expected = [
        (".md", 1, "README.md"),
        ("folder that is not a split", 1, "seg_pred"),
    ];
    assert_eq!(counted, expected);
}

#[test]
fn test_images_in_a_folder_of_any_name_are_unlabelled() {
    let all = ["train/cat/1.jpg", "train/dog/1.jpg"];
    for folder in ["test/unknown", "Test/images", "test/test"] {
        let mut files = files(&all);
        for image in [10, 9] {
            files.image(&format!("{folder}/{image}.jpg"));
        }
        let source = open(&files);
        let expected = [9, 10].map(|image| format!("{folder}/{image}.jpg"));
        let expected: Vec<_> = expected.iter().map(|name| (&**name, None)).collect();
        assert_eq!(names(&source, Split::Test), expected);
        assert!(source.notes[0].contains("packed without labels"));
    }
    // Two such folders are classes that train lacks.
    let mut files = files(&all);
    files.image("test/bird/1.jpg");
    files.image("test/mouse/1.jpg");
    assert_eq!(broken(&files).count(), 2);
}

#[test]
fn test_next_to_class_folders_is_a_split() {
    let source = open(&files(&[
        "cat/1.jpg",
        "dog/1.jpg",
        "test/1.jpg",
        "test/2.jpg",
    ]));
    assert_eq!(source.classes.len(), 2);
    let expected = [("test/1.jpg", None), ("test/2.jpg", None)];
    assert_eq!(names(&source, Split::Test), expected);
    let source = open(&files(&[
        "cat/1.jpg",
        "dog/1.jpg",
        "test/cat/1.jpg",
        "val/dog/1.jpg",
    ]));
    assert_eq!(names(&source, Split::Test), [("test/cat/1.jpg", Some(0))]);
    assert_eq!(names(&source, Split::Val), [("val/dog/1.jpg", Some(1))]);
    assert_eq!(source.notes.len(), 2);
    // With one other folder, both are classes; so is a folder that only contains the word.
    let source = open(&files(&["control/1.jpg", "test/1.jpg"]));
    assert_eq!(source.classes.len(), 2);
    let source = open(&files(&["cat/1.jpg", "dog/1.jpg", "test tube/1.jpg"]));
    assert_eq!(source.classes.len(), 3);
}

#[test]
fn a_class_may_be_called_train() {
    let source = open(&files(&["bus/1.jpg", "car/1.jpg", "train/1.jpg"]));
    assert_eq!(names(&source, Split::Train)[2], ("train/1.jpg", Some(2)));
    let source = open(&files(&[
        "train/bus/1.jpg",
        "train/train/1.jpg",
        "val/train/2.jpg",
    ]));
    assert_eq!(
        names(&source, Split::Train)[1],
        ("train/train/1.jpg", Some(1))
    );
    assert_eq!(names(&source, Split::Val), [("val/train/2.jpg", Some(1))]);
}

#[test]
fn a_tree_may_lie_two_folders_down_or_in_a_chain_of_folders() {
    for files in [Files::good(), files(&["cat/1.jpg", "dog/1.jpg"])] {
        for (prefix, others) in [
            ("archive/tiny-imagenet-200", true),
            ("archive/tiny-imagenet-200/tiny-imagenet-200", false),
            ("a/b/c/d/e", false),
        ] {
            let outer = tempfile::tempdir().unwrap();
            let inner = outer.path().join(prefix);
            fs::create_dir_all(inner.parent().unwrap()).unwrap();
            fs::rename(files.dir().keep(), inner).unwrap();
            if others {
                fs::create_dir_all(outer.path().join("other/folder")).unwrap();
            }
            let source = Source::open(outer.path()).unwrap();
            assert_eq!(source.splits, open(&files).splits, "{prefix}");
        }
    }
}

#[test]
fn what_tinyres_writes_is_not_read() {
    let set = ["dataset.json", "train-00000.bin"];
    let killed = [".packing/train-00000.bin"];
    let run = [
        "mine/config.toml",
        "mine/metrics.jsonl",
        "mine/last.safetensors",
    ];
    for prefix in ["", "train/"] {
        let mut files = files(&[]);
        for class in ["cat", "dog"] {
            files.image(&format!("{prefix}{class}/1.jpg"));
        }
        let expected = open(&files);
        for (folder, inside) in [
            ("shards", &set[..]),
            ("out", &killed[..]),
            ("runs", &run[..]),
        ] {
            for name in inside {
                files.image(&format!("{prefix}{folder}/{name}"));
                files.image(&format!("{prefix}cat/{folder}/{name}"));
            }
        }
        // A contact sheet does not make a class of it.
        files.image(&format!("{prefix}shards/sheet.png"));
        let source = open(&files);
        assert_eq!(source.classes, expected.classes);
        assert_eq!(source.splits, expected.splits);
        let output = &source.passed_over[0];
        assert_eq!((&*output.kind, output.count), ("output of tinyres", 6));
    }
    // A folder of this name that holds images is a class like others.
    let source = open(&files(&[
        "cat/1.jpg",
        "shards/1.jpg",
        "shards/dataset.json",
    ]));
    assert_eq!(source.classes.len(), 2);
}
