//! Samples in tars: what the `webdataset` library's own files do not show.

use super::*;

/// Files in this order, as a tar.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = ::tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, name, bytes.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

fn open(files: &[(&str, &str)]) -> Result<Source, Error> {
    open_archive(&tar(files), ".tar")
}

/// A directory with these tars, and other files.
fn dir(shards: &[(&str, Vec<u8>)]) -> TempDir {
    let files = shards
        .iter()
        .map(|(name, bytes)| ((*name).to_owned(), bytes.clone()));
    Files(files.collect()).dir()
}

/// Split, name and label of each item.
fn items(source: &Source) -> Vec<(Split, &str, Option<u32>)> {
    let splits = source.splits.iter();
    let items = splits.flat_map(|(split, items)| items.iter().map(|item| (*split, item)));
    items
        .map(|(split, item)| (split, item.name.as_str(), item.label))
        .collect()
}

fn names(source: &Source) -> Vec<&str> {
    source
        .classes
        .iter()
        .map(|class| class.name.as_str())
        .collect()
}

#[test]
fn files_of_a_key_may_be_anywhere_in_the_tar() {
    let source = open(&[
        ("./b.jpg", "B"),
        ("./a.jpg", "A"),
        ("./README", "text"),
        ("./a.txt", "a caption"),
        ("./a.mask.png", "mask"),
        ("./b.cls", "1\n"),
        ("./a.CLS", " 0"),
    ])
    .unwrap();
    assert_eq!(source.layout, "WebDataset");
    let expected = [
        (Split::Train, "train/b.jpg", Some(1)),
        (Split::Train, "train/a.jpg", Some(0)),
    ];
    assert_eq!(items(&source), expected);
    assert_eq!(names(&source), ["0", "1"]);
    let mut reader = source.reader();
    let read: Vec<_> = (source.splits[0].1.iter())
        .map(|item| encoded(reader.read(item).unwrap()))
        .collect();
    assert_eq!(read, [b"B", b"A"]);
    let passed_over: Vec<_> = source
        .passed_over
        .iter()
        .map(|it| it.example.as_str())
        .collect();
    assert_eq!(passed_over, ["a.txt", "README"]);
}

#[test]
fn folders_in_a_tar_and_words_in_names_of_shards_tell_the_split() {
    let source = open(&[
        ("train/x/1.JPG", "1"),
        ("train/x/1.cls", "cat"),
        ("val/1.png", "2"),
        ("val/1.cls", "ant"),
        ("test/1.png", "3"),
    ])
    .unwrap();
    let expected = [
        (Split::Train, "train/x/1.JPG", Some(1)),
        (Split::Val, "val/1.png", Some(0)),
        (Split::Test, "test/1.png", None),
    ];
    assert_eq!(items(&source), expected);
    assert_eq!(names(&source), ["ant", "cat"]);

    let shard = |label: &str| tar(&[("0.jpg", "x"), ("0.cls", label)]);
    let dir = dir(&[
        ("data/in1k-train-9.tar", shard("2")),
        ("data/in1k-train-10.tar", shard("0")),
        ("data/in1k-validation-0.tar", shard("1")),
        ("data/in1k-test-0.tar", shard("-1")),
        ("data/extra.tar", shard("7")),
        ("LICENSE", b"text".to_vec()),
    ]);
    let source = Source::open(dir.path()).unwrap();
    let expected = [
        (Split::Train, "train/data/in1k-train-9/0.jpg", Some(2)),
        (Split::Train, "train/data/in1k-train-10/0.jpg", Some(0)),
        (Split::Val, "val/data/in1k-validation-0/0.jpg", Some(1)),
        (Split::Test, "test/data/in1k-test-0/0.jpg", None),
    ];
    assert_eq!(items(&source), expected);
    let passed_over: Vec<_> = source
        .passed_over
        .iter()
        .map(|it| it.example.as_str())
        .collect();
    assert_eq!(passed_over, ["data/extra.tar", "LICENSE"]);
}

#[test]
fn shards_of_val_alone_are_no_set_and_a_rename_is_the_remedy() {
    let dir = dir(&[("val-0.tar", tar(&[("0.jpg", "x"), ("0.class", "0")]))]);
    let problems = problems(Source::open(dir.path()));
    insta::assert_snapshot!(problems, @"
    1 problem
      train-*.tar is missing: all shards are of other splits by their names; add those of train, or rename some
    ");
    let [from, to] = ["val-0.tar", "train-0.tar"].map(|name| dir.path().join(name));
    fs::rename(from, to).unwrap();
    assert_eq!(Source::open(dir.path()).unwrap().splits.len(), 1);
}

#[test]
fn every_sample_that_is_not_whole_is_named() {
    let problems = problems(open(&[
        ("0.jpg", "x"),
        ("0.cls", "0"),
        ("no-label.jpg", "x"),
        ("no-label.json", r#"{"caption": "x"}"#),
        ("no-image.cls", "1"),
        ("two.jpg", "x"),
        ("two.png", "x"),
        ("two.cls", "1"),
        ("empty.jpg", "x"),
        ("empty.cls", " \n"),
        ("negative.jpg", "x"),
        ("negative.cls", "-1"),
        ("json.jpg", "x"),
        ("json.json", "{"),
    ]));
    insta::assert_snapshot!(problems, @r#"
    6 problems
      no-label: no label, expected a .cls of the same key, or a .json with a field label, cls or class; add it or remove the image
      no-image: a label without an image of the same key; restore the image or remove the label
      two: 2 images of one key, expected one: two.jpg, two.png; keep one of them
      empty: an empty label; mend the label or remove the sample
      negative: label -1, expected 0 or more; mend the label or remove the sample
      json: its .json: EOF while parsing an object at line 1 column 1; mend the label or remove the sample
    "#);
}

#[test]
fn a_field_of_json_is_the_label_and_another_the_name() {
    for (json, expected, called) in [
        (r#"{"label": 2, "class_name": "tench"}"#, 2, "tench"),
        (r#"{"cls": "2", "label": "tench"}"#, 2, "tench"),
        (r#"{"class_id": 2}"#, 2, "2"),
        (r#"{"label": "tench"}"#, 0, "tench"),
    ] {
        let source = open(&[("a/0.jpg", "x"), ("a/0.json", json)]).unwrap();
        assert_eq!(source.splits[0].1[0].label, Some(expected), "{json}");
        assert_eq!(names(&source)[expected as usize], called, "{json}");
    }
}

#[test]
fn class_folders_with_other_files_stay_class_folders() {
    let files = [
        ("train/cat/0.jpg", "x"),
        ("train/cat/0.json", r#"{"label": "a box"}"#),
        ("train/dog/0.jpg", "x"),
        ("train/dog/0.json", r#"{"label": "a box"}"#),
    ];
    assert_eq!(open(&files).unwrap().layout, "class folders");
    let bare = files.map(|(name, text)| (&name[6..], text));
    assert_eq!(open(&bare).unwrap().layout, "class folders without train/");
    // In a directory of shards there are no class folders, whatever the keys are.
    let shards = dir(&[("train-0.tar", tar(&bare))]);
    let source = Source::open(shards.path()).unwrap();
    assert_eq!(names(&source), ["a box"]);
    let shard = tar(&[("0.jpg", "x"), ("0.cls", "0")]);
    let tree = dir(&[
        ("train-0.tar", shard),
        ("train/cat/0.jpg", b"x".to_vec()),
        ("train/dog/0.jpg", b"x".to_vec()),
    ]);
    let source = Source::open(tree.path()).unwrap();
    assert_eq!(source.layout, "class folders");
    assert_eq!(source.passed_over[0].kind, ".tar");
}

#[test]
fn a_list_names_the_classes_and_must_name_all() {
    let shard = || {
        tar(&[
            ("0.jpg", "x"),
            ("0.cls", "1"),
            ("1.jpg", "x"),
            ("1.cls", "0"),
        ])
    };
    let named = || {
        tar(&[
            ("0.jpg", "x"),
            ("0.cls", "dog"),
            ("1.jpg", "x"),
            ("1.cls", "ant"),
        ])
    };
    let with = |shard: Vec<u8>, name: &str, text: &str| {
        let dir = dir(&[("0.tar", shard), (name, text.into())]);
        Source::open(dir.path())
    };
    let source = with(shard(), "classes.txt", "dog\nant\n").unwrap();
    assert_eq!(names(&source), ["dog", "ant"]);
    let source = with(named(), "class_names.json", r#"["dog", "ant"]"#).unwrap();
    let labels: Vec<_> = source.splits[0].1.iter().map(|item| item.label).collect();
    assert_eq!(labels, [Some(0), Some(1)]);
    let reason = |opened: Result<Source, Error>| match opened.unwrap_err() {
        Error::Table { path, reason } => {
            format!("{}: {reason}", path.file_name().unwrap().display())
        }
        other => panic!("{other}"),
    };
    insta::assert_snapshot!(reason(with(shard(), "labels.txt", "dog")), @"labels.txt: lists 1 class, and there are labels up to 1; complete it, or remove it to call classes by numbers");
    insta::assert_snapshot!(reason(with(named(), "labels.txt", "dog")), @r#"labels.txt: does not list the class "ant"; add it"#);
    insta::assert_snapshot!(reason(with(named(), "labels.json", "1")), @"labels.json: expected a name a line, a JSON list of names, or an object that gives each number from 0 one name");
    let huge = tar(&[("0.jpg", "x"), ("0.cls", "65536")]);
    assert!(reason(with(huge, "x.txt", "")).contains("has labels up to 65536, expected less"));
}

#[test]
fn a_shard_that_is_cut_changed_or_missing_is_named() {
    let shard = || tar(&[("0.jpg", "first"), ("0.cls", "0")]);
    let dir = dir(&[
        ("train-000001.tar", shard()),
        ("train-000002.tar", shard()),
        ("train-000005.tar", shard()),
    ]);
    let source = Source::open(dir.path()).unwrap();
    let note = "2 shards missing between others, from number 3 of train-";
    assert_eq!(source.notes, [note]);
    let mut reader = source.reader();
    assert_eq!(
        reader.read(&source.splits[0].1[0]).unwrap(),
        Image::Encoded(b"first")
    );
    let second = dir.path().join("train-000002.tar");
    fs::write(&second, [shard(), vec![0; 512]].concat()).unwrap();
    let error = reader.read(&source.splits[0].1[1]).unwrap_err().to_string();
    assert!(
        error.contains("train-000002.tar") && error.contains("was changed after it was opened"),
        "{error}"
    );
    fs::write(&second, &shard()[..700]).unwrap();
    let error = Source::open(dir.path()).unwrap_err();
    assert!(
        matches!(&error, Error::Tar { path, .. } if *path == second),
        "{error}"
    );
}
