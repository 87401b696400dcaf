//! Output directories that hold what tinyres did not put there, or lie on file systems that cannot do
//! everything: nothing of others is lost, and nothing half-written is left.

mod common;
#[path = "common/inject.rs"]
mod inject;
#[path = "common/packing.rs"]
mod packing;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::files;
use inject::Tampered;
use packing::{Files, Fixture, Found, Operation, tinyres};
use tinyres_format::MANIFEST;

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What a command that must fail with exit code 1 says.
fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    stderr(&output)
}

/// A directory with one file, of which nothing may be removed.
fn precious(fixture: &Fixture) -> PathBuf {
    let precious = fixture.dir.path().join("precious");
    fs::create_dir_all(precious.join("inner")).unwrap();
    fs::write(precious.join("thesis"), "precious").unwrap();
    fs::write(precious.join("inner/thesis"), "precious").unwrap();
    precious
}

fn is_untouched(precious: &Path) -> bool {
    let is = |name| fs::read(precious.join(name)).is_ok_and(|bytes| bytes == b"precious");
    fs::read_dir(precious).unwrap().count() == 2 && is("thesis") && is("inner/thesis")
}

#[test]
fn a_link_in_place_of_the_inner_directory_is_refused_and_its_target_untouched() {
    for operation in [Operation::Pack, Operation::Expand] {
        let fixture = Fixture::small(operation);
        let precious = precious(&fixture);
        fixture.begin(true);
        symlink(&precious, fixture.out().join(".packing")).unwrap();
        let error = refusal(&mut fixture.command(true));
        assert!(
            error.contains(".packing: is not a directory, but a file or a symbolic link"),
            "{error}"
        );
        assert!(is_untouched(&precious));
        assert_eq!(fixture.found(), Ok(Found::Old));
        // What the message says to do works.
        fs::remove_file(fixture.out().join(".packing")).unwrap();
        fixture.complete().unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("precious");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("thesis"), "precious").unwrap();
    symlink(&target, dir.path().join(".set.tmp")).unwrap();
    let error = refusal(tinyres().arg("sample").arg(dir.path().join("set")));
    assert!(error.contains(".set.tmp: is not a directory"), "{error}");
    assert_eq!(fs::read(target.join("thesis")).unwrap(), b"precious");
}

#[test]
fn links_among_unfinished_files_are_not_followed() {
    for operation in [Operation::Pack, Operation::PackZstd, Operation::Expand] {
        let fixture = Fixture::small(operation);
        let precious = precious(&fixture);
        fixture.begin(true);
        let inner = fixture.out().join(".packing");
        fs::create_dir(&inner).unwrap();
        let thesis = precious.join("thesis");
        for name in [
            ".train-00000.bin.tmp",
            "train-00000.bin.sources",
            "train-00000.bin.zst.sources",
        ] {
            symlink(&thesis, inner.join(name)).unwrap();
        }
        symlink(&precious, inner.join("replaced")).unwrap();
        symlink(&thesis, fixture.out().join(".dataset.json.tmp")).unwrap();
        fixture.complete().unwrap();
        assert!(is_untouched(&precious), "{operation:?}");
        let manifest = fixture.out().join(MANIFEST);
        assert!(fs::symlink_metadata(manifest).unwrap().is_file());
    }
}

#[test]
fn shards_without_a_manifest_are_replaced_only_by_force() {
    let fixture = Fixture::small(Operation::Pack);
    let out = fixture.out();
    fixture.begin(true);
    fs::remove_file(out.join(MANIFEST)).unwrap();
    let there = files(&out);
    let error = refusal(&mut fixture.pack("new", &[]));
    assert!(
        error.contains("without a dataset.json, the first train-00000.bin"),
        "{error}"
    );
    assert!(error.contains("--force"), "{error}");
    assert!(files(&out) == there && !out.join(".packing").exists());
    assert!(
        fixture
            .pack("new", &["--force"])
            .output()
            .unwrap()
            .status
            .success()
    );
    assert!(files(&out) == fixture.new);

    let other = fixture.dir.path().join("other");
    assert!(
        fixture
            .pack("new", &["--zstd", "--force"])
            .output()
            .unwrap()
            .status
            .success()
    );
    fs::create_dir(&other).unwrap();
    fs::write(other.join("train-00000.bin"), "another program's").unwrap();
    let error = refusal(tinyres().arg("expand").arg(&out).arg("-o").arg(&other));
    assert!(error.contains("without a dataset.json"), "{error}");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
}

#[test]
fn files_that_replace_others_have_their_modes() {
    let fixture = Fixture::small(Operation::Pack);
    let out = fixture.out();
    fixture.begin(true);
    for (name, mode) in [("train-00000.bin", 0o440), (MANIFEST, 0o600)] {
        fs::set_permissions(out.join(name), Permissions::from_mode(mode)).unwrap();
    }
    fixture.complete().unwrap();
    for (name, mode) in [("train-00000.bin", 0o440), (MANIFEST, 0o600)] {
        let there = fs::metadata(out.join(name)).unwrap().permissions().mode();
        assert_eq!(there & 0o777, mode, "{name}");
    }
}

#[test]
fn pack_of_a_set_that_is_there_removes_what_a_killed_pack_left() {
    let fixture = Fixture::small(Operation::Pack);
    let out = fixture.out();
    fixture.begin(false);
    assert!(fixture.pack("new", &[]).output().unwrap().status.success());
    fs::create_dir_all(out.join(".packing/replaced")).unwrap();
    fs::write(
        out.join(".packing/replaced/train-00000.bin"),
        "an older one",
    )
    .unwrap();
    let again = fixture.pack("new", &["--json"]).output().unwrap();
    let report = String::from_utf8(again.stdout).unwrap();
    assert!(report.contains("\"unchanged\":true"), "{report}");
    assert!(!out.join(".packing").exists());
}

fn run(fixture: &Fixture, only: &str, inject: &str) -> Tampered {
    let mut command = fixture.command(true);
    command.env("INJECT_ONLY", only);
    inject::run(&mut command, fixture.dir.path(), inject)
}

#[test]
fn a_file_system_that_cannot_force_directories_to_the_disk_is_named_and_used() {
    for operation in [Operation::Pack, Operation::PackZstd, Operation::Expand] {
        let fixture = Fixture::small(operation);
        for error in ["EINVAL", "ENOSYS", "EOPNOTSUPP"] {
            fixture.begin(true);
            let run = run(&fixture, "fsyncdir", &format!("{error}:1+"));
            assert!(run.calls.len() > 3, "{run:?}");
            assert!(run.output.status.success(), "{run:?}");
            let said = stderr(&run.output);
            let notice = "out: its file system cannot force directories to the disk";
            assert_eq!(said.matches(notice).count(), 1, "{said}");
            assert!(files(&fixture.out()) == fixture.new);
        }
        fixture.begin(true);
        let run = run(&fixture, "fsyncdir", "EIO:1+");
        assert_eq!(run.output.status.code(), Some(1), "{run:?}");
    }
}

#[test]
fn a_file_system_without_locks_is_named_and_used() {
    for operation in [Operation::Pack, Operation::Expand] {
        let fixture = Fixture::small(operation);
        for error in ["ENOSYS", "ENOLCK", "EOPNOTSUPP"] {
            fixture.begin(true);
            let run = run(&fixture, "flock", &format!("{error}:1+"));
            assert!(run.output.status.success(), "{run:?}");
            let said = stderr(&run.output);
            let expected = "out: its file system has no locks: start no other tinyres here";
            assert!(said.contains(expected), "{said}");
            assert!(files(&fixture.out()) == fixture.new);
            assert!(!fixture.out().join(".packing").exists());
        }
        fixture.begin(true);
        let run = run(&fixture, "flock", "EIO:1+");
        assert_eq!(run.output.status.code(), Some(1), "{run:?}");
        assert_eq!(fixture.found(), Ok(Found::Old));
    }
}

#[test]
fn a_file_system_without_shared_maps_is_read_by_private_ones() {
    let fixture = Fixture::small(Operation::Pack);
    fixture.begin(true);
    let inspect = |only: &str| {
        let mut inspect = tinyres();
        inspect.args(["inspect", "--verify"]).arg(fixture.out());
        inspect.env("INJECT_ONLY", only);
        inject::run(&mut inspect, &fixture.out(), "ENODEV:1+")
    };
    let shared = inspect("mmap");
    assert!(
        shared.calls.len() == 3 && shared.output.status.success(),
        "{shared:?}"
    );
    // Nor private ones.
    let none = inspect("map");
    assert_eq!(none.output.status.code(), Some(1), "{none:?}");
    let said = String::from_utf8([none.output.stdout, none.output.stderr].concat()).unwrap();
    let expected = "train-00000.bin: its file system cannot map files into memory: copy the set to another disk";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn too_little_room_is_told_before_anything_is_written() {
    // 13 images of 64 x 64 pixels, in shards of 8.
    for (operation, needed) in [
        (Operation::Pack, 13 * 12_288),
        (Operation::PackZstd, 8 * 12_288),
        (Operation::Expand, 13 * 12_288),
    ] {
        let fixture = Fixture::small(operation);
        for (over, free) in [(true, 0), (true, needed - 1), (false, 1)] {
            if operation == Operation::Expand && !over {
                continue;
            }
            fixture.begin(over);
            let mut command = fixture.command(over);
            command.env("INJECT_FREE", free.to_string());
            let run = inject::run(&mut command, &fixture.out(), "");
            assert_eq!(run.output.status.code(), Some(1), "{run:?}");
            let said = stderr(&run.output);
            assert!(said.contains(" are needed here, but only "), "{said}");
            assert!(!run.calls.iter().any(|call| call.name.contains("write")));
            let there: Files = if over {
                files(&fixture.out())
            } else {
                Files::new()
            };
            assert!(
                there
                    == if over {
                        fixture.old.clone()
                    } else {
                        Files::new()
                    }
            );
            assert_eq!(
                fixture.out().exists(),
                over,
                "{operation:?}: nothing is left"
            );
        }
        fixture.begin(true);
        let mut command = fixture.command(true);
        command.env("INJECT_FREE", (needed * 2).to_string());
        let run = inject::run(&mut command, &fixture.out(), "");
        assert!(run.output.status.success(), "{run:?}");
    }
}

#[test]
fn a_shard_is_not_expanded_to_a_device() {
    let fixture = Fixture::small(Operation::PackZstd);
    fixture.begin(false);
    let null = fixture.dir.path().join("null");
    symlink("/dev/null", &null).unwrap();
    assert!(fixture.command(false).output().unwrap().status.success());
    let shard = fixture.out().join("train-00000.bin.zst");
    let error = refusal(tinyres().arg("expand").arg(shard).arg("-o").arg(&null));
    assert!(error.contains("null: not a file"), "{error}");
    assert!(fs::symlink_metadata(&null).unwrap().is_symlink());
}

#[test]
fn without_locks_a_pack_of_a_set_that_is_there_leaves_the_work_of_others() {
    let fixture = Fixture::small(Operation::Pack);
    let out = fixture.out();
    fixture.begin(false);
    assert!(fixture.pack("new", &[]).output().unwrap().status.success());
    fs::create_dir(out.join(".packing")).unwrap();
    let mut again = fixture.pack("new", &[]);
    again.env("INJECT_ONLY", "flock");
    let run = inject::run(&mut again, fixture.dir.path(), "ENOSYS:1+");
    assert!(
        run.output.status.success() && run.calls.len() == 1,
        "{run:?}"
    );
    assert!(out.join(".packing").exists());
}
