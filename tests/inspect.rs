//! `tinyres inspect`, as a user runs it, on shards written here.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{failure, tinyres};
use serde_json::Value;
use tinyres::inspect::Set;
use tinyres_format::{
    Class, Columns, Digest, Draws, Manifest, Metadata, Refused, Shape, Shard, Split, SplitEntry,
    Stream, Writer,
};

const SIDE: usize = 20;
const SHAPE: Shape = Shape::rgb(20);
const IMAGE: usize = 3 * SIDE * SIDE;

/// A pixel of image `image` of a split, by a rule of its own.
fn pixel(split: Split, image: usize, channel: usize, x: usize, y: usize) -> u8 {
    let salt = match split {
        Split::Train => 0,
        Split::Val => 90,
        Split::Test => 180,
    };
    u8::try_from((salt + image * 7 + channel * 50 + x * 3 + y * y) % 256).unwrap()
}

fn pixels(split: Split, image: usize) -> Vec<u8> {
    let at = |i: usize| (i / (SIDE * SIDE), i % SIDE, i / SIDE % SIDE);
    (0..IMAGE)
        .map(at)
        .map(|(channel, x, y)| pixel(split, image, channel, x, y))
        .collect()
}

fn class(image: usize) -> i64 {
    [0, 1, 0, 2][image % 4]
}

fn bbox(image: usize) -> [i32; 4] {
    [[3, 4, 12, 15], [0, 0, 19, 19], [7, 2, 7, 9]][image % 3]
}

/// A set: 150 train images in shards of 100 and 50, 70 val images, 10 test images, in `set`.
struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        Self::of("a set")
    }

    fn of(fingerprint: &str) -> Self {
        let fixture = Self(tempfile::tempdir().unwrap());
        let dir = fixture.path("");
        fs::create_dir(&dir).unwrap();
        let fingerprint = Digest::of(fingerprint.as_bytes());
        let splits = [
            (Split::Train, &[0, 100, 150][..]),
            (Split::Val, &[0, 70]),
            (Split::Test, &[0, 10]),
        ];
        let splits = splits.map(|(split, bounds)| {
            let shards = bounds.windows(2).enumerate();
            let shards: Vec<_> = shards
                .map(|(index, range)| {
                    let path = dir.join(split.shard_name(index));
                    let mut writer = Writer::create(&path, SHAPE).unwrap();
                    let mut columns = Columns::default();
                    for image in range[0]..range[1] {
                        writer.append(&pixels(split, image)).unwrap();
                        let labelled = split != Split::Test;
                        columns
                            .labels
                            .push(if labelled { class(image) } else { -1 });
                        columns
                            .boxes
                            .push(if labelled { bbox(image) } else { [-1; 4] });
                        columns.names.push(format!("{split}_{image}.JPEG"));
                    }
                    let metadata = Metadata {
                        creator: "tinyres 0.1.0".into(),
                        fingerprint,
                        split,
                        shard: u32::try_from(index).unwrap(),
                        shards: u32::try_from(bounds.len() - 1).unwrap(),
                        grey: 2,
                        warned: vec![],
                        refused: vec![
                            Refused {
                                name: "bad.JPEG".into(),
                                reason: "cut".into()
                            };
                            index
                        ],
                        classes: [
                            ("n02", "Egyptian cat"),
                            ("n01", "goldfish, Carassius auratus"),
                            ("n03", "acorn"),
                        ]
                        .map(|(id, name)| Class {
                            id: id.into(),
                            name: name.into(),
                        })
                        .to_vec(),
                    };
                    writer.finish(&columns, &metadata).unwrap()
                })
                .collect();
            SplitEntry {
                split,
                images: shards.iter().map(|shard| shard.images).sum(),
                shards,
            }
        });
        let manifest = Manifest::new(
            "tinyres 0.1.0".into(),
            fingerprint,
            SHAPE,
            3,
            splits.to_vec(),
        );
        manifest.save(&dir).unwrap();
        fixture
    }

    /// A file of the set.
    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join("set").join(file)
    }

    /// `tinyres inspect` with `args`, where the set is.
    fn inspect(&self, args: &[&str]) -> assert_cmd::Command {
        let mut command = tinyres();
        command.current_dir(self.0.path()).arg("inspect").args(args);
        command
    }

    fn success(&self, args: &[&str]) -> String {
        let output = self.inspect(args).assert().success().get_output().clone();
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it reports and complains of where something is wrong with the set.
    fn unsound(&self, args: &[&str]) -> (String, String) {
        let output = self
            .inspect(args)
            .assert()
            .failure()
            .code(1)
            .get_output()
            .clone();
        (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        let output = self.inspect(&args).assert().get_output().clone();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Changes one byte of a file.
    fn damage(&self, file: &str, at: impl FnOnce(&Shard<Vec<u8>>) -> usize) {
        let mut bytes = fs::read(self.path(file)).unwrap();
        let at = at(&Shard::new(bytes.clone()).unwrap());
        bytes[at] ^= 4;
        fs::write(self.path(file), bytes).unwrap();
    }
}

/// The lines from the one that begins with `title` to the next blank one.
fn section<'a>(text: &'a str, title: &str) -> &'a str {
    let mut sections = text.split("\n\n").map(str::trim_end);
    let found = sections.find(|section| section.starts_with(title));
    found.unwrap_or_else(|| panic!("no {title:?} in {text}"))
}

#[test]
fn a_directory() {
    let set = Fixture::new();
    let report = set.success(&["set"]);
    insta::assert_snapshot!(report, @r#"
    set
      230 images, 3x20x20 u8, 3 classes, 4 shards
      format 1, written by tinyres 0.1.0
      fingerprint 67c61cb35c322a8e7597355bd4115c57fa0325b9382e95242aa7d04b31c4b816
      dataset.json and all shards agree

    images        count     grey  refused   shards      size
    train           150        4        1        2    195 kB
    val              70        2        0        1   91.3 kB
    test             10        2        0        1   17.0 kB

    labels         none    least   median     most  (images of a class)
    train             0       37       38       75
    val               0       17       18       35
    test             10        -        -        -

    boxes         count  mean area
    train           150  176 pixels, 44.0% of the image
    val              70  175 pixels, 43.8% of the image
    test              0  -

    parts                size    share
    header            16.4 kB    5.39%
    images             276 kB   90.87%
    block checksums      68 B    0.02%
    labels            1.84 kB    0.61%
    boxes             3.68 kB    1.21%
    name offsets        936 B    0.31%
    names             2.86 kB    0.94%
    metadata          1.20 kB    0.39%
    padding             760 B    0.25%
    "#);
    assert!(report.lines().all(|line| line.len() <= 80));
}

#[test]
fn a_shard_alone() {
    let set = Fixture::new();
    insta::assert_snapshot!(set.success(&["set/train-00001.bin"]), @r#"
    set/train-00001.bin
      50 images, 3x20x20 u8, 3 classes, train shard 2 of 2
      format 1, written by tinyres 0.1.0
      fingerprint 67c61cb35c322a8e7597355bd4115c57fa0325b9382e95242aa7d04b31c4b816

    images        count     grey  refused   shards      size
    train            50        2        1        1   66.8 kB

    labels         none    least   median     most  (images of a class)
    train             0       12       13       25

    boxes         count  mean area
    train            50  177 pixels, 44.3% of the image

    parts                size    share
    header            4.10 kB    6.14%
    images            60.0 kB   89.88%
    block checksums      16 B    0.02%
    labels              400 B    0.60%
    boxes               800 B    1.20%
    name offsets        204 B    0.31%
    names               700 B    1.05%
    metadata            326 B    0.49%
    padding             216 B    0.32%
    "#);
}

#[test]
fn classes() {
    let set = Fixture::new();
    let report = set.success(&["set", "--classes"]);
    insta::assert_snapshot!(section(&report, "label id"), @r#"
    label id          train     val    test  words
        0 n02            75      35       0  Egyptian cat
        1 n01            38      18       0  goldfish, Carassius auratus
        2 n03            37      17       0  acorn
    "#);
}

#[test]
fn several_paths_and_json() {
    let set = Fixture::new();
    let args = [
        "set/val-00000.bin",
        "set/test-00000.bin",
        "--json",
        "--classes",
    ];
    let text = set.success(&args);
    let reports: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(reports.len(), 2);
    let (val, test) = (&reports[0]["splits"][0], &reports[1]["splits"][0]);

    // By hand: of 70 labels 0, 1, 0, 2, ..., class 0 has 35, class 1 has 18, class 2 has 17.
    assert_eq!(val["per_class"]["least"], 17);
    assert_eq!(val["per_class"]["median"], 18.0);
    assert_eq!(val["per_class"]["most"], 35);
    let per_class = reports[0]["per_class"].as_array().unwrap();
    let images: Vec<_> = per_class
        .iter()
        .map(|class| class["images"][0].as_u64().unwrap())
        .collect();
    assert_eq!(images, [35, 18, 17]);
    // Boxes of 10 x 12, 20 x 20 and 1 x 8 pixels in turns.
    let area = f64::from(24 * 120 + 23 * 400 + 23 * 8) / 70.0;
    assert!((val["mean_area"].as_f64().unwrap() - area).abs() < 1e-9);
    assert_eq!(val["boxes"], 70);
    assert_eq!(val["unlabelled"], 0);

    assert_eq!(test["unlabelled"], 10);
    assert_eq!(test["boxes"], 0);
    assert!(test["per_class"].is_null() && test["mean_area"].is_null());

    let parts = reports[0]["parts"].as_array().unwrap();
    let sum: u64 = parts
        .iter()
        .map(|part| part["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(sum, fs::metadata(set.path("val-00000.bin")).unwrap().len());
}

#[test]
fn verify_finds_nothing_in_a_whole_set() {
    let set = Fixture::new();
    let report = set.success(&["set", "--verify"]);
    assert!(
        report.ends_with(" GB/s: all are as they were written\n"),
        "{report}"
    );
    let found = &set.json(&["set", "--verify"])["verification"];
    assert_eq!(found["bytes"], (150 + 70 + 10) * IMAGE as u64);
    assert_eq!(found["damaged"], Value::Array(vec![]));
}

#[test]
fn verify_names_each_damaged_block() {
    let set = Fixture::new();
    set.damage("train-00000.bin", |_| 4096 + 99 * IMAGE);
    set.damage("train-00001.bin", |_| 4096);
    set.damage("train-00001.bin", |_| 4096 + 16 * IMAGE - 1);
    set.damage("train-00001.bin", |_| 4096 + 50 * IMAGE - 1);
    set.damage("val-00000.bin", |_| 4096 + 64 * IMAGE - 1);

    set.success(&["set"]); // no pixel was read
    let (report, error) = set.unsound(&["set", "--verify"]);
    let damaged: Vec<_> = section(&report, "verified").lines().skip(1).collect();
    let expected = [
        "  set/train-00000.bin: images 96-99 (96-99 of train): image block 6 has checksum ",
        "  set/train-00001.bin: images 0-15 (100-115 of train): image block 0 has checksum ",
        "  set/train-00001.bin: images 48-49 (148-149 of train): image block 3 has checksum ",
        "  set/val-00000.bin: images 48-63 (48-63 of val): image block 3 has checksum ",
    ];
    assert_eq!(damaged.len(), expected.len(), "{report}");
    for (damaged, expected) in damaged.iter().zip(expected) {
        assert!(damaged.starts_with(expected), "{damaged}");
    }
    assert_eq!(
        error,
        "error: set: not as it was packed, the report says why\n"
    );

    let (report, _) = set.unsound(&["set/train-00001.bin", "--verify"]);
    assert!(
        report.contains("  set/train-00001.bin: images 48-49: image block 3"),
        "{report}"
    );
    let found = &set.json(&["set", "--verify"])["verification"]["damaged"][2];
    assert_eq!(found["path"], "set/train-00001.bin");
    assert_eq!(
        (&found["block"], &found["images"]["end"]),
        (&3.into(), &50.into())
    );
    assert_eq!(found["in_split"]["start"], 148);
}

/// Wherever it is: header, metadata, pixels, columns, checksums, padding.
#[test]
fn no_flipped_bit_stays_hidden() {
    let set = Fixture::new();
    let path = set.path("train-00001.bin");
    let whole = fs::read(&path).unwrap();
    let sound = |bytes: &[u8]| {
        Set::open(&path, |_| Shard::new(bytes)).is_ok_and(|set| {
            let mut report = set.report(false);
            report.verification = Some(set.verify(&mut ()).unwrap());
            report.is_sound()
        })
    };
    assert!(sound(&whole));
    let draws = Draws::new(1, Stream::Sample, 0);
    // Every second one anywhere, the others in the small parts at both ends.
    let small = (whole.len() - 4096 - 50 * IMAGE) as u64;
    for n in 0..2000 {
        let at = match n % 2 {
            0 => draws.below(n, whole.len() as u64),
            _ => draws.below(n, 4096 + small),
        };
        let at = usize::try_from(at).unwrap();
        let at = if n % 2 == 1 && at >= 4096 {
            at + 50 * IMAGE
        } else {
            at
        };
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (n / 2 % 8);
        assert!(!sound(&bytes), "bit {} of byte {at}", n / 2 % 8);
    }
}

#[test]
fn a_damaged_column_is_a_problem_without_verify() {
    let set = Fixture::new();
    let label =
        |shard: &Shard<Vec<u8>>| shard.labels().as_ptr().addr() - shard.bytes().as_ptr().addr();
    set.damage("train-00001.bin", label);
    let (report, _) = set.unsound(&["set"]);
    insta::assert_snapshot!(section(&report, "labels"), @r#"
    labels         none    least   median     most  (images of a class)
    train             0       25       25       50
    val               0       17       18       35
    test             10        -        -        -
    "#);
    let problem = section(&report, "problems");
    assert!(
        problem.contains("  set/train-00001.bin: labels has checksum"),
        "{problem}"
    );
    let error = failure(&mut set.inspect(&["set", "--image", "120"]), 1);
    assert!(
        error.starts_with("error: set/train-00001.bin: labels has checksum"),
        "{error}"
    );
    set.success(&["set", "--image", "99"]);
}

#[test]
fn what_is_no_shard() {
    let set = Fixture::new();
    fs::write(set.path("text.bin"), "no shard at all").unwrap();
    fs::write(set.path("empty.bin"), "").unwrap();
    let whole = fs::read(set.path("val-00000.bin")).unwrap();
    fs::write(set.path("cut.bin"), &whole[..whole.len() - 1]).unwrap();
    fs::write(set.path("page.bin"), &whole[..100]).unwrap();
    let mut later = whole;
    later[8] = 2;
    fs::write(set.path("later.bin"), later).unwrap();
    fs::create_dir(set.path("nothing")).unwrap();
    let error = |path: &str| failure(&mut set.inspect(&[path]), 1);
    insta::assert_snapshot!(error("set/text.bin"), @"error: set/text.bin: not a tinyres shard: it begins with [6e, 6f, 20, 73, 68, 61, 72, 64], expected [89, 54, 52, 53, 0d, 0a, 1a, 0a]");
    insta::assert_snapshot!(error("set/empty.bin"), @"error: set/empty.bin: not a tinyres shard: it begins with [00, 00, 00, 00, 00, 00, 00, 00], expected [89, 54, 52, 53, 0d, 0a, 1a, 0a]");
    insta::assert_snapshot!(error("set/cut.bin"), @"error: set/cut.bin: file is 91297 bytes long, expected 91298: it was cut short or added to; copy it again, or pack again with --force");
    insta::assert_snapshot!(error("set/page.bin"), @"error: set/page.bin: file is 100 bytes long, expected 4096: it was cut short or added to; copy it again, or pack again with --force");
    insta::assert_snapshot!(error("set/later.bin"), @"error: set/later.bin: shard has version 2, but this build reads versions up to 1: upgrade tinyres, or pack again with --force");
    insta::assert_snapshot!(error("set/nothing"), @"error: set/nothing: no dataset.json here: the pack is unfinished or this is not a directory of shards; run `tinyres pack` again, with --force if shards are here");
    insta::assert_snapshot!(error("set/missing.bin"), @"error: set/missing.bin: No such file or directory (os error 2)");
}

/// Shards of an interrupted pack are shown all the same.
#[test]
fn a_directory_without_dataset_json() {
    let set = Fixture::new();
    fs::remove_file(set.path("dataset.json")).unwrap();
    fs::remove_file(set.path("test-00000.bin")).unwrap();
    let (report, error) = set.unsound(&["set"]);
    insta::assert_snapshot!(section(&report, "set"), @r#"
    set
      220 images, 3x20x20 u8, 3 classes, 3 shards
      format 1, written by tinyres 0.1.0
      fingerprint 67c61cb35c322a8e7597355bd4115c57fa0325b9382e95242aa7d04b31c4b816
    "#);
    insta::assert_snapshot!(section(&report, "images"), @r#"
    images        count     grey  refused   shards      size
    train           150        4        1        2    195 kB
    val              70        2        0        1   91.3 kB
    "#);
    insta::assert_snapshot!(section(&report, "problems"), @r#"
    problems
      set: no dataset.json here: the pack is unfinished or this is not a directory of shards; run `tinyres pack` again, with --force if shards are here
    "#);
    assert_eq!(
        error,
        "error: set: not as it was packed, the report says why\n"
    );
    assert!(
        set.success(&["set", "--image", "149"])
            .contains("train-00001.bin, image 49 there")
    );
}

#[test]
fn shards_of_two_sets() {
    let (set, other) = (Fixture::new(), Fixture::of("another set"));
    fs::copy(other.path("val-00000.bin"), set.path("val-00000.bin")).unwrap();
    fs::copy(other.path("train-00000.bin"), set.path("train-00002.bin")).unwrap();
    fs::remove_file(set.path("test-00000.bin")).unwrap();
    let (report, _) = set.unsound(&["set"]);
    insta::assert_snapshot!(section(&report, "set"), @r#"
    set
      150 of 230 images, 3x20x20 u8, 3 classes, 2 shards
      format 1, written by tinyres 0.1.0
      fingerprint 67c61cb35c322a8e7597355bd4115c57fa0325b9382e95242aa7d04b31c4b816
    "#);
    insta::assert_snapshot!(section(&report, "problems"), @r#"
    problems
      set/val-00000.bin: the set's fingerprint is 49e051823619fffccb5133bd00f8c6baab6587c3941edfe5352315812bc0c599, but dataset.json says 67c61cb35c322a8e7597355bd4115c57fa0325b9382e95242aa7d04b31c4b816: the shard is of another set or another pack; pack again with --force
      set/test-00000.bin: in dataset.json, but not here: copy it again, or pack again with --force
      set/train-00002.bin: not in dataset.json: a leftover of another pack; remove it
    "#);
    let error = failure(
        &mut set.inspect(&["set", "--split", "val", "--image", "3"]),
        1,
    );
    insta::assert_snapshot!(error, @"error: set: image 3 of val is in a shard that cannot be shown: inspect the directory to see why");

    fs::remove_file(set.path("dataset.json")).unwrap();
    let (report, _) = set.unsound(&["set"]);
    insta::assert_snapshot!(section(&report, "problems"), @r#"
    problems
      set: no dataset.json here: the pack is unfinished or this is not a directory of shards; run `tinyres pack` again, with --force if shards are here
      set/train-00002.bin: its fingerprint is not that of set/train-00000.bin: they are of two sets; keep one, or pack again with --force
      set/val-00000.bin: its fingerprint is not that of set/train-00000.bin: they are of two sets; keep one, or pack again with --force
    "#);
}

#[test]
fn one_image() {
    let set = Fixture::new();
    insta::assert_snapshot!(set.success(&["set", "--image", "103"]), @r#"
    train image 103: set/train-00001.bin, image 3 there
      label  2, n03: acorn
      box    x 0-19, y 0-19: 20x20 pixels
      name   train_103.JPEG
    "#);
    insta::assert_snapshot!(set.success(&["set", "--split", "val", "--image", "1"]), @r#"
    val image 1: set/val-00000.bin
      label  1, n01: goldfish, Carassius auratus
      box    x 0-19, y 0-19: 20x20 pixels
      name   val_1.JPEG
    "#);
    insta::assert_snapshot!(set.success(&["set/train-00001.bin", "--image", "3"]), @r#"
    train image 3: set/train-00001.bin
      label  2, n03: acorn
      box    x 0-19, y 0-19: 20x20 pixels
      name   train_103.JPEG
    "#);
    insta::assert_snapshot!(set.success(&["set/test-00000.bin", "--image", "9"]), @r#"
    test image 9: set/test-00000.bin
      label  none
      box    none
      name   test_9.JPEG
    "#);
    let sample = set.json(&["set", "--image", "103"]);
    insta::assert_snapshot!(sample, @r#"{"box":[0,0,19,19],"class":{"id":"n03","name":"acorn"},"image":103,"in_shard":3,"label":2,"name":"train_103.JPEG","shape":[3,20,20],"shard":"set/train-00001.bin","split":"train"}"#);

    let error = |args: &[&str]| failure(&mut set.inspect(args), 1);
    insta::assert_snapshot!(error(&["set", "--image", "150"]), @"error: set: no image 150 of train here, only 150, counted from 0");
    insta::assert_snapshot!(error(&["set/val-00000.bin", "--split", "train", "--image", "0"]), @"error: set/val-00000.bin: no train split here, only val");
    insta::assert_snapshot!(error(&["set", "set", "--image", "0"]), @"error: --image and --sheet look at one PATH, but there are 2");
    set.damage("train-00001.bin", |_| 4096);
    let error = error(&["set", "--image", "103"]);
    assert!(
        error.contains("set/train-00001.bin: image block 0 has checksum"),
        "{error}"
    );
}

#[test]
fn flags_that_do_not_go_together() {
    let set = Fixture::new();
    for args in [
        &["set", "--png", "a.png"][..],
        &["set", "--count", "3"],
        &["set", "--image", "1", "--sheet", "a.png"],
        &["set", "--image", "1", "--verify"],
        &["set", "--image", "-1"],
        &["set", "--split", "dev", "--image", "1"],
        &[],
    ] {
        failure(&mut set.inspect(args), 2);
    }
}

struct Png {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Png {
    fn read(path: &Path) -> Self {
        let mut reader = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap()))
            .read_info()
            .unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rgb).unwrap();
        assert_eq!(
            (info.color_type, info.bit_depth),
            (png::ColorType::Rgb, png::BitDepth::Eight)
        );
        Self {
            width: info.width as usize,
            height: info.height as usize,
            rgb,
        }
    }

    fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        self.rgb[at..at + 3].try_into().unwrap()
    }

    /// Compares an enlarged image, except along its box, and returns the line's pixels.
    fn compare(
        &self,
        split: Split,
        image: usize,
        at: [usize; 2],
        factor: usize,
        line: usize,
    ) -> Vec<[u8; 3]> {
        let [x0, y0, x1, y1] = bbox(image).map(|side| usize::try_from(side).unwrap());
        let (left, top) = (x0 * factor, y0 * factor);
        let (right, bottom) = ((x1 + 1) * factor, (y1 + 1) * factor);
        let mut of_line = Vec::new();
        for y in 0..SIDE * factor {
            for x in 0..SIDE * factor {
                let in_box = (left..right).contains(&x) && (top..bottom).contains(&y);
                let within = (left + line..right - line).contains(&x)
                    && (top + line..bottom - line).contains(&y);
                let found = self.at(at[0] + x, at[1] + y);
                if split != Split::Test && in_box && !within {
                    of_line.push(found);
                } else {
                    let expected = [0, 1, 2]
                        .map(|channel| pixel(split, image, channel, x / factor, y / factor));
                    assert_eq!(found, expected, "{split} {image} at {x}, {y}");
                }
            }
        }
        of_line
    }
}

#[test]
fn a_png_shows_the_pixels_and_the_box() {
    let set = Fixture::new();
    for image in [103, 104, 105] {
        let text = set.success(&["set", "--image", &image.to_string(), "--png", "one.png"]);
        assert!(text.starts_with(&format!("train image {image}")));
        let png = Png::read(&set.0.path().join("one.png"));
        assert_eq!((png.width, png.height), (25 * SIDE, 25 * SIDE));
        let line = png.compare(Split::Train, image, [0, 0], 25, 6);
        let count = |colour: [u8; 3]| line.iter().filter(|&&found| found == colour).count();
        let (white, black) = (count([255; 3]), count([0; 3]));
        assert_eq!(white + black, line.len());
        assert!(
            white > line.len() / 3 && black > line.len() / 3,
            "{white} {black}"
        );
    }
    set.success(&["set/test-00000.bin", "--image", "4", "--png", "one.png"]);
    let png = Png::read(&set.0.path().join("one.png"));
    assert_eq!(
        png.compare(Split::Test, 4, [0, 0], 25, 6),
        Vec::<[u8; 3]>::new()
    );

    let error = failure(
        &mut set.inspect(&["set", "--image", "1", "--png", "none/one.png"]),
        1,
    );
    assert_eq!(
        error,
        "error: none/one.png: No such file or directory (os error 2)\n"
    );
}

#[test]
fn a_sheet_shows_images_from_all_over_the_split() {
    let set = Fixture::new();
    let args = ["set", "--sheet", "sheet.png", "--count", "30"];
    assert_eq!(set.success(&args), "sheet.png: 30 images of train\n");
    let shown = &set.json(&args)["images"];
    let shown: Vec<_> = shown
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["image"].as_u64().unwrap())
        .collect();
    let shown: Vec<_> = shown
        .into_iter()
        .map(|image| usize::try_from(image).unwrap())
        .collect();
    assert_eq!(
        shown.iter().map(|image| image / 5).collect::<Vec<_>>(),
        (0..30).collect::<Vec<_>>()
    );
    let places = (0..5).filter(|place| shown.iter().any(|image| image % 5 == *place));
    assert_eq!(
        places.count(),
        5,
        "a fixed step could miss classes that take turns"
    );
    let png = Png::read(&set.0.path().join("sheet.png"));
    // Cells of 9 x 20 pixels, a line of text and gaps: 8 in 1,600 pixels.
    let cell = [9 * SIDE + 8, 9 * SIDE + 16 + 8];
    assert_eq!((png.width, png.height), (8 * cell[0] + 8, 4 * cell[1] + 8));
    let mut captions = Vec::new();
    for (i, &image) in shown.iter().enumerate() {
        let at = [8 + i % 8 * cell[0], 8 + i / 8 * cell[1]];
        png.compare(Split::Train, image, at, 9, 2);
        let caption = (0..16 * 9 * SIDE)
            .map(|j| png.at(at[0] + j % (9 * SIDE), at[1] + 9 * SIDE + j / (9 * SIDE)));
        captions.push(caption.collect::<Vec<_>>());
    }
    for (i, caption) in captions.iter().enumerate() {
        assert_eq!(
            *caption == captions[0],
            class(shown[i]) == class(shown[0]),
            "caption {i}"
        );
        assert!(
            caption.iter().any(|ink| ink[0] < 80),
            "caption {i} is blank"
        );
    }

    let found = set.json(&[
        "set",
        "--split",
        "test",
        "--sheet",
        "sheet.png",
        "--count",
        "99",
    ]);
    assert_eq!(found["images"].as_array().unwrap().len(), 10);
    let png = Png::read(&set.0.path().join("sheet.png"));
    png.compare(Split::Test, 9, [8 + cell[0], 8 + cell[1]], 9, 2);
}
