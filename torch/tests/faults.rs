//! `tinyres train` when the system fails: calls on the run's directory fail in turn, while a run begins and while one goes
//! on. `TINYRES_TRAIN_FAULTS` sets how many calls fail, `all` for each of them; `TINYRES_CRASH_SEED` sets which.
#![cfg(feature = "torch")]

mod common;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "../../tests/common/inject.rs"]
mod inject;

use std::fs;
use std::path::Path;
use std::process::Command;

use fixture::{Fixture, LAST, number};
use inject::{Call, Tampered};
use tinyres_format::{Draws, Stream};
use tinyres_torch::run::checkpoint::Checkpoint;

/// The training that fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    /// One that begins.
    New,
    /// One that goes on from the checkpoint of its first epoch, where a kill has left an unfinished file.
    Resumed,
}

/// The error's name, what the system says of it, and whether all calls after the first that fails do, too.
type Fault = (&'static str, &'static str, bool);

const FAULTS: [Fault; 4] = [
    ("ENOSPC", "No space left on device", false),
    ("EIO", "Input/output error", false),
    ("ENOSPC", "No space left on device", true),
    ("EIO", "Input/output error", true),
];

struct Scene {
    fixture: Fixture,
    start: Start,
    /// The calls of a training that nothing disturbs.
    calls: usize,
}

impl Scene {
    fn new(start: Start) -> Self {
        let mut scene = Self {
            fixture: Fixture::new(),
            start,
            calls: 0,
        };
        if start == Start::Resumed {
            let saves =
                |call: &Call| call.name == "rename" && call.path.ends_with(".last.safetensors.tmp");
            let second = 1 + scene.fixture.calls.iter().rposition(saves).unwrap();
            let run = scene.fixture.run();
            inject::run(&mut scene.fixture.train(), &run, &format!("kill:{second}"));
            let saved = Checkpoint::load(&run.join(LAST)).unwrap();
            assert_eq!(saved.about.position.epoch, 1);
            fs::rename(&run, scene.stopped()).unwrap();
        }
        let run = inject::run(&mut scene.command(), &scene.fixture.run(), "");
        assert!(run.output.status.success(), "{run:?}");
        scene.calls = run.calls.len();
        assert!(scene.calls > 20, "{run:?}");
        scene
    }

    /// The directory of the run that goes on, as it was before.
    fn stopped(&self) -> std::path::PathBuf {
        self.fixture.dir.path().join("stopped")
    }

    /// The training, with nothing there that another has left.
    fn command(&self) -> Command {
        let command = self.fixture.train();
        if self.start == Start::New {
            return command;
        }
        fs::create_dir(self.fixture.run()).unwrap();
        for file in fs::read_dir(self.stopped()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), self.fixture.run().join(file.file_name())).unwrap();
        }
        self.fixture.tinyres(&["train", "--resume", "run"])
    }

    /// Fails one call, and returns what is wrong after that.
    fn fails(&self, (error, reason, for_good): Fault, number: u64) -> Option<String> {
        let plus = if for_good { "+" } else { "" };
        let inject = format!("{error}:{number}{plus}");
        let run = inject::run(&mut self.command(), &self.fixture.run(), &inject);
        self.check(&run, reason, for_good)
            .and_then(|()| self.fixture.check().map(drop))
            .err()
            .map(|wrong| format!("{:?}, {inject}: {wrong}\n{run:?}", self.start))
    }

    /// A failure costs a file, which is said, or it is an error.
    fn check(&self, run: &Tampered, reason: &str, for_good: bool) -> Result<(), String> {
        let said = String::from_utf8_lossy(&run.output.stderr);
        let mut tampered = run.calls.iter().filter(|call| call.tampered);
        let metrics = self.fixture.run().join("metrics.jsonl");
        let metrics = fs::read_to_string(metrics).unwrap_or_default();
        match run.output.status.code() {
            Some(0) => {
                if self.fixture.final_weights() != self.fixture.weights {
                    return Err("it has trained other weights".into());
                }
                let warned = said
                    .lines()
                    .any(|line| line.starts_with("warning: ") && line.contains(reason));
                if !warned && !tampered.all(is_needless) {
                    return Err("nothing is said of the failure".into());
                }
            }
            Some(1) => {
                let last = said.lines().last().unwrap_or_default();
                if !last.starts_with("error: ") || !last.contains(reason) {
                    return Err("the error does not give the reason".into());
                }
                let trained = !metrics.is_empty() || self.fixture.run().join(LAST).exists();
                if !trained && !for_good && self.fixture.run().exists() {
                    return Err("a run is left of which nothing was trained".into());
                }
            }
            code => return Err(format!("exit code {code:?}")),
        }
        // Full disks cut lines; only the last one may be.
        let whole = metrics.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            serde_json::from_str::<serde_json::Value>(line)
                .map_err(|error| format!("{line}: {error}"))?;
        }
        Ok(())
    }
}

/// True if the call may fail without a word: it removes what a kill has left, or what is not needed any more.
fn is_needless(call: &Call) -> bool {
    let unfinished = call.path.extension() == Some("tmp".as_ref());
    unfinished && call.name == "unlink" || call.name == "fsync" && call.path == Path::new("")
}

fn some_calls_fail(start: Start) {
    let scene = Scene::new(start);
    let calls = scene.calls as u64;
    let faults: Vec<(Fault, u64)> =
        if std::env::var("TINYRES_TRAIN_FAULTS").is_ok_and(|count| count == "all") {
            (1..=calls)
                .flat_map(|call| FAULTS.map(|fault| (fault, call)))
                .collect()
        } else {
            let draws = Draws::new(
                number("TINYRES_CRASH_SEED", 1),
                Stream::Sample,
                start as u64,
            );
            let rounds = 0..number("TINYRES_TRAIN_FAULTS", 8);
            let fault = |round| FAULTS[usize::try_from(round).unwrap() % FAULTS.len()];
            rounds
                .map(|round| (fault(round), 1 + draws.below(round, calls)))
                .collect()
        };
    let wrong: Vec<_> = (faults.iter())
        .filter_map(|&(fault, call)| scene.fails(fault, call))
        .collect();
    println!("{start:?}: {} failures of {calls} calls", faults.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn failed_call_while_a_run_begins_is_an_error_or_costs_a_file() {
    some_calls_fail(Start::New);
}

#[test]
fn failed_call_while_a_run_goes_on_is_an_error_or_costs_a_file() {
    some_calls_fail(Start::Resumed);
}
