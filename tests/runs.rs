//! `tinyres runs` and `tinyres compare`, on runs whose files are written here as `tinyres train` writes them.

mod common;

use std::fs;
use std::path::Path;

use common::tinyres;
use serde_json::Value;

const EPOCHS: &str = r#"{"kind":"step","step":1,"epoch":0,"images":256,"loss":5.0,"lr":0.1,"images_per_second":400.0}
{"kind":"epoch","epoch":0,"step":100,"size":32,"train_loss":4.0,"lr":0.1,"images_per_second":1000.0,"wait_share":0.0,"took":25.0,"val_loss":3.5,"top1":0.25,"top5":0.5}
{"kind":"epoch","epoch":1,"step":200,"size":48,"train_loss":3.0,"lr":0.1,"images_per_second":500.0,"wait_share":0.0,"took":50.0}
{"kind":"epoch","epoch":2,"step":300,"size":64,"train_loss":2.5,"lr":0.1,"images_per_second":250.0,"wait_share":0.0,"took":4000.0,"val_loss":3.75,"top1":0.2,"top5":0.4}
"#;

/// A run in `dir` with these figures.
fn run(dir: &Path, seed: u32, metrics: &str) {
    fs::create_dir_all(dir).unwrap();
    let config = format!(
        "recipe = \"default\"\nseed = {seed}\nfreeze = []\n\n[run]\nversion = \"0.1.0\"\ndata = \"/data/{}\"\n",
        seed % 2
    );
    fs::write(dir.join("config.toml"), config).unwrap();
    fs::write(dir.join("metrics.jsonl"), metrics).unwrap();
}

#[test]
fn runs_are_listed_with_the_figures_of_their_epochs() {
    let dir = tempfile::tempdir().unwrap();
    let runs = dir.path().join("runs");
    run(&runs.join("done"), 0, EPOCHS);
    fs::write(runs.join("done/final.safetensors"), "").unwrap();
    // Stopped in its first epoch, at a line that was not written to its end.
    let (first, rest) = EPOCHS.split_once('\n').unwrap();
    run(
        &runs.join("deep/er/begun"),
        3,
        &format!("{first}\n{}", &rest[..40]),
    );
    // Other programs have files of this name, too.
    fs::create_dir(runs.join("other")).unwrap();
    fs::write(runs.join("other/config.toml"), "[tool]\nrun = 1\n").unwrap();
    run(&runs.join("broken"), 0, "");
    fs::write(runs.join("broken/config.toml"), "[run]\nversion = \n").unwrap();

    // The same directory twice, and one in the other.
    let args = ["runs", "runs", "runs/deep", "--json"];
    let out = tinyres().current_dir(&dir).args(args).output().unwrap();
    let json: Value = serde_json::from_slice(&out.stdout).unwrap();
    let by_name = |name: &str| {
        let all = json["runs"].as_array().unwrap();
        assert_eq!(all.len(), 2);
        let is = |run: &&Value| run["dir"].as_str().unwrap().ends_with(name);
        all.iter().find(is).unwrap().clone()
    };
    let done = by_name("runs/done");
    assert_eq!(done["complete"], true);
    assert_eq!(
        (&done["epochs"], &done["steps"], &done["size"]),
        (&3.into(), &300.into(), &64.into())
    );
    assert_eq!(
        (done["last"]["top1"].as_f64(), done["last"]["loss"].as_f64()),
        (Some(0.2), Some(3.75))
    );
    assert_eq!(
        (done["best"]["top1"].as_f64(), done["best"]["step"].as_u64()),
        (Some(0.25), Some(100))
    );
    assert_eq!(done["seconds"].as_f64(), Some(4075.0));
    // 25,000, 25,000 and 1,000,000 images.
    let rate = 1_050_000.0 / 4075.0;
    assert!((done["images_per_second"].as_f64().unwrap() - rate).abs() < 1e-9);
    let begun = by_name("er/begun");
    assert_eq!(
        (&begun["complete"], &begun["epochs"], &begun["steps"]),
        (&false.into(), &0.into(), &1.into())
    );
    assert!(begun["best"].is_null() && begun["images_per_second"].is_null());
    let unreadable = json["unreadable"].as_array().unwrap();
    assert_eq!(unreadable.len(), 1);
    assert!(
        unreadable[0]
            .as_str()
            .unwrap()
            .starts_with("runs/broken/config.toml, line 2: ")
    );

    let out = tinyres().current_dir(&dir).arg("runs").output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("runs/done"))
        .unwrap();
    assert_eq!(
        line.split_whitespace().collect::<Vec<_>>(),
        [
            "runs/done",
            "default",
            "3",
            "300",
            "64",
            "20.00%",
            "25.00%",
            "3.750",
            "258",
            "1h07m",
            "complete"
        ]
    );
    assert!(
        text.contains("1 run cannot be read:\n  runs/broken/config.toml, line 2: "),
        "{text}"
    );
    let line = text.lines().find(|line| line.contains("er/begun")).unwrap();
    assert!(line.ends_with("0 s  at step 1"), "{text}");
}

#[test]
fn compared_runs_show_the_values_that_differ() {
    let dir = tempfile::tempdir().unwrap();
    run(&dir.path().join("a"), 0, EPOCHS);
    run(&dir.path().join("b"), 7, "");
    run(&dir.path().join("c"), 2, EPOCHS);
    let compare = |args: &[&str]| {
        let mut command = tinyres();
        command.current_dir(&dir).arg("compare").args(args);
        command.output().unwrap()
    };
    let json: Value = serde_json::from_slice(&compare(&["a", "b", "c", "--json"]).stdout).unwrap();
    let differs = serde_json::json!({
        "run.data": ["/data/0", "/data/1", "/data/0"],
        "seed": ["0", "7", "2"],
    });
    assert_eq!(json["differs"], differs);
    let text = String::from_utf8(compare(&["a", "b"]).stdout).unwrap();
    let words = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start)).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>()
    };
    assert_eq!(
        (words("seed"), words("top-1")),
        (vec!["0", "7"], vec!["20.00%", "-"])
    );
    assert!(!text.contains("freeze"), "{text}");

    assert_eq!(compare(&["a"]).status.code(), Some(2));
    let missing = compare(&["a", "."]);
    assert_eq!(missing.status.code(), Some(1));
    let error = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(
        error,
        "error: .: holds no run, since it has no config.toml: give the directory that tinyres train wrote\n"
    );
}
