//! The commands, as a shell calls them.
#![cfg(feature = "torch")]

mod common;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tinyres_format::transport::Level;
use tinyres_format::{Form, Manifest, Split};

fn tinyres(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tinyres-torch"));
    command.current_dir(dir).args(args);
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    tinyres(dir, args).output().unwrap()
}

#[track_caller]
fn stdout(output: &Output) -> String {
    let (out, err) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    String::from_utf8(out.clone()).unwrap()
}

#[track_caller]
fn refused(output: &Output, code: i32, part: &str) {
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{err}");
    assert!(err.contains(part), "{err}");
    assert!(output.stdout.is_empty());
}

fn set(classes: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let shards = dir.path().join("shards");
    std::fs::create_dir(&shards).unwrap();
    common::write(&shards, &common::wnids(classes), 64, 30);
    dir
}

const SHORT: [&str; 9] = [
    "train",
    "shards",
    "--epochs",
    "1",
    "--batch",
    "16",
    "--threads",
    "1",
    "--device=cpu",
];

#[test]
fn train_then_eval() {
    let dir = set(4);
    let out = stdout(&run(dir.path(), &SHORT));
    let lines: Vec<_> = out.lines().collect();
    assert!(lines[0].starts_with("epoch "), "{out}");
    assert!(
        lines[1].ends_with("runs/default-1/final.safetensors"),
        "{out}"
    );

    let eval = ["eval", "runs/default-1", "shards"];
    let out = stdout(&run(dir.path(), &eval));
    assert!(out.starts_with("val: 30 images, loss "), "{out}");
    assert_eq!(out.lines().count(), 7, "{out}");
    let saved = "predictions for each image: runs/default-1/eval/val.parquet\n";
    assert!(out.ends_with(saved), "{out}");
    let out = stdout(&run(
        dir.path(),
        &[&eval[..], &["--json", "--split", "train"]].concat(),
    ));
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&json["split"], &json["images"]),
        (&"train".into(), &64.into())
    );
    assert_eq!(json["classes"].as_array().unwrap().len(), 4);

    // The next run gets the next name, and repeats the first from its record.
    let again = [
        "train",
        "shards",
        "--config",
        "runs/default-1/config.toml",
        "--json",
        "-q",
    ];
    let out = run(dir.path(), &again);
    let last: Value = serde_json::from_str(stdout(&out).lines().last().unwrap()).unwrap();
    assert_eq!(last["state"], "complete");
    assert_eq!(last["run"], "runs/default-2");
    assert!(out.stderr.is_empty());
    let weights =
        |run: &str| std::fs::read(dir.path().join(run).join("final.safetensors")).unwrap();
    assert!(weights("runs/default-1") == weights("runs/default-2"));

    let runs = tinyres::runs::list(&[dir.path().join("runs")])
        .unwrap()
        .runs;
    assert_eq!(runs.len(), 2);
    for run in &runs {
        assert!(run.complete && run.dir.starts_with(dir.path().join("runs")));
        assert_eq!((run.epochs, run.steps, run.size), (1, 4, Some(48)));
        let top1 = run.last.unwrap().top1;
        assert_eq!((run.best, last["top1"].as_f64()), (run.last, Some(top1)));
    }
    let dirs: Vec<_> = runs.into_iter().map(|run| run.dir).collect();
    assert!(tinyres::runs::compare(&dirs).unwrap().differs.is_empty());

    refused(
        &run(
            dir.path(),
            &[&SHORT[..], &["-o", "runs/default-1"]].concat(),
        ),
        1,
        "holds a run",
    );
    let other = set(3);
    let shards = other.path().join("shards");
    let out = run(
        dir.path(),
        &["eval", "runs/default-1", shards.to_str().unwrap()],
    );
    refused(
        &out,
        1,
        "the classes of the weights are not those of the data; only in the weights: n00000479: evaluate",
    );
}

#[test]
fn a_run_may_end_at_enlarged_images_and_eval_takes_any_size() {
    let dir = set(4);
    let enlarged = [&SHORT[..], &["--sizes", "50%,150%"]].concat();
    let last: Value = {
        let out = stdout(&run(
            dir.path(),
            &[&enlarged[..], &["--json", "-q"]].concat(),
        ));
        serde_json::from_str(out.lines().last().unwrap()).unwrap()
    };
    let loss = |size: &[&str]| {
        let eval = [
            "eval",
            "runs/default-1",
            "shards",
            "--json",
            "--pictures=off",
        ];
        let out = stdout(&run(dir.path(), &[&eval[..], size].concat()));
        let json: Value = serde_json::from_str(&out).unwrap();
        json["loss"].as_f64().unwrap()
    };
    assert_eq!(Some(loss(&[])), last["val_loss"].as_f64());
    assert_eq!(loss(&[]), loss(&["--size", "48"]));
    let others = ["16", "32", "47", "64"].map(|size| loss(&["--size", size]));
    assert!(!others.contains(&loss(&[])), "{others:?}");
    // Pictures of the size of the set's images are enlarged as those are.
    let pictures = dir.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    for image in 0..30 {
        let planes = common::pixels(Split::Val, image, image % 4);
        let (planes, _) = planes.as_chunks::<{ 32 * 32 }>();
        let mut file = b"P6 32 32 255\n".to_vec();
        file.extend((0..32 * 32).flat_map(|at| [0, 1, 2].map(|plane| planes[plane][at])));
        std::fs::write(pictures.join(format!("{image:02}.ppm")), file).unwrap();
    }
    let out = stdout(&run(
        dir.path(),
        &["predict", "runs/default-1", "pictures", "--json", "-q"],
    ));
    let of_label = out.lines().enumerate().map(|(image, line)| {
        let found: Value = serde_json::from_str(line).unwrap();
        let top = found["top"].as_array().unwrap().iter();
        let own = top.clone().find(|guess| guess["label"] == image % 4);
        -own.unwrap()["probability"].as_f64().unwrap().ln()
    });
    let mean = of_label.sum::<f64>() / 30.0;
    assert!((mean - loss(&[])).abs() < 1e-3, "{mean}, {}", loss(&[]));
    let largest = [&SHORT[..], &["--sizes", "32,129"]].concat();
    refused(
        &run(dir.path(), &largest),
        1,
        "sizes is 129, expected at most 128 for images of 32 pixels",
    );
}

#[test]
fn compressed_shards_are_expanded_once() {
    let dir = set(4);
    let (raw, packed) = (dir.path().join("shards"), dir.path().join("packed"));
    std::fs::create_dir(&packed).unwrap();
    let mut manifest = Manifest::load(&raw).unwrap();
    for listed in manifest.splits.iter().flat_map(|split| &split.shards) {
        let to = packed.join(listed.transport_file());
        tinyres::transport::write(&raw.join(&listed.file), &to, Level::default()).unwrap();
    }
    manifest.transport = Some(Form::Zstd);
    manifest.save(&packed).unwrap();

    let cached = |args: &[&str]| {
        let mut command = tinyres(dir.path(), args);
        command.env("TINYRES_CACHE", dir.path().join("cache"));
        let output = command.output().unwrap();
        let out = stdout(&output);
        (out, String::from_utf8(output.stderr).unwrap())
    };
    let mut args = SHORT;
    args[1] = "packed";
    let (_, err) = cached(&args);
    assert!(
        err.contains("packed: compressed for transport; expanding it to"),
        "{err}"
    );
    assert!(err.contains("cache/shards/"), "{err}");
    let eval = |shards| cached(&["eval", "runs/default-1", shards]);
    let (of_packed, err) = eval("packed");
    assert!(err.contains("using the shards expanded to"), "{err}");
    let (of_raw, err) = eval("shards");
    assert!(!err.contains("compressed"), "{err}");
    assert_eq!(of_packed, of_raw);
    // The run remembers what it was given, not the cache.
    let says = |needle: &str| {
        let files = std::fs::read_dir(dir.path().join("runs/default-1")).unwrap();
        let mut files = files.map(|file| file.unwrap().path());
        files.any(|file| {
            let bytes = std::fs::read(file).unwrap_or_default(); // `eval` is a directory.
            bytes
                .windows(needle.len())
                .any(|part| part == needle.as_bytes())
        })
    };
    assert!(says("packed") && !says("cache/shards"));
}

#[test]
fn an_interrupt_saves_and_says_how_to_go_on() {
    let dir = set(4);
    let long = [&SHORT[..2], &["--epochs", "500"], &SHORT[4..]].concat();
    let child = tinyres(dir.path(), &long)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let metrics = dir.path().join("runs/default-1/metrics.jsonl");
    let began = Instant::now();
    while std::fs::read_to_string(&metrics)
        .unwrap_or_default()
        .lines()
        .count()
        < 2
    {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "no step is taken"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    // Not SIGINT, which is ignored where a shell started the tests in the background.
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(130));
    let text = String::from_utf8(out.stdout).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("stopped after step "), "{text}");
    assert!(
        last.ends_with("continue with `tinyres train --resume runs/default-1`"),
        "{text}"
    );

    let resume = ["train", "--resume", "runs/default-1"];
    refused(
        &run(dir.path(), &[&resume[..], &["--lr", "1"]].concat()),
        2,
        "cannot be used with",
    );
    let other = set(3);
    let shards = other.path().join("shards");
    let out = run(
        dir.path(),
        &[&resume[..], &[shards.to_str().unwrap()]].concat(),
    );
    refused(
        &out,
        1,
        "holds another data set than the run in runs/default-1",
    );
    std::fs::remove_dir_all(dir.path().join("shards")).unwrap();
    refused(&run(dir.path(), &resume), 1, "shards");
}

#[test]
fn what_is_wrong_is_named_before_anything_is_written() {
    let dir = set(4);
    for (args, code, part) in [
        (&["train"][..], 2, "SHARDS|SOURCE"),
        (
            &["train", "shards", "--recipe", "none"],
            2,
            "one of default, long, seed",
        ),
        (&["train", "shards", "--time-budget", "soon"], 2, "soon"),
        (&["train", "shards", "--lr=-1"], 1, "lr is -1, expected"),
        (&["train", "nowhere"], 1, "nowhere"),
        (
            &["train", "shards", "--batch=100"],
            1,
            "batch is 100, expected at most the 64 images",
        ),
        (
            &["train", "shards", "--batch=8", "--device=cuda:77"],
            1,
            "cuda:77",
        ),
        (
            &[
                "train",
                "shards",
                "--batch=8",
                "--placement=pinned",
                "--device=cpu",
            ],
            1,
            "pinned",
        ),
        (
            &["train", "shards", "--config", "absent.toml"],
            1,
            "absent.toml",
        ),
        (&["train", "--resume", "nowhere"], 1, "holds no run"),
        (&["eval", "nowhere", "shards"], 1, "nowhere"),
        (&["eval", "shards", "shards"], 1, "holds no run"),
        (&["eval", "x", "shards", "--split", "all"], 2, "all"),
    ] {
        refused(&run(dir.path(), args), code, part);
        assert!(!dir.path().join("runs").exists(), "{args:?}");
    }
}

fn golden(name: &str) -> String {
    format!("{}/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_recipe_with_a_larger_batch_trains_on_a_small_set() {
    let dir = set(4);
    let small = [
        "train",
        "shards",
        "--max-steps=1",
        "--threads=1",
        "--device=cpu",
        "--sizes=16",
    ];
    let out = run(dir.path(), &small);
    stdout(&out);
    let err = String::from_utf8(out.stderr).unwrap();
    assert!(
        err.contains("batches of 64 images instead of 256: the training split has no more"),
        "{err}"
    );
    assert!(
        err.contains("training for 1 step on the CPU, 1 thread"),
        "{err}"
    );
    let config = std::fs::read_to_string(dir.path().join("runs/default-1/config.toml")).unwrap();
    assert!(config.contains("batch = 64\n"), "{config}");
}

#[test]
fn a_set_without_val_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    common::write(dir.path(), &common::wnids(3), 16, 0);
    let out = run(dir.path(), &["train", "."]);
    refused(&out, 1, "pack the source again with --val-fraction 0.1");
}

#[test]
fn resume_refuses_other_images_under_the_same_fingerprint() {
    let dir = set(4);
    stdout(&run(dir.path(), &SHORT));
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    common::write_boxed(
        &other,
        &common::wnids(4),
        (64, 30),
        |split, image, label| {
            let pixels = common::pixels(split, image + 1, usize::try_from(label).unwrap());
            (pixels, label, [0, 0, 31, 31])
        },
    );
    let resume = ["train", "--resume", "runs/default-1"];
    let out = run(dir.path(), &[&resume[..], &["other"]].concat());
    refused(
        &out,
        1,
        "other holds other images than the run in runs/default-1",
    );
    stdout(&run(dir.path(), &resume));
    // A run of a version that did not record them resumes by the fingerprint.
    let config = dir.path().join("runs/default-1/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let (kept, shards): (Vec<_>, Vec<_>) = text
        .lines()
        .partition(|line| !line.starts_with("shards = "));
    assert_eq!(shards.len(), 1);
    std::fs::write(&config, kept.join("\n")).unwrap();
    stdout(&run(dir.path(), &[&resume[..], &["other"]].concat()));
}

#[test]
fn weights_of_another_program_are_evaluated_and_exported() {
    let dir = set(3);
    let weights = golden("dropout.pth");
    let out = run(dir.path(), &["eval", &weights, "shards", "--device=cpu"]);
    assert!(stdout(&out).starts_with("val: 30 images"));
    let err = String::from_utf8(out.stderr).unwrap();
    assert!(
        err.contains(
            "is of another program: taken as a ResNet18 with stem imagenet for 32x32 pixels \
             normalised by ImageNet's mean and std; its 3 classes (classifier fc.1) are of the data, in its order"
        ),
        "{err}"
    );
    let thousand = golden("resnet18.pth");
    refused(
        &run(dir.path(), &["eval", &thousand, "shards"]),
        1,
        "has a classifier of 1,000 classes, expected 3: its classes are to be of the data",
    );
    refused(
        &run(
            dir.path(),
            &[
                "eval",
                &format!("{}#children", golden("namings.pth")),
                "shards",
            ],
        ),
        1,
        "has no classifier: start a run from it with --init",
    );

    // What is exported says what it is.
    std::fs::write(dir.path().join("classes"), "n1\tcat\nn2\tdog\nn3\n").unwrap();
    let export = |extra: &[&str]| {
        let args = ["export", &weights, "--to=safetensors", "-o=out.safetensors"];
        run(dir.path(), &[&args[..], extra].concat())
    };
    let out = stdout(&export(&["--classes=classes", "--size=48"]));
    assert!(out.contains("num_classes=3), trained at 48x48"), "{out}");
    let out = run(dir.path(), &["eval", "out.safetensors", "shards"]);
    refused(
        &out,
        1,
        "only in the weights: n1, n2, n3; only in the data: ",
    );
    // A size that nothing could be resized to.
    stdout(&export(&["--classes=classes", "--size=4096"]));
    let exported = dir.path().join("out.safetensors");
    let mut bytes = std::fs::read(&exported).unwrap();
    let at = bytes.windows(4).position(|part| part == b"4096").unwrap();
    bytes[at..at + 4].copy_from_slice(b"9999");
    std::fs::write(&exported, bytes).unwrap();
    refused(
        &run(dir.path(), &["eval", "out.safetensors", "shards"]),
        1,
        "is for images of 9999 pixels, expected 1 to 4096",
    );
    std::fs::write(dir.path().join("classes"), "n1\n").unwrap();
    refused(
        &export(&["--classes=classes"]),
        1,
        "has a classifier of 3 classes, expected 1: its classes are to be as in classes",
    );
}

#[test]
fn weights_of_another_program_predict() {
    let dir = tempfile::tempdir().unwrap();
    let picture = format!(
        "{}/../tests/golden/pictures/exact/exif/1.jpg",
        env!("CARGO_MANIFEST_DIR")
    );
    let weights = golden("dropout.pth");
    let predict = ["predict", &weights, &picture, "--json", "--device=cpu"];
    let out = run(dir.path(), &predict);
    let line: Value = serde_json::from_str(&stdout(&out)).unwrap();
    let top = line["top"].as_array().unwrap();
    assert_eq!(top.len(), 3);
    assert_eq!(top[0]["id"], top[0]["label"].to_string());
    let err = String::from_utf8(out.stderr).unwrap();
    assert!(err.contains("for 64x64 pixels"), "{err}");
    assert!(
        err.contains("its 3 classes (classifier fc.1) are numbers"),
        "{err}"
    );

    std::fs::write(dir.path().join("classes"), "n1\tcat\nn2\tdog\nn3\n").unwrap();
    let out = run(dir.path(), &[&predict[..], &["--classes=classes"]].concat());
    let line: Value = serde_json::from_str(&stdout(&out)).unwrap();
    let names = ["cat", "dog", "n3"];
    for guess in line["top"].as_array().unwrap() {
        let label = usize::try_from(guess["label"].as_u64().unwrap()).unwrap();
        assert_eq!(guess["name"], names[label]);
    }
}

#[test]
fn the_doctor_finds_this_machine_healthy() {
    let dir = tempfile::tempdir().unwrap();
    let report: Value =
        serde_json::from_str(&stdout(&run(dir.path(), &["doctor", "--json"]))).unwrap();
    assert_eq!(report["libtorch"], "2.13.0");
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.len() >= 3);
    assert!(checks.iter().all(|check| check["ok"] == true), "{report:#}");
}

/// What bash offers for the last of `words`.
fn completed(dir: &Path, words: &[&str]) -> String {
    let script = stdout(&run(dir, &["completions", "bash"]));
    let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
    let call = format!(
        "{script}\nCOMP_WORDS=({}); COMP_CWORD={}\n_tinyres tinyres '{last}' '{before}'\necho \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        words.len() - 1,
    );
    let output = Command::new("bash").args(["-c", &call]).output().unwrap();
    stdout(&output)
}

#[test]
fn bash_completes_the_commands_and_flags_of_both_programs() {
    let dir = tempfile::tempdir().unwrap();
    let of = |words: &[&str]| completed(dir.path(), words);
    assert_eq!(of(&["tinyres", "train", "--opt"]).trim(), "--optimizer");
    assert_eq!(
        of(&["tinyres", "pack", "--shard-i"]).trim(),
        "--shard-images"
    );
    assert_eq!(of(&["tinyres", "ins"]).trim(), "inspect");
    let names = of(&["tinyres", "train", "--optimizer", ""]);
    assert_eq!(names.trim(), "sgd adam muon");
}

#[test]
fn every_shell_gets_a_script_with_the_flags_of_train() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&run(dir.path(), &["completions", shell]));
        for flag in ["time-budget", "val-fraction"] {
            assert!(script.contains(flag), "{shell}: no {flag}");
        }
    }
}

#[test]
fn each_command_has_a_man_page_that_groff_renders() {
    let dir = tempfile::tempdir().unwrap();
    stdout(&run(dir.path(), &["man", "man1"]));
    let pages: Vec<_> = std::fs::read_dir(dir.path().join("man1"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(pages.len(), 18, "{pages:?}");
    let train = std::fs::read_to_string(dir.path().join("man1/tinyres-train.1")).unwrap();
    assert!(train.contains("\\-\\-optimizer"), "{train}");
    for page in pages {
        let mut groff = Command::new("groff");
        groff.args(["-man", "-Tascii", "-ww", "-z"]);
        // Not every machine has groff.
        let Ok(output) = groff.arg(&page).output() else {
            return;
        };
        let warnings = String::from_utf8_lossy(&output.stderr);
        assert!(warnings.is_empty(), "{}: {warnings}", page.display());
    }
}
