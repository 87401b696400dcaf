mod arrays;
mod compressed;
mod feed;
mod folders;
mod ilsvrc;
mod layouts;
mod lost;
mod real;
mod tarred;
mod webdataset;
mod zipped;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Cursor, Write};
use std::os::unix::fs::symlink;

use ::zip::write::SimpleFileOptions;
use ::zip::{CompressionMethod, ZipWriter};
use tempfile::TempDir;

use super::*;

const CAT_BOXES: &str = "train/n02/n02_boxes.txt";
const CAT_IMAGE: &str = "train/n02/images/n02_0.JPEG";
const VAL_LIST: &str = "val/val_annotations.txt";

/// A tree as data, to be laid out as a directory or as a zip.
#[derive(Clone, Debug, Default, PartialEq)]
struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    /// Three classes in no order, of two images each, three val images and three of test.
    fn good() -> Self {
        let mut files = Self(BTreeMap::new());
        files.set("wnids.txt", "n02\nn03\nn01\n");
        files.set(
            "words.txt",
            "n01\tgoldfish, Carassius auratus\nn02\tEgyptian cat\nn99\tnone of ours\n",
        );
        for wnid in ["n01", "n02", "n03"] {
            let boxes = format!("{wnid}_0.JPEG\t0\t1\t62\t63\n{wnid}_10.JPEG\t7\t7\t7\t7\n");
            files.set(&format!("train/{wnid}/{wnid}_boxes.txt"), &boxes);
            files.image(&format!("train/{wnid}/images/{wnid}_0.JPEG"));
            files.image(&format!("train/{wnid}/images/{wnid}_10.JPEG"));
        }
        files.set(VAL_LIST, "val_2.JPEG\tn01\t0\t0\t63\t63\nval_0.JPEG\tn02\t1\t2\t3\t4\nval_1.JPEG\tn03\t0\t0\t0\t9\n");
        for index in [0, 1, 2] {
            files.image(&format!("val/images/val_{index}.JPEG"));
        }
        for index in [0, 2, 10] {
            files.image(&format!("test/images/test_{index}.JPEG"));
        }
        files
    }

    fn set(&mut self, name: &str, text: &str) {
        self.0.insert(name.to_owned(), text.as_bytes().to_vec());
    }

    /// Bytes that no other image has. No decoder will see them.
    fn image(&mut self, name: &str) {
        self.set(name, &format!("\u{ff}{name}").repeat(9));
    }

    fn replace(&mut self, name: &str, from: &str, to: &str) {
        let text = String::from_utf8(self.0[name].clone()).unwrap();
        assert!(text.contains(from), "{from:?} is not in {name}");
        self.set(name, &text.replacen(from, to, 1));
    }

    fn remove(&mut self, prefix: &str) {
        let before = self.0.len();
        self.0.retain(|name, _| !name.starts_with(prefix));
        assert!(self.0.len() < before, "nothing begins with {prefix}");
    }

    fn dir(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in &self.0 {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        dir
    }

    /// A zip of images stored and texts deflated, as the real one, all names after `prefix`.
    fn zip(&self, prefix: &str) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in &self.0 {
            let method = match name.ends_with(".txt") {
                true => CompressionMethod::Deflated,
                false => CompressionMethod::Stored,
            };
            let options = SimpleFileOptions::default().compression_method(method);
            writer
                .start_file(format!("{prefix}{name}"), options)
                .unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    /// A tar as GNU tar makes it, all names after `prefix`.
    fn tar(&self, prefix: &str) -> Vec<u8> {
        let mut builder = ::tar::Builder::new(Vec::new());
        for (name, bytes) in &self.0 {
            let mut header = ::tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            let name = format!("{prefix}{name}");
            builder
                .append_data(&mut header, name, bytes.as_slice())
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn open_tar(&self) -> Result<Source, Error> {
        open_archive(&self.tar(""), ".tar")
    }

    fn open_dir(&self) -> Result<Source, Error> {
        Source::open(self.dir().path())
    }

    fn open_zip(&self) -> Result<Source, Error> {
        open_zip(&self.zip(""))
    }
}

fn open_zip(bytes: &[u8]) -> Result<Source, Error> {
    open_archive(bytes, ".zip")
}

/// Opens an archive of these bytes; the file is gone, but open, when the source is there.
fn open_archive(bytes: &[u8], suffix: &str) -> Result<Source, Error> {
    let mut file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Source::open(file.path())
}

fn item(name: &str, label: u32, bbox: [i32; 4]) -> Item {
    Item {
        name: name.to_owned(),
        label: Some(label),
        bbox: Some(bbox),
        entry: 0,
    }
}

/// That `source` is what [`Files::good`] describes, byte by byte.
fn assert_good(source: &Source) {
    let classes: Vec<_> = source
        .classes
        .iter()
        .map(|class| (&*class.id, &*class.name))
        .collect();
    let expected = [
        ("n02", "Egyptian cat"),
        ("n03", "n03"),
        ("n01", "goldfish, Carassius auratus"),
    ];
    assert_eq!(classes, expected);

    let train = ["n02", "n03", "n01"]
        .iter()
        .zip(0..)
        .flat_map(|(wnid, label)| {
            let path = format!("train/{wnid}/images/{wnid}");
            [
                item(&format!("{path}_0.JPEG"), label, [0, 1, 62, 63]),
                item(&format!("{path}_10.JPEG"), label, [7, 7, 7, 7]),
            ]
        });
    let val = vec![
        item("val/images/val_2.JPEG", 2, [0, 0, 63, 63]),
        item("val/images/val_0.JPEG", 0, [1, 2, 3, 4]),
        item("val/images/val_1.JPEG", 1, [0, 0, 0, 9]),
    ];
    let test = [0, 2, 10].map(|n| Item {
        name: format!("test/images/test_{n}.JPEG"),
        label: None,
        bbox: None,
        entry: 0,
    });
    let expected = [
        (Split::Train, train.collect()),
        (Split::Val, val),
        (Split::Test, test.to_vec()),
    ];
    assert_eq!(source.splits, expected);
    assert_bytes(source, &Files::good());
}

/// The bytes of an encoded image.
fn encoded(image: Image<'_>) -> Vec<u8> {
    match image {
        Image::Encoded(bytes) => bytes.to_owned(),
        Image::Raw(raw) => panic!("{raw:?}"),
    }
}

fn assert_bytes(source: &Source, files: &Files) {
    // Each by itself, each after the others, and some after they have been read together.
    let items: Vec<_> = source.splits.iter().flat_map(|(_, items)| items).collect();
    let mut used = source.reader();
    for loaded in [&items[..0], &items, &items[..2], &items[1..]] {
        used.load(loaded);
        for &item in &items {
            let expected = Image::Encoded(&files.0[&item.name]);
            assert_eq!(
                source.reader().read(item).unwrap(),
                expected,
                "{}",
                item.name
            );
            assert_eq!(used.read(item).unwrap(), expected, "{}", item.name);
        }
    }
}

#[track_caller]
fn problems(result: Result<Source, Error>) -> Problems<TreeProblem> {
    match result {
        Err(Error::Tree { problems, .. }) => problems,
        other => panic!("expected problems, got {other:?}"),
    }
}

/// What is wrong with the good tree after `edit`, as a directory and as a zip, and the same as a tar.
#[track_caller]
fn edited(edit: impl Fn(&mut Files)) -> [Problems<TreeProblem>; 2] {
    let mut files = Files::good();
    edit(&mut files);
    let both = [files.open_dir(), files.open_zip()].map(problems);
    assert_eq!(both[0].to_string(), both[1].to_string());
    assert_eq!(both[0].to_string(), problems(files.open_tar()).to_string());
    both
}

/// That after `edit` there is one problem, which matches the pattern.
macro_rules! assert_one {
    ($edit:expr, $pattern:pat $(if $guard:expr)? $(,)?) => {
        for problems in edited($edit) {
            assert!(matches!(problems.first(), [$pattern] $(if $guard)?), "{problems}");
        }
    };
}

fn at(location: &Location, file: &str, line: usize) -> bool {
    (&*location.file, location.line) == (file, line)
}

#[test]
fn a_directory_a_zip_and_a_tar_give_the_same() {
    let files = Files::good();
    let dir = files.dir();
    assert_good(&Source::open(dir.path()).unwrap());
    assert_good(&files.open_zip().unwrap());
    assert_good(&files.open_tar().unwrap());
}

#[test]
fn the_tree_may_lie_deeper() {
    let files = Files::good();
    assert_good(&open_zip(&files.zip("tiny-imagenet-200/")).unwrap());
    assert_good(&open_zip(&files.zip("a/b/c/d/")).unwrap());
    assert_good(&open_zip(&files.zip("./")).unwrap());

    let outer = tempfile::tempdir().unwrap();
    fs::create_dir(outer.path().join("another")).unwrap();
    fs::rename(files.dir().keep(), outer.path().join("tiny-imagenet-200")).unwrap();
    assert_good(&Source::open(outer.path()).unwrap());
}

#[test]
fn only_wnids_and_train_are_required() {
    let mut files = Files::good();
    for part in ["words.txt", "val/", "test/"] {
        files.remove(part);
    }
    for source in [files.open_dir().unwrap(), files.open_zip().unwrap()] {
        assert!(source.classes.iter().all(|class| class.name == class.id));
        assert!(matches!(&*source.splits, [(Split::Train, items)] if items.len() == 6));
    }
}

#[test]
fn texts_from_windows_are_read() {
    let mut files = Files::good();
    for text in ["wnids.txt", CAT_BOXES, VAL_LIST] {
        let windows = String::from_utf8(files.0[text].clone())
            .unwrap()
            .replace('\n', "\r\n");
        files.set(text, &format!("\u{feff}{windows}"));
    }
    let dir = files.dir();
    assert_good(&Source::open(dir.path()).unwrap());
}

#[test]
fn what_file_managers_leave_is_passed_over() {
    let mut files = Files::good();
    for junk in [
        ".DS_Store",
        "__MACOSX/train/n02/images/._n02_0.JPEG",
        "train/.DS_Store",
        "train/.cache/x.JPEG",
        "train/n02/images/._n02_0.JPEG",
        "train/n02/images/Thumbs.db",
        "train/n02/images/README.txt",
        "test/images/desktop.ini",
    ] {
        files.set(junk, "junk");
    }
    let dir = files.dir();
    assert_good(&Source::open(dir.path()).unwrap());
    assert_good(&files.open_zip().unwrap());
    assert_good(&open_zip(&files.zip("tiny-imagenet-200/")).unwrap());
}

#[test]
fn a_split_without_images_is_left_out() {
    let mut files = Files::good();
    files.remove("val/");
    files.remove("test/");
    files.set(VAL_LIST, "");
    let dir = files.dir();
    for empty in ["val/images", "test/images"] {
        fs::create_dir_all(dir.path().join(empty)).unwrap();
    }
    assert_eq!(Source::open(dir.path()).unwrap().splits.len(), 1);
}

#[test]
fn wnids() {
    assert_one!(|files| files.remove("wnids.txt"), TreeProblem::Missing { name, .. } if name == "wnids.txt");
    assert_one!(|files| files.set("wnids.txt", "n02\n\nn03\nn01\n"), TreeProblem::EmptyClass { at: location } if at(location, "wnids.txt", 2));
    assert_one!(
        |files| files.set("wnids.txt", "n02\nn03\nn01\nn02\n"),
        TreeProblem::RepeatedClass { at: location, wnid, first: 1 } if at(location, "wnids.txt", 4) && wnid == "n02"
    );
    assert_one!(
        |files| files.set("wnids.txt", "n02\nn03\nn04\nn01"),
        TreeProblem::ClassWithoutFolder { at: location, wnid } if at(location, "wnids.txt", 3) && wnid == "n04"
    );
    assert_one!(
        |files| files.set("wnids.txt", "n02\nn03\nn01\n../train/n01\n"),
        TreeProblem::ClassWithoutFolder { wnid, .. } if wnid == "../train/n01"
    );
    assert_one!(
        |files| {
            files.remove("val/");
            files.set("wnids.txt", "n02\nn01\n");
        },
        TreeProblem::FolderWithoutClass { folder } if folder == "train/n03"
    );
    assert_one!(
        |files| drop(files.0.insert("wnids.txt".to_owned(), b"n02\nn03\nn01\nn\xff4\n".to_vec())),
        TreeProblem::NotText { at: location } if at(location, "wnids.txt", 4)
    );
}

#[test]
fn missing_parts() {
    assert_one!(|files| files.remove("train/"), TreeProblem::Missing { name, .. } if name == "train/");
    assert_one!(|files| files.remove(CAT_BOXES), TreeProblem::Missing { name, .. } if name == CAT_BOXES);
    assert_one!(|files| files.remove("train/n02/images/"), TreeProblem::Missing { name, .. } if name == "train/n02/images/");
    assert_one!(|files| files.remove(VAL_LIST), TreeProblem::Missing { name, .. } if name == VAL_LIST);
    assert_one!(|files| files.remove("val/images/"), TreeProblem::Missing { name, .. } if name == "val/images/");
    assert_one!(
        |files| {
            files.remove("test/");
            files.image("test/a/test_0.JPEG");
            files.image("test/b/test_1.JPEG");
        },
        TreeProblem::Missing { name, .. } if name == "test/images/"
    );
    assert_one!(
        |files| {
            for wnid in ["n01", "n02", "n03"] {
                files.remove(&format!("train/{wnid}/images/"));
                files.set(&format!("train/{wnid}/{wnid}_boxes.txt"), "");
                files.set(&format!("train/{wnid}/images/none"), "");
            }
        },
        TreeProblem::NoImages
    );
}

#[test]
fn annotation_lines() {
    assert_one!(
        |files| files.replace(CAT_BOXES, "\t62", ""),
        TreeProblem::Fields { at: location, got: 4, expected } if at(location, CAT_BOXES, 1) && *expected == ["name", "x0", "y0", "x1", "y1"],
    );
    assert_one!(
        |files| files.replace(VAL_LIST, "\t4\n", "\t4\t5\n"),
        TreeProblem::Fields { at: location, got: 7, expected } if at(location, VAL_LIST, 2) && expected.len() == 6
    );
    for bad in ["x", "", "1.5", "-1", " 7", "99999999999"] {
        assert_one!(
            |files| files.replace(CAT_BOXES, "_10.JPEG\t7\t7", &format!("_10.JPEG\t7\t{bad}")),
            TreeProblem::Coordinate { at: location, field: "y0", got } if at(location, CAT_BOXES, 2) && got == bad,
        );
    }
    assert_one!(
        |files| files.replace(CAT_BOXES, "7\t7\t7\t7", "7\t7\t6\t7"),
        TreeProblem::Inverted { at: location, bbox: [7, 7, 6, 7] } if at(location, CAT_BOXES, 2)
    );
    assert_one!(
        |files| files.replace(VAL_LIST, "1\t2\t3\t4", "1\t2\t3\t1"),
        TreeProblem::Inverted { at: location, bbox: [1, 2, 3, 1] } if at(location, VAL_LIST, 2)
    );
    assert_one!(
        |files| files.replace(VAL_LIST, "n03", "n04"),
        TreeProblem::UnknownClass { at: location, wnid } if at(location, VAL_LIST, 3) && wnid == "n04"
    );
}

#[test]
fn listed_and_present() {
    assert_one!(
        |files| files.remove(CAT_IMAGE),
        TreeProblem::Absent { at: location, name, folder }
            if at(location, CAT_BOXES, 1) && name == "n02_0.JPEG" && folder == "train/n02/images"
    );
    assert_one!(
        |files| files.image("val/images/val_3.jpg"),
        TreeProblem::Unlisted { image, list } if image == "val/images/val_3.jpg" && list == VAL_LIST
    );
    assert_one!(
        |files| files.replace(CAT_BOXES, "n02_10", "n02_0.JPEG\t0\t0\t9\t9\nn02_10"),
        TreeProblem::Repeated { at: location, name, first: 1 } if at(location, CAT_BOXES, 2) && name == "n02_0.JPEG",
    );
}

#[test]
fn names_never_lead_outside() {
    for path in [
        "../../../secret.JPEG",
        "/etc/passwd",
        "..",
        "..\\..\\secret.JPEG",
        "../images/n02_0.JPEG",
    ] {
        assert_one!(
            |files| {
                files.image("secret.JPEG");
                files.replace(CAT_BOXES, "n02_10", &format!("{path}\t0\t0\t9\t9\nn02_10"));
            },
            TreeProblem::Path { at: location, name, folder }
                if at(location, CAT_BOXES, 2) && name == path && folder == "train/n02/images",
        );
    }
}

#[test]
fn all_problems_come_at_once() {
    let [problems, _] = edited(|files| {
        files.set("wnids.txt", "n02\n\nn04\nn01\nn02\n");
        files.set(
            CAT_BOXES,
            "n02_0.JPEG\t0\t0\t9\nn02_7.JPEG\t0\t0\t9\t9\n../n02_0.JPEG\t0\t0\t9\t9\n",
        );
        files.remove("train/n01/n01_boxes.txt");
        files.set(VAL_LIST, "val_2.JPEG\tn05\t0\t0\t63\t63\nval_0.JPEG\tn02\t-1\t2\t3\t4\nval_0.JPEG\tn02\t1\t2\t0\t9\n");
        files.remove("test/images/");
        files.image("test/a/test_0.JPEG");
        files.image("test/b/test_1.JPEG");
    });
    insta::assert_snapshot!(problems, @r#"
    14 problems
      wnids.txt:2: an empty line, expected a wnid such as n02124075; remove it
      wnids.txt:3: class "n04" has no folder in train/; restore the folder or remove the line
      wnids.txt:5: n02 is on line 1 already; remove one of the two
      train/n03: wnids.txt does not list this class; add it there or remove the folder
      train/n02/n02_boxes.txt:1: found 4 fields, expected 5 separated by tabs: name, x0, y0, x1, y1
      train/n02/n02_boxes.txt:2: "n02_7.JPEG" is not in train/n02/images; restore the image or remove the line
      train/n02/n02_boxes.txt:3: "../n02_0.JPEG" is a path, expected the bare name of a file in train/n02/images
      train/n02/images/n02_10.JPEG: train/n02/n02_boxes.txt does not list it; add a line there or remove the image
      train/n01/n01_boxes.txt is missing: it lists the class's images and their boxes; restore it
      val/val_annotations.txt:1: unknown class "n05", expected one that wnids.txt lists
      val/val_annotations.txt:2: x0 is "-1", expected a whole number of pixels, 0 or more
      val/val_annotations.txt:3: val_0.JPEG is on line 2 already; remove one of the two
      val/images/val_1.JPEG: val/val_annotations.txt does not list it; add a line there or remove the image
      test/images/ is missing: it holds the images of test/; restore it, or remove test/ to do without
    "#);
}

#[test]
fn many_equal_problems_are_one_line() {
    let [problems, _] = edited(|files| {
        for index in 100..125 {
            files.image(&format!("val/images/val_{index}.JPEG"));
        }
    });
    assert_eq!((problems.count(), problems.first().len()), (25, 3));
    insta::assert_snapshot!(problems, @r"
    25 problems
      val/images/val_100.JPEG: val/val_annotations.txt does not list it; add a line there or remove the image (and 24 more like it)
    ");
    // Three have a line each, and other problems theirs.
    let [problems, _] = edited(|files| {
        for index in 100..103 {
            files.image(&format!("val/images/val_{index}.JPEG"));
        }
        for index in 0..2000 {
            files.replace(
                CAT_BOXES,
                "n02_10",
                &format!("absent_{index}.JPEG\t0\t0\t9\t9\nn02_10"),
            );
        }
    });
    insta::assert_snapshot!(problems, @r#"
    2,003 problems
      train/n02/n02_boxes.txt:2: "absent_0.JPEG" is not in train/n02/images; restore the image or remove the line (and 1,999 more like it)
      val/images/val_100.JPEG: val/val_annotations.txt does not list it; add a line there or remove the image
      val/images/val_101.JPEG: val/val_annotations.txt does not list it; add a line there or remove the image
      val/images/val_102.JPEG: val/val_annotations.txt does not list it; add a line there or remove the image
    "#);
}

/// The error's message, with the path of the source as `PATH`.
fn message(path: &Path, error: &Error) -> String {
    error.to_string().replace(path.to_str().unwrap(), "PATH")
}

#[test]
fn paths_that_are_no_tree() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |path: &Path| message(path, &Source::open(path).unwrap_err());

    insta::assert_snapshot!(fails(&dir.path().join("none")), @"PATH: No such file or directory (os error 2); expected a directory, a zip or a tar of images");
    insta::assert_snapshot!(fails(dir.path()), @r"
    PATH: no set of images in the directory or two levels down; expected one of
      Tiny ImageNet   wnids.txt, train/WNID/WNID_boxes.txt, train/WNID/images/*.JPEG
      class folders   train/CLASS/*.jpg and val/CLASS/*.jpg, or two or more CLASS/*.jpg alone
      ILSVRC          ILSVRC/Data/CLS-LOC/train/WNID/*.JPEG, Annotations/CLS-LOC, LOC_*.txt and .csv
      Parquet         train-*.parquet, valid*-*.parquet, test-*.parquet, there or in data/
      CIFAR           cifar-10-python.tar.gz, cifar-100-binary.tar.gz and such, or what is in them
      NumPy           an .npz file of train_images and train_labels, or of x_train and y_train
      Downsampled     train_data_batch_1.npz, val_data.npz and such, or pickled, there or in a zip
      WebDataset      tars of KEY.jpg and KEY.cls or KEY.json: one, or train-000000.tar and so on
    ");

    let text = dir.path().join("notes.txt");
    fs::write(&text, "not a zip").unwrap();
    insta::assert_snapshot!(fails(&text), @"PATH: not a whole zip file (invalid Zip archive: Could not find EOCD), nor a tar; if it should be one, copy or download it again");

    let zip = dir.path().join("other.zip");
    let mut other = Files(BTreeMap::new());
    other.image("photos/holiday.JPEG");
    fs::write(&zip, other.zip("")).unwrap();
    insta::assert_snapshot!(fails(&zip), @r"
    PATH: no set of images anywhere in the zip; expected one of
      Tiny ImageNet   wnids.txt, train/WNID/WNID_boxes.txt, train/WNID/images/*.JPEG
      class folders   train/CLASS/*.jpg and val/CLASS/*.jpg, or two or more CLASS/*.jpg alone
      ILSVRC          ILSVRC/Data/CLS-LOC/train/WNID/*.JPEG, Annotations/CLS-LOC, LOC_*.txt and .csv
      Parquet         train-*.parquet, valid*-*.parquet, test-*.parquet, there or in data/
      CIFAR           cifar-10-python.tar.gz, cifar-100-binary.tar.gz and such, or what is in them
      NumPy           an .npz file of train_images and train_labels, or of x_train and y_train
      Downsampled     train_data_batch_1.npz, val_data.npz and such, or pickled, there or in a zip
      WebDataset      tars of KEY.jpg and KEY.cls or KEY.json: one, or train-000000.tar and so on
    ");

    for name in ["one", "two"] {
        fs::rename(Files::good().dir().keep(), dir.path().join(name)).unwrap();
    }
    insta::assert_snapshot!(fails(dir.path()), @"PATH: several sets of images, expected one: one, two; pack one of them by itself");
    assert!(
        matches!(Source::open(dir.path()), Err(Error::SeveralTrees { roots, .. }) if roots == ["one", "two"])
    );
}

#[test]
fn links_in_a_directory_are_followed() {
    let (files, disk) = (Files::good(), tempfile::tempdir().unwrap());
    let dir = files.dir();
    for (index, part) in ["val", "train/n02/images", "test/images/test_2.JPEG"]
        .into_iter()
        .enumerate()
    {
        let (from, to) = (dir.path().join(part), disk.path().join(index.to_string()));
        fs::rename(&from, &to).unwrap();
        symlink(&to, &from).unwrap();
    }
    // Nor does a loop of folders, which no part of the layout is, lead astray.
    symlink(dir.path(), dir.path().join("loop")).unwrap();
    assert_good(&Source::open(dir.path()).unwrap());

    fs::remove_dir_all(disk.path().join("1")).unwrap();
    let problems = problems(Source::open(dir.path()));
    assert!(
        matches!(problems.first(), [TreeProblem::DeadLink { link }] if link == "train/n02/images"),
        "{problems}"
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    let dir = Files::good().dir();
    let source = Source::open(dir.path()).unwrap();
    fs::remove_file(dir.path().join(CAT_IMAGE)).unwrap();
    let mut reader = source.reader();
    let error = reader.read(&source.splits[0].1[0]).unwrap_err();
    insta::assert_snapshot!(message(dir.path(), &error), @"PATH/train/n02/images/n02_0.JPEG: no such file");

    fs::remove_file(dir.path().join(VAL_LIST)).unwrap();
    fs::create_dir(dir.path().join(VAL_LIST)).unwrap();
    fs::write(dir.path().join(CAT_IMAGE), "").unwrap();
    let problems = problems(Source::open(dir.path()));
    assert!(
        matches!(problems.first(), [TreeProblem::Unreadable { name, reason: ReadError::Io(_) }] if name == VAL_LIST)
    );

    let large = fs::File::create(dir.path().join(CAT_IMAGE)).unwrap();
    large.set_len(MAX_FILE + 1).unwrap();
    let mut reader = source.reader();
    let error = reader.read(&source.splits[0].1[0]).unwrap_err();
    assert!(matches!(
        error,
        Error::Read {
            reason: ReadError::TooLarge { .. },
            ..
        }
    ));
}

#[test]
fn threads_share_a_source() {
    let files = Files::good();
    let dir = files.dir();
    for source in [
        Source::open(dir.path()).unwrap(),
        files.open_zip().unwrap(),
        files.open_tar().unwrap(),
    ] {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| assert_bytes(&source, &files)));
            }
        });
    }
}
