//! The program under limits of threads and memory: the same bytes, or an error with exit code 1, and no set that is
//! not whole. `TINYRES_MEMORY=all` fails every allocation, not only some.

mod common;
#[path = "common/inject.rs"]
mod inject;
#[path = "common/packing.rs"]
mod packing;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use common::{Tree, files, jpeg};
use flate2::Compression;
use flate2::write::GzEncoder;
use packing::{Fixture, Found, Operation, tinyres};
use tinyres_format::{Draws, Stream};
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

#[test]
fn pack_says_if_the_system_gives_fewer_threads() {
    let fixture = Fixture::small(Operation::Pack);
    let mut said_so = [0, 0];
    for threads in 0..12 {
        fixture.begin(false);
        let mut command = fixture.command(false);
        command.env("INJECT_THREADS", threads.to_string());
        let output = inject::run(&mut command, &fixture.out(), "").output;
        if output.status.success() {
            let fewer = stderr(&output).contains("decoded by 1 of 2 threads at times");
            said_so[usize::from(fewer)] += 1;
            // None but the first; and more than two to decode, one to write, to sync, to show progress and for the pool.
            assert!(fewer || threads > 1, "{threads}: {output:?}");
            assert!(!fewer || threads < 8, "{threads}: {output:?}");
        }
    }
    assert!(said_so.iter().all(|&count| count > 0), "{said_so:?}");
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

/// The same images as a tree, a zip, a tar, and the tar compressed, in `dir`.
fn archives(dir: &Path) -> [PathBuf; 5] {
    let tree = Tree::small();
    let [folder, zip, tar, gzip, zstd] =
        ["tree", "set.zip", "set.tar", "set.tar.gz", "set.tar.zst"].map(|name| dir.join(name));
    tree.write_dir(&folder);
    tree.write_zip(&zip, "");
    tree.write_tar(&tar, "");
    let bytes = fs::read(&tar).unwrap();
    let mut encoder = GzEncoder::new(File::create(&gzip).unwrap(), Compression::fast());
    encoder.write_all(&bytes).unwrap();
    encoder.finish().unwrap();
    fs::write(&zstd, zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();
    [folder, zip, tar, gzip, zstd]
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/sources")
        .join(name)
}

/// A decoder of zlib or zstd that gets no memory panics, or says that the data is corrupt.
#[test]
fn failed_allocations_leave_out_no_image_of_an_archive() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let [_, zip, _, gzip, zstd] = archives(dir.path());
    let golden = ["keras.npz", "downsampled-npz.zip"].map(golden);
    for source in [zip, gzip, zstd].into_iter().chain(golden) {
        println!("{}", source.display());
        let pack = |number| {
            let mut pack = tinyres();
            pack.arg("pack").arg(&source).arg("-o").arg(&out);
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
}

/// Without a disk for what the images inflate to, none of them can be read, and none is bad.
#[test]
fn no_room_for_inflated_arrays_leaves_out_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let (npz, out) = (dir.path().join("set.npz"), dir.path().join("out"));
    let mut zip = zip::ZipWriter::new(File::create(&npz).unwrap());
    for (name, dtype, shape, bytes, method) in [
        (
            "x_train",
            "|u1",
            "(2, 8, 8)",
            &[7; 128][..],
            zip::CompressionMethod::Deflated,
        ),
        (
            "y_train",
            "|u1",
            "(2,)",
            &[0, 1],
            zip::CompressionMethod::Stored,
        ),
    ] {
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        zip.start_file(format!("{name}.npy"), options).unwrap();
        let header =
            format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n");
        zip.write_all(b"\x93NUMPY\x01\x00").unwrap();
        let len = u16::try_from(header.len()).unwrap();
        zip.write_all(&len.to_le_bytes()).unwrap();
        zip.write_all(header.as_bytes()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
    let pack = |folder: &Path| {
        let mut pack = tinyres();
        pack.arg("pack")
            .arg(&npz)
            .arg("-o")
            .arg(&out)
            .arg("--skip-bad");
        pack.env("TMPDIR", folder).output().unwrap()
    };
    let output = pack(Path::new("/nowhere"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("set TMPDIR"), "{output:?}");
    assert!(!out.exists());
    assert!(pack(dir.path()).status.success());
}

/// The program with an address space of so many KiB.
fn limited(kib: u64) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {kib} && exec \"$@\""), "sh"]);
    command.arg(assert_cmd::cargo::cargo_bin("tinyres"));
    command.env("RUST_BACKTRACE", "0");
    command
}

/// Runs a command under limits of its address space, from what the program needs to start up to `most` KiB more. It must do
/// all its work, or say why not. `is_right` looks at what it left. Returns how many limits were enough.
fn under_limits(args: &[&OsStr], most: u64, mut is_right: impl FnMut(&Output) -> bool) -> usize {
    static LEAST: OnceLock<u64> = OnceLock::new();
    let starts = |kib: &u64| {
        let mut command = limited(*kib);
        command.arg("--version").output().unwrap().status.success()
    };
    let least = LEAST.get_or_init(|| (10_000..).step_by(500).find(starts).unwrap());
    let count = std::env::var("TINYRES_MEMORY_LIMITS").map_or(12, |count| count.parse().unwrap());
    let draws = Draws::new(2, Stream::Sample, 0);
    let mut enough = 0;
    for index in 0..count {
        let kib = least + 500 + draws.below(index, most);
        let output = limited(kib).args(args).output().unwrap();
        let said = stderr(&output);
        let what = format!("{kib} KiB, {args:?}: {:?} {said}", output.status);
        match output.status.code() {
            Some(0) => enough += 1,
            Some(1) => {
                // Another thread may say something of its own before it, in the same line, and after it.
                assert!(said.contains("error: "), "{what}");
                assert!(said.contains("memory") || said.contains("thread"), "{what}");
                assert!(
                    !said.contains("--skip-bad") && !said.contains("damaged"),
                    "{what}"
                );
            }
            _ => panic!("{what}"),
        }
        assert!(is_right(&output), "{what}");
    }
    println!("{enough} of {count} limits were enough for {args:?}");
    enough
}

#[test]
fn too_little_address_space_leaves_the_same_set_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let others = [
        "keras.npz",
        "downsampled-npz.zip",
        "cifar-10-python.tar.gz",
        "cifar-100-binary.tar.gz",
        "ilsvrc.zip",
        "parquet",
        "webdataset",
    ];
    let mut enough = 0;
    for source in archives(dir.path()).into_iter().chain(others.map(golden)) {
        let args = [
            "pack".as_ref(),
            source.as_os_str(),
            "-o".as_ref(),
            out.as_os_str(),
            "--skip-bad".as_ref(),
        ];
        assert!(tinyres().args(args).output().unwrap().status.success());
        let whole = files(&out);
        fs::remove_dir_all(&out).unwrap();
        enough += under_limits(&args, 12_000, |output| {
            let right = match output.status.success() {
                true => files(&out) == whole,
                false => !out.join("dataset.json").exists(),
            };
            let _ = fs::remove_dir_all(&out);
            right
        });
    }
    assert!(enough > 0);
}

/// A set without its compressed shards, or an error: also where only these are left to be removed.
#[test]
fn too_little_address_space_leaves_no_compressed_shard_of_an_expanded_set() {
    let dir = tempfile::tempdir().unwrap();
    let [tree, ..] = archives(dir.path());
    let [raw, packed] = [("raw", "--skip-bad"), ("packed", "--zstd")].map(|(to, flag)| {
        let out = dir.path().join(to);
        let mut pack = tinyres();
        pack.arg("pack").arg(&tree).arg("-o").arg(&out).arg(flag);
        assert!(
            pack.args(["--size", "256"])
                .output()
                .unwrap()
                .status
                .success()
        );
        files(&out)
    });
    let whole_and_leftover = packed.clone().into_iter().chain(raw.clone()).collect();
    let here = dir.path().join("here");
    for (before, most) in [(packed, 60_000), (whole_and_leftover, 8_000)] {
        let begin = || {
            let _ = fs::remove_dir_all(&here);
            fs::create_dir(&here).unwrap();
            for (name, bytes) in &before {
                fs::write(here.join(name), bytes).unwrap();
            }
        };
        begin();
        let enough = under_limits(&["expand".as_ref(), here.as_os_str()], most, |output| {
            let left = files(&here);
            begin();
            let whole = raw
                .iter()
                .all(|(name, bytes)| left.get(name) == Some(bytes));
            match output.status.success() {
                true => left == raw,
                false => left == before || whole,
            }
        });
        assert!(enough > 0);
    }
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
    for kib in (40_000..200_000).step_by(8_000) {
        let mut pack = limited(kib);
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
                assert_eq!(report["refused"], serde_json::json!([]), "{kib}");
                assert_eq!(report["splits"][0]["images"], 3);
            }
            Some(1) => {
                refused += 1;
                assert!(said.contains("memory"), "{kib}: {said}");
                assert!(output.stdout.is_empty());
            }
            code => panic!("{kib} KiB: {code:?} {said}"),
        }
    }
    println!("{packed} limits sufficed, {refused} did not");
    assert!(packed > 0 && refused > 0);
}
