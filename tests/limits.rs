//! The program under limits of threads and memory: the same bytes, or an error with exit code 1, and no set that is
//! not whole. `TINYRES_MEMORY=all` fails every allocation, not only some.

mod common;
#[path = "common/inject.rs"]
mod inject;
#[path = "common/packing.rs"]
mod packing;

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use common::{Tree, files, jpeg};
use packing::{Fixture, Found, Operation, tinyres};
use turbojpeg::PixelFormat;

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Any number of threads is enough, also none but the first.
#[test]
fn too_few_threads_change_nothing_or_are_an_error() {
    for operation in [Operation::Pack, Operation::PackZstd, Operation::Expand] {
        let fixture = Fixture::small(operation);
        let mut done = 0;
        for threads in 0..12 {
            fixture.begin(true);
            let mut command = fixture.command(true);
            command.env("INJECT_THREADS", threads.to_string());
            let output = inject::run(&mut command, &fixture.out(), "").output;
            match output.status.code() {
                Some(0) => {
                    done += 1;
                    assert!(files(&fixture.out()) == fixture.new, "{threads}");
                }
                Some(1) => {
                    let said = stderr(&output);
                    assert!(
                        said.starts_with("error: ") && said.contains("thread"),
                        "{said}"
                    );
                    assert!(fixture.found() == Ok(Found::Old), "{threads}");
                }
                _ => panic!("{operation:?} with {threads} threads: {output:?}"),
            }
        }
        assert!(done > 3, "{operation:?}: {done}");
    }
    let fixture = Fixture::small(Operation::Pack);
    fixture.begin(true);
    for threads in 0..6 {
        let mut inspect = tinyres();
        inspect.args(["inspect", "--verify"]).arg(fixture.out());
        inspect.env("INJECT_THREADS", threads.to_string());
        let output = inject::run(&mut inspect, &fixture.out(), "").output;
        let said = stderr(&output);
        match output.status.code() {
            Some(0) => assert!(said.is_empty(), "{said}"),
            Some(1) => assert!(
                said.starts_with("error: ") && said.contains("thread"),
                "{said}"
            ),
            code => panic!("{threads}: {code:?} {said}"),
        }
    }
}

/// Runs `command` with its allocation `number` failing, 0 for none. Also returns how many it made.
fn without_memory(command: &mut Command, number: usize) -> (Output, usize) {
    let log = tempfile::NamedTempFile::new().unwrap();
    command.env("RUST_BACKTRACE", "0");
    command.env("INJECT_MEMORY", number.to_string());
    let output = inject::tamper(command, "/nowhere".as_ref(), "", log.path())
        .output()
        .unwrap();
    let text = std::fs::read_to_string(log.path()).unwrap();
    let count = text
        .strip_prefix("allocations ")
        .map(|count| count.trim().parse().unwrap());
    (output, count.unwrap_or_default())
}

/// Fails some allocations of a command, each in a run of its own: of those that the command makes alone, all if
/// `TINYRES_MEMORY` is `all`. Returns how many were tried, and how many of them ended the program.
fn without_any_memory(
    mut run: impl FnMut(usize) -> (Output, usize),
    mut check: impl FnMut(&Output, usize),
) {
    let (whole, count) = run(0);
    assert!(whole.status.success() && count > 100, "{count}: {whole:?}");
    let all = std::env::var("TINYRES_MEMORY").is_ok_and(|value| value == "all");
    let step = if all { 1 } else { count / 120 };
    let (mut tried, mut ended) = (0, 0);
    for number in (1..=count).step_by(step) {
        let (output, _) = run(number);
        let said = stderr(&output);
        tried += 1;
        match output.status.code() {
            Some(0) => {}
            Some(1) => {
                ended += 1;
                assert!(
                    said.contains("memory") || said.contains("thread"),
                    "{number}: {said}"
                );
                assert!(
                    !said.contains("--skip-bad") && !said.contains("damaged"),
                    "{number}: {said}"
                );
            }
            // Before `main`, Rust's own start-up aborts.
            None if number < 30 && output.status.signal() == Some(6) => {
                assert!(said.contains("memory allocation of"), "{number}: {said}");
            }
            code => panic!("allocation {number}: {code:?} {said}"),
        }
        check(&output, number);
    }
    println!("{tried} of {count} allocations failed, {ended} of them ended the program");
}

#[test]
fn failed_allocations_leave_no_set_or_the_older_one() {
    for operation in [Operation::Pack, Operation::PackZstd, Operation::Expand] {
        let fixture = Fixture::small(operation);
        let run = |number| {
            fixture.begin(true);
            without_memory(&mut fixture.command(true), number)
        };
        without_any_memory(run, |output, number| {
            let found = fixture
                .found()
                .unwrap_or_else(|wrong| panic!("{number}: {wrong}"));
            assert!(
                !output.status.success() || found == Found::New,
                "{number}: {output:?}"
            );
            if number % 5 == 0 {
                fixture
                    .complete()
                    .unwrap_or_else(|wrong| panic!("{number}: {wrong}"));
            }
        });
    }
}

#[test]
fn failed_allocations_are_no_damage() {
    for operation in [Operation::Pack, Operation::PackZstd] {
        let fixture = Fixture::small(operation);
        fixture.begin(true);
        let inspect = |number| {
            let mut inspect = tinyres();
            inspect.args(["inspect", "--verify"]).arg(fixture.out());
            without_memory(&mut inspect, number)
        };
        let verdict = |output: &Output| {
            let said = String::from_utf8_lossy(&output.stdout);
            said.lines()
                .last()
                .map(|line| line.rsplit(": ").next().unwrap().to_owned())
        };
        let expected = Some("all are as they were written".to_owned());
        without_any_memory(inspect, |output, number| {
            let verdict = verdict(output);
            assert!(
                verdict == expected || (verdict.is_none() && !output.status.success()),
                "{number}: {output:?}"
            );
        });
    }
}

/// A decoder of zlib that gets no memory says that the data is corrupt.
#[test]
fn failed_allocations_leave_out_no_image_of_a_zip() {
    let dir = tempfile::tempdir().unwrap();
    let (zip, out) = (dir.path().join("set.zip"), dir.path().join("out"));
    Tree::small().write_zip(&zip, "");
    let pack = |number| {
        let mut pack = tinyres();
        pack.arg("pack").arg(&zip).arg("-o").arg(&out);
        pack.args(["--skip-bad", "--force", "--json", "--threads", "1"]);
        without_memory(&mut pack, number)
    };
    without_any_memory(pack, |output, number| {
        if output.status.success() {
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(report["refused"], serde_json::json!([]), "{number}");
        }
    });
}

/// Packs large pictures under less and less memory.
#[test]
fn too_little_address_space_is_an_error_and_costs_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("source"), dir.path().join("out"));
    let mut tree = Tree::default();
    for (name, side) in [("cat/large", 3000), ("cat/small", 64), ("dog/large", 2000)] {
        tree.put(
            &format!("train/{name}.jpg"),
            jpeg(side, side, PixelFormat::RGB),
        );
    }
    tree.write_dir(&source);
    let (mut packed, mut refused) = (0, 0);
    for kilobytes in (40_000..200_000).step_by(8_000) {
        let limited = format!("ulimit -v {kilobytes}; exec \"$@\"");
        let mut pack = Command::new("bash");
        pack.args(["-c", &limited, "bash"])
            .arg(assert_cmd::cargo::cargo_bin("tinyres"));
        pack.arg("pack").arg(&source).arg("-o").arg(&out);
        pack.args([
            "--size",
            "64",
            "--skip-bad",
            "--force",
            "--threads",
            "2",
            "--json",
        ]);
        let output = pack.env("RUST_BACKTRACE", "0").output().unwrap();
        let said = stderr(&output);
        match output.status.code() {
            Some(0) => {
                packed += 1;
                let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
                assert_eq!(report["refused"], serde_json::json!([]), "{kilobytes}");
                assert_eq!(report["splits"][0]["images"], 3);
            }
            Some(1) => {
                refused += 1;
                assert!(said.contains("memory"), "{kilobytes}: {said}");
                assert!(output.stdout.is_empty());
            }
            code => panic!("{kilobytes} kB: {code:?} {said}"),
        }
    }
    println!("{packed} limits sufficed, {refused} did not");
    assert!(packed > 0 && refused > 0);
}
