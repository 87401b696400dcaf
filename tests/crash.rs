//! `tinyres pack` and `expand`, killed at any moment: before each call on the output directory, and at
//! random times. `TINYRES_CRASH_ROUNDS` sets the number of random times, `TINYRES_CRASH_SEED` which.

mod common;
#[path = "common/inject.rs"]
mod inject;
#[path = "common/packing.rs"]
mod packing;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::files;
use packing::{Fixture, Found, Operation, tinyres};
use tinyres_format::{Draws, MANIFEST, Shard, Split, Stream, shards_in};
use tinyres_load::{Dataset, Verify};

/// Kills it before each of its calls in turn, with nothing there or an older set.
fn killed_before_any_call(operation: Operation, over: bool) {
    let fixture = Fixture::small(operation);
    let mut seen = Vec::new();
    for number in 1.. {
        fixture.begin(over);
        let mut command = fixture.command(over);
        let run = inject::run(&mut command, &fixture.out(), &format!("kill:{number}"));
        if run.output.status.success() {
            break;
        }
        assert_eq!(run.output.status.signal(), Some(9), "{run:?}");
        let checked = fixture.found().and_then(|found| {
            seen.push(found);
            fixture.complete()
        });
        checked.unwrap_or_else(|wrong| panic!("killed before call {number}: {wrong}\n{run:#?}"));
    }
    assert!(seen.len() > 30, "{seen:?}");
    // The older set, then none, then the new one, and never back; while expanding, always one.
    let before = if over { Found::Old } else { Found::None };
    let order = match operation {
        Operation::Expand => vec![Found::Old, Found::New],
        _ => vec![before, Found::None, Found::New],
    };
    let rank = |found: &Found| order.iter().position(|seen| seen == found).unwrap();
    assert!(seen.is_sorted_by_key(rank), "{seen:?}");
    let ends = (seen.first(), seen.last());
    assert_eq!(ends, (Some(&before), Some(&Found::New)));
}

#[test]
fn pack_killed_before_any_call_leaves_no_set_or_the_older_one() {
    killed_before_any_call(Operation::Pack, false);
    killed_before_any_call(Operation::Pack, true);
}

#[test]
fn pack_zstd_killed_before_any_call_leaves_no_set_or_the_older_one() {
    killed_before_any_call(Operation::PackZstd, false);
    killed_before_any_call(Operation::PackZstd, true);
}

#[test]
fn expand_killed_before_any_call_leaves_the_set_in_one_form() {
    killed_before_any_call(Operation::Expand, true);
}

/// Shards of an older set lie in the output directory without a manifest. The pack that is killed has
/// recorded its own shards under the same names.
#[test]
fn shards_from_before_the_killed_pack_are_not_kept() {
    let fixture = Fixture::small(Operation::Pack);
    let out = fixture.out();
    fixture.begin(true);
    fs::remove_file(out.join(MANIFEST)).unwrap();
    // The first call on an older shard moves it away, once all new ones are finished.
    let older = shards_in(&out).unwrap().remove(0);
    let run = inject::run(&mut fixture.pack("new", &["--force"]), &older, "kill:1");
    assert_eq!(run.output.status.signal(), Some(9), "{run:?}");
    let staged = out.join(".packing").join(older.file_name().unwrap());
    assert!(staged.with_extension("bin.sources").exists());
    fs::remove_file(staged).unwrap();
    fixture.complete().unwrap();
}

/// What `Dataset::open` and `inspect` say of the set.
fn readers_agree(fixture: &Fixture, seen: Found) -> Result<(), String> {
    for split in [Split::Train, Split::Val] {
        let opened = open(fixture, split);
        if opened.is_ok() != (seen != Found::None) {
            return Err(format!("{seen:?}, but opening {split}: {:?}", opened.err()));
        }
    }
    let inspect = tinyres()
        .args(["inspect", "--verify"])
        .arg(fixture.out())
        .output()
        .unwrap();
    let expected = i32::from(seen == Found::None);
    if inspect.status.code() != Some(expected) {
        return Err(format!("{seen:?}, but {inspect:?}"));
    }
    Ok(())
}

/// Opens a split, checks all of it, and returns its pixels.
fn open(fixture: &Fixture, split: Split) -> tinyres_load::Result<Vec<u8>> {
    #[expect(
        unsafe_code,
        reason = "pack replaces shards by renaming others over them"
    )]
    // SAFETY: see above.
    let data = unsafe { Dataset::open(&fixture.out(), split, Verify::Full) }?;
    let images: Vec<u32> = (0..data.len()).collect();
    let mut pixels = vec![0; data.len() as usize * data.shape().image_len()];
    data.gather(&images, &mut pixels)?;
    Ok(pixels)
}

/// The pixels of a split, read without the loader.
fn pixels(files: &packing::Files, split: Split) -> Vec<u8> {
    let of_split = files
        .iter()
        .filter(|(name, _)| name.starts_with(split.name()));
    let shards = of_split.map(|(_, bytes)| Shard::new(&bytes[..]).unwrap().images().to_vec());
    shards.flatten().collect()
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().unwrap())
}

/// Kills packs at random moments, some of which go on where another was killed, while a reader opens
/// what is there again and again.
#[test]
fn pack_killed_at_random_moments_leaves_no_set_or_the_older_one() {
    let rounds = number("TINYRES_CRASH_ROUNDS", 24);
    let draws = Draws::new(number("TINYRES_CRASH_SEED", 1), Stream::Sample, 0);
    let fixture = Fixture::new(tempfile::tempdir().unwrap(), Operation::Pack, 500, "20");
    let lengths = [0, 1, 2].map(|_| {
        fixture.begin(false);
        let began = Instant::now();
        assert!(fixture.pack("new", &[]).output().unwrap().status.success());
        began.elapsed()
    });
    let mut length = u64::try_from(lengths.iter().min().unwrap().as_micros()).unwrap();

    let (old, new) = (
        pixels(&fixture.old, Split::Train),
        pixels(&fixture.new, Split::Train),
    );
    let over = AtomicBool::new(false);
    let mut landed: BTreeMap<&str, u64> = BTreeMap::new();
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read = [0; 3];
            while !over.load(Ordering::Relaxed) {
                match open(&fixture, Split::Train) {
                    Ok(pixels) if pixels == new => read[0] += 1,
                    Ok(pixels) if pixels == old => read[1] += 1,
                    Ok(_) => panic!("a reader got pixels of neither set"),
                    Err(_) => read[2] += 1,
                }
                std::thread::sleep(Duration::from_millis(3));
            }
            read
        });
        let mut afresh = true;
        for round in 0..rounds {
            if afresh {
                fixture.begin(draws.below(4 * round, 2) == 1);
            }
            // Every other one towards the end, where the set is published.
            let from = length * 7 / 10 * (round % 2);
            let moment = from + draws.below(4 * round + 1, length - from);
            let moment = Duration::from_micros(moment);
            let there = fixture.out().join(MANIFEST).exists();
            let status = run_for(&mut fixture.command(there), moment);
            *landed.entry(place(&fixture, status)).or_default() += 1;
            if status.success() {
                // Too late: it has become faster since it was measured.
                length = length * 9 / 10;
            }
            let completed = draws.below(4 * round + 2, 2) == 1;
            let seen = (fixture.found())
                .and_then(|seen| readers_agree(&fixture, seen).map(|()| seen))
                .and_then(|seen| match completed {
                    true => fixture.complete().map(|()| seen),
                    false => Ok(seen),
                })
                .unwrap_or_else(|wrong| panic!("round {round}, killed after {moment:?}: {wrong}"));
            afresh = completed || seen == Found::New;
        }
        over.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    fixture.complete().unwrap();
    let [new, old, none] = read;
    println!(
        "{rounds} rounds of up to {length} us: {landed:?}; a reader met the new set {new} times, the old one {old} times, none {none} times"
    );
    let killed: u64 = landed
        .iter()
        .filter(|(place, _)| **place != "finished")
        .map(|(_, count)| count)
        .sum();
    assert!(4 * killed > rounds, "{killed} of {rounds} were killed");
}

/// Runs `command` for so long, and kills it if it has not ended by then.
fn run_for(command: &mut Command, time: Duration) -> ExitStatus {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(time);
    child.kill().unwrap();
    child.wait().unwrap()
}

/// How far a pack got that ended with `status`.
fn place(fixture: &Fixture, status: ExitStatus) -> &'static str {
    if status.success() {
        return "finished";
    }
    assert_eq!(status.signal(), Some(9), "{status}");
    let out = fixture.out();
    let staged = out.join(".packing").exists();
    match fixture.found() {
        Ok(Found::New) => "published",
        Ok(Found::None) if shards_in(&out).is_ok_and(|shards| !shards.is_empty()) => "publishing",
        _ if staged => "packing",
        _ => "before it began",
    }
}

/// Halts one pack while it holds the directory, starts another, and lets the first go on, or kills it.
#[test]
fn second_packer_is_refused() {
    let fixture = Fixture::small(Operation::Pack);
    let out = fixture.out();
    for killed in [false, true] {
        fixture.begin(false);
        // The second call on the unfinished shard: the first one has created it.
        let unfinished = out.join(".packing/.train-00000.bin.tmp");
        let mut first = inject::run_until(&mut fixture.pack("new", &[]), &unfinished, 2);
        assert!(unfinished.exists());
        let left = files(&out.join(".packing"));
        let second = fixture.pack("new", &[]).output().unwrap();
        assert_eq!(second.status.code(), Some(1), "{second:?}");
        let error = String::from_utf8(second.stderr).unwrap();
        let expected = format!("error: {}: another tinyres is packing here", out.display());
        assert!(error.starts_with(&expected), "{error}");
        assert!(
            files(&out.join(".packing")) == left,
            "it touched what is the other's"
        );
        if killed {
            first.kill().unwrap();
        } else {
            inject::wake(&first);
        }
        assert_eq!(first.wait().unwrap().success(), !killed);
        let seen = if killed { Found::None } else { Found::New };
        assert_eq!(fixture.found(), Ok(seen));
        // The lock has died with its process.
        fixture.complete().unwrap();
    }
}

/// Halts a pack that has found no set before it locks the directory, and lets another finish.
#[test]
fn set_that_comes_meanwhile_is_not_replaced() {
    let fixture = Fixture::small(Operation::Pack);
    let out = fixture.out();
    // Another set is refused, the same one is left alone.
    let cases = [("old", &["--size", "32"][..], 1), ("old", &[], 0)];
    for (source, flags, code) in cases {
        fixture.begin(false);
        fs::create_dir(&out).unwrap();
        let mut late = inject::run_until(&mut fixture.pack(source, flags), &out, 1);
        assert!(fixture.pack("old", &[]).output().unwrap().status.success());
        inject::wake(&late);
        assert_eq!(late.wait().unwrap().code(), Some(code));
        assert_eq!(fixture.found(), Ok(Found::Old));
        assert!(!out.join(".packing").exists());
    }
}

#[test]
fn one_of_many_packers_at_once_packs() {
    let fixture = Fixture::small(Operation::Pack);
    for _ in 0..4 {
        fixture.begin(false);
        let start = |_| {
            let mut pack = fixture.pack("new", &["--json"]);
            pack.stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let packs: Vec<_> = (0..6).map(start).collect();
        let outputs = packs
            .into_iter()
            .map(|pack| pack.wait_with_output().unwrap());
        let (finished, failed): (Vec<_>, Vec<_>) =
            outputs.partition(|output| output.status.success());
        // Packs that start once the set is there find it.
        let wrote = finished.iter().filter(|output| {
            let stdout = String::from_utf8_lossy(&output.stdout);
            stdout.contains("\"unchanged\":false")
        });
        assert_eq!(wrote.count(), 1, "{finished:?}");
        for output in failed {
            let error = String::from_utf8(output.stderr).unwrap();
            assert!(error.contains("another tinyres is packing here"), "{error}");
        }
        assert_eq!(fixture.found(), Ok(Found::New));
        fixture.complete().unwrap();
    }
}
