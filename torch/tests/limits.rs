//! The commands under limits: a CPU quota, too little memory, no threads; and how the threads of OpenMP wait.
#![cfg(feature = "torch")]

mod common;
#[path = "../../tests/common/inject.rs"]
mod inject;
#[path = "../../tests/common/skip.rs"]
mod skip;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tinyres_format::{Draws, Split, Stream};

const TRAIN: [&str; 10] = [
    "train",
    "shards",
    "-o",
    "run",
    "--batch=16",
    "--max-steps=2",
    "--sizes=50%,75%",
    "--device=cpu",
    "--pictures=off",
    "-q",
];

fn program() -> &'static Path {
    assert_cmd::cargo::cargo_bin!("tinyres-torch")
}

fn set() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("shards")).unwrap();
    common::write(&dir.path().join("shards"), &common::wnids(4), 32, 8);
    dir
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A control group whose processes together get one CPU, if this process may make one.
struct Quota {
    dir: PathBuf,
}

impl Quota {
    fn of_one_cpu() -> Option<Self> {
        let name = format!("tinyres-test-{}", std::process::id());
        let (old, new) = (
            Path::new("/sys/fs/cgroup/cpu").join(&name),
            Path::new("/sys/fs/cgroup").join(name),
        );
        let files: [(_, &[(&str, &str)]); 2] = [
            (
                old,
                &[
                    ("cpu.cfs_period_us", "100000"),
                    ("cpu.cfs_quota_us", "100000"),
                ],
            ),
            (new, &[("cpu.max", "100000 100000")]),
        ];
        files.into_iter().find_map(|(dir, values)| {
            fs::create_dir(&dir).ok()?;
            let quota = Self { dir };
            let write = |(file, value): &(&str, &str)| fs::write(quota.dir.join(file), value);
            values.iter().try_for_each(write).ok()?;
            Some(quota)
        })
    }

    /// A command that joins the group and becomes the program.
    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]);
        command.arg(self.dir.join("cgroup.procs")).arg(program());
        command
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // The kernel lets go of processes that have ended a moment later.
        for _ in 0..100 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[test]
fn threads_are_no_more_than_a_cpu_quota_allows() {
    let Some(quota) = Quota::of_one_cpu() else {
        skip::skip("a control group cannot be made here");
        return;
    };
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        skip::skip("there is only one core");
        return;
    }
    let dir = set();
    let run = |args: &[&str]| -> Output {
        let mut command = quota.command();
        command.args(args).current_dir(dir.path());
        command
            .env_remove("OMP_NUM_THREADS")
            .env_remove("MKL_NUM_THREADS");
        command.output().unwrap()
    };
    let trained = run(&TRAIN);
    assert!(trained.status.success(), "{trained:?}");
    let recorded = fs::read_to_string(dir.path().join("run/config.toml")).unwrap();
    assert!(recorded.contains("\nthreads = 1\n"), "{recorded}");
    let found: Value = serde_json::from_slice(&run(&["doctor", "--json"]).stdout).unwrap();
    assert_eq!(found["threads"], 1);

    // Whoever says how many gets them.
    let mut command = quota.command();
    command
        .args(["doctor", "--json"])
        .env("OMP_NUM_THREADS", "2");
    let found: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    assert_eq!(found["threads"], 2);
}

/// libgomp itself says what it has understood.
#[test]
fn openmp_threads_sleep_early_unless_the_user_says_how_they_wait() {
    let dir = set();
    let said = |variable: Option<(&str, &str)>| {
        let mut command = Command::new(program());
        command.args(TRAIN).current_dir(dir.path());
        command
            .env_remove("GOMP_SPINCOUNT")
            .env_remove("OMP_WAIT_POLICY");
        command.env("OMP_DISPLAY_ENV", "VERBOSE").envs(variable);
        let output = command.output().unwrap();
        fs::remove_dir_all(dir.path().join("run")).unwrap();
        let said = text(&output.stderr);
        let value = |name: &str| {
            let mut lines = said.lines().filter(|line| line.contains(name));
            let last = lines.next_back().unwrap_or_else(|| panic!("{said}"));
            last.split('\'').nth(1).unwrap().to_owned()
        };
        (
            value("GOMP_SPINCOUNT"),
            value("OMP_WAIT_POLICY"),
            said.matches("DISPLAY ENVIRONMENT BEGIN").count(),
        )
    };
    let value = |spins: &str, policy: &str, starts| (spins.to_owned(), policy.to_owned(), starts);
    let (spins, _, starts) = said(None);
    assert!(
        (1..300_000).contains(&spins.parse::<u32>().unwrap()),
        "{spins}"
    );
    assert_eq!(starts, 2);
    assert_eq!(
        said(Some(("GOMP_SPINCOUNT", "7"))),
        value("7", "PASSIVE", 1)
    );
    assert_eq!(said(Some(("OMP_WAIT_POLICY", "active"))).2, 1);
}

/// Limits of memory from what the program needs to start, up to what it needs for all.
fn memory_limits() -> Vec<u64> {
    let starts = |kib: &u64| {
        let mut command = limited(*kib);
        command.arg("--version").output().unwrap().status.success()
    };
    let least = (300_000..).step_by(10_000).find(starts).unwrap();
    let count = std::env::var("TINYRES_MEMORY_LIMITS").map_or(6, |count| count.parse().unwrap());
    let draws = Draws::new(1, Stream::Sample, 0);
    (0..count)
        .map(|index| least + 10_000 + draws.below(index, 500_000))
        .collect()
}

/// The program with an address space of so many KiB.
fn limited(kib: u64) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {kib} && exec \"$@\""), "sh"]);
    // The limit must not keep it from starting again.
    command.arg(program()).env("GOMP_SPINCOUNT", "20000");
    command
}

/// Writes three pictures to `dir/pictures`.
fn pictures(dir: &Path) {
    let pictures = dir.join("pictures");
    fs::create_dir(&pictures).unwrap();
    for number in 0..3 {
        let name = pictures.join(format!("{number}.ppm"));
        let pixels = common::pixels(Split::Val, number, 0);
        fs::write(name, [&b"P6 32 32 255\n"[..], &pixels].concat()).unwrap();
    }
}

/// A few are enough: they check what is read, gather and decode.
#[test]
fn too_few_threads_change_nothing_or_are_an_error() {
    let dir = set();
    let run = |args: &[&str], threads: Option<u32>| {
        let mut command = Command::new(program());
        command
            .args(args)
            .current_dir(dir.path())
            .env("GOMP_SPINCOUNT", "20000");
        command.envs(threads.map(|threads| ("INJECT_THREADS", threads.to_string())));
        inject::run(&mut command, dir.path(), "").output
    };
    assert!(run(&TRAIN, None).status.success());
    fs::rename(dir.path().join("run"), dir.path().join("done")).unwrap();
    pictures(dir.path());
    for args in [
        &TRAIN[..],
        &["eval", "done", "shards", "--device=cpu", "--json"],
        &["predict", "done", "pictures", "--device=cpu", "--json"],
    ] {
        let mut done = 0;
        for threads in 0..6 {
            let _ = fs::remove_dir_all(dir.path().join("run"));
            let output = run(args, Some(threads));
            let said = text(&output.stderr);
            match output.status.code() {
                Some(0) => done += 1,
                Some(1) => {
                    let last = said.lines().last().unwrap();
                    assert!(
                        last.starts_with("error: ") && last.contains("thread"),
                        "{said}"
                    );
                    assert!(!dir.path().join("run").exists());
                }
                code => panic!("{args:?}, {threads} threads: {code:?} {said}"),
            }
        }
        assert!(done >= 3, "{args:?}: {done}");
    }
}

#[test]
fn too_little_memory_is_an_error_and_leaves_no_run_of_which_nothing_was_trained() {
    let dir = set();
    let trained = Command::new(program())
        .args(TRAIN)
        .current_dir(dir.path())
        .status();
    assert!(trained.unwrap().success());
    fs::rename(dir.path().join("run"), dir.path().join("done")).unwrap();
    pictures(dir.path());
    let train = [
        &TRAIN[..4],
        &["--batch=32", "--threads=2", "--epochs=1", "--device=cpu"],
    ]
    .concat();
    let commands = [
        (&train[..], "--batch"),
        (&["eval", "done", "shards", "--device=cpu"], ""),
        (&["predict", "done", "pictures", "--device=cpu"], ""),
    ];
    let mut failed = 0;
    for kib in memory_limits() {
        for (args, remedy) in commands {
            let _ = fs::remove_dir_all(dir.path().join("run"));
            let output = limited(kib)
                .args(args)
                .current_dir(dir.path())
                .output()
                .unwrap();
            let said = text(&output.stderr);
            let what = format!("{kib} KiB, {args:?}: {output:?}");
            match output.status.code() {
                Some(0) => continue,
                Some(1) => failed += 1,
                _ => panic!("{what}"),
            }
            assert!(!said.contains("panicked"), "{what}");
            let last = said.lines().last().unwrap();
            // OpenMP's library ends the process by itself if it gets no memory for a thread.
            if last.starts_with("libgomp: ") {
                continue;
            }
            // Another thread may say something of its own before it, in the same line.
            assert!(last.contains("error: "), "{what}");
            assert!(
                !said.contains("frame #") && last.contains(remedy)
                    || !last.contains("not enough memory"),
                "{what}"
            );
            // A handler of signals can print a message, and no more.
            let by_handler = ["had to end", "not enough memory: try"]
                .iter()
                .any(|what| last.contains(what));
            let left = fs::read_dir(dir.path().join("run")).map_or(0, Iterator::count);
            let metrics = fs::read(dir.path().join("run/metrics.jsonl")).unwrap_or_default();
            assert!(left == 0 || !metrics.is_empty() || by_handler, "{what}");
        }
    }
    println!("{failed} of the commands had too little");
    assert!(failed > 0);
}
