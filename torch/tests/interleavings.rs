//! A training and another process on its run or its set, interleaved as a seed says. `TINYRES_INTERLEAVINGS` sets how often,
//! `TINYRES_CRASH_SEED` how.
#![cfg(feature = "torch")]

mod common;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "../../tests/common/inject.rs"]
mod inject;
#[path = "../../tests/common/interleave.rs"]
mod interleave;
#[path = "../../tests/common/skip.rs"]
mod skip;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use fixture::{Fixture, number};
use interleave::{Ended, interleave};
use tinyres_format::{Draws, MANIFEST, Stream};

/// Calls `round` with the draws of each round, and prints how often each result came.
fn rounds(what: &str, round: impl Fn(&Draws) -> Result<&'static str, String>) {
    let (rounds, seed) = (
        number("TINYRES_INTERLEAVINGS", 5),
        number("TINYRES_CRASH_SEED", 1),
    );
    let mut seen = BTreeMap::<_, u64>::new();
    for number in 0..rounds {
        let draws = Draws::new(seed, Stream::Sample, number);
        match round(&draws) {
            Ok(state) => *seen.entry(state).or_default() += 1,
            Err(wrong) => panic!("{what}: seed {seed}, round {number}: {wrong}"),
        }
    }
    println!("{what}: {rounds} interleavings: {seen:?}");
}

/// A training that nobody killed, and whose set or run nobody else held, has the `weights` of one that was not disturbed.
fn check_training(fixture: &Fixture, ended: &Ended, weights: &[&[u8]]) -> Result<bool, String> {
    let succeeded = ended.succeeded()?;
    if succeeded && !weights.contains(&&fixture.final_weights()[..]) {
        return Err(format!("it has trained other weights: {ended:?}"));
    }
    Ok(succeeded)
}

#[test]
fn interleaved_training_and_resume_leave_a_run_that_goes_on() {
    let fixture = Fixture::new();
    let calls = fixture.calls.len() as u64;
    rounds("train and resume", |draws| {
        let commands = [
            fixture.train(),
            fixture.tinyres(&["train", "--resume", "run"]),
        ];
        let ended = interleave(commands, &fixture.run(), [calls; 2], draws);
        for one in &ended {
            check_training(&fixture, one, &[&fixture.weights])?;
        }
        fixture.check()
    });
}

/// `tinyres` lies next to `tinyres-torch`, if both were built.
fn tinyres(dir: &Path) -> Option<Command> {
    let program = assert_cmd::cargo::cargo_bin!("tinyres-torch").with_file_name("tinyres");
    if !program.exists() {
        skip::skip("tinyres is not built; cargo build builds it");
        return None;
    }
    let mut command = Command::new(program);
    command.current_dir(dir);
    Some(command)
}

type Files = BTreeMap<std::ffi::OsString, Vec<u8>>;

/// The files of a set, without what a killed process left.
fn files(dir: &Path) -> Files {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let seen = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    seen.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap()))
        .collect()
}

/// Puts `files` into the new directory `dir`.
fn put(dir: &Path, files: &Files) {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir(dir).unwrap();
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

/// Two sources of the same names and other pixels, and the sets that they are packed to.
struct Packed {
    fixture: Fixture,
    sets: [Files; 2],
    /// The final weights of a training on each.
    weights: [Vec<u8>; 2],
}

impl Packed {
    fn new(form: &[&str]) -> Option<Self> {
        let mut fixture = Fixture::new();
        let dir = fixture.dir.path().to_owned();
        let run = |args: &[&str]| -> Option<()> {
            let output = tinyres(&dir)?.args(args).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            Some(())
        };
        let mut made = Vec::new();
        for (seed, source) in ["old", "new"].into_iter().enumerate() {
            let size = [
                "--classes=4",
                "--train-per-class=8",
                "--val-per-class=2",
                "--test=1",
            ];
            run(&[&["sample", source, &format!("--seed={seed}")], &size[..]].concat())?;
            let _ = fs::remove_dir_all(dir.join("shards"));
            run(&[&["pack", source, "-o", "shards"], form].concat())?;
            let trained = fixture
                .train()
                .env("TINYRES_CACHE", dir.join("cache"))
                .output()
                .unwrap();
            assert!(trained.status.success(), "{trained:?}");
            made.push((files(&dir.join("shards")), fixture.final_weights()));
        }
        let [(old, of_old), (new, of_new)] = made.try_into().ok()?;
        assert!(of_old != of_new);
        fixture.calls.clear();
        Some(Self {
            fixture,
            sets: [old, new],
            weights: [of_old, of_new],
        })
    }

    /// The training, with nothing in its cache.
    fn train(&self) -> Command {
        let cache = self.fixture.dir.path().join("cache");
        let _ = fs::remove_dir_all(&cache);
        let mut train = self.fixture.train();
        train.env("TINYRES_CACHE", cache);
        train
    }

    /// Runs a command of `tinyres` with the training.
    fn interleave(&self, args: &[&str], draws: &Draws) -> [Ended; 2] {
        let dir = self.fixture.dir.path();
        let mut other = tinyres(dir).unwrap();
        other.args(args);
        interleave([other, self.train()], dir, [60, 90], draws)
    }

    fn run_again(&self, args: &[&str]) -> Result<(), String> {
        let again = tinyres(self.fixture.dir.path())
            .unwrap()
            .args(args)
            .output()
            .unwrap();
        match again.status.success() {
            true => Ok(()),
            false => Err(format!("run again, it fails: {again:?}")),
        }
    }
}

#[test]
fn interleaved_expand_and_training_leave_the_set_in_one_form() {
    let Some(packed) = Packed::new(&["--zstd"]) else {
        return;
    };
    let shards = packed.fixture.dir.path().join("shards");
    let (compressed, expand) = (&packed.sets[1], ["expand", "shards"]);
    put(&shards, compressed);
    packed.run_again(&expand).unwrap();
    let raw = files(&shards);
    rounds("expand and train", |draws| {
        put(&shards, compressed);
        let [expanded, trained] = packed.interleave(&expand, draws);
        let now = files(&shards);
        if expanded.succeeded()? && now != raw {
            return Err(format!("it was not expanded: {expanded:?}"));
        }
        let trained = check_training(&packed.fixture, &trained, &[&packed.weights[1]])?;
        // Files of the one form may lie next to a set of the other.
        let form = match now.get(std::ffi::OsStr::new(MANIFEST)) {
            Some(manifest) if *manifest == raw[std::ffi::OsStr::new(MANIFEST)] => &raw,
            _ => compressed,
        };
        if form
            .iter()
            .any(|(name, bytes)| now.get(name) != Some(bytes))
        {
            return Err("the set is in neither form".into());
        }
        packed.run_again(&expand)?;
        if files(&shards) != raw {
            return Err("expanded again, it is another set".into());
        }
        Ok(if trained { "trained" } else { "not trained" })
    });
}

#[test]
fn interleaved_pack_over_a_set_and_training_on_it_never_mix_sets() {
    let Some(packed) = Packed::new(&[]) else {
        return;
    };
    let shards = packed.fixture.dir.path().join("shards");
    let [old, new] = &packed.sets;
    let pack = ["pack", "new", "-o", "shards", "--force"];
    rounds("pack --force and train", |draws| {
        put(&shards, old);
        let [replaced, trained] = packed.interleave(&pack, draws);
        let now = files(&shards);
        if replaced.succeeded()? && now != *new {
            return Err(format!("it was not packed: {replaced:?}"));
        }
        if now.contains_key(std::ffi::OsStr::new(MANIFEST)) && now != *old && now != *new {
            return Err("what is there passes for whole, and is not".into());
        }
        let [of_old, of_new] = &packed.weights;
        let trained = check_training(&packed.fixture, &trained, &[of_old, of_new])?;
        packed.run_again(&pack)?;
        if files(&shards) != *new {
            return Err("packed again, it is another set".into());
        }
        Ok(if trained { "trained" } else { "not trained" })
    });
}
