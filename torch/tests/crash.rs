//! `train` where things go wrong: killed at any moment, a disk that fails it, a shard cut under it, a
//! set that is not what it says.
//! `TINYRES_CRASH_ROUNDS` sets how often it is killed, `TINYRES_CRASH_SEED` when.
#![cfg(feature = "torch")]

mod common;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "../../tests/common/inject.rs"]
mod inject;
#[path = "../../tests/common/sets.rs"]
mod sets;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fixture::{Fixture, LAST, number};
use inject::Call;
use tinyres_format::{Draws, Stream};
use tinyres_torch::run::checkpoint::{self, Checkpoint, Position};

#[test]
fn killed_at_any_moment_a_run_goes_on() {
    let fixture = Fixture::new();
    let draws = Draws::new(number("TINYRES_CRASH_SEED", 1), Stream::Sample, 0);
    let rounds = number("TINYRES_CRASH_ROUNDS", 6);
    let mut landed = std::collections::BTreeMap::<_, u64>::new();
    for round in 0..rounds {
        let (what, status) = if round % 2 == 0 {
            // Before a call on the run's directory.
            let pick = draws.below(2 * round, fixture.calls.len() as u64);
            let inject = format!("kill:{}", pick + 1);
            let run = inject::run(&mut fixture.train(), &fixture.run(), &inject);
            (inject, run.output.status)
        } else {
            let micros = u64::try_from(fixture.took.as_micros()).unwrap();
            let moment = Duration::from_micros(draws.below(2 * round, micros));
            let mut child = (fixture.train().stdout(Stdio::null()).stderr(Stdio::null()))
                .spawn()
                .unwrap();
            std::thread::sleep(moment);
            child.kill().unwrap();
            (format!("{moment:?}"), child.wait().unwrap())
        };
        assert!(status.success() || status.signal() == Some(9), "{status}");
        if round % 3 == 0 && fixture.run().join("config.toml").exists() {
            // What goes on is killed, too.
            let mut resume = fixture.tinyres(&["train", "--resume", "run"]);
            let pick = draws.below(2 * round + 1, fixture.calls.len() as u64);
            inject::run(&mut resume, &fixture.run(), &format!("kill:{}", pick + 1));
        }
        match fixture.check() {
            Ok(state) => *landed.entry(state).or_default() += 1,
            Err(wrong) => panic!("round {round}, {what}: {wrong}"),
        }
    }
    println!("{rounds} rounds: {landed:?}");
}

const FULL: (&str, &str) = ("ENOSPC", "No space left on device");
const BROKEN: (&str, &str) = ("EIO", "Input/output error");

/// The number of the last call of that name on that file of the run: there is a checkpoint from before.
fn last_call(fixture: &Fixture, name: &str, file: &str) -> usize {
    let is = |call: &Call| call.name == name && call.path == fixture.run().join(file);
    1 + fixture.calls.iter().rposition(is).unwrap()
}

#[test]
fn what_cannot_be_written_on_the_way_is_warned_of_twice_and_costs_no_run() {
    let fixture = Fixture::new();
    let run = fixture.run();
    for (name, file, (error, reason), kept) in [
        (
            "write",
            ".last.safetensors.tmp",
            FULL,
            "the checkpoint before is kept",
        ),
        (
            "fsync",
            ".last.safetensors.tmp",
            BROKEN,
            "the checkpoint before is kept",
        ),
        (
            "rename",
            ".last.safetensors.tmp",
            BROKEN,
            "the checkpoint before is kept",
        ),
        (
            "write",
            ".best.safetensors.tmp",
            FULL,
            "the best weights before are kept",
        ),
        (
            "write",
            "metrics.jsonl",
            FULL,
            "figures are missing from here on",
        ),
    ] {
        let number = last_call(&fixture, name, file);
        let inject = format!("{error}:{number}");
        let before = |run: &Path| fs::read(run.join(LAST)).unwrap();
        let mut train = fixture.train();
        let failed = inject::run(train.arg("--json"), &run, &inject);
        let tampered = failed.calls.iter().filter(|call| call.tampered);
        assert!(tampered.eq([&Call {
            tampered: true,
            ..fixture.calls[number - 1].clone()
        }]));
        let whole = file.trim_start_matches('.').trim_end_matches(".tmp");
        let said = String::from_utf8(failed.output.stderr).unwrap();
        assert_eq!(failed.output.status.code(), Some(0), "{inject}: {said}");
        let warned: Vec<_> = said
            .lines()
            .filter(|line| line.starts_with("warning: "))
            .collect();
        assert_eq!(warned.len(), 2, "{inject}: {said}");
        assert_eq!(warned[0], warned[1]);
        for part in [format!("run/{whole}: {reason}"), kept.to_owned()] {
            assert!(warned[0].contains(&part), "{inject}: {said}");
        }
        let out = String::from_utf8(failed.output.stdout).unwrap();
        let result: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        assert_eq!(
            format!("warning: {}", result["warnings"][0].as_str().unwrap()),
            warned[0]
        );
        assert!(fixture.final_weights() == fixture.weights, "{inject}");
        assert!(!run.join(file).exists() || file == "metrics.jsonl");
        // Every line that is there is whole.
        for line in fs::read_to_string(run.join("metrics.jsonl"))
            .unwrap()
            .lines()
        {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
        drop(before(&run));
        assert_eq!(fixture.check(), Ok("resumed"), "{inject}");
    }
}

/// With one class every epoch scores 100%, so none beats the first. Its weights could not be saved.
#[test]
fn best_weights_that_cannot_be_saved_do_not_block_later_ones() {
    let fixture = Fixture::new();
    let one_class = fixture.dir.path().join("one");
    fs::create_dir(&one_class).unwrap();
    common::write(&one_class, &common::wnids(1), 32, 8);
    let best = fixture.run().join("best.safetensors");
    let unfinished = fixture.run().join(".best.safetensors.tmp");
    fs::remove_dir_all(fixture.run()).unwrap();
    let mut train = fixture.tinyres(&["train", "one", "--output", "run", "--epochs", "2"]);
    train.args(["--batch", "16", "--threads", "1", "--device", "cpu"]);
    let run = inject::run(&mut train, &unfinished, "ENOSPC:1");
    assert!(run.output.status.success(), "{run:?}");
    let said = String::from_utf8_lossy(&run.output.stderr);
    assert!(said.contains("the best weights before are kept"), "{said}");
    let position = Checkpoint::load(&best).unwrap().about.position;
    assert_eq!((position.epoch, position.step), (1, 4));
}

/// A crash of the system may leave anything in the part of a file that it did not get to write.
#[test]
fn garbled_tail_of_the_metrics_is_dropped() {
    let fixture = Fixture::new();
    let path = fixture.run().join("metrics.jsonl");
    let whole = fs::read(&path).unwrap();
    for tail in [
        &b"\xff\xfe\x00{"[..],
        b"{\"kind\":\"step\",\"st",
        &[0; 512],
        b"\n\n\xc3",
    ] {
        fs::write(&path, [&whole, tail].concat()).unwrap();
        let mut resume = fixture.tinyres(&["train", "--resume", "run"]);
        let resumed = resume.output().unwrap();
        assert!(resumed.status.success(), "{tail:?}: {resumed:?}");
        assert_eq!(fs::read(&path).unwrap(), whole, "{tail:?}");
    }
}

#[test]
fn events_that_cannot_be_written_cost_no_run() {
    let fixture = Fixture::new();
    // Their file has its name from a clock.
    let of_events =
        |call: &Call| call.name == "write" && call.path.to_string_lossy().contains("tfevents");
    let number = 1 + fixture.calls.iter().rposition(of_events).unwrap();
    let inject = format!("ENOSPC:{number}");
    let failed = inject::run(&mut fixture.train(), &fixture.run(), &inject);
    let said = String::from_utf8(failed.output.stderr).unwrap();
    assert_eq!(failed.output.status.code(), Some(0), "{said}");
    let tampered: Vec<_> = failed.calls.iter().filter(|call| call.tampered).collect();
    assert!(tampered.len() == 1 && of_events(tampered[0]));
    let warned = said.lines().filter(|line| line.starts_with("warning: "));
    let warned: Vec<_> = warned.collect();
    assert_eq!(warned.len(), 2, "{said}");
    for part in [FULL.1, "what TensorBoard shows has gaps"] {
        assert!(warned[0].contains(part) && warned[1] == warned[0], "{said}");
    }
    assert!(fixture.final_weights() == fixture.weights);
}

#[test]
fn a_signal_saves_and_a_second_one_stops_at_once() {
    let fixture = Fixture::new();
    // Not SIGINT, which is ignored where a shell started the tests in the background.
    let interrupt = |child: &Child| {
        let pid = child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.unwrap().success());
    };
    let mut child = fixture.train_for("1000000");
    let mut child = child
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !fs::metadata(fixture.run().join("metrics.jsonl")).is_ok_and(|file| file.len() > 0) {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(1));
    }
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let saved = Checkpoint::load(&fixture.run().join(LAST)).unwrap();
    assert!(saved.about.position.step > 0);

    // It cannot end in good order: that would be to print how far it came, which nobody reads.
    let (unread, mut full) = std::io::pipe().unwrap();
    full.write_all(&[0; 1 << 16]).unwrap();
    let mut child = fixture.tinyres(&["train", "--resume", "run"]);
    let mut child = child.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    for heard in ["training for", "stopping after this step"] {
        assert!(said.any(|line| line.unwrap().starts_with(heard)), "{heard}");
        interrupt(&child);
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(unread);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let kept = Checkpoint::load(&fixture.run().join(LAST)).unwrap();
    assert!(kept.about.position.step >= saved.about.position.step);
}

#[test]
fn a_disk_that_stays_full_costs_all_but_what_was_saved_before() {
    let fixture = Fixture::new();
    let run = fixture.run();
    // Nothing can be written from the last checkpoint on, the final weights neither.
    let number = last_call(&fixture, "write", ".last.safetensors.tmp");
    let failed = inject::run(&mut fixture.train(), &run, &format!("ENOSPC:{number}+"));
    let said = String::from_utf8(failed.output.stderr).unwrap();
    assert_eq!(failed.output.status.code(), Some(1), "{said}");
    assert!(
        failed
            .output
            .stdout
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count()
            == 2,
        "two epochs"
    );
    let error = "error: could not save the end of the run: run/final.safetensors: No space left on device (os error 28). Fix this, then continue from the last checkpoint with --resume run";
    assert_eq!(said.lines().last().unwrap(), error);
    assert_eq!(
        Checkpoint::load(&run.join(LAST))
            .unwrap()
            .about
            .position
            .step,
        2
    );
    assert_eq!(fixture.check(), Ok("resumed"));
}

#[test]
fn second_training_in_the_same_directory_is_refused() {
    let fixture = Fixture::new();
    // The second call on the checkpoint: the first one has created it.
    let unfinished = fixture.run().join(".last.safetensors.tmp");
    for killed in [false, true] {
        let mut first = inject::run_until(&mut fixture.train(), &unfinished, 2);
        let metrics = fs::read(fixture.run().join("metrics.jsonl")).unwrap();
        for (args, says) in [
            (
                &["train", "--resume", "run"][..],
                "run: another tinyres trains here: wait until it ends",
            ),
            (
                &["train", "shards", "-o", "run", "--batch=16"],
                "run holds a run",
            ),
        ] {
            let second = fixture.tinyres(args).output().unwrap();
            assert_eq!(second.status.code(), Some(1), "{second:?}");
            let error = String::from_utf8(second.stderr).unwrap();
            assert!(error.contains(&format!("error: {says}")), "{error}");
        }
        assert!(unfinished.exists(), "it touched what is the other's");
        assert_eq!(
            fs::read(fixture.run().join("metrics.jsonl")).unwrap(),
            metrics
        );
        if killed {
            first.kill().unwrap();
            first.wait().unwrap();
            // The lock has died with its process.
            assert_eq!(fixture.check(), Ok("begun anew"));
        } else {
            inject::wake(&first);
            assert!(first.wait().unwrap().success());
            assert!(fixture.final_weights() == fixture.weights);
        }
    }
}

/// NFS without its lock service, and others.
#[test]
fn file_system_without_locks_costs_a_notice() {
    let fixture = Fixture::new();
    for error in ["ENOSYS", "ENOLCK", "EOPNOTSUPP"] {
        let mut train = fixture.train();
        let run = inject::run(
            train.env("INJECT_ONLY", "flock"),
            &fixture.run(),
            &format!("{error}:1+"),
        );
        assert!(run.output.status.success(), "{run:?}");
        assert_eq!(run.calls.len(), 1, "{run:?}");
        let said = String::from_utf8_lossy(&run.output.stderr);
        assert!(
            said.contains("\nrun: its file system has no locks: "),
            "{said}"
        );
        assert!(fixture.final_weights() == fixture.weights);
    }
}

/// FUSE and CIFS refuse to force a directory to the disk. There is nothing better to do then.
#[test]
fn file_system_that_cannot_sync_directories_costs_nothing() {
    let fixture = Fixture::new();
    let mut train = fixture.train();
    train.env("INJECT_ONLY", "fsyncdir");
    let run = inject::run(&mut train, &fixture.run(), "EINVAL:1+");
    assert!(run.output.status.success(), "{run:?}");
    assert!(run.calls.len() > 5, "{run:?}");
    let said = String::from_utf8_lossy(&run.output.stderr);
    assert!(!said.contains("warning: "), "{said}");
    assert!(fixture.final_weights() == fixture.weights);
}

/// The names, labels and boxes are those of the run, the pixels are others.
#[test]
fn resume_on_other_pixels_is_refused() {
    let fixture = Fixture::new();
    let other = fixture.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    let side = i32::try_from(common::SIDE).unwrap() - 1;
    common::write_boxed(&other, &common::wnids(4), (32, 8), |split, image, label| {
        let mut pixels = common::pixels(split, image, usize::try_from(label).unwrap());
        pixels[0] ^= 1;
        (pixels, label, [0, 0, side, side])
    });
    let output = fixture
        .tinyres(&["train", "--resume", "run", "other"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("error: other holds other images than the run in run was begun with"),
        "{error}"
    );
    assert_eq!(fixture.check(), Ok("resumed"));
}

/// The first training finds `runs/default-1` free, and is halted before it makes it.
#[test]
fn trainings_that_look_for_a_name_at_once_get_two() {
    let fixture = Fixture::new();
    let args = [
        "train",
        "shards",
        "--batch=16",
        "--max-steps=1",
        "--threads=1",
        "--device=cpu",
    ];
    let name = fixture.dir.path().join("runs/default-1");
    let mut first = inject::run_until(&mut fixture.tinyres(&args), &name, 1);
    let second = fixture.tinyres(&args).output().unwrap();
    assert!(second.status.success(), "{second:?}");
    let taken = fs::read(name.join("config.toml")).unwrap();
    inject::wake(&first);
    assert!(first.wait().unwrap().success());
    assert_eq!(fs::read(name.join("config.toml")).unwrap(), taken);
    assert!(
        name.with_file_name("default-2")
            .join("final.safetensors")
            .exists()
    );
}

/// Weights may come from anybody.
#[test]
fn position_that_no_run_has_is_refused() {
    type Change = fn(&mut Position);
    let fixture = Fixture::new();
    let last = fixture.run().join(LAST);
    let sound = Checkpoint::load(&last).unwrap();
    let network = sound.network(tch::Device::Cpu).unwrap();
    let forge = |change: Change| {
        let mut about = sound.about.clone();
        change(&mut about.position);
        checkpoint::save(&last, &about, &network, Vec::new()).unwrap();
    };
    let refused = |args: &[&str], says: &str| {
        let output = fixture.tinyres(args).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        assert!(
            error.contains(says) && !error.contains("panicked"),
            "{args:?}: {error}"
        );
    };
    let size: [(Change, &str); 3] = [
        (|at| at.size = 0, "size is 0 pixels, expected 1 to 4096"),
        (
            |at| at.size = u32::MAX,
            "size is 4294967295 pixels, expected 1 to 4096",
        ),
        (
            |at| at.elapsed = Duration::MAX,
            "elapsed is 18446744073709551615 s",
        ),
    ];
    let last = last.to_str().unwrap();
    for (change, says) in size {
        forge(change);
        refused(&["eval", last, "shards"], says);
        refused(&["predict", last, "shards"], says);
        refused(&["export", last, "--to", "onnx", "-o", "exported"], says);
        refused(&["train", "--resume", "run"], says);
    }
    let step: [Change; 4] = [
        |at| at.batch = usize::MAX,
        |at| at.batch = 3,
        |at| at.step = u64::MAX,
        |at| at.epoch = u32::MAX,
    ];
    for change in step {
        forge(change);
        refused(
            &["train", "--resume", "run"],
            "is at a step that this run does not come to",
        );
    }
}

#[test]
fn interrupted_calls_and_short_writes_are_not_noticed() {
    let fixture = Fixture::new();
    for inject in ["EINTR:*", "short:*"] {
        let run = inject::run(&mut fixture.train(), &fixture.run(), inject);
        assert!(run.output.status.success(), "{inject}: {run:?}");
        assert!(
            run.calls
                .iter()
                .any(|call| call.tampered && call.name == "write")
        );
        assert!(fixture.final_weights() == fixture.weights, "{inject}");
        Checkpoint::load(&fixture.run().join(LAST)).unwrap();
    }
}

/// The pixels of a train shard are read by the threads that gather them, those of a val shard by
/// libtorch, from the map itself.
#[test]
fn a_shard_cut_while_it_is_trained_on_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["train-00000.bin", "val-00000.bin"] {
        let shards = dir.path().join(file).with_extension("");
        fs::create_dir(&shards).unwrap();
        common::write(&shards, &common::wnids(4), 32, 8);
        let output = dir.path().join("run").join(file);
        let mut child = Command::new(assert_cmd::cargo::cargo_bin!("tinyres-torch"));
        child.arg("train").arg(&shards).arg("--output").arg(&output);
        child.args(["--epochs", "10000", "--batch", "16", "--device", "cpu"]);
        let mut child = (child.stdout(Stdio::null()).stderr(Stdio::piped()))
            .spawn()
            .unwrap();
        // It has seen every pixel by the end of the first epoch.
        let metrics = output.join("metrics.jsonl");
        while !fs::read_to_string(&metrics).is_ok_and(|text| text.contains("\"epoch\",")) {
            assert_eq!(child.try_wait().unwrap(), None);
            std::thread::sleep(Duration::from_millis(10));
        }
        let path = shards.join(file);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(4096)
            .unwrap();
        let output: Output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        expect_fault(&output, &path);
    }
}

fn expect_fault(output: &Output, shard: &Path) {
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    let expected = format!(
        "error: {}: its bytes can no longer be read: ",
        shard.display()
    );
    assert!(error.contains(&expected), "{error}");
}

/// The root crate's tests look at all ways to be wrong; these programs say the same.
#[test]
fn wrong_sets_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let tinyres = |args: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tinyres-torch"));
        command.current_dir(dir.path()).args(args).output().unwrap()
    };
    let set = |name: &str| {
        fs::create_dir(dir.path().join(name)).unwrap();
        sets::write(&dir.path().join(name), sets::SPEC);
    };
    set("whole");
    let train = ["--batch", "8", "--max-steps", "1", "--device", "cpu"];
    let trained = tinyres(&[&["train", "whole", "-o", "run"], &train[..]].concat());
    assert!(trained.status.success(), "{trained:?}");
    for name in ["doubled", "of another set", "no manifest"] {
        let wrong = sets::CORRUPTIONS
            .iter()
            .find(|wrong| wrong.name == name)
            .unwrap();
        set(name);
        (wrong.make)(&dir.path().join(name));
        let says = match name {
            // It might be a source.
            "no manifest" => "no manifest: not a packed set, since it has no dataset.json",
            _ => wrong.says,
        };
        let train = [&["train", name, "-o", "none"], &train[..]].concat();
        let eval = ["eval", "run", name, "--split", "train"];
        for args in [&train[..], &eval] {
            let output = tinyres(args);
            assert_eq!(output.status.code(), Some(1), "{args:?}");
            assert!(output.stdout.is_empty(), "{args:?}");
            let error = String::from_utf8(output.stderr).unwrap();
            assert!(error.contains(says), "{args:?}: {error}");
            assert!(!dir.path().join("none").exists(), "{args:?}");
        }
    }
}
