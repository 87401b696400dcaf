//! `tinyres report`, of runs whose predictions another program wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const EPOCHS: &str = r#"{"kind":"step","step":1,"epoch":0,"images":256,"loss":5.0,"lr":0.1,"images_per_second":400.0}
{"kind":"step","step":50,"epoch":0,"images":5000,"loss":4.5,"lr":0.2,"images_per_second":1400.0}
{"kind":"epoch","epoch":0,"step":100,"size":64,"train_loss":4.0,"lr":0.1,"images_per_second":1000.0,"wait_share":0.0,"took":25.0,"val_loss":3.5,"top1":0.25,"top5":0.5}
"#;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../results/tests/golden")
        .join(name)
}

/// A run in `dir` with the golden predictions.
fn write_run(dir: &Path, seed: u32) {
    fs::create_dir_all(dir.join("eval")).unwrap();
    let config = format!(
        "recipe = \"<script>alert(1)</script>\"\nseed = {seed}\n\n[run]\nversion = \"0.1.0\"\ndata = \"/data/\\\"onload='x'\"\n"
    );
    fs::write(dir.join("config.toml"), config).unwrap();
    fs::write(dir.join("metrics.jsonl"), EPOCHS).unwrap();
    for file in ["val.parquet", "val.logits.npy"] {
        fs::copy(golden(file), dir.join("eval").join(file)).unwrap();
    }
}

fn report(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tinyres-view"));
    let output = command
        .current_dir(dir)
        .arg("report")
        .args(args)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    output
}

/// The exact number in the page after `name`.
fn number(page: &str, name: &str) -> f64 {
    let (_, after) = page.split_once(name).unwrap_or_else(|| panic!("no {name}"));
    let (_, after) = after.split_once("<data value=\"").unwrap();
    after.split_once('"').unwrap().0.parse().unwrap()
}

/// Fails if the page would ask for anything, or run anything.
fn check_alone(page: &str) {
    for text in [
        "http:",
        "https:",
        "src=",
        "@import",
        "url(",
        "<script",
        "<link",
        "javascript:",
    ] {
        assert!(!page.contains(text), "{text}");
    }
    let images = page.matches("href=").count();
    assert_eq!(images, page.matches("href=\"data:image/").count());
}

#[test]
fn figures_are_those_of_the_predictions() {
    let dir = tempfile::tempdir().unwrap();
    write_run(&dir.path().join("a <b>run"), 0);
    let output = report(dir.path(), &["a <b>run", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert_eq!(
        (&said["report"], &said["bytes"]),
        (&"report.html".into(), &page.len().into())
    );
    check_alone(&page);
    assert!(!page.contains("<b>") && page.contains("a &lt;b&gt;run"));
    let expected: Value =
        serde_json::from_slice(&fs::read(golden("expected.json")).unwrap()).unwrap();
    assert_eq!(
        number(&page, "<dt>Top-1</dt>"),
        expected["top1"].as_f64().unwrap()
    );
    let loss = expected["sums"]["loss"].as_f64().unwrap() / 500.0;
    assert!((number(&page, "<dt>Loss</dt>") - loss).abs() < 1e-6);
    let error = expected["ece"].as_f64().unwrap();
    assert!((number(&page, "<dt>Calibration error</dt>") - error).abs() < 1e-6);
    assert_eq!(number(&page, "<dt>Training time</dt>"), 25.0);
    for heading in ["Training", "Confusion", "Classes", "Calibration"] {
        assert!(
            page.contains(&format!(">{heading}</h2><figure")),
            "{heading}"
        );
    }
    // The shards are not at hand.
    assert!(page.contains("no photographs here"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--data"));
}

#[test]
fn several_runs_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    for (name, seed) in [("one", 0), ("two", 1)] {
        write_run(&dir.path().join(name), seed);
    }
    report(dir.path(), &["one", "two", "-o", "both.html"]);
    let page = fs::read_to_string(dir.path().join("both.html")).unwrap();
    check_alone(&page);
    assert!(
        page.contains("<th scope=\"row\">seed</th><td><code>0</code></td><td><code>1</code></td>")
    );
    // The same predictions: both right or both wrong.
    let right = number(&page, "<th scope=\"row\">one right</th>");
    let expected: Value =
        serde_json::from_slice(&fs::read(golden("expected.json")).unwrap()).unwrap();
    assert_eq!(right / 500.0, expected["top1"].as_f64().unwrap());
    assert_eq!(number(&page, "McNemar"), 1.0);
}

#[test]
fn a_run_without_predictions_has_curves_and_configuration() {
    let dir = tempfile::tempdir().unwrap();
    write_run(&dir.path().join("run"), 0);
    fs::remove_dir_all(dir.path().join("run/eval")).unwrap();
    let output = report(dir.path(), &["run"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no predictions for val"));
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    check_alone(&page);
    assert!(page.contains("<polyline") && page.contains("There are no predictions"));
}
