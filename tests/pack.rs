//! `tinyres pack`, as a user runs it.

mod common;
#[path = "common/inject.rs"]
mod inject;
#[path = "common/skip.rs"]
mod skip;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use common::{Tree, failure, files, jpeg, tinyres};
use sha2::{Digest as _, Sha256};
use tinyres_format::{Manifest, Shard, Split};
use turbojpeg::PixelFormat;

fn pack(source: &Path, output: &Path, flags: &[&str]) -> assert_cmd::Command {
    let mut command = tinyres();
    command
        .arg("pack")
        .arg(source)
        .arg("-o")
        .arg(output)
        .args(flags);
    command
}

/// A directory with the small tree, changed, in `set`.
fn tree(change: impl FnOnce(&mut Tree)) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = Tree::small();
    change(&mut tree);
    tree.write_dir(&dir.path().join("set"));
    let set = dir.path().join("set");
    (dir, set)
}

#[test]
fn shards_hold_what_the_tree_holds() {
    let (dir, set) = tree(|_| ());
    let out = dir.path().join("shards");
    pack(&set, &out, &["--shard-images", "4"])
        .assert()
        .success();
    let manifest = Manifest::load(&out).unwrap();
    let lens = manifest
        .splits
        .iter()
        .map(|entry| (entry.split, entry.images, entry.shards.len()));
    assert_eq!(
        lens.collect::<Vec<_>>(),
        [
            (Split::Train, 10, 3),
            (Split::Val, 3, 1),
            (Split::Test, 12, 3)
        ]
    );
    let mut names = Vec::new();
    for entry in &manifest.splits {
        for (index, listed) in entry.shards.iter().enumerate() {
            let shard = Shard::new(fs::read(out.join(&listed.file)).unwrap()).unwrap();
            shard.verify().unwrap();
            manifest.check(entry, index, &shard).unwrap();
            let classes: Vec<_> = shard
                .metadata()
                .classes
                .iter()
                .map(|class| (&class.id[..], &class.name[..]))
                .collect();
            assert_eq!(
                classes,
                [
                    ("n02", "Egyptian cat"),
                    ("n01", "goldfish, Carassius auratus")
                ]
            );
            for image in 0..shard.len() {
                let name = shard.name(image).unwrap().unwrap();
                names.push((
                    name.to_owned(),
                    shard.labels()[image].get(),
                    shard.boxes()[image].map(|side| side.get()),
                ));
                let expected =
                    turbojpeg::decompress(&fs::read(set.join(name)).unwrap(), PixelFormat::RGB)
                        .unwrap();
                let interleaved: Vec<u8> = (0..64 * 64)
                    .flat_map(|at| {
                        [0, 1, 2].map(|channel| shard.image(image).unwrap()[channel * 64 * 64 + at])
                    })
                    .collect();
                assert_eq!(interleaved, expected.pixels, "{name}");
            }
        }
    }
    let expected = |name: &str, label, sides| (name.to_owned(), label, sides);
    assert_eq!(
        names[0],
        expected("train/n02/images/n02_0.JPEG", 0, [0, 0, 63, 60])
    );
    assert_eq!(
        names[9],
        expected("train/n01/images/n01_4.JPEG", 1, [4, 0, 63, 56])
    );
    assert_eq!(
        names[10],
        expected("val/images/val_2.JPEG", 1, [0, 0, 63, 63])
    );
    assert_eq!(
        names[11],
        expected("val/images/val_0.JPEG", 0, [5, 6, 5, 9])
    );
    let tests: Vec<_> = (0..12)
        .map(|image| expected(&format!("test/images/test_{image}.JPEG"), -1, [-1; 4]))
        .collect();
    assert_eq!(names[13..], tests);
}

#[test]
fn bytes_depend_on_neither_threads_nor_storage() {
    let (dir, set) = tree(|_| ());
    let out = dir.path().join("shards");
    pack(&set, &out, &["--threads", "1"]).assert().success();
    let expected = files(&out);
    assert_eq!(expected.len(), 4);
    for threads in ["2", "5"] {
        let out = dir.path().join(format!("shards-{threads}"));
        pack(&set, &out, &["--threads", threads]).assert().success();
        assert!(files(&out) == expected, "{threads} threads");
    }
    for (at, prefix) in ["", "tiny-imagenet-200/", "a/b/"].into_iter().enumerate() {
        let zip = dir.path().join(format!("{at}.zip"));
        Tree::small().write_zip(&zip, prefix);
        let out = dir.path().join(format!("zip-{at}"));
        pack(&zip, &out, &[]).assert().success();
        assert!(files(&out) == expected, "zip with prefix {prefix:?}");
    }
}

/// The rule of section 6 of SPEC.md, implemented a second time.
#[test]
fn fingerprint_is_that_of_the_specification() {
    let (dir, set) = tree(|tree| tree.text("words.txt", "n01\tback\\slash\n"));
    let out = dir.path().join("shards");
    pack(&set, &out, &[]).assert().success();
    let mut lines = "tinyres 1\nshape\t3\t64\t64\nshard_images\t8192\n".to_owned();
    lines += "class\tn02\tn02\nclass\tn01\tback\\\\slash\nsplit\ttrain\t10\n";
    for (label, wnid) in ["n02", "n01"].iter().enumerate() {
        for at in 0..5 {
            lines += &format!(
                "image\ttrain/{wnid}/images/{wnid}_{at}.JPEG\t{label}\t{at}\t0\t63\t{}\n",
                60 - at
            );
        }
    }
    lines += "split\tval\t3\nimage\tval/images/val_2.JPEG\t1\t0\t0\t63\t63\n";
    lines += "image\tval/images/val_0.JPEG\t0\t5\t6\t5\t9\nimage\tval/images/val_1.JPEG\t1\t1\t2\t3\t4\nsplit\ttest\t12\n";
    for at in 0..12 {
        lines += &format!("image\ttest/images/test_{at}.JPEG\t-\t-\n");
    }
    let expected = Sha256::digest(lines)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    assert_eq!(
        Manifest::load(&out).unwrap().fingerprint.to_string(),
        expected
    );
}

#[test]
fn report_counts_images_as_text_and_json() {
    let (dir, set) = tree(|_| ());
    let text = pack(&set, &dir.path().join("a"), &[])
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.contains("train         10          5       2        0       1"),
        "{text}"
    );
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    let json = pack(&set, &dir.path().join("b"), &["--json"])
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["splits"][0]["per_class"], serde_json::json!([5, 5]));
    assert_eq!(json["splits"][0]["grey"], 2);
    assert_eq!(json["splits"][2]["images"], 12);
    assert_eq!(json["classes"], 2);
}

/// Packs a changed tree, which must fail with each of `says`, and leave no output directory.
#[track_caller]
fn refused(change: impl FnOnce(&mut Tree), says: &[&str]) {
    let (dir, set) = tree(change);
    let out = dir.path().join("shards");
    let error = failure(&mut pack(&set, &out, &[]), 1);
    for text in says {
        assert!(error.contains(text), "{text:?} is not in\n{error}");
    }
    assert!(!out.exists(), "something was published");
}

const IMAGE: &str = "train/n01/images/n01_2.JPEG";

#[test]
fn bad_images_are_named() {
    refused(
        |tree| tree.text(IMAGE, "no jpeg"),
        &[IMAGE, "no kind of image known here", "--skip-bad"],
    );
    refused(|tree| tree.text(IMAGE, ""), &[IMAGE, "an empty file"]);
    refused(
        |tree| {
            let whole = tree.0[IMAGE].clone();
            tree.put(IMAGE, whole[..whole.len() / 2].to_vec());
        },
        &[IMAGE, "undecodable", "Premature end"],
    );
    refused(
        |tree| tree.put(IMAGE, jpeg(1, 32, PixelFormat::RGB)),
        &[IMAGE, "32x32 pixels, expected 64x64"],
    );
    refused(
        |tree| tree.text(IMAGE, "version https://git-lfs.github.com/spec/v1\n"),
        &[IMAGE, "a Git LFS pointer", "git lfs pull"],
    );
    refused(
        |tree| {
            let boxes = String::from_utf8(tree.0["train/n01/n01_boxes.txt"].clone()).unwrap();
            tree.text(
                "train/n01/n01_boxes.txt",
                &boxes.replace("n01_2.JPEG\t2\t0\t63", "n01_2.JPEG\t2\t0\t64"),
            );
        },
        &[IMAGE, "box [2, 0, 64, 58] is not inside 64x64 pixels"],
    );
}

#[test]
fn all_offenders_are_counted() {
    let (dir, set) = tree(|tree| {
        for at in 0..12 {
            tree.text(&format!("test/images/test_{at}.JPEG"), "no jpeg");
            tree.text(&format!("test/images/test_{}.JPEG", at + 12), "no jpeg");
        }
    });
    let error = failure(&mut pack(&set, &dir.path().join("shards"), &[]), 1);
    assert!(error.contains("24 problems"), "{error}");
    assert_eq!(error.matches("test/images/test_").count(), 1, "{error}");
    assert!(error.contains("(and 23 more like it)"), "{error}");
}

#[test]
fn damaged_trees_are_refused() {
    refused(
        |tree| drop(tree.0.remove("wnids.txt")),
        &["wnids.txt is missing"],
    );
    refused(
        |tree| drop(tree.0.remove("val/val_annotations.txt")),
        &["val/val_annotations.txt is missing"],
    );
    refused(
        |tree| drop(tree.0.remove("train/n01/n01_boxes.txt")),
        &["train/n01/n01_boxes.txt is missing"],
    );
    let boxes = "train/n01/n01_boxes.txt";
    let with = |line: &'static str| {
        move |tree: &mut Tree| {
            let text = String::from_utf8(tree.0[boxes].clone()).unwrap();
            tree.text(boxes, &text.replace("n01_0.JPEG\t0\t0\t63\t60", line));
        }
    };
    refused(
        with("n01_0.JPEG\t0\t0\t63"),
        &["n01_boxes.txt:1: found 4 fields, expected 5"],
    );
    refused(
        with("n01_0.JPEG\t0\t0\tx\t60"),
        &["n01_boxes.txt:1: x1 is \"x\", expected a whole number"],
    );
    refused(
        with("n01_0.JPEG\t9\t0\t8\t60"),
        &["n01_boxes.txt:1: box [9, 0, 8, 60] is inverted"],
    );
    refused(
        with("../n01_0.JPEG\t0\t0\t63\t60"),
        &["n01_boxes.txt:1: \"../n01_0.JPEG\" is a path"],
    );
    refused(
        |tree| drop(tree.0.remove(IMAGE)),
        &["n01_boxes.txt:3: \"n01_2.JPEG\" is not in train/n01/images"],
    );
    refused(
        |tree| tree.text("train/n01/images/n01_9.JPEG", ""),
        &["train/n01/images/n01_9.JPEG", "does not list it"],
    );
}

#[test]
fn unreadable_sources_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("shards");
    let error = failure(&mut pack(&dir.path().join("nowhere"), &out, &[]), 1);
    assert!(error.contains("nowhere: No such file"), "{error}");
    let error = failure(&mut pack(dir.path(), &out, &[]), 1);
    assert!(error.contains("no set of images"), "{error}");
    let zip = dir.path().join("set.zip");
    Tree::small().write_zip(&zip, "");
    let whole = fs::read(&zip).unwrap();
    fs::write(&zip, &whole[..whole.len() - 100]).unwrap();
    let error = failure(&mut pack(&zip, &out, &[]), 1);
    assert!(error.contains("set.zip: not a whole zip file"), "{error}");
    // A stored image with one byte changed: the zip's own checksum tells.
    let mut tree = Tree::small();
    tree.0.retain(|path, _| {
        path.starts_with("test") || path == "wnids.txt" || path.starts_with("train")
    });
    tree.write_zip(&zip, "");
    let mut bytes = fs::read(&zip).unwrap();
    let image = &tree.0["test/images/test_0.JPEG"];
    let at = bytes
        .windows(image.len())
        .position(|window| window == image)
        .expect("test_0 is stored");
    bytes[at + image.len() / 2] ^= 1;
    fs::write(&zip, bytes).unwrap();
    let error = failure(&mut pack(&zip, &out, &[]), 1);
    assert!(
        error.contains("test/images/test_0.JPEG: unreadable") && error.contains("checksum"),
        "{error}"
    );
    assert!(!out.exists());
    assert!(failure(tinyres().arg("pack"), 2).contains("<SOURCE>"));
}

#[test]
fn bad_images_can_be_left_out() {
    let (dir, set) = tree(|tree| {
        tree.text(IMAGE, "no jpeg");
        tree.text("test/images/test_3.JPEG", "no jpeg");
    });
    let out = dir.path().join("shards");
    let report = pack(&set, &out, &["--skip-bad", "--json", "--shard-images", "5"])
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["refused"][0]["name"], IMAGE);
    assert_eq!(report["splits"][0]["per_class"], serde_json::json!([5, 4]));
    let manifest = Manifest::load(&out).unwrap();
    assert_eq!(manifest.split(Split::Train).unwrap().images, 9);
    let shard = Shard::new(fs::read(out.join("train-00001.bin")).unwrap()).unwrap();
    shard.verify().unwrap();
    assert_eq!(shard.len(), 4);
    let refused = &shard.metadata().refused;
    assert_eq!((refused.len(), &refused[0].name[..]), (1, IMAGE));
    assert!(refused[0].reason.contains("no kind of image"));
    assert_eq!(
        shard.name(2).unwrap().unwrap(),
        "train/n01/images/n01_3.JPEG"
    );
    let expected = turbojpeg::decompress(
        &fs::read(set.join("train/n01/images/n01_3.JPEG")).unwrap(),
        PixelFormat::GRAY,
    )
    .unwrap();
    assert_eq!(shard.image(2).unwrap()[..64 * 64], expected.pixels);
}

#[test]
fn next_to_nothing_left_is_not_a_success() {
    // Nothing is left of val: Git LFS pointers, say.
    let (dir, set) = tree(|tree| {
        for image in 0..3 {
            tree.text(
                &format!("val/images/val_{image}.JPEG"),
                "version https://git-lfs",
            );
        }
    });
    let out = dir.path().join("shards");
    for flags in [&[][..], &["--skip-bad"], &["--skip-bad=100%"]] {
        let error = failure(&mut pack(&set, &out, flags), 1);
        assert!(
            error.contains("all images of the split val are bad") && error.contains("git lfs pull"),
            "{error}"
        );
        assert!(!out.exists());
    }
    // The remedy works: remove it from the source.
    fs::remove_dir_all(set.join("val")).unwrap();
    let output = pack(&set, &out, &[])
        .assert()
        .success()
        .get_output()
        .clone();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("note: no val split"), "{text}");
    pack(&set, &out, &["--val-fraction", "0.3", "--force"])
        .assert()
        .success();

    // Nothing is left of a class in train.
    let (dir, set) = tree(|tree| {
        for image in 0..5 {
            tree.text(&format!("train/n01/images/n01_{image}.JPEG"), "no jpeg");
        }
    });
    let out = dir.path().join("shards");
    let error = failure(&mut pack(&set, &out, &["--skip-bad=90"]), 1);
    assert!(
        error.contains("all images of the class n01 are bad: 5 problems"),
        "{error}"
    );

    // More is left out than kept. The flag that the message names is enough, and a little less is not.
    let (dir, set) = tree(|tree| {
        for wnid in ["n01", "n02"] {
            for image in 0..4 {
                let name = format!("train/{wnid}/images/{wnid}_{image}.JPEG");
                tree.text(&name, "no jpeg");
            }
        }
    });
    let out = dir.path().join("shards");
    for flags in [&[][..], &["--skip-bad"], &["--skip-bad=79.9%"]] {
        let error = failure(&mut pack(&set, &out, flags), 1);
        assert!(
            error.contains("of 10 images of train, 8 cannot be packed"),
            "{error}"
        );
        assert!(
            error.ends_with("leave them out with --skip-bad=80%\n"),
            "{error}"
        );
    }
    pack(&set, &out, &["--skip-bad=80%"]).assert().success();
    // What is there is not taken for a set within a narrower bound.
    let error = failure(&mut pack(&set, &out, &["--skip-bad"]), 1);
    assert!(error.contains("without 8 bad images"), "{error}");
    for wrong in ["--skip-bad=101%", "--skip-bad=few", "--skip-bad=-1%"] {
        let error = failure(&mut pack(&set, &out, &[wrong]), 2);
        assert!(error.contains("expected 0% to 100%"), "{error}");
    }
}

#[test]
fn what_is_passed_over_is_in_the_report() {
    let (dir, set) = tree(|tree| {
        tree.text("train/n01/images/a.heic", "");
        tree.text("train/n01/images/b.heic", "");
        tree.text("test/images/.DS_Store", "");
        tree.text("notes/todo.txt", "");
    });
    let text = pack(&set, &dir.path().join("a"), &[]).assert().success();
    let text = String::from_utf8(text.get_output().stdout.clone()).unwrap();
    assert!(
        text.contains("passed over:\n       2  .heic: train/n01/images/a.heic\n"),
        "{text}"
    );
    assert!(text.contains("layout: Tiny ImageNet\n"), "{text}");
    let json = pack(&set, &dir.path().join("b"), &["--json"])
        .assert()
        .success();
    let json: serde_json::Value = serde_json::from_slice(&json.get_output().stdout).unwrap();
    let expected = serde_json::json!([
        {"kind": ".heic", "count": 2, "example": "train/n01/images/a.heic"},
        {"kind": "folder that is not a split", "count": 1, "example": "notes"},
        {"kind": "hidden", "count": 1, "example": "test/images/.DS_Store"},
    ]);
    assert_eq!(json["passed_over"], expected);
    assert_eq!(json["layout"], "Tiny ImageNet");
    assert_eq!(json["notes"], serde_json::json!([]));
}

#[test]
fn packing_from_inside_the_source_does_not_read_the_output() {
    let dir = tempfile::tempdir().unwrap();
    for class in ["cat", "dog"] {
        fs::create_dir(dir.path().join(class)).unwrap();
        for image in 0..8 {
            let path = dir.path().join(format!("{class}/{image}.jpg"));
            fs::write(path, jpeg(image, 64, PixelFormat::RGB)).unwrap();
        }
    }
    fs::create_dir(dir.path().join("shards")).unwrap();
    for flags in [
        &[][..],
        &[],
        &["--force"],
        &["--val-fraction", "0.3", "--force"],
    ] {
        let mut command = tinyres();
        command.current_dir(dir.path()).args(["pack", "."]);
        let output = command.args(flags).assert().success().get_output().clone();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("16 images of") && text.contains(" and 2 classes"),
            "{text}"
        );
    }
}

#[test]
fn finished_set_is_not_overwritten() {
    let (dir, set) = tree(|_| ());
    let out = dir.path().join("shards");
    pack(&set, &out, &["--shard-images", "2"])
        .assert()
        .success();
    fs::write(out.join("notes.txt"), "mine").unwrap();
    let before = files(&out);
    let error = failure(&mut pack(&set, &out, &[]), 1);
    assert!(
        error.contains("holds a packed set already") && error.contains("--force"),
        "{error}"
    );
    assert!(files(&out) == before);
    // What fails with --force leaves the old set as it was.
    fs::write(set.join(IMAGE), "no jpeg").unwrap();
    failure(&mut pack(&set, &out, &["--force"]), 1);
    assert!(files(&out) == before);
    pack(&set, &out, &["--force", "--skip-bad"])
        .assert()
        .success();
    let after = files(&out);
    let names: Vec<&str> = after.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "dataset.json",
            "notes.txt",
            "test-00000.bin",
            "train-00000.bin",
            "val-00000.bin"
        ]
    );
    assert_eq!(
        fs::read_dir(&out).unwrap().count(),
        names.len(),
        "nothing is left of the packing"
    );
}

/// Waits until the files written so far have settled: only such files prove that a shard can be kept.
fn settle() {
    std::thread::sleep(Duration::from_millis(3100));
}

/// Kills a pack of `set` to `out`, in shards of 4 images, once its 3 train shards are finished.
fn kill_after_train(set: &Path, out: &Path, flags: &[&str]) {
    let suffix = if flags.contains(&"--zstd") {
        ".zst"
    } else {
        ""
    };
    let mut pack = Command::new(assert_cmd::cargo::cargo_bin("tinyres"));
    pack.args(["pack", "--shard-images", "4", "-o"])
        .args([out, set])
        .args(flags);
    let next = out.join(".packing/.val-00000.bin.tmp");
    let run = inject::run(&mut pack, &next, "kill:1");
    assert_eq!(run.output.status.signal(), Some(9), "{run:?}");
    for index in 0..3 {
        let shard = Split::Train.shard_name(index) + suffix;
        assert!(out.join(".packing").join(shard).exists());
    }
}

/// Packs `set` to `out` in shards of 4 images and returns how many shards were kept of a killed pack. The
/// result must have the bytes of a pack in one go.
#[track_caller]
fn kept(set: &Path, out: &Path, flags: &[&str]) -> u64 {
    let run = |out: &Path| {
        let flags = [&["--shard-images", "4", "--json"], flags].concat();
        let run = pack(set, out, &flags).assert().success();
        serde_json::from_slice(&run.get_output().stdout).unwrap()
    };
    let report: serde_json::Value = run(out);
    assert!(!out.join(".packing").exists());
    let whole = tempfile::tempdir().unwrap();
    run(whole.path());
    let there = files(out);
    assert!(there == files(whole.path()), "another set");
    let compressed = there.iter().filter(|(name, _)| name.ends_with(".zst"));
    let compressed: usize = compressed.map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(
        report["zstd"]["bytes"].as_u64().unwrap_or(0),
        compressed as u64
    );
    let splits = report["splits"].as_array().unwrap();
    splits
        .iter()
        .map(|split| split["kept"].as_u64().unwrap())
        .sum()
}

#[test]
fn killed_pack_is_resumed() {
    let (dir, set) = tree(|_| ());
    settle();
    for flags in [&[][..], &["--zstd"]] {
        let suffix = if flags.is_empty() { "" } else { ".zst" };
        let out = dir.path().join(format!("out{suffix}"));
        kill_after_train(&set, &out, flags);
        // The very files are kept.
        let inodes = |dir: &Path| {
            let names = [0, 1, 2].map(|index| Split::Train.shard_name(index) + suffix);
            names.map(|name| fs::metadata(dir.join(name)).unwrap().ino())
        };
        let staged = inodes(&out.join(".packing"));
        assert_eq!(kept(&set, &out, flags), 3);
        assert_eq!(inodes(&out), staged);
    }
}

#[test]
fn resumed_pack_says_so() {
    let (dir, set) = tree(|_| ());
    settle();
    let out = dir.path().join("out");
    kill_after_train(&set, &out, &[]);
    let run = pack(&set, &out, &["--shard-images", "4"])
        .assert()
        .success();
    let (stdout, stderr) = (&run.get_output().stdout, &run.get_output().stderr);
    let (stdout, stderr) = (
        String::from_utf8_lossy(stdout),
        String::from_utf8_lossy(stderr),
    );
    assert!(
        stdout.contains("kept 3 shards of a killed pack"),
        "{stdout}"
    );
    assert!(stderr.contains("resuming a killed pack"), "{stderr}");
}

#[test]
fn damaged_or_foreign_shards_are_not_kept() {
    let (dir, set) = tree(|_| ());
    settle();
    let again = |change: &dyn Fn(&Path)| {
        let out = dir.path().join("out");
        kill_after_train(&set, &out, &[]);
        change(&out);
        let kept = kept(&set, &out, &[]);
        fs::remove_dir_all(&out).unwrap();
        kept
    };
    let shard = |out: &Path, index| out.join(".packing").join(Split::Train.shard_name(index));
    assert_eq!(again(&|_| ()), 3);
    let damage = |out: &Path| {
        let mut bytes = fs::read(shard(out, 1)).unwrap();
        bytes[5000] ^= 1;
        fs::write(shard(out, 1), bytes).unwrap();
    };
    assert_eq!(again(&damage), 2);
    let cut = |out: &Path| {
        let file = fs::File::options().write(true).open(shard(out, 1)).unwrap();
        file.set_len(9000).unwrap();
    };
    assert_eq!(again(&cut), 2);
    // In the place of another one, with and without its record.
    let moved = |out: &Path| fs::rename(shard(out, 0), shard(out, 1)).unwrap();
    assert_eq!(again(&moved), 1);
    let record = |out: &Path, index| shard(out, index).with_extension("bin.sources");
    let moved_with_record = |out: &Path| {
        moved(out);
        fs::rename(record(out, 0), record(out, 1)).unwrap();
    };
    assert_eq!(again(&moved_with_record), 1);
    assert_eq!(again(&|out| fs::remove_file(record(out, 2)).unwrap()), 2);
    // Of another listing.
    let other = |out: &Path| {
        let flags = ["--shard-images", "5"];
        let other = out.with_file_name("other");
        pack(&set, &other, &flags).assert().success();
        fs::copy(other.join("train-00000.bin"), shard(out, 0)).unwrap();
        fs::remove_dir_all(&other).unwrap();
    };
    assert_eq!(again(&other), 2);
    // Compressed, one of them damaged; compressed at another level; in another form.
    let out = dir.path().join("out");
    kill_after_train(&set, &out, &["--zstd"]);
    let damaged = out.join(".packing/train-00001.bin.zst");
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[5000] ^= 1;
    fs::write(damaged, bytes).unwrap();
    assert_eq!(kept(&set, &out, &["--zstd"]), 2);
    for [first, second] in [
        ["--zstd", "--zstd=5"],
        ["--threads=1", "--zstd"],
        ["--zstd", "--threads=1"],
    ] {
        fs::remove_dir_all(&out).unwrap();
        kill_after_train(&set, &out, &[first]);
        assert_eq!(kept(&set, &out, &[second]), 0, "{first}, then {second}");
    }
}

/// The bytes of the source decide, whatever the dates of its files.
#[test]
fn shards_of_replaced_images_are_not_kept() {
    let (dir, set) = tree(|_| ());
    let image = set.join("train/n02/images/n02_0.JPEG");
    // As long as the image, with another quantization table, so with other pixels.
    let mut other = fs::read(&image).unwrap();
    let table = other.windows(2).position(|pair| pair == [0xff, 0xdb]);
    other[table.unwrap() + 5] += 9;
    let long_ago = SystemTime::now() - Duration::from_secs(1_000_000);
    let set_modified = |path: &Path, time| {
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(time).unwrap();
    };
    // Made before the pack that is killed.
    let aside = dir.path().join("aside.JPEG");
    let copy = dir.path().join("copy");
    Tree::small().write_dir(&copy);
    for path in [&aside, &copy.join("train/n02/images/n02_0.JPEG")] {
        fs::write(path, &other).unwrap();
        set_modified(path, long_ago);
    }
    settle();
    let original = fs::read(&image).unwrap();
    let age = fs::metadata(&image).unwrap().modified().unwrap();
    let again = |change: &dyn Fn()| {
        let out = dir.path().join("out");
        kill_after_train(&set, &out, &[]);
        change();
        let kept = kept(&set, &out, &[]);
        fs::remove_dir_all(&out).unwrap();
        kept
    };
    // Packed within seconds of its last change, shard 0 is not kept at all: settle again each time.
    let older = || {
        fs::remove_file(&image).unwrap();
        fs::write(&image, &other).unwrap();
        set_modified(&image, long_ago);
    };
    assert_eq!(again(&older), 2, "an older date");
    fs::write(&image, &original).unwrap();
    set_modified(&image, age);
    settle();
    let same_length_and_date = || {
        fs::write(&image, &other).unwrap();
        set_modified(&image, age);
    };
    assert_eq!(again(&same_length_and_date), 2, "the same length and date");
    fs::write(&image, &original).unwrap();
    settle();
    let renamed = || fs::rename(&aside, &image).unwrap();
    assert_eq!(again(&renamed), 2, "another file renamed over it");
    fs::write(&image, &original).unwrap();
    settle();
    let replaced = || {
        fs::rename(&set, dir.path().join("old")).unwrap();
        fs::rename(&copy, &set).unwrap();
    };
    assert_eq!(again(&replaced), 0, "another directory in its place");
}

#[test]
fn shards_of_a_replaced_archive_are_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (zip, older) = (dir.path().join("set.zip"), dir.path().join("older.zip"));
    let mut tree = Tree::small();
    tree.write_zip(&zip, "");
    tree.put(
        "train/n02/images/n02_0.JPEG",
        jpeg(99, 64, PixelFormat::RGB),
    );
    tree.write_zip(&older, "");
    let file = fs::File::options().append(true).open(&older).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(1_000_000))
        .unwrap();
    settle();
    let out = dir.path().join("out");
    kill_after_train(&zip, &out, &[]);
    fs::rename(&older, &zip).unwrap();
    assert_eq!(kept(&zip, &out, &[]), 0);
    fs::remove_dir_all(&out).unwrap();
    settle();
    kill_after_train(&zip, &out, &[]);
    assert_eq!(kept(&zip, &out, &[]), 3, "the archive as it was");
}

/// A change that comes right after a pack may leave a file's times as they were.
#[test]
fn shards_of_images_changed_just_before_are_not_kept() {
    let (dir, set) = tree(|_| ());
    let out = dir.path().join("out");
    kill_after_train(&set, &out, &[]);
    assert_eq!(kept(&set, &out, &[]), 0);
}

/// Killed between two of the last renames, with the old set gone.
#[test]
fn killed_publish_is_resumed() {
    let (dir, set) = tree(|_| ());
    settle();
    let out = dir.path().join("out");
    kill_after_train(&set, &out, &[]);
    for index in [0, 2] {
        let name = Split::Train.shard_name(index);
        fs::rename(out.join(".packing").join(&name), out.join(&name)).unwrap();
    }
    assert_eq!(kept(&set, &out, &["--force"]), 3);
}

/// Packs `set` with `flags`, then `second` with `again`, to the same directory. The second pack must be
/// refused with `says`, leave the set as it was, and replace it with --force.
#[track_caller]
fn second_refused(
    [set, second]: [&Path; 2],
    [flags, again]: [&[&str]; 2],
    damage: &dyn Fn(&Path),
    says: &str,
) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("shards");
    pack(set, &out, flags).assert().success();
    damage(&out);
    let before = files(&out);
    let error = failure(&mut pack(second, &out, again), 1);
    for text in ["holds a packed set already", says, "--force"] {
        assert!(error.contains(text), "{text:?} is not in\n{error}");
    }
    assert!(files(&out) == before);
    pack(second, &out, &[again, &["--force"]].concat())
        .assert()
        .success();
    let whole = dir.path().join("whole");
    pack(second, &whole, again).assert().success();
    assert!(files(&out) == files(&whole));
}

#[test]
fn packing_twice_writes_nothing() {
    let (dir, set) = tree(|tree| tree.text(IMAGE, "no jpeg"));
    for flags in [
        &["--skip-bad"][..],
        &["--skip-bad", "--zstd", "--size", "32"],
    ] {
        let out = dir.path().join("out");
        let flags = [&["--shard-images", "4"], flags].concat();
        let run = |more: &[&str]| {
            let run = pack(&set, &out, &[&flags, more].concat());
            let mut run = run;
            run.assert().success().get_output().clone()
        };
        let report = |run: &std::process::Output| -> serde_json::Value {
            serde_json::from_slice(&run.stdout).unwrap()
        };
        let first = report(&run(&["--json"]));
        let state = || {
            let there = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap());
            let state = there.map(|entry| {
                let file = entry.metadata().unwrap();
                (
                    entry.file_name(),
                    file.ino(),
                    file.ctime(),
                    file.ctime_nsec(),
                )
            });
            state.collect::<std::collections::BTreeSet<_>>()
        };
        let before = state();
        let again = run(&["--json"]);
        let stderr = String::from_utf8_lossy(&again.stderr);
        assert!(
            stderr.contains("holds exactly this set already; nothing was written"),
            "{stderr}"
        );
        let again = report(&again);
        assert_eq!([&first["unchanged"], &again["unchanged"]], [false, true]);
        for key in ["fingerprint", "shape", "classes", "splits", "refused"] {
            assert_eq!(first[key], again[key], "{key}");
        }
        let text = String::from_utf8(run(&[]).stdout).unwrap();
        assert!(
            text.contains("were packed already: nothing was written"),
            "{text}"
        );
        assert!(state() == before, "something was written");
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn another_set_is_refused() {
    let (_dir, set) = tree(|_| ());
    let same = [&*set, &*set];
    let intact = |_: &Path| ();
    let fingerprint = "fingerprint ";
    second_refused(same, [&[], &["--shard-images", "4"]], &intact, fingerprint);
    second_refused(same, [&["--size", "64"], &[]], &intact, fingerprint);
    let sizes: [&[&str]; 2] = [&["--size", "32"], &["--size", "16"]];
    second_refused(same, sizes, &intact, fingerprint);
    let compressed = "raw shards, expected compressed ones";
    second_refused(same, [&[], &["--zstd"]], &intact, compressed);
    let raw = "compressed shards, expected raw ones";
    second_refused(same, [&["--zstd"], &[]], &intact, raw);
    let other_version = |out: &Path| {
        let manifest = out.join("dataset.json");
        let text = fs::read_to_string(&manifest).unwrap();
        let creator = concat!("tinyres ", env!("CARGO_PKG_VERSION"));
        fs::write(&manifest, text.replace(creator, "tinyres 0.0.1")).unwrap();
    };
    second_refused(same, [&[], &[]], &other_version, "by tinyres 0.0.1");
    let (_fewer_dir, fewer) = tree(|tree| drop(tree.0.remove("test/images/test_3.JPEG")));
    second_refused([&set, &fewer], [&[], &[]], &intact, fingerprint);
    // Another copy of the source, with one other image, that is older than the set.
    let pixels = jpeg(99, 64, PixelFormat::RGB);
    let (_other_dir, other) = tree(|tree| tree.put(IMAGE, pixels));
    let differs = format!("{IMAGE} has other pixels there");
    second_refused([&set, &other], [&[], &[]], &intact, &differs);
    second_refused(
        [&set, &other],
        [&["--zstd"], &["--zstd"]],
        &intact,
        &differs,
    );
    // An image is mended: the listing is the same.
    let (_bad_dir, bad) = tree(|tree| tree.text(IMAGE, "no jpeg"));
    let whole = fs::read(set.join(IMAGE)).unwrap();
    let mend = |_: &Path| fs::write(bad.join(IMAGE), &whole).unwrap();
    let flags: [&[&str]; 2] = [&["--skip-bad"], &["--skip-bad"]];
    let changed = format!("{IMAGE} was changed after it was packed");
    second_refused([&bad, &bad], flags, &mend, &changed);
}

#[test]
fn set_without_bad_images_is_another_one_without_skip_bad() {
    let (dir, set) = tree(|tree| tree.text(IMAGE, "no jpeg"));
    let out = dir.path().join("out");
    pack(&set, &out, &["--skip-bad"]).assert().success();
    let error = failure(&mut pack(&set, &out, &[]), 1);
    assert!(error.contains("without 1 bad image"), "{error}");
}

#[test]
fn damaged_set_is_refused() {
    let (_dir, set) = tree(|_| ());
    let same = [&*set, &*set];
    let cut = |by: u64| {
        move |out: &Path| {
            let shard = out.join("val-00000.bin");
            let file = fs::File::options().write(true).open(shard).unwrap();
            file.set_len(file.metadata().unwrap().len() - by).unwrap();
        }
    };
    let none: [&[&str]; 2] = [&[], &[]];
    second_refused(same, none, &cut(1), "val-00000.bin: file is");
    let missing = |out: &Path| fs::remove_file(out.join("test-00000.bin")).unwrap();
    second_refused(same, none, &missing, "test-00000.bin: No such file");
    let missing = |out: &Path| fs::remove_file(out.join("test-00000.bin.zst")).unwrap();
    let zstd: [&[&str]; 2] = [&["--zstd"], &["--zstd"]];
    second_refused(same, zstd, &missing, "test-00000.bin.zst: No such file");
    let flipped = |out: &Path| {
        let shard = out.join("train-00000.bin");
        let mut bytes = fs::read(&shard).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&shard, bytes).unwrap();
    };
    second_refused(same, none, &flipped, "train-00000.bin: ");
    let manifest = |out: &Path| fs::write(out.join("dataset.json"), "{").unwrap();
    second_refused(same, none, &manifest, "dataset.json: EOF");
}

/// Runs `tinyres pack` under a command that takes something from it; says so where it is not allowed.
fn under(wrapper: &[&str], script: &str, source: &Path, output: &Path) -> Option<String> {
    let itself = assert_cmd::cargo::cargo_bin("tinyres");
    let run = |script: &str| {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).args(["sh", "-c", script, "sh"]);
        command.arg(&itself).arg(source).arg(output).output()
    };
    if !run("true").is_ok_and(|output| output.status.success()) {
        skip::skip(&format!("{} is not allowed here", wrapper[0]));
        return None;
    }
    let output = run(script).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    Some(String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_full_disk_and_a_locked_directory_are_named() {
    let (dir, set) = tree(|_| ());
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    // With --skip-bad it is not known before how much is needed.
    for (flags, expected) in [
        (
            "",
            "out/shards: 307 kB are needed here, but only 98.3 kB are free",
        ),
        ("--skip-bad", "train-00000.bin: No space left on device"),
    ] {
        let script = format!(
            r#"mount -t tmpfs -o size=96k tmpfs "$3" || exit 9; "$1" pack "$2" -o "$3/shards" {flags}; code=$?; ls -A "$3" >&2; exit $code"#
        );
        if let Some(error) = under(&["unshare", "-rm"], &script, &set, &out) {
            assert!(error.contains(expected), "{error}");
            assert_eq!(error.lines().count(), 1, "something is left:\n{error}");
        }
    }
    // Root may write anywhere, so become somebody else first.
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), open_to_all).unwrap();
    let script = r#"cp "$1" /tmp/tinyres-$$; /tmp/tinyres-$$ pack "$2" -o "$3/shards"; code=$?; rm /tmp/tinyres-$$; exit $code"#;
    let nobody = [
        "setpriv",
        "--reuid",
        "65534",
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ];
    if let Some(error) = under(&nobody, script, &set, &out) {
        assert!(error.contains("out/shards: Permission denied"), "{error}");
    }
}
