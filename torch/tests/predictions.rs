//! The predictions of a run and of `tinyres eval`, read by pandas, polars, NumPy and cleanlab.
#![cfg(feature = "torch")]

mod common;
#[path = "../../tests/common/skip.rs"]
mod skip;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tinyres_format::Split;
use tinyres_results::report::{Run, page};

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
fn pictures_lie_next_to_predictions_unless_they_are_off() {
    let dir = trained();
    let pictures = |at: &str| -> Vec<String> {
        let Ok(files) = std::fs::read_dir(dir.path().join(at)) else {
            return Vec::new();
        };
        let name = |file: std::io::Result<std::fs::DirEntry>| file.unwrap().file_name();
        let mut names: Vec<_> = files
            .map(|file| name(file).into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let of_run = pictures("run/eval/val");
    for name in [
        "results",
        "confusion_matrix",
        "classes",
        "reliability",
        "boxes",
    ] {
        assert!(of_run.contains(&format!("{name}.png")), "{of_run:?}");
    }
    let eval = "eval run shards --split train --device cpu --pictures off";
    tinyres(dir.path(), &eval.split(' ').collect::<Vec<_>>());
    assert_eq!(pictures("run/eval/train"), [""; 0]);
    // A place where they cannot be written costs a warning, and not the evaluation.
    std::fs::write(dir.path().join("run/eval/train"), "").unwrap();
    let eval = "eval run shards --split train --device cpu";
    let output = tinyres(dir.path(), &eval.split(' ').collect::<Vec<_>>());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("the pictures are not drawn: run/eval/train"),
        "{error}"
    );
}

#[test]
fn a_report_has_the_figures_of_eval() {
    let dir = trained();
    let eval = "eval run shards --device cpu --pictures off --json";
    let said = tinyres(dir.path(), &eval.split(' ').collect::<Vec<_>>()).stdout;
    let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
    let run = Run::read(&dir.path().join("run"), Split::Val, &[]).unwrap();
    let page = page(&[run]).unwrap();
    let figure = |name: &str| -> f64 {
        let (_, after) = page.split_once(&format!("<dt>{name}</dt>")).unwrap();
        let (_, after) = after.split_once("<data value=\"").unwrap();
        after.split_once('"').unwrap().0.parse().unwrap()
    };
    assert_eq!(figure("Top-1"), said["top1"]);
    assert_eq!(figure("Top-5"), said["top5"]);
    assert!((figure("Loss") - said["loss"].as_f64().unwrap()).abs() < 1e-6);
    let iou = said["boxes"]["mean_iou"].as_f64().unwrap();
    assert!((figure("Mean IoU of boxes") - iou).abs() < 1e-5);
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
