//! Nothing is lost without a word: what is passed over is counted, and links to nothing are errors.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::*;

fn files(names: &[&str]) -> Files {
    let mut files = Files::default();
    names.iter().for_each(|name| files.image(name));
    files
}

fn counted(source: &Source) -> Vec<(&str, u64, &str)> {
    (source.passed_over.iter())
        .map(|it| (&*it.kind, it.count, &*it.example))
        .collect()
}

#[test]
fn files_that_are_passed_over_are_counted_by_kind() {
    let files = files(&[
        "train/cat/1.jpg",
        "train/cat/2.jfif",
        "train/cat/3.JPE",
        "train/cat/a.heic",
        "train/cat/b.HEIC",
        "train/cat/c.JPG_large",
        "train/cat/IMG_0007",
        "train/cat/.DS_Store",
        "train/.git/objects/1.jpg",
        "train/dog/deep/1.jpg",
        "train/dog/deep/notes.txt",
    ]);
    for source in [files.open_dir(), files.open_zip(), files.open_tar()] {
        let source = source.unwrap();
        assert_eq!(source.splits[0].1.len(), 4);
        let mut counted = counted(&source);
        counted.sort_unstable();
        let expected = [
            (".heic", 2, "train/cat/a.heic"),
            (".jpg_large", 1, "train/cat/c.JPG_large"),
            (".txt", 1, "train/dog/deep/notes.txt"),
            ("hidden", 2, "train/.git"),
            ("no extension", 1, "train/cat/IMG_0007"),
        ];
        assert_eq!(counted, expected);
    }
    let clean = Files::good();
    for source in [clean.open_dir(), clean.open_zip(), clean.open_tar()] {
        assert!(source.unwrap().passed_over.is_empty());
    }
}

#[test]
fn empty_folders_are_counted_unless_they_are_classes() {
    let dir = files(&["train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg"]).dir();
    for empty in ["val/dog", "train/cat/more", "train/dog/more"] {
        fs::create_dir(dir.path().join(empty)).unwrap();
    }
    let source = Source::open(dir.path()).unwrap();
    assert_eq!(counted(&source), [("empty folder", 3, "train/cat/more")]);
    // A class that lost its images is an error, and its remedy works.
    fs::create_dir(dir.path().join("train/bird")).unwrap();
    let problems = problems(Source::open(dir.path()));
    insta::assert_snapshot!(problems, @r"
    1 problem
      train/bird: no image in this class folder; add some or remove the folder
    ");
    fs::remove_dir(dir.path().join("train/bird")).unwrap();
    assert!(Source::open(dir.path()).is_ok());
}

#[test]
fn links_to_nothing_are_errors_that_name_them() {
    let dir = files(&["train/cat/1.jpg", "train/dog/1.jpg"]).dir();
    let link = |target: &str, name: &str| symlink(target, dir.path().join(name)).unwrap();
    link("../../.git/annex/objects/x.jpg", "train/cat/2.jpg");
    link("/mnt/other-disk/bird", "train/bird");
    link("itself.jpg", "train/dog/itself.jpg");
    let problems = problems(Source::open(dir.path()));
    insta::assert_snapshot!(problems, @r"
    3 problems
      train/bird: a link to nothing; fetch the file or folder that it stands for, or remove the link
      train/cat/2.jpg: a link to nothing; fetch the file or folder that it stands for, or remove the link
      train/dog/itself.jpg: a link to nothing; fetch the file or folder that it stands for, or remove the link
    ");
    for at in 0..10_000 {
        link("nothing", &format!("train/cat/{at}0.jpg"));
    }
    let many = super::problems(Source::open(dir.path()));
    insta::assert_snapshot!(many, @r"
    10,003 problems
      train/bird: a link to nothing; fetch the file or folder that it stands for, or remove the link (and 10,002 more like it)
    ");
}

#[test]
fn links_in_tiny_imagenet_to_nothing_are_named_once() {
    let dir = Files::good().dir();
    let image = dir.path().join(CAT_IMAGE);
    fs::remove_file(&image).unwrap();
    symlink("nothing", &image).unwrap();
    let problems = problems(Source::open(dir.path()));
    assert!(
        matches!(problems.first(), [TreeProblem::DeadLink { link }] if link == CAT_IMAGE),
        "{problems}"
    );
}

#[test]
fn loops_of_links_are_named_and_do_not_hang() {
    // Through the root and 20 classes: without a check, some 20 to the power of 4 folders.
    let mut all = files(&[]);
    for class in 0..20 {
        all.image(&format!("train/{class}/1.jpg"));
    }
    let dir = all.dir();
    for class in 0..20 {
        let link = dir.path().join(format!("train/{class}/up"));
        symlink(dir.path(), link).unwrap();
    }
    let error = problems(Source::open(dir.path()));
    insta::assert_snapshot!(error, @r"
    20 problems
      train/0/up: leads back to a folder above it; remove the link (and 19 more like it)
    ");
    // The remedy works.
    for class in 0..20 {
        fs::remove_file(dir.path().join(format!("train/{class}/up"))).unwrap();
    }
    assert!(Source::open(dir.path()).is_ok());
    // Two folders that lead to each other.
    symlink(dir.path().join("train/1"), dir.path().join("train/0/b")).unwrap();
    symlink(dir.path().join("train/0"), dir.path().join("train/1/a")).unwrap();
    let error = problems(Source::open(dir.path()));
    assert!(
        matches!(
            error.first(),
            [TreeProblem::LinkLoop { .. }, TreeProblem::LinkLoop { .. }]
        ),
        "{error}"
    );
}

#[test]
fn names_that_are_not_utf8_are_packed_with_escaped_names() {
    let all = files(&["train/cat/1.jpg", "train/dog/1.jpg", "train/dog/Ch%E2.jpg"]);
    let dir = all.dir();
    let odd = |parts: &[&[u8]]| {
        let parts = parts.iter().map(|part| OsStr::from_bytes(part));
        dir.path().join(parts.collect::<std::path::PathBuf>())
    };
    let odd_names: [([&[u8]; 3], &str); 3] = [
        ([b"train", b"dog", b"Ch\xe2.jpg"], "a"),
        ([b"train", b"dog", b"Ch\xe4.jpg"], "b"),
        ([b"train", b"m\xf6we", b"1.jpg"], "c"),
    ];
    for (parts, content) in odd_names {
        let path = odd(&parts);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let read = |source: &Source| -> Vec<(String, Vec<u8>)> {
        let items = source.splits[0].1.iter();
        items
            .map(|item| {
                let bytes = encoded(source.reader().read(item).unwrap());
                (item.name.clone(), bytes)
            })
            .filter(|(_, bytes)| bytes.len() == 1)
            .collect()
    };
    let source = Source::open(dir.path()).unwrap();
    let expected = [
        ("train/dog/%Ch%E2.jpg", b"a"),
        ("train/dog/Ch%E4.jpg", b"b"),
        ("train/m%F6we/1.jpg", b"c"),
    ];
    let expected = expected.map(|(name, bytes)| (name.to_owned(), bytes.to_vec()));
    assert_eq!(read(&source), expected);
    for item in &source.splits[0].1 {
        source.stamp(item).unwrap();
    }
    assert_eq!(source.classes[2].id, "m%F6we");
    // A tar has the same names, but two that are one once escaped are named.
    fs::remove_file(dir.path().join("train/dog/Ch%E2.jpg")).unwrap();
    let tar = std::process::Command::new("tar")
        .args(["-cf", "-", "."])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let tar = open_archive(&tar.stdout, ".tar").unwrap();
    let source = Source::open(dir.path()).unwrap();
    assert_eq!(tar.splits, source.splits);
    assert_eq!(read(&tar), read(&source));
}

#[test]
fn a_folder_may_be_listed_twice_in_an_archive() {
    let names = ["train/cat/1.jpg", "train/dog/1.jpg"];
    let zip = {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default();
        for name in ["train/", "train/cat/", "trait/"].iter().chain(&names) {
            writer.start_file(*name, options).unwrap();
            let bytes = files(&[name]).0.remove(*name).unwrap();
            let is_folder = name.ends_with('/');
            writer
                .write_all(if is_folder { &[] } else { &bytes })
                .unwrap();
        }
        let mut bytes = writer.finish().unwrap().into_inner();
        // The writer refuses to repeat a name, so one is overwritten afterwards.
        let places: Vec<_> = (0..bytes.len())
            .filter(|&at| bytes[at..].starts_with(b"trait/"))
            .collect();
        for at in places {
            bytes[at..at + 6].copy_from_slice(b"train/");
        }
        bytes
    };
    let expected = files(&names);
    let source = open_zip(&zip).unwrap();
    assert_bytes(&source, &expected);
    assert_eq!(source.splits[0].1.len(), 2);

    let mut builder = ::tar::Builder::new(expected.tar(""));
    drop(builder.get_mut().split_off(expected.tar("").len() - 1024));
    for _ in 0..2 {
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(::tar::EntryType::Directory);
        header.set_size(0);
        builder
            .append_data(&mut header, "train/cat", io::empty())
            .unwrap();
    }
    let source = open_archive(&builder.into_inner().unwrap(), ".tar").unwrap();
    assert_eq!(source.splits[0].1.len(), 2);
}

/// As Finder makes it: junk of its own, and an end record whose 16 bits cannot count the entries, without the
/// records of zip64.
#[test]
fn a_zip_of_macos_with_many_files_is_read() {
    for (notes, before) in [(65_530, 0), (65_533, 0), (131_072, 7)] {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        let names = ["set/train/cat/1.jpg", "set/train/dog/1.jpg"];
        let mut count = 0;
        let mut put = |name: &str, bytes: &[u8]| {
            writer.start_file(name, options).unwrap();
            writer.write_all(bytes).unwrap();
            count += 1;
        };
        put("set/.DS_Store", b"junk");
        put(names[0], b"a cat");
        for at in 0..notes {
            put(&format!("__MACOSX/set/._{at}"), b"");
        }
        put(names[1], b"a dog");
        let mut bytes = writer.finish().unwrap().into_inner();
        let end = bytes
            .windows(4)
            .rposition(|it| it == b"PK\x05\x06")
            .unwrap();
        if count > 0xffff {
            // Takes the records of zip64 out, and their values modulo 2^16.
            let at = bytes
                .windows(4)
                .rposition(|it| it == b"PK\x06\x06")
                .unwrap();
            let field = |from: usize| u32::from_le_bytes(bytes[from..from + 4].try_into().unwrap());
            let (size, start) = (field(at + 40), field(at + 48));
            bytes.truncate(at);
            bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
            let [low, high, ..] = u32::to_le_bytes(count);
            bytes.extend_from_slice(&[low, high, low, high]);
            bytes.extend_from_slice(&size.to_le_bytes());
            bytes.extend_from_slice(&start.to_le_bytes());
            bytes.extend_from_slice(&[0, 0]);
        } else {
            assert_eq!(end + 22, bytes.len());
        }
        let bytes = [&vec![b'#'; before][..], &bytes].concat();
        let source = open_zip(&bytes).unwrap();
        let items = &source.splits[0].1;
        assert_eq!(items.len(), 2, "{count} entries");
        for (item, expected) in items.iter().zip([b"a cat", b"a dog"]) {
            assert_eq!(encoded(source.reader().read(item).unwrap()), expected);
        }
        assert_eq!(counted(&source), [("hidden", 1, ".DS_Store")]);
    }
}
