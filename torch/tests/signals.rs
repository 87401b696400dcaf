//! `tinyres train` and the signals that ask it to stop.
#![cfg(feature = "torch")]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tinyres_torch::run::checkpoint::Checkpoint;

const ALL: [&str; 3] = ["HUP", "INT", "TERM"];

/// A training without an end, started by `starter`, that has taken a step in `dir/run`.
fn begun(dir: &Path, starter: &[&str], flags: &[&str], stderr: Stdio) -> Child {
    let (program, first) = starter.split_first().unwrap();
    let mut command = Command::new(program);
    command.args(first).current_dir(dir);
    command.arg(assert_cmd::cargo::cargo_bin!("tinyres-torch"));
    command.args(["train", "shards", "-o", "run", "--epochs", "1000000"]);
    command.args(["--batch", "16", "--threads", "1", "--device", "cpu"]);
    command.args(flags);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    wait_for_step(&mut child, dir, 1);
    child
}

/// Waits until the metrics have `lines` lines more.
fn wait_for_step(child: &mut Child, dir: &Path, lines: usize) {
    let count =
        || fs::read_to_string(dir.join("run/metrics.jsonl")).map_or(0, |text| text.lines().count());
    let before = count();
    while count() < before + lines {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{signal}"), &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

fn set() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("shards")).unwrap();
    common::write(&dir.path().join("shards"), &common::wnids(4), 32, 8);
    dir
}

fn saved_step(dir: &Path) -> u64 {
    let last = Checkpoint::load(&dir.join("run/last.safetensors")).unwrap();
    last.about.position.step
}

#[test]
fn each_signal_lets_a_training_save_and_stop() {
    for signal in ALL {
        let dir = set();
        // Whatever the tests themselves were started to ignore.
        let mut child = begun(
            dir.path(),
            &["env", "--default-signal=HUP,INT,TERM"],
            &[],
            Stdio::null(),
        );
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signal}");
        assert!(saved_step(dir.path()) > 0, "{signal}");
    }
}

#[test]
fn signals_that_a_training_was_started_to_ignore_stay_ignored() {
    for (starter, ignored) in [
        (&["nohup"][..], &["HUP"][..]),
        (&["sh", "-c", "trap '' INT; exec \"$@\"", "sh"], &["INT"]),
        (
            &["sh", "-c", "trap '' HUP INT; exec \"$@\"", "sh"],
            &["HUP", "INT"],
        ),
    ] {
        let dir = set();
        let mut child = begun(dir.path(), starter, &[], Stdio::null());
        for signal in ignored {
            send(&child, signal);
            wait_for_step(&mut child, dir.path(), 3);
        }
        send(&child, "TERM");
        assert_eq!(child.wait().unwrap().code(), Some(130), "{starter:?}");
        assert!(saved_step(dir.path()) > 1, "{starter:?}");
    }
}

/// Nobody reads the notice that follows the first one.
#[test]
fn further_signal_ends_a_training_whose_stderr_is_full() {
    let dir = set();
    let (unread, mut full) = std::io::pipe().unwrap();
    full.write_all(&[0; 1 << 16]).unwrap();
    let starter = ["env", "--default-signal=HUP,INT,TERM"];
    let mut child = begun(dir.path(), &starter, &["--quiet"], full.into());
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        send(&child, "TERM");
        std::thread::sleep(Duration::from_millis(20));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it does not end");
    };
    assert_eq!(status.code(), Some(130));
    drop(unread);
}
