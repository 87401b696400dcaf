//! Runs a program with `tests/faults/inject.c` between it and libc, which records its calls on files and
//! makes them fail. The torch crate's tests use it, too.
//!
//! Calls on the watched directory, or on files in it, are counted from 1. A fault is `WHAT:WHICH`, such as
//! `ENOSPC:7+`; an empty one only records the calls.
//!
//! | `WHAT` | effect |
//! | --- | --- |
//! | `ENOSPC`, `EIO`, `EINTR` and the others of a table in the library | the call fails with this error; `EINTR` affects only calls that can be interrupted |
//! | `short` | a write writes only half of its bytes; other calls are not affected |
//! | `kill` | the process is killed before the call |
//! | `stop` | the process is halted before the call, until it gets SIGCONT |
//! | `cut` | counts mappings instead of calls, and truncates the file `INJECT_CUT` to one page before the mapping is used |
//!
//! | `WHICH` | affected calls |
//! | --- | --- |
//! | `7` | the seventh |
//! | `7,9,12` | these |
//! | `7+` | the seventh and all later ones |
//! | `*` | every one, but never two in a row in a thread |
//!
//! `INJECT_ONLY` counts only the calls of one name, such as `flock`, `fsyncdir` or `mmap`. `INJECT_THREADS`
//! limits the threads of the process, and `INJECT_FREE` is the free space that each file system states.
//!
//! A test must not depend on how many other calls a program makes before the one it is about. It watches
//! a single file, or finds the number of the call by name in the calls of an undisturbed run.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// A call on a file in the watched directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// True if the fault affected it.
    pub tampered: bool,
    pub name: String,
    pub path: PathBuf,
    /// The new path, if the call renamed or linked `path`.
    pub to: Option<PathBuf>,
}

/// Output and calls of a program that ran with a fault.
#[derive(Debug)]
pub struct Tampered {
    pub output: Output,
    pub calls: Vec<Call>,
}

/// The library, compiled once for each test binary.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let source = dir.join(format!("inject-{}.c", std::process::id()));
        fs::write(&source, include_str!("../faults/inject.c")).unwrap();
        // Under a name of its own first: test binaries may run at once.
        let (own, library) = (source.with_extension("so"), dir.join("inject.so"));
        let status = Command::new("cc")
            .args([
                "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o",
            ])
            .args([&own, &source])
            .status()
            .expect("a C compiler, which building tinyres takes anyway");
        assert!(status.success());
        fs::rename(own, &library).unwrap();
        fs::remove_file(source).unwrap();
        library
    })
}

/// Prepares `command` to run with the fault `inject` on `dir`, and to record its calls in `log`.
pub fn tamper<'a>(
    command: &'a mut Command,
    dir: &Path,
    inject: &str,
    log: &Path,
) -> &'a mut Command {
    command
        .env("LD_PRELOAD", library())
        .env("INJECT_DIR", dir)
        .env("INJECT_LOG", log)
        .env("INJECT", inject)
        .stdin(Stdio::null())
}

/// Runs `command` to its end with the fault `inject` on `dir`.
pub fn run(command: &mut Command, dir: &Path, inject: &str) -> Tampered {
    let log = tempfile::NamedTempFile::new().unwrap();
    let output = tamper(command, dir, inject, log.path()).output().unwrap();
    Tampered {
        output,
        calls: calls(log.path()),
    }
}

/// Starts `command` and waits until it has halted before its call `number` on `dir`, or on the file `dir`.
pub fn run_until(command: &mut Command, dir: &Path, number: usize) -> Child {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut child = tamper(command, dir, &format!("stop:{number}"), log.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !halted(&child) {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before that call");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child
}

/// True once every thread of the process has halted. They do so one after another, and until then write on.
fn halted(child: &Child) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let stats = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")));
    stats
        .into_iter()
        .all(|stat| stat.is_ok_and(|stat| stat.contains(") T ")))
}

/// Lets a process that has halted before a call go on.
pub fn wake(child: &Child) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-CONT", &pid]).status();
    assert!(sent.unwrap().success());
}

fn calls(log: &Path) -> Vec<Call> {
    let text = fs::read_to_string(log).unwrap();
    let call = |line: &str| {
        let (tampered, line) = match line.strip_prefix("! ") {
            Some(line) => (true, line),
            None => (false, line),
        };
        let mut fields = line.split(' ');
        let name = fields.next().unwrap().to_owned();
        Call {
            tampered,
            name,
            path: fields.next().unwrap().into(),
            to: fields.next().map(PathBuf::from),
        }
    };
    text.lines().map(call).collect()
}
