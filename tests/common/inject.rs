//! Makes a program's calls on files fail: it runs with `tests/faults/inject.c` between it and libc.
//! The torch crate's tests use it, too.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// A call on a file of the directory that was watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Whether it was made to fail, or otherwise changed.
    pub tampered: bool,
    pub name: String,
    pub path: PathBuf,
    /// What `path` was renamed to.
    pub to: Option<PathBuf>,
}

/// What a program did that was tampered with.
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

/// Prepares `command` to be tampered with in `dir`, by the rules of `inject.c`.
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

/// Runs `command` to its end, tampered with in `dir`.
pub fn run(command: &mut Command, dir: &Path, inject: &str) -> Tampered {
    let log = tempfile::NamedTempFile::new().unwrap();
    let output = tamper(command, dir, inject, log.path()).output().unwrap();
    Tampered {
        output,
        calls: calls(log.path()),
    }
}

/// Starts `command`, which halts before the call on `dir` with that number, and waits until it has.
pub fn run_until(command: &mut Command, dir: &Path, number: usize) -> Child {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut child = tamper(command, dir, &format!("stop:{number}"), log.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stat = format!("/proc/{}/stat", child.id());
    while !fs::read_to_string(&stat).unwrap().contains(") T ") {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before that call");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child
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
