//! Two processes whose calls on files are interleaved as a seed says. Each is halted before some of its calls; who begins,
//! whose turn it is, and whether one is killed is drawn. The same draws give the same schedule.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;
use tinyres_format::Draws;

use super::inject::{tamper, wake};

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stderr: String,
}

impl Ended {
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }

    /// True for success, false for an error that says what is wrong. Fails for any other end but a kill.
    pub fn succeeded(&self) -> Result<bool, String> {
        match self.status.code() {
            Some(0) => Ok(true),
            Some(1) if self.stderr.lines().any(|line| line.starts_with("error: ")) => Ok(false),
            None if self.was_killed() => Ok(false),
            _ => Err(format!("it ended with {self:?}")),
        }
    }
}

enum State {
    Halted,
    Running,
    Ended(ExitStatus),
}

/// A process that halts before some of its calls.
struct Actor {
    child: Child,
    stderr: NamedTempFile,
    _log: NamedTempFile,
}

impl Actor {
    fn start(command: &mut Command, dir: &Path, stops: &str) -> Self {
        let (log, stderr) = (NamedTempFile::new().unwrap(), NamedTempFile::new().unwrap());
        let command = tamper(command, dir, stops, log.path());
        command
            .stdout(std::process::Stdio::null())
            .stderr(stderr.reopen().unwrap());
        Self {
            child: command.spawn().unwrap(),
            stderr,
            _log: log,
        }
    }

    fn state(&mut self) -> State {
        if let Some(status) = self.child.try_wait().unwrap() {
            return State::Ended(status);
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        if stat.contains(") T ") {
            State::Halted
        } else {
            State::Running
        }
    }

    fn resume(&self) {
        wake(&self.child);
    }

    /// Waits until it halts, ends, or seems to wait for the other one.
    fn settle(&mut self) -> State {
        let began = Instant::now();
        loop {
            match self.state() {
                State::Running if began.elapsed() < Duration::from_secs(10) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                state => return state,
            }
        }
    }
}

/// Runs both commands to their ends. Those of their calls on `dir` before which they halt are drawn from the first so many of
/// each.
pub fn interleave(
    mut commands: [Command; 2],
    dir: &Path,
    calls: [u64; 2],
    draws: &Draws,
) -> [Ended; 2] {
    let mut at = 0;
    let mut draw = |below: u64| {
        at += 1;
        draws.below(at, below)
    };
    let stops = calls.map(|calls| {
        let count = 1 + draw(6);
        let mut stops: Vec<_> = (0..count).map(|_| 1 + draw(calls)).collect();
        stops.sort_unstable();
        stops.dedup();
        let stops: Vec<_> = stops.iter().map(u64::to_string).collect();
        format!("stop:{}", stops.join(","))
    });
    let kills = draw(2) == 0;
    let mut actors: [Option<Actor>; 2] = [None, None];
    let mut ended: [Option<ExitStatus>; 2] = [None, None];
    let began = Instant::now();
    while ended.contains(&None) {
        assert!(
            began.elapsed() < Duration::from_secs(300),
            "both wait for each other"
        );
        let open: Vec<_> = (0..2).filter(|&one| ended[one].is_none()).collect();
        let turn = open[usize::try_from(draw(open.len() as u64)).unwrap()];
        let actor = match &mut actors[turn] {
            None => actors[turn].insert(Actor::start(&mut commands[turn], dir, &stops[turn])),
            Some(actor) => {
                if kills && draw(6) == 0 {
                    actor.child.kill().unwrap();
                } else {
                    actor.resume();
                }
                actor
            }
        };
        if let State::Ended(status) = actor.settle() {
            ended[turn] = Some(status);
        }
    }
    let mut both = actors.into_iter().zip(ended).map(|(actor, status)| Ended {
        status: status.unwrap(),
        stderr: fs::read_to_string(actor.unwrap().stderr.path()).unwrap(),
    });
    [both.next().unwrap(), both.next().unwrap()]
}
