//! A small set, a run on it that nothing disturbs, and checks of what a disturbed one leaves.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tinyres_torch::run::checkpoint::Checkpoint;

use super::common;
use super::inject::{self, Call};

pub const LAST: &str = "last.safetensors";

/// A set, a run on it that nothing disturbs, and a place for one that something does.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    /// Its final weights.
    pub weights: Vec<u8>,
    /// Its calls on the run's directory.
    pub calls: Vec<Call>,
    pub took: Duration,
}

impl Fixture {
    pub fn new() -> Self {
        // Checkpoints are large, and nothing here is about how long they take to get to a disk.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        fs::create_dir(dir.path().join("shards")).unwrap();
        common::write(&dir.path().join("shards"), &common::wnids(4), 32, 8);
        let mut fixture = Self {
            dir,
            weights: Vec::new(),
            calls: Vec::new(),
            took: Duration::ZERO,
        };
        let began = Instant::now();
        let run = inject::run(&mut fixture.train(), &fixture.run(), "");
        assert!(run.output.status.success(), "{run:?}");
        fixture.took = began.elapsed();
        fixture.calls = run.calls;
        fixture.weights = fixture.final_weights();
        fixture
    }

    pub fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub fn tinyres(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tinyres-torch"));
        // Whatever is set keeps the program from starting again to set it.
        command.env("GOMP_SPINCOUNT", "20000");
        command.current_dir(self.dir.path()).args(args);
        // Most of a short run's time, and nothing here is about them.
        if matches!(args, ["train" | "eval", ..]) {
            command.args(["--pictures", "off"]);
        }
        command
    }

    /// A run of two epochs of two steps, saved after each.
    pub fn train(&self) -> Command {
        self.train_for("2")
    }

    pub fn train_for(&self, epochs: &str) -> Command {
        if self.run().exists() {
            fs::remove_dir_all(self.run()).unwrap();
        }
        let mut command = self.tinyres(&["train", "shards", "--output", "run", "--epochs", epochs]);
        command.args(["--batch", "16", "--threads", "1", "--device", "cpu"]);
        command
    }

    pub fn final_weights(&self) -> Vec<u8> {
        fs::read(self.run().join("final.safetensors")).unwrap()
    }

    /// What a run must leave: nothing yet, or one that goes on to the very weights of a run that
    /// was never disturbed.
    pub fn check(&self) -> Result<&'static str, String> {
        let last = self.run().join(LAST);
        let saved = last.exists();
        if saved {
            Checkpoint::load(&last).map_err(|error| error.to_string())?;
        }
        let resumed = self
            .tinyres(&["train", "--resume", "run"])
            .output()
            .unwrap();
        if !self.run().join("config.toml").exists() {
            let error = String::from_utf8_lossy(&resumed.stderr);
            return match resumed.status.code() {
                Some(1) if error.contains("run holds no run with a config.toml") => Ok("no run"),
                _ => Err(format!("{resumed:?}")),
            };
        }
        if !resumed.status.success() {
            return Err(format!("it does not go on: {resumed:?}"));
        }
        if self.final_weights() != self.weights {
            return Err("it goes on to other weights".into());
        }
        Ok(if saved { "resumed" } else { "begun anew" })
    }
}

/// The number in a variable of the environment.
pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().unwrap())
}
