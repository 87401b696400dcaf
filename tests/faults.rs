//! `tinyres pack` and `expand` when the system fails: each call on the output directory fails in turn.

mod common;
#[path = "common/inject.rs"]
mod inject;
#[path = "common/packing.rs"]
mod packing;

use std::path::Path;

use common::files;
use inject::{Call, Tampered};
use packing::{Fixture, Found, Operation, tinyres};
use tinyres_format::MANIFEST;

/// What is asked of one sweep through all calls.
struct Sweep {
    /// The error's name, and what the system says of it.
    error: (&'static str, &'static str),
    /// Whether all calls after the first that fails do, too.
    for_good: bool,
    /// Whether there is an older set to replace.
    over: bool,
}

impl Sweep {
    fn run(&self, fixture: &Fixture) {
        let plus = if self.for_good { "+" } else { "" };
        for number in 1.. {
            fixture.begin(self.over);
            let inject = format!("{}:{number}{plus}", self.error.0);
            let run = inject::run(&mut fixture.command(self.over), &fixture.out(), &inject);
            if !run.calls.iter().any(|call| call.tampered) {
                assert!(number > 30, "there are more calls than {number}");
                assert_eq!(fixture.found(), Ok(Found::New));
                return;
            }
            self.check(fixture, &run)
                .and_then(|()| fixture.complete())
                .unwrap_or_else(|wrong| panic!("{inject}: {wrong}\n{run:#?}"));
        }
    }

    fn check(&self, fixture: &Fixture, run: &Tampered) -> Result<(), String> {
        let seen = fixture.found()?;
        let mut tampered = run.calls.iter().filter(|call| call.tampered);
        match run.output.status.code() {
            Some(0) if seen != Found::New || !tampered.all(is_needless) => {
                Err("it succeeded, as if nothing were wrong".into())
            }
            Some(0) => Ok(()),
            Some(1) => {
                let error = String::from_utf8_lossy(&run.output.stderr);
                if !run.output.stdout.is_empty() || !error.starts_with("error: ") {
                    return Err("it did not say so".into());
                }
                if !error.contains(self.error.1) {
                    return Err("the system's reason is not given".into());
                }
                if !tampered.any(|call| is_named(call, &error)) {
                    return Err("the file is not named".into());
                }
                match seen {
                    Found::Old if !self.over => Err("a set has come from nowhere".into()),
                    Found::None if self.over && !self.for_good => {
                        Err("one failure has cost the older set".into())
                    }
                    Found::None if self.over => fixture.is_kept(),
                    _ => Ok(()),
                }
            }
            code => Err(format!("exit code {code:?}")),
        }
    }
}

/// True if the call may fail and the command succeed: it removes a file that is no longer needed (expand
/// opens it first), or finds one to use again.
fn is_needless(call: &Call) -> bool {
    let mut parts = call.path.components();
    let useless = parts.any(|part| part.as_os_str() == ".packing")
        || call.path.extension() == Some("zst".as_ref());
    useless && ["unlink", "rmdir", "open", "opendir"].contains(&&call.name[..])
        || call.name == "link"
}

fn is_named(call: &Call, error: &str) -> bool {
    let of = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        // A file under a temporary name is named as it will be called.
        let hidden = name.strip_suffix(".tmp");
        error.contains(hidden.map_or(name, |hidden| hidden.trim_start_matches('.')))
    };
    of(&call.path) || call.to.as_deref().is_some_and(of)
}

const FULL: (&str, &str) = ("ENOSPC", "No space left on device");
const BROKEN: (&str, &str) = ("EIO", "Input/output error");

/// Every combination of once or for good, on a new directory or over an older set.
fn sweeps(error: (&'static str, &'static str)) {
    let fixture = Fixture::small(Operation::Pack);
    for (for_good, over) in [(false, false), (false, true), (true, false), (true, true)] {
        let sweep = Sweep {
            error,
            for_good,
            over,
        };
        sweep.run(&fixture);
    }
}

#[test]
fn pack_on_a_full_disk_leaves_no_set_or_the_older_one() {
    sweeps(FULL);
}

#[test]
fn pack_on_a_broken_disk_leaves_no_set_or_the_older_one() {
    sweeps(BROKEN);
}

#[test]
fn pack_zstd_and_expand_leave_no_set_or_the_older_one() {
    for operation in [Operation::PackZstd, Operation::Expand] {
        let fixture = Fixture::small(operation);
        for (error, for_good) in [(BROKEN, false), (FULL, true)] {
            let sweep = Sweep {
                error,
                for_good,
                over: true,
            };
            sweep.run(&fixture);
        }
    }
}

#[test]
fn interrupted_calls_and_short_writes_change_nothing() {
    for operation in [Operation::Pack, Operation::PackZstd, Operation::Expand] {
        let fixture = Fixture::small(operation);
        let out = fixture.out();
        for (inject, names) in [
            ("EINTR:*", &["open", "pwrite", "write", "fsync"][..]),
            ("short:*", &["pwrite", "write"]),
        ] {
            fixture.begin(true);
            let run = inject::run(&mut fixture.command(true), &out, inject);
            assert!(
                run.output.status.success(),
                "{operation:?} {inject}: {run:#?}"
            );
            assert!(files(&out) == fixture.new, "{operation:?} {inject}");
            for name in names {
                let mut tampered = run.calls.iter().filter(|call| call.tampered);
                assert!(tampered.any(|call| call.name == *name), "no {name}");
            }
        }
    }
}

/// What no kill shows, and only a loss of power would: data is forced to the disk before the name it
/// appears under, all names of a set before its manifest, and the end of an older set before its shards
/// go.
#[test]
fn everything_is_on_the_disk_before_it_is_named() {
    let fixture = Fixture::small(Operation::Pack);
    let out = fixture.out();
    for over in [false, true] {
        fixture.begin(over);
        let mut pack = fixture.command(over);
        let calls = inject::run(&mut pack, fixture.dir.path(), "").calls;
        let synced = |path: &Path, between: std::ops::Range<usize>| {
            let is_sync = |call: &Call| ["fsync", "fdatasync"].contains(&&call.name[..]);
            let mut between = calls[between].iter();
            between.any(|call| is_sync(call) && call.path == path)
        };
        let last = |is: &dyn Fn(&Call) -> bool| calls.iter().rposition(is);
        let renamed = |to: &Path| last(&|call| call.to.as_deref() == Some(to)).unwrap();
        let (manifest, mut files) = (renamed(&out.join(MANIFEST)), 0);
        for (at, call) in calls.iter().enumerate() {
            let writes = [
                "write",
                "pwrite",
                "writev",
                "pwritev",
                "ftruncate",
                "fallocate",
            ];
            let is_data = |call: &Call| writes.contains(&&call.name[..]);
            assert!(
                !is_data(call)
                    || call.path.parent() != Some(&out)
                    || call.path.extension() == Some("tmp".as_ref()),
                "{call:?} changes a published file in place"
            );
            if call.name == "rename" && call.path.extension() == Some("tmp".as_ref()) {
                let written = last(&|other| is_data(other) && other.path == call.path).unwrap();
                assert!(written < at && synced(&call.path, written..at), "{call:?}");
                files += 1;
            }
        }
        assert_eq!(files, fixture.new.len());
        for name in fixture.new.keys().filter(|name| *name != MANIFEST) {
            let named = renamed(&out.join(name));
            assert!(named < manifest && synced(&out, named..manifest), "{name}");
        }
        assert!(
            synced(&out, manifest..calls.len()),
            "the manifest's own name"
        );
        if !over {
            let made = last(&|call| call.name == "mkdir" && call.path == out).unwrap();
            assert!(
                synced(fixture.dir.path(), made..calls.len()),
                "the directory"
            );
        } else {
            let is_ended = |call: &Call| call.name == "rename" && call.path == out.join(MANIFEST);
            let ended = calls.iter().position(is_ended).unwrap();
            let is_shard = |path: &Path| {
                path.parent() == Some(&out) && path.extension() == Some("bin".as_ref())
            };
            let first = calls.iter().position(|call| {
                ["unlink", "rename", "link"].contains(&&call.name[..])
                    && (is_shard(&call.path) || call.to.as_deref().is_some_and(is_shard))
            });
            let first = first.unwrap();
            assert!(ended < first && synced(&out, ended..first));
        }
    }
}

/// Cuts a shard as soon as others are mapped after it, and reads all of it then.
#[test]
fn shard_cut_while_it_is_inspected_is_named() {
    let fixture = Fixture::small(Operation::Pack);
    for (number, args) in [(2, &["--verify"][..]), (2, &["--image", "0"]), (3, &[])] {
        fixture.begin(true);
        let shard = fixture.out().join("train-00000.bin");
        let mut inspect = tinyres();
        inspect.arg("inspect").arg(fixture.out()).args(args);
        inspect.env("INJECT_CUT", &shard);
        let run = inject::run(&mut inspect, &fixture.out(), &format!("cut:{number}"));
        assert_eq!(run.output.status.code(), Some(1), "{args:?}: {run:?}");
        assert!(run.output.stdout.is_empty());
        let error = String::from_utf8(run.output.stderr).unwrap();
        let expected = format!(
            "error: {}: its bytes can no longer be read: the disk failed, or the file was cut while in use; copy or pack it again\n",
            shard.display()
        );
        assert_eq!(error, expected, "{args:?}");
    }
}

/// A folder that cannot be listed, at any time that it is, never makes another set.
#[test]
fn source_folder_that_cannot_be_listed_is_named() {
    let fixture = Fixture::small(Operation::Pack);
    let source = fixture.dir.path().join("new");
    for number in 1.. {
        fixture.begin(false);
        let mut pack = fixture.command(false);
        pack.env("INJECT_ONLY", "opendir");
        let run = inject::run(&mut pack, &source, &format!("EIO:{number}"));
        if !run.calls.iter().any(|call| call.tampered) {
            assert!(number > 10, "there are more calls than {number}");
            assert!(run.output.status.success());
            return;
        }
        if run.output.status.success() {
            // It was a look ahead for files that are not there.
            assert_eq!(fixture.found(), Ok(Found::New), "{number}: {run:?}");
            continue;
        }
        assert_eq!(run.output.status.code(), Some(1), "{number}: {run:?}");
        let error = String::from_utf8(run.output.stderr).unwrap();
        assert!(error.contains("Input/output error"), "{number}: {error}");
        assert!(!fixture.out().exists(), "{number}");
    }
}
