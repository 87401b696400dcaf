//! `tinyres train` as several processes: the same run as one, and an end with a name for each fault.
//! `TINYRES_CRASH_ROUNDS` sets how often a rank is killed, `TINYRES_CRASH_SEED` when.
#![cfg(feature = "torch")]

mod common;
#[path = "../../tests/common/skip.rs"]
mod skip;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tinyres_format::{Draws, Stream};
use tinyres_torch::run::checkpoint::Checkpoint;

/// The longest that any of these runs may take, on a busy machine.
const LONGEST: Duration = Duration::from_secs(400);

/// A set of 48 images to train on, which are three batches of 16, and a place for runs.
struct Place(tempfile::TempDir);

/// Flags of each run: four groups of four images.
const FLAGS: &[&str] = &[
    "--epochs",
    "2",
    "--batch",
    "16",
    "--ghost-batch",
    "4",
    "--device",
    "cpu",
    "--threads",
    "1",
    "--precision",
    "f32",
    "--sizes",
    "full",
];

/// `first`, then `more`, then those of [`FLAGS`] that are not in it.
fn with<'a>(first: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let own = FLAGS.chunks(2).filter(|flag| !more.contains(&flag[0]));
    let own: Vec<_> = own.flatten().copied().collect();
    [first, more, &own].concat()
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let place = Self(dir.unwrap());
        fs::create_dir(place.path("shards")).unwrap();
        common::write(&place.path("shards"), &common::wnids(4), 48, 20);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn program(&self, args: &[&str]) -> Command {
        let mut command = Command::new("env");
        // Whatever the tests themselves were started to ignore.
        command.arg("--default-signal=HUP,INT,TERM,USR1");
        command.arg(assert_cmd::cargo::cargo_bin!("tinyres-torch"));
        command.current_dir(self.0.path()).args(args);
        for name in [
            "RANK",
            "WORLD_SIZE",
            "LOCAL_WORLD_SIZE",
            "MASTER_ADDR",
            "MASTER_PORT",
        ] {
            command.env_remove(name);
        }
        command
            // Whatever is set keeps the program from starting again to set it.
            .env("GOMP_SPINCOUNT", "1000")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts rank `rank` of `size`, which meet at `port`.
    fn rank(&self, rank: usize, size: usize, port: u16, args: &[&str]) -> Child {
        let mut command = self.program(args);
        command.env("RANK", rank.to_string());
        command.env("WORLD_SIZE", size.to_string());
        command.env("LOCAL_WORLD_SIZE", size.to_string());
        command.env("MASTER_ADDR", "127.0.0.1");
        command.env("MASTER_PORT", port.to_string());
        command.spawn().unwrap()
    }

    /// Starts `size` ranks, or one process alone.
    fn start(&self, size: usize, args: &[&str]) -> Team {
        let port = free_port();
        let ranks = match size {
            1 => vec![self.program(args).spawn().unwrap()],
            _ => (0..size)
                .map(|rank| self.rank(rank, size, port, args))
                .collect(),
        };
        Team(ranks)
    }

    fn train(&self, size: usize, run: &str, more: &[&str]) -> Team {
        self.start(size, &with(&["train", "shards", "-o", run], more))
    }

    /// Figures of each step and epoch of a run that do not depend on its speed.
    fn figures(&self, run: &str) -> Vec<Value> {
        let text = String::from_utf8(self.read(&format!("{run}/metrics.jsonl"))).unwrap();
        let lines = text.lines().map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let figures = line.as_object_mut().unwrap();
            for of_speed in ["images_per_second", "wait_share", "took"] {
                figures.remove(of_speed);
            }
            line
        });
        lines.collect()
    }

    fn saved_step(&self, run: &str) -> u64 {
        let last = Checkpoint::load(&self.path(&format!("{run}/last.safetensors"))).unwrap();
        last.about.position.step
    }
}

/// Lines of the metrics of `run`, which may not be there yet.
fn lines(run: &Path) -> usize {
    let text = fs::read_to_string(run.join("metrics.jsonl"));
    text.map_or(0, |text| text.lines().count())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Processes that none outlives.
struct Team(Vec<Child>);

/// How a process has ended.
struct Ended {
    code: Option<i32>,
    stderr: String,
}

impl Team {
    fn signal(&self, rank: usize, signal: &str) {
        let process = self.0[rank].id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &process])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Waits until `run` has figures of `lines` steps and epochs.
    fn wait_for_lines(&mut self, run: &Path, lines: usize) {
        let began = Instant::now();
        while self::lines(run) < lines {
            assert!(began.elapsed() < LONGEST, "no step is taken");
            for child in &mut self.0 {
                if child.try_wait().unwrap().is_some() {
                    let ended: Vec<_> = self.wait().into_iter().map(|one| one.stderr).collect();
                    panic!("a rank has ended: {ended:?}");
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end of all of them.
    fn wait(&mut self) -> Vec<Ended> {
        let began = Instant::now();
        let ended = self.0.iter_mut().map(|child| {
            // A test's output is short enough for the pipes.
            while child.try_wait().unwrap().is_none() {
                assert!(began.elapsed() < LONGEST, "a rank does not end");
                std::thread::sleep(Duration::from_millis(20));
            }
            let mut stderr = String::new();
            let from = child.stderr.as_mut().unwrap();
            std::io::Read::read_to_string(from, &mut stderr).unwrap();
            Ended {
                code: child.wait().unwrap().code(),
                stderr,
            }
        });
        ended.collect()
    }

    fn succeed(mut self) {
        for (rank, ended) in self.wait().iter().enumerate() {
            assert_eq!(ended.code, Some(0), "rank {rank}: {}", ended.stderr);
        }
    }

    /// Waits for the end of all, each with exit code 1, but those that were killed. Returns what rank 0 says, or another
    /// one if that was killed.
    fn fail(mut self, killed: Option<usize>) -> String {
        let ended = self.wait();
        for (rank, one) in ended.iter().enumerate() {
            let expected = (Some(rank) != killed).then_some(1);
            assert_eq!(one.code, expected, "rank {rank}: {}", one.stderr);
        }
        let speaks = usize::from(killed == Some(0));
        ended[speaks].stderr.clone()
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended is not signalled.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn any_number_of_ranks_trains_the_same_bits() {
    let place = Place::new();
    let everything = [
        "--optimizer",
        "muon",
        "--boxes",
        "true",
        "--ema",
        "0.9",
        "--clip-grad",
        "1",
        "--flip",
        "true",
        "--shift",
        "2",
    ];
    let mixed = [
        "--optimizer",
        "sgd",
        "--mixup",
        "0.4",
        "--cutmix",
        "1",
        "--mix-probability",
        "0.7",
        "--erasing",
        "0.3",
    ];
    let tracked = ["--optimizer", "muon", "--track", "true"];
    for (name, flags) in [
        ("everything", &everything[..]),
        ("mixed", &mixed),
        ("tracked", &tracked),
    ] {
        let run = |size: usize| format!("{name}-{size}");
        let margins = (name == "tracked").then_some("margins/epoch-0002.npy");
        for size in 1..=4 {
            place.train(size, &run(size), flags).succeed();
            let weights = ["final.safetensors", "best.safetensors"];
            for file in weights.into_iter().chain(margins) {
                let [one, several] =
                    [1, size].map(|size| place.read(&format!("{}/{file}", run(size))));
                assert!(one == several, "{name}: {file} of {size} ranks");
            }
            assert_eq!(
                place.figures(&run(size)),
                place.figures(&run(1)),
                "{name}, {size} ranks"
            );
        }
    }
}

#[test]
fn a_checkpoint_knows_no_ranks() {
    // Each rank has the whole state of Adam, and a part of Muon's until it is saved.
    for optimizer in ["adam", "muon"] {
        let place = Place::new();
        let flags = ["--optimizer", optimizer, "--epochs", "12"];
        place.train(1, "whole", &flags).succeed();
        let mut first = place.train(4, "run", &flags);
        let mut sizes = [3, 1, 2].into_iter();
        for signal in ["TERM", "USR1", "HUP"] {
            first.wait_for_lines(&place.path("run"), lines(&place.path("run")) + 5);
            let last = first.0.len() - 1;
            first.signal(last, signal);
            let ended = first.wait();
            let codes: Vec<_> = ended.iter().map(|one| one.code).collect();
            assert_eq!(
                codes,
                vec![Some(130); last + 1],
                "{optimizer}, {signal}: {}",
                ended[0].stderr
            );
            assert!(place.saved_step("run") > 0);
            first = place.start(sizes.next().unwrap(), &["train", "--resume", "run"]);
        }
        first.succeed();
        assert!(place.read("run/final.safetensors") == place.read("whole/final.safetensors"));
        assert_eq!(place.figures("run"), place.figures("whole"));
    }
}

#[test]
fn signals_to_all_at_once_save_and_stop() {
    let place = Place::new();
    let mut team = place.train(2, "run", &["--epochs", "100000"]);
    team.wait_for_lines(&place.path("run"), 1);
    for signal in ["TERM", "HUP"] {
        for rank in 0..2 {
            team.signal(rank, signal);
        }
    }
    let ended = team.wait();
    for (rank, one) in ended.iter().enumerate() {
        assert_eq!(one.code, Some(130), "rank {rank}: {}", one.stderr);
        // Rank 0 alone says so.
        let told = one.stderr.matches("stopping after this step").count();
        assert_eq!(told, usize::from(rank == 0), "rank {rank}: {}", one.stderr);
    }
    assert!(place.saved_step("run") > 0);
}

#[test]
fn a_rank_that_differs_is_refused_by_name_before_the_run_is_begun() {
    let place = Place::new();
    let other = place.path("other");
    fs::create_dir(&other).unwrap();
    common::write(&other, &common::wnids(4), 64, 20);
    for (args, said) in [
        (
            vec!["train", "shards", "--lr", "0.5"],
            "rank 1 (HOST): --lr is 0.5, but not given on rank 0",
        ),
        (
            vec!["train", "other"],
            "rank 1 (HOST): other holds another data set than rank 0 has",
        ),
        (vec!["train", "nothing"], "rank 1 (HOST): "),
    ] {
        let port = free_port();
        let first = with(&["train", "shards", "-o", "run"], &[]);
        let second = with(&args, &["-o", "run"]);
        let team = Team(vec![
            place.rank(0, 2, port, &first),
            place.rank(1, 2, port, &second),
        ]);
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let error = team.fail(None);
        let said = said.replace("HOST", host.trim());
        assert!(error.contains(&said), "{said}: {error}");
        assert!(!place.path("run").exists(), "{said}");
    }
}

#[test]
fn a_meeting_that_fails_says_why() {
    let place = Place::new();
    let args = with(
        &["train", "shards", "-o", "run", "--rank-timeout", "3s"],
        &[],
    );
    let start = |ranks: &[usize], size| {
        let port = free_port();
        Team(
            ranks
                .iter()
                .map(|&rank| place.rank(rank, size, port, &args))
                .collect(),
        )
    };

    let error = start(&[0, 2], 4).fail(None);
    assert!(
        error.contains("ranks 1 and 3 of 4 did not come to 127.0.0.1:"),
        "{error}"
    );
    assert!(error.contains("within 3s"), "{error}");

    let error = start(&[1], 2).fail(None);
    assert!(
        error.contains("rank 1 found no rank 0 at 127.0.0.1:"),
        "{error}"
    );

    let mut twice = start(&[0, 1, 1], 3);
    let all: String = twice.wait().into_iter().map(|one| one.stderr).collect();
    assert!(
        all.contains("two processes say that they are rank 1"),
        "{all}"
    );

    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Team(vec![place.rank(0, 2, port, &args)]).fail(None);
    assert!(
        error.contains(&format!(
            "port {port}, where the ranks are to meet, is in use"
        )),
        "{error}"
    );

    // A program that says nothing to whoever connects.
    let error = Team(vec![place.rank(1, 2, port, &args)]).fail(None);
    assert!(error.contains("does not answer"), "{error}");

    let whole = with(&["train", "shards", "-o", "run"], &["--ghost-batch", "8"]);
    let error = place.start(3, &whole).fail(None);
    assert!(
        error.contains("3 ranks have 2 groups of images to train"),
        "{error}"
    );
    assert!(error.contains("--ghost-batch 5"), "{error}");

    assert!(!place.path("run").exists());
}

/// Which rank is gone is said by the others, and the run goes on to the bits of one that nothing disturbed.
#[test]
fn a_rank_that_dies_is_named_and_the_run_goes_on() {
    let place = Place::new();
    let flags = ["--optimizer", "sgd", "--epochs", "10"];
    place.train(1, "whole", &flags).succeed();
    for killed in 0..3 {
        let run = format!("run-{killed}");
        let mut team = place.train(3, &run, &flags);
        // The first epoch is saved.
        team.wait_for_lines(&place.path(&run), 6);
        team.signal(killed, "KILL");
        let began = Instant::now();
        let error = team.fail(Some(killed));
        // Not a matter of speed: a watch that finds nothing out takes 30 s and more.
        assert!(
            began.elapsed() < Duration::from_secs(35),
            "rank {killed}: {error}"
        );
        assert!(
            error.contains(&format!("rank {killed} (")),
            "rank {killed}: {error}"
        );
        place.start(2, &["train", "--resume", &run]).succeed();
        let [got, want] =
            [&run, "whole"].map(|run| place.read(&format!("{run}/final.safetensors")));
        assert!(got == want, "rank {killed}");
    }
}

/// Whatever the others do at that moment: compute, send, or begin to receive.
#[test]
fn a_rank_that_dies_at_any_moment_of_a_step_is_named() {
    let place = Place::new();
    let number =
        |name, default| std::env::var(name).map_or(default, |value| value.parse::<u64>().unwrap());
    let draws = Draws::new(number("TINYRES_CRASH_SEED", 1), Stream::Sample, 0);
    for round in 0..number("TINYRES_CRASH_ROUNDS", 4) {
        let (run, killed) = (format!("run-{round}"), usize::from(round % 2 == 0));
        let mut team = place.train(2, &run, &["--epochs", "100000"]);
        team.wait_for_lines(&place.path(&run), 1);
        std::thread::sleep(Duration::from_micros(draws.below(round, 1_000_000)));
        team.signal(killed, "KILL");
        let error = team.fail(Some(killed));
        let said = format!("rank {killed} (");
        assert!(error.contains(&said), "round {round}: {error}");
    }
}

#[test]
fn a_rank_that_is_stopped_is_named() {
    let place = Place::new();
    for stopped in 0..2 {
        let run = format!("run-{stopped}");
        let mut team = place.train(2, &run, &["--epochs", "100000"]);
        team.wait_for_lines(&place.path(&run), 2);
        team.signal(stopped, "STOP");
        let began = Instant::now();
        let other = 1 - stopped;
        while team.0[other].try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(60), "rank {stopped}");
            std::thread::sleep(Duration::from_millis(50));
        }
        team.signal(stopped, "KILL");
        let ended = team.wait();
        assert_eq!(ended[other].code, Some(1));
        let error = &ended[other].stderr;
        let said = format!("rank {stopped} (");
        assert!(
            error.contains(&said) && error.contains("has not answered for 20 s"),
            "{error}"
        );
    }
}

#[test]
fn other_commands_do_not_run_as_several_processes() {
    let place = Place::new();
    for args in [
        &["predict", "run", "x.png"][..],
        &["export", "run", "--to", "onnx", "-o", "x.onnx"],
    ] {
        let mut team = Team(vec![place.rank(1, 2, 9, args)]);
        let ended = team.wait();
        let error = &ended[0].stderr;
        let said = format!("`tinyres {}` runs as one process", args[0]);
        assert!(
            ended[0].code == Some(1) && error.contains(&said),
            "{args:?}: {error}"
        );
    }
}

#[test]
fn any_number_of_ranks_evaluates_to_the_same_bytes() {
    let place = Place::new();
    let flags = ["--boxes", "--epochs", "1"];
    place.train(1, "run", &flags).succeed();
    let eval = |size: usize, weights: &str| {
        let saved = format!("saved-{size}");
        let args = [
            "eval", weights, "shards", "--split", "train", "--batch", "5",
        ];
        let more = ["--features", "--device", "cpu", "--threads", "1", "--json"];
        let pictures = ["--pictures", "off", "--save", &saved];
        place.start(size, &[&args[..], &more, &pictures].concat())
    };
    let files = |size: usize| {
        let names = ["train.parquet", "train.logits.npy", "train.features.npy"];
        names.map(|name| place.read(&format!("saved-{size}/{name}")))
    };
    for size in [1, 2, 3] {
        let mut team = eval(size, "run");
        let ended = team.wait();
        assert!(
            ended.iter().all(|one| one.code == Some(0)),
            "{}",
            ended[0].stderr
        );
        let mut printed = String::new();
        for rank in &mut team.0 {
            let from = rank.stdout.as_mut().unwrap();
            std::io::Read::read_to_string(from, &mut printed).unwrap();
        }
        // One line: that of rank 0.
        let scores: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(scores["images"], 48);
        assert!(files(size) == files(1), "{size} ranks");
    }
    place
        .train(1, "other", &["--boxes", "--epochs", "1", "--seed", "7"])
        .succeed();
    let port = free_port();
    let ranks = ["run", "other"].into_iter().enumerate();
    let ranks = ranks
        .map(|(rank, run)| place.rank(rank, 2, port, &["eval", run, "shards", "--device", "cpu"]));
    let team = Team(ranks.collect());
    let error = team.fail(None);
    assert!(
        error.contains("rank 1 (") && error.contains("its weights are not those of rank 0"),
        "{error}"
    );
}

/// A rank that is stopped half of the time is slow.
#[test]
fn a_rank_that_others_wait_for_is_named() {
    let place = Place::new();
    let mut team = place.train(2, "run", &["--epochs", "100000"]);
    team.wait_for_lines(&place.path("run"), 2);
    let (said, hears) = std::sync::mpsc::channel();
    let stderr = team.0[0].stderr.take().unwrap();
    let listener = std::thread::spawn(move || {
        let lines = std::io::BufRead::lines(std::io::BufReader::new(stderr));
        for line in lines.map_while(Result::ok) {
            if said.send(line).is_err() {
                return;
            }
        }
    });
    let began = Instant::now();
    let warned = loop {
        assert!(began.elapsed() < LONGEST, "nothing is said");
        for signal in ["STOP", "CONT"] {
            team.signal(1, signal);
            std::thread::sleep(Duration::from_millis(60));
        }
        if let Some(line) = hears.try_iter().find(|line| line.contains("all wait for")) {
            break line;
        }
    };
    assert!(warned.contains("rank 1 ("), "{warned}");
    drop(hears);
    drop(team);
    listener.join().unwrap();
}

/// torchrun of a torch that is installed.
fn torchrun() -> Option<Command> {
    let mut python = Command::new("python3");
    python.args(["-m", "torch.distributed.run"]);
    let found = Command::new("python3")
        .args(["-c", "import torch.distributed.run"])
        .output();
    found
        .is_ok_and(|found| found.status.success())
        .then_some(python)
}

#[test]
fn torchrun_starts_ranks_and_is_told_why_one_fails() {
    if torchrun().is_none() {
        return skip::skip(
            "python3 has no torch here; tools/test installs it with TINYRES_TORCH=1",
        );
    }
    let place = Place::new();
    place.train(1, "alone", &[]).succeed();
    let program = assert_cmd::cargo::cargo_bin!("tinyres-torch")
        .to_str()
        .unwrap();
    let start = |launcher: &[&str], train: &[&str]| {
        let port = free_port().to_string();
        let mut command = torchrun().unwrap();
        command.current_dir(place.0.path()).args(launcher);
        command.args([
            "--nproc-per-node",
            "2",
            "--master-port",
            &port,
            "--no-python",
            program,
        ]);
        command.args(with(&["train", "shards"], train));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Team(vec![command.spawn().unwrap()])
    };
    start(&[], &["-o", "run"]).succeed();
    assert!(place.read("run/final.safetensors") == place.read("alone/final.safetensors"));
    let error = start(&[], &["-o", "run"]).fail(None);
    assert!(error.contains("Root Cause"), "{error}");
    assert!(
        error.contains("run holds a run: continue it with --resume"),
        "{error}"
    );

    let error = start(&["--max-restarts", "1"], &[]).fail(None);
    assert!(
        error.contains("name its directory with --output"),
        "{error}"
    );
    let mut again = start(&["--max-restarts", "1"], &["-o", "again", "--epochs", "10"]);
    again.wait_for_lines(&place.path("again"), 6);
    // A rank: a child of torchrun's.
    let torchrun = again.0[0].id().to_string();
    let children = Command::new("pgrep")
        .args(["-n", "-P", &torchrun])
        .output()
        .unwrap();
    let last = String::from_utf8(children.stdout).unwrap();
    let killed = Command::new("kill").args(["-KILL", last.trim()]).status();
    assert!(killed.unwrap().success());
    again.succeed();
    place.train(1, "whole", &["--epochs", "10"]).succeed();
    assert!(place.read("again/final.safetensors") == place.read("whole/final.safetensors"));
}

#[test]
fn a_command_that_is_started_again_goes_on() {
    let place = Place::new();
    let flags = ["--optimizer", "sgd", "--epochs", "12", "--continue"];
    place.train(1, "whole", &flags).succeed();
    let mut first = place.train(2, "run", &flags);
    first.wait_for_lines(&place.path("run"), 6);
    first.signal(0, "INT");
    first.wait();
    place.train(3, "run", &flags).succeed();
    // Once more changes nothing.
    let before = place.read("run/final.safetensors");
    assert!(before == place.read("whole/final.safetensors"));
    place.train(1, "run", &flags).succeed();
    assert!(place.read("run/final.safetensors") == before);
    let mut other = place.train(1, "run", &[&flags[..], &["--lr", "0.3"]].concat());
    let ended = other.wait();
    let error = &ended[0].stderr;
    assert!(
        ended[0].code == Some(1) && error.contains("run holds a run with another lr"),
        "{error}"
    );
}

#[test]
fn a_command_that_is_started_again_keeps_its_sizes() {
    // One of these is time enough for larger images with two processes, and not with one: which, depends on the processor.
    for budget in ["40m", "160m"] {
        let place = Place::new();
        let run = place.path("run");
        let length = ["--time-budget", budget, "--continue"];
        let flags = FLAGS
            .chunks(2)
            .filter(|flag| !["--epochs", "--sizes"].contains(&flag[0]));
        let flags: Vec<_> = flags.flatten().copied().collect();
        for ranks in [1, 2] {
            let before = lines(&run);
            let args = [&["train", "shards", "-o", "run"], &length[..], &flags].concat();
            let mut team = place.start(ranks, &args);
            team.wait_for_lines(&run, before + 6);
            team.signal(0, "INT");
            for ended in team.wait() {
                assert_eq!(ended.code, Some(130), "{}", ended.stderr);
            }
        }
    }
}
