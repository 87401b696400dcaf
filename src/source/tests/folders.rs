//! Class folders.

use super::*;

/// Files that hold their own names.
fn files(names: &[&str]) -> Files {
    let mut files = Files(BTreeMap::new());
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
        assert_bytes(&other, files);
    }
    assert_bytes(&source, files);
    source
}

/// The problems that all storages have.
#[track_caller]
fn broken(names: &[&str]) -> Problems<TreeProblem> {
    let files = files(names);
    let [dir, zip, tar] = [files.open_dir(), files.open_zip(), files.open_tar()].map(problems);
    assert_eq!(
        (dir.to_string(), dir.to_string()),
        (zip.to_string(), tar.to_string())
    );
    dir
}

/// The images of a split, and their labels.
fn listing(source: &Source, split: Split) -> Vec<(&str, Option<u32>)> {
    let splits = source.splits.iter().filter(|(it, _)| *it == split);
    splits
        .flat_map(|(_, items)| items)
        .map(|item| (&*item.name, item.label))
        .collect()
}

#[derive(serde::Deserialize)]
struct Golden {
    files: Vec<String>,
    classes: Vec<String>,
    samples: Vec<(String, u32)>,
}

/// What `tools/witness/pillow_pictures.py` had torchvision's `ImageFolder` find.
#[test]
fn classes_labels_and_order_are_those_of_torchvision() {
    let golden = include_str!("../../../tests/golden/pictures/folders.json");
    let golden: Golden = serde_json::from_str(golden).unwrap();
    for prefix in ["", "train/"] {
        let names: Vec<_> = golden
            .files
            .iter()
            .map(|name| format!("{prefix}{name}"))
            .collect();
        let source = open(&files(
            &names.iter().map(String::as_str).collect::<Vec<_>>(),
        ));
        let classes: Vec<_> = source.classes.iter().map(|class| &class.id).collect();
        assert_eq!(classes, golden.classes.iter().collect::<Vec<_>>());
        let found = listing(&source, Split::Train).into_iter();
        let found: Vec<_> = found
            .map(|(name, label)| {
                (
                    name.strip_prefix(prefix).unwrap().to_owned(),
                    label.unwrap(),
                )
            })
            .collect();
        assert_eq!(found, golden.samples);
    }
}

#[test]
fn splits() {
    let source = open(&files(&[
        "train/cat/2.jpg",
        "train/cat/10.jpg",
        "train/dog/1.JPEG",
        "val/dog/3.png",
        "test/10.jpg",
        "test/2.jpg",
    ]));
    let label = |name, label| (name, Some(label));
    assert_eq!(
        listing(&source, Split::Train),
        [
            label("train/cat/10.jpg", 0),
            label("train/cat/2.jpg", 0),
            label("train/dog/1.JPEG", 1)
        ]
    );
    assert_eq!(listing(&source, Split::Val), [label("val/dog/3.png", 1)]);
    assert_eq!(
        listing(&source, Split::Test),
        [("test/2.jpg", None), ("test/10.jpg", None)]
    );

    for val in ["valid", "validation"] {
        let name = format!("{val}/cat/3.jpg");
        let source = open(&files(&[
            "train/cat/1.jpg",
            "train/dog/1.jpg",
            &name,
            "test/dog/4.jpg",
        ]));
        assert_eq!(listing(&source, Split::Val), [(&*name, Some(0))]);
        assert_eq!(listing(&source, Split::Test), [("test/dog/4.jpg", Some(1))]);
    }
}

#[test]
fn the_tree_may_lie_deeper() {
    let files = files(&["train/cat/1.jpg", "train/dog/1.jpg"]);
    let expected = open(&files).splits;
    for archive in [
        open_zip(&files.zip("a/b/c/")),
        open_archive(&files.tar("a/b/c/"), ".tar"),
        open_zip(&files.zip(&"d/".repeat(12))),
    ] {
        assert_eq!(archive.unwrap().splits, expected);
    }
    let outer = tempfile::tempdir().unwrap();
    fs::rename(files.dir().keep(), outer.path().join("set")).unwrap();
    assert_eq!(Source::open(outer.path()).unwrap().splits, expected);
}

#[test]
fn two_folders_of_images_are_a_set_and_one_is_not() {
    let source = open(&files(&["cat/1.jpg", "dog/1.jpg"]));
    assert_eq!(
        listing(&source, Split::Train),
        [("cat/1.jpg", Some(0)), ("dog/1.jpg", Some(1))]
    );
    for other in [
        &["cat/1.jpg"][..],
        &["cat/1.jpg", "dog/notes.txt"],
        &["1.jpg", "2.jpg"],
    ] {
        assert!(
            matches!(files(other).open_dir(), Err(Error::NotATree { .. })),
            "{other:?}"
        );
        assert!(
            matches!(files(other).open_tar(), Err(Error::NotATree { .. })),
            "{other:?}"
        );
    }
}

#[test]
fn what_is_wrong_is_named() {
    let problems = broken(&[
        "train/cat/1.jpg",
        "train/empty/notes.txt",
        "train/deep/1/2/3/4/5/6/7/8/9/1.jpg",
        "train/dog/1.jpg",
        "train/stray.png",
        "val/cat/1.jpg",
        "val/mouse/1.jpg",
        "val/stray.webp",
        "test/cat/1.jpg",
        "test/1.jpg",
    ]);
    insta::assert_snapshot!(problems, @r"
    6 problems
      train/deep/1/2/3/4/5/6/7/8/9: too many folders inside each other, expected at most 8; move its images up or remove it
      train/empty: no image in this class folder; add some or remove the folder
      train/stray.png: lies beside the class folders; move it into one or remove it
      val/mouse: train/ has no class of this name; add it there or remove the folder
      val/stray.webp: lies beside the class folders; move it into one or remove it
      test/1.jpg: lies beside the class folders; move it into one or remove it
    ");
    insta::assert_snapshot!(broken(&["train/cat/1.jpg", "val/cat/1.jpg", "valid/cat/1.jpg"]), @r"
    1 problem
      val/ and valid/ are both there, expected one val split; remove one of the two
    ");
    insta::assert_snapshot!(broken(&["train/1.jpg", "val/cat/1.jpg"]), @r"
    3 problems
      train/ holds no folder, expected one for each class
      train/1.jpg: lies beside the class folders; move it into one or remove it
      val/cat: train/ has no class of this name; add it there or remove the folder
    ");
    insta::assert_snapshot!(broken(&["train/cat/1.jpg", "val/1.jpg"]), @r"
    2 problems
      val/ holds no folder, expected one for each class
      val/1.jpg: lies beside the class folders; move it into one or remove it
    ");
}

#[test]
fn no_image_is_lost_however_deep_it_lies() {
    for depth in [8, 9, 15, 40] {
        let deep = format!("train/cat/{}1.jpg", "d/".repeat(depth));
        let files = files(&["train/cat/1.jpg", &deep]);
        for prefix in ["", "a/b/c/d/e/f/g/h/i/j/k/l/"] {
            let archives = [
                open_zip(&files.zip(prefix)),
                open_archive(&files.tar(prefix), ".tar"),
            ];
            for archive in archives {
                match archive {
                    Ok(source) => assert_eq!((depth, source.splits[0].1.len()), (8, 2)),
                    Err(error) => assert!(
                        depth > 8 && error.to_string().contains("too many folders"),
                        "{error}"
                    ),
                }
            }
        }
    }
}

#[test]
fn links_are_followed_or_named() {
    let dir = files(&["train/cat/1.jpg", "train/dog/1.jpg"]).dir();
    let disk = files(&["mouse/1.jpg"]).dir();
    symlink(disk.path().join("mouse"), dir.path().join("train/mouse")).unwrap();
    let source = Source::open(dir.path()).unwrap();
    assert_eq!(
        listing(&source, Split::Train)[2],
        ("train/mouse/1.jpg", Some(2))
    );
    // Two loops, so that walking them costs two to the power of how deep one looks.
    for name in ["loop", "noose"] {
        symlink(
            dir.path().join("train/cat"),
            dir.path().join("train/cat").join(name),
        )
        .unwrap();
    }
    let problems = problems(Source::open(dir.path()));
    assert!(matches!(
        problems.first(),
        [TreeProblem::LinkLoop { .. }, TreeProblem::LinkLoop { .. }]
    ));
    fs::remove_file(dir.path().join("train/cat/loop")).unwrap();
    fs::remove_file(dir.path().join("train/cat/noose")).unwrap();

    // In an archive, a link may stand for a folder of images, whose loss nobody would notice.
    let mut builder = ::tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all("", dir.path()).unwrap();
    let problems = super::problems(open_archive(&builder.into_inner().unwrap(), ".tar"));
    assert!(
        matches!(problems.first(), [TreeProblem::Unreadable { name, reason: ReadError::Link }] if name == "train/mouse")
    );
}

#[test]
fn a_part_is_held_out_by_name() {
    let names: Vec<_> = (0..400)
        .map(|n| format!("train/{}/{n}.jpg", ["cat", "dog"][n % 2]))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let held = |names: &[&str], fraction| {
        let mut source = files(names).open_tar().unwrap();
        let whole = source.splits[0].1.clone();
        source.hold_out(fraction).unwrap();
        let [(Split::Train, train), (Split::Val, val)] = &source.splits[..] else {
            panic!("{:?}", source.splits);
        };
        // Both keep their order, and together they are what there was.
        let mut both = [&train[..], val].concat();
        both.sort_by_key(|item| whole.iter().position(|it| it == item));
        assert_eq!(both, whole);
        assert!(train.is_sorted_by_key(|item| whole.iter().position(|it| it == item)));
        val.iter().map(|item| item.name.clone()).collect::<Vec<_>>()
    };
    let fifth = held(&names, 0.2);
    assert!((60..100).contains(&fifth.len()), "{}", fifth.len());
    // Fewer images, or a larger part, move none.
    let fewer = held(&names[..200], 0.2);
    assert_eq!(
        fewer,
        fifth
            .iter()
            .filter(|name| names[..200].contains(&name.as_str()))
            .cloned()
            .collect::<Vec<_>>()
    );
    let half = held(&names, 0.5);
    assert!(fifth.iter().all(|name| half.contains(name)));
    // Nor does the place of the tree: class folders alone are the same images.
    let bare: Vec<_> = names.iter().map(|name| &name["train/".len()..]).collect();
    assert_eq!(
        held(&bare, 0.2),
        fifth
            .iter()
            .map(|name| &name["train/".len()..])
            .collect::<Vec<_>>()
    );

    let mut source = files(&["train/cat/1.jpg", "val/cat/1.jpg"])
        .open_zip()
        .unwrap();
    assert!(matches!(source.hold_out(0.5), Err(Error::HasVal { .. })));
    let mut source = files(&["train/cat/1.jpg"]).open_zip().unwrap();
    for fraction in [0.001, 0.999] {
        assert!(matches!(
            source.hold_out(fraction),
            Err(Error::HoldOut { all: 1, .. })
        ));
        assert_eq!(
            source.splits[0].1.len(),
            1,
            "a refusal leaves the source as it was"
        );
    }
}

#[test]
fn tiny_imagenet_without_its_list_is_still_known() {
    let mut files = Files::good();
    files.remove("wnids.txt");
    let problems = problems(files.open_tar());
    assert!(matches!(problems.first(), [TreeProblem::Missing { name, .. }] if name == "wnids.txt"));
    // With neither text, the lists of boxes tell. The classes are sorted then, and the boxes kept.
    files.remove("words.txt");
    for source in [files.open_dir(), files.open_zip(), files.open_tar()] {
        let source = source.unwrap();
        let ids: Vec<_> = source.classes.iter().map(|class| &*class.id).collect();
        assert_eq!(ids, ["n01", "n02", "n03"]);
        let train = &source.splits[0].1[2];
        assert_eq!((train.label, train.bbox), (Some(1), Some([0, 1, 62, 63])));
        let val = &source.splits[1].1[0];
        assert_eq!((&*val.name, val.label), ("val/images/val_2.JPEG", Some(0)));
        assert!(
            source.layout.contains("without wnids.txt"),
            "{}",
            source.layout
        );
    }
}
