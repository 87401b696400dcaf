//! The predictions of a run and of `tinyres eval`, read by pandas, polars, NumPy and cleanlab.
#![cfg(feature = "torch")]

mod common;
#[path = "../../tests/common/skip.rs"]
mod skip;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tinyres_format::Split;

fn tinyres(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tinyres-torch"));
    let output = command.current_dir(dir).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    output
}

/// A set with boxes, but for every fifth image, and a run on it.
fn trained() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let shards = dir.path().join("shards");
    std::fs::create_dir(&shards).unwrap();
    let classes = common::wnids(7);
    common::write_boxed(&shards, &classes, (112, 30), |split, image, class| {
        let pixels = common::pixels(split, image, usize::try_from(class).unwrap());
        let corner = i32::try_from(image % 9).unwrap();
        let bbox = match (split, image % 5) {
            (Split::Train, 4) => [-1; 4],
            _ => [corner, 3, 20 + corner, 30],
        };
        (pixels, class, bbox)
    });
    let train = "train shards -o run --boxes --epochs 2 --batch 16 --threads 1 --device cpu";
    tinyres(dir.path(), &train.split(' ').collect::<Vec<_>>());
    dir
}

#[test]
fn a_run_ends_with_the_predictions_that_eval_makes_of_its_weights() {
    let dir = trained();
    let file = |name: &str| std::fs::read(dir.path().join("run/eval").join(name)).unwrap();
    let of_run = [file("val.parquet"), file("val.logits.npy")];
    let eval = "eval run shards --batch 16 --threads 1 --device cpu";
    tinyres(dir.path(), &eval.split(' ').collect::<Vec<_>>());
    // The metadata has the path of the weights as it was given.
    assert!(of_run[1] == file("val.logits.npy"));
    assert_eq!(of_run[0].len(), file("val.parquet").len());
    // Those of other weights, and of another set under the same name, are kept apart.
    let best = "eval run/best.safetensors shards --device cpu";
    let out = tinyres(dir.path(), &best.split(' ').collect::<Vec<_>>()).stdout;
    assert!(!String::from_utf8(out).unwrap().contains("predictions"));
    std::fs::create_dir(dir.path().join("others")).unwrap();
    common::write(&dir.path().join("others"), &common::wnids(7), 7, 14);
    let other = "eval run others --device cpu";
    let out = tinyres(dir.path(), &other.split(' ').collect::<Vec<_>>()).stdout;
    assert!(!String::from_utf8(out).unwrap().contains("predictions"));
    assert!(of_run[1] == file("val.logits.npy"));
    let other = "eval run others --device cpu --save elsewhere/own";
    let out = tinyres(dir.path(), &other.split(' ').collect::<Vec<_>>()).stdout;
    let out = String::from_utf8(out).unwrap();
    assert!(out.ends_with("image: elsewhere/own/val.parquet\n"), "{out}");
}

#[test]
fn features_of_older_predictions_do_not_stay() {
    let dir = trained();
    let features = dir.path().join("run/eval/val.features.npy");
    let eval = "eval run shards --device cpu --features";
    tinyres(dir.path(), &eval.split(' ').collect::<Vec<_>>());
    assert!(features.exists());
    let eval = "eval run shards --device cpu --tta flip";
    tinyres(dir.path(), &eval.split(' ').collect::<Vec<_>>());
    assert!(!features.exists());
}

#[test]
fn pandas_polars_and_cleanlab_read_predictions() {
    let needs = "import cleanlab, pandas, polars, pyarrow";
    let found = Command::new("python3").args(["-c", needs]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        skip::skip("python3 lacks cleanlab, pandas, polars or pyarrow; tools/test installs them");
        return;
    }
    let dir = trained();
    let eval = "eval run shards --split train --device cpu --features --json";
    let evaluation = tinyres(dir.path(), &eval.split(' ').collect::<Vec<_>>()).stdout;
    let mut python = Command::new("python3");
    python
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/predictions.py"))
        .arg(dir.path().join("run/eval"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut python = python.spawn().unwrap();
    (python.stdin.take().unwrap().write_all(&evaluation)).unwrap();
    let output = python.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.starts_with("112 rows, "), "{printed}");
}
