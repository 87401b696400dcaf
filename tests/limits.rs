//! The programs under limits of threads and memory: the same bytes, or an error with exit code 1 and nothing left.

mod common;
#[path = "common/inject.rs"]
mod inject;
#[path = "common/packing.rs"]
mod packing;

use std::process::Output;

use common::files;
use packing::{Fixture, Found, Operation, tinyres};

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
