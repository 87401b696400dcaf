//! Whole trainings on a small set: that they learn, and that they follow from their configuration.
#![cfg(feature = "torch")]

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Recorder, config, train};
use tinyres_load::shuffled;
use tinyres_torch::Error;
use tinyres_torch::run::Run;
use tinyres_torch::train::{Outcome, Splits};

/// Begins a run, and trains until step `stop` or to the end.
fn begin(run: &Path, flags: &str, data: &Splits, set: &Path, stop: Option<u64>) -> Outcome {
    let mut run = Run::create(run, config(flags), set, data.train.fingerprint()).unwrap();
    let flag = AtomicBool::new(false);
    let mut recorder = Recorder {
        at_step: Some(Box::new(|step| {
            flag.store(Some(step) == stop, Ordering::Relaxed);
        })),
        ..Recorder::default()
    };
    train(&mut run, None, data, &mut recorder, &flag).unwrap()
}

fn resume(run: &Path, data: &Splits) -> Outcome {
    let (mut run, from) = Run::resume(run).unwrap();
    let go = AtomicBool::new(false);
    train(&mut run, from.as_ref(), data, &mut Recorder::default(), &go).unwrap()
}

/// The metrics of a run without those that a clock gave.
fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let parse = |line: &str| {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        let map = value.as_object_mut().unwrap();
        for clock in ["images_per_second", "took", "wait_share"] {
            map.remove(clock);
        }
        value
    };
    text.lines().map(parse).collect()
}

fn weights(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("final.safetensors")).unwrap()
}

/// 70 images make 8 steps of 8, and 6 images that each epoch leaves out.
const SHORT: &str = "epochs = 2\nbatch = 8\nlr = 0.02\nshift = 2";

#[test]
fn a_resumed_run_is_the_unbroken_run_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 70, 20);
    for (name, own, stops) in [
        ("sgd", "optimizer = 'sgd'", &[1, 4, 8][..]),
        ("adam", "optimizer = 'adam'", &[5]),
        ("muon", "optimizer = 'muon'\nmax_steps = 4", &[2]),
        ("threads", "threads = 2\nmax_steps = 3", &[2]),
        (
            "groups",
            "threads = 2\nghost_batch = 3\nmax_steps = 3",
            &[2],
        ),
        (
            "mixed",
            "boxes = true\nmixup = 0.4\ncutmix = 1.0\nerasing = 0.5\nmax_steps = 6",
            &[3],
        ),
    ] {
        let flags = format!("{SHORT}\n{own}");
        let whole = dir.path().join(name);
        let outcome = begin(&whole, &flags, &data, dir.path(), None);
        assert!(matches!(outcome, Outcome::Complete { score: Some(_), .. }));
        for &stop in stops {
            let broken = dir.path().join(format!("{name}-{stop}"));
            let outcome = begin(&broken, &flags, &data, dir.path(), Some(stop));
            assert_eq!(outcome, Outcome::Stopped { step: stop });
            resume(&broken, &data);
            assert_eq!(metrics(&whole), metrics(&broken), "{name}, stop at {stop}");
            assert!(
                weights(&whole) == weights(&broken),
                "{name}, stop at {stop}"
            );
        }
    }
    assert_eq!(metrics(&dir.path().join("sgd")).len(), 18);
}

#[test]
fn steps_after_the_last_checkpoint_are_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 70, 20);
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    begin(&whole, SHORT, &data, dir.path(), None);
    begin(&broken, SHORT, &data, dir.path(), Some(5));
    // As if it had been killed two steps later, in the middle of a line.
    let path = broken.join("metrics.jsonl");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("{\"kind\":\"step\",\"step\":6,\"loss\":9.0}\n{\"kind\":\"st");
    std::fs::write(&path, text).unwrap();
    resume(&broken, &data);
    assert_eq!(metrics(&whole), metrics(&broken));
    // A run that is complete stays as it is.
    let before = weights(&broken);
    assert!(matches!(
        resume(&broken, &data),
        Outcome::Complete { score: None, .. }
    ));
    assert!(before == weights(&broken));
}

#[test]
fn batches_do_not_depend_on_the_placement() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 70, 20);
    let [mapped, resident] = ["mapped", "resident"].map(|placement| {
        let run = dir.path().join(placement);
        begin(
            &run,
            &format!("{SHORT}\nplacement = '{placement}'"),
            &data,
            dir.path(),
            None,
        );
        metrics(&run)
    });
    assert_eq!(mapped, resident);
}

#[test]
fn weights_do_not_depend_on_the_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 70, 20);
    for (name, own) in [
        ("muon", "optimizer = 'muon'\nsizes = '50%'"),
        ("adam", "optimizer = 'adam'"),
        (
            "boxes",
            "boxes = true\ncutmix = 1.0\nerasing = 0.5\nclip_grad = 1.0\nema = 0.9",
        ),
    ] {
        let flags = format!("{SHORT}\nghost_batch = 3\nmax_steps = 2\n{own}");
        let [one, two, three] = [1, 2, 3].map(|threads| {
            let run = dir.path().join(format!("{name}-{threads}"));
            let flags = format!("{flags}\nthreads = {threads}");
            begin(&run, &flags, &data, dir.path(), None);
            (metrics(&run), tensors(&run))
        });
        assert_eq!(one.0, two.0, "{name}");
        assert_eq!(one.0, three.0, "{name}");
        assert!(one.1 == two.1 && one.1 == three.1, "{name}");
    }
}

/// The final weights of a run, without what else their file says.
fn tensors(run: &Path) -> Vec<u8> {
    let file = weights(run);
    let (length, rest) = file.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap());
    rest[usize::try_from(length).unwrap()..].to_vec()
}

/// A run as one that was begun before a configuration could say it.
#[test]
fn run_that_says_nothing_of_groups_goes_on_with_whole_batches() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 70, 20);
    let flags = format!("{SHORT}\nghost_batch = 0\nmax_steps = 3");
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    begin(&whole, &flags, &data, dir.path(), None);
    begin(&broken, &flags, &data, dir.path(), Some(1));
    let path = broken.join("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\nghost_batch = 0\n"), "{text}");
    std::fs::write(&path, text.replace("ghost_batch = 0\n", "")).unwrap();
    resume(&broken, &data);
    assert_eq!(metrics(&whole), metrics(&broken));
    assert!(weights(&whole) == weights(&broken));
}

#[test]
fn a_small_set_is_learnt() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 4, 96, 40);
    let flags = "epochs = 8\nbatch = 16\nlr = 0.05\nflip = false\nshift = 1";
    let path = dir.path().join("run");
    let mut run = Run::create(&path, config(flags), dir.path(), data.train.fingerprint()).unwrap();
    let mut recorder = Recorder::default();
    train(
        &mut run,
        None,
        &data,
        &mut recorder,
        &AtomicBool::new(false),
    )
    .unwrap();
    let epochs = recorder.epochs;
    assert_eq!(epochs.len(), 8);
    let (first, last) = (epochs[0], epochs[7]);
    assert!(last.train_loss < 0.6 * first.train_loss, "{epochs:#?}");
    assert!(last.val.unwrap().top1 > 0.9, "{epochs:#?}");
    assert!((0.0..1.0).contains(&last.wait_share));
}

#[test]
fn a_run_ends_where_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 70, 20);
    let run = |name: &str, flags: &str| {
        let path = dir.path().join(name);
        begin(&path, &format!("{SHORT}\n{flags}"), &data, dir.path(), None);
        metrics(&path)
    };
    // In the middle of the second epoch, which is scored all the same.
    let lines = run("steps", "max_steps = 11\neval_every = 2");
    assert_eq!(lines.len(), 13);
    assert_eq!(lines[8]["kind"], "epoch");
    assert!(lines[8].get("top1").is_none());
    let end = &lines[12];
    assert_eq!((&end["step"], end["epoch"].as_u64()), (&11.into(), Some(1)));
    assert!(end["top1"].is_number());
    // The schedule ends with it: the last of 11 steps lies a twelfth before the end.
    let warmup = 0.15;
    let rate = 0.02 * (1.0 - 11.0 / 12.0) / (1.0 - warmup);
    assert!((end["lr"].as_f64().unwrap() - rate).abs() < 1e-12);
}

#[test]
fn a_time_budget_sets_the_rate_and_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 70, 20);
    let path = dir.path().join("run");
    let flags = "time_budget = '100h'\nschedule = 'cosine'\nwarmup = 0.2\nsizes = 'full'";
    begin(
        &path,
        &format!("{SHORT}\n{flags}"),
        &data,
        dir.path(),
        Some(1),
    );
    // The time of a run is a part of its position. Here it jumps by hours, compared with which any machine is fast.
    let go_on = |seconds: u64, stops: bool| {
        let (mut run, from) = Run::resume(&path).unwrap();
        let mut from = from.unwrap();
        from.about.position.elapsed = Duration::from_secs(seconds);
        let stop = AtomicBool::new(false);
        let mut recorder = Recorder {
            at_step: Some(Box::new(|_| stop.store(stops, Ordering::Relaxed))),
            ..Recorder::default()
        };
        let outcome = train(&mut run, Some(&from), &data, &mut recorder, &stop).unwrap();
        (outcome, metrics(&path).pop().unwrap())
    };
    for (step, hours, fraction) in [
        (2, 10, 0.5),
        (3, 60, 0.5),
        (4, 80, 0.146_447),
        (5, 99, 0.000_386),
    ] {
        let (outcome, line) = go_on(hours * 3600, true);
        assert_eq!(outcome, Outcome::Stopped { step });
        let rate = line["lr"].as_f64().unwrap();
        assert!((rate / 0.02 - fraction).abs() < 0.005, "{hours} h: {line}");
    }
    // Two seconds are left, in which a slow machine does not come to a step.
    let (outcome, line) = go_on(100 * 3600 - 2, false);
    let Outcome::Complete { score, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(score.is_some(), line["kind"] == "epoch", "{line}");
    // None are left.
    let (outcome, _) = go_on(100 * 3600, false);
    assert!(matches!(outcome, Outcome::Complete { score: None, .. }));
}

/// True for each epoch in the metrics that was scored.
fn scored(run: &Path) -> Vec<bool> {
    let epochs = metrics(run)
        .into_iter()
        .filter(|line| line["kind"] == "epoch");
    epochs.map(|line| line["top1"].is_number()).collect()
}

#[test]
fn a_run_with_a_time_budget_is_scored_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 70, 20);
    let flags = format!("{SHORT}\ntime_budget = '100h'\nmax_steps = 24");
    // Three epochs take less than an hour.
    for (every, expected) in [
        ("'1h'", [false, false, true]),
        ("'1ns'", [true; 3]),
        ("2", [false, true, true]),
    ] {
        let path = dir.path().join(every.trim_matches('\''));
        begin(
            &path,
            &format!("{flags}\neval_every = {every}"),
            &data,
            dir.path(),
            None,
        );
        assert_eq!(scored(&path), expected, "{every}");
    }
    // Times of a run are a part of its position. Here the last scoring took an hour.
    for (elapsed, first) in [(48, false), (49, true)] {
        let path = dir.path().join(elapsed.to_string());
        begin(&path, &flags, &data, dir.path(), Some(1));
        let (mut run, from) = Run::resume(&path).unwrap();
        let mut from = from.unwrap();
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        from.about.position.elapsed = hours(10 + elapsed);
        (from.about.position.scored, from.about.position.scoring) = (hours(10), hours(1));
        let go = AtomicBool::new(false);
        train(&mut run, Some(&from), &data, &mut Recorder::default(), &go).unwrap();
        let scored = scored(&path);
        assert_eq!((scored[0], scored[2]), (first, true), "{elapsed} h");
        drop(run);
        let position = Run::resume(&path).unwrap().1.unwrap().about.position;
        assert!(position.scored > hours(10 + elapsed));
        assert!(position.scoring < hours(1));
    }
}

#[test]
fn unfit_values_and_losses_that_are_not_finite_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 70, 20);
    let mut begun = 0;
    let mut attempt = |flags: &str| {
        begun += 1;
        let path = dir.path().join(begun.to_string());
        let mut run =
            Run::create(&path, config(flags), dir.path(), data.train.fingerprint()).unwrap();
        let mut recorder = Recorder::default();
        train(
            &mut run,
            None,
            &data,
            &mut recorder,
            &AtomicBool::new(false),
        )
        .unwrap_err()
    };
    for (flags, part) in [
        ("batch = 71", "batch is 71, expected at most the 70 images"),
        (
            "batch = 8\nshift = 32",
            "shift is 32, expected less than 32, the side",
        ),
        ("batch = 8\nplacement = 'pinned'", "placement is pinned"),
    ] {
        let message = attempt(flags).to_string();
        assert!(message.contains(part), "{message}");
    }
    // The first step blows the weights up, so the second loss is lost.
    match attempt("batch = 8\nlr = 1e30\nwarmup = 0.0") {
        Error::NotFinite {
            step: 2,
            images,
            kept: None,
            ..
        } => {
            let order = shuffled(70, 0, 0);
            let names = order[8..16]
                .iter()
                .map(|image| format!("train_{image}.JPEG"));
            assert_eq!(images, names.collect::<Vec<_>>());
        }
        other => panic!("{other}"),
    }
}

#[test]
fn runs_do_not_replace_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 70, 20);
    let path = dir.path().join("run");
    let fingerprint = data.train.fingerprint();
    let create = || {
        Run::create(
            &path,
            config("time_budget = '90m'"),
            dir.path(),
            fingerprint,
        )
    };
    let run = create().unwrap();
    assert_eq!(
        run.config().length.time_budget,
        Some(Duration::from_secs(5400))
    );
    assert!(matches!(create(), Err(Error::RunExists { .. })));
    assert!(matches!(Run::resume(&path), Err(Error::RunBusy { .. })));
    let config = run.config().clone();
    drop(run);
    let (again, checkpoint) = Run::resume(&path).unwrap();
    assert_eq!(*again.config(), config);
    assert!(checkpoint.is_none());
    assert_eq!(
        Run::provenance(&path).unwrap().data,
        dir.path().canonicalize().unwrap()
    );
    let nowhere = Run::resume(&dir.path().join("other"))
        .unwrap_err()
        .to_string();
    assert!(nowhere.contains("holds no run"), "{nowhere}");
}
