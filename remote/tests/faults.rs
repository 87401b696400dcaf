//! A real store behind a proxy that spoils answers. Whatever happens, the cache has the right set or none, the error names
//! the object, and the same command goes on. `TINYRES_REMOTE_FAULTS=all` runs every place of a fault; without it some are
//! drawn, by `TINYRES_CRASH_SEED`. `TINYRES_CRASH_ROUNDS` sets the number of kills.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::proxy::{Change, Proxy, Request};
use common::{
    World, address, dir, draws, fail, files, is_right_or_none, said, succeed, world, write_set,
};

/// Which requests are spoilt.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// The first one of its kind.
    Once,
    Always,
}

/// Which requests are meant.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Of {
    Manifest,
    /// Header pages, and the beginnings of compressed shards.
    Heads,
    Pixels,
    /// Columns, and the ends of compressed shards.
    Tails,
}

impl Of {
    fn is(self, request: &Request) -> bool {
        let first = request.range.map(|(first, _)| first);
        match self {
            Self::Manifest => request.path.ends_with(".json"),
            Self::Heads => first == Some(0),
            Self::Pixels => first.is_some_and(|first| first > 0) && !Self::Tails.is(request),
            Self::Tails => {
                let len = request.range.map_or(0, |(first, last)| last - first);
                // A shard of the small set has 60 images, 737,280 bytes of pixels from byte 4096 on.
                first.is_some_and(|first| first >= 4096 + 15 * 12288) && len < 100_000
            }
        }
    }
}

/// A fault, and the words of the error that it must lead to; no words if the fetch must succeed.
#[derive(Clone, Debug)]
struct Row {
    set: &'static str,
    of: Of,
    when: When,
    change: Change,
    error: &'static [&'static str],
}

fn row(
    set: &'static str,
    of: Of,
    when: When,
    change: Change,
    error: &'static [&'static str],
) -> Row {
    Row {
        set,
        of,
        when,
        change,
        error,
    }
}

/// Every fault, at every place.
fn rows() -> Vec<Row> {
    use Change::{Away, Cut, Drip, Flip, Longer, Stall, Status, Whole};
    use Of::{Heads, Manifest, Pixels, Tails};
    use When::{Always, Once};
    let mut rows = Vec::new();
    for set in ["small", "small-zst"] {
        for place in 0..20 {
            rows.push(row(set, Pixels, Once, Cut(place * 36_000), &[]));
        }
        for of in [Manifest, Heads, Pixels] {
            rows.push(row(set, of, Once, Cut(100), &[]));
            rows.push(row(set, of, Once, Stall(100), &[]));
            rows.push(row(set, of, Once, Stall(0), &[]));
            rows.push(row(set, of, Once, Drip, &[]));
            rows.push(row(set, of, Once, Away, &[]));
            rows.push(row(set, of, Once, Longer(10), &[]));
            rows.push(row(set, of, Once, Status(500, "InternalError", None), &[]));
            rows.push(row(set, of, Once, Status(503, "SlowDown", Some(1)), &[]));
            rows.push(row(
                set,
                of,
                Always,
                Status(503, "SlowDown", None),
                &["the store answers 503 SlowDown"],
            ));
            rows.push(row(
                set,
                of,
                Always,
                Away,
                &["goes on with what was fetched"],
            ));
            rows.push(row(
                set,
                of,
                Always,
                Stall(0),
                &["goes on with what was fetched"],
            ));
            let expired = &["400 (ExpiredToken): the credentials have expired: get new ones"];
            rows.push(row(
                set,
                of,
                Always,
                Status(400, "ExpiredToken", None),
                expired,
            ));
            let denied = &["403 (AccessDenied): use credentials with the right to do this"];
            rows.push(row(
                set,
                of,
                Always,
                Status(403, "AccessDenied", None),
                denied,
            ));
        }
        for of in [Manifest, Pixels] {
            rows.push(row(set, of, Always, Drip, &["bytes came in 2"]));
        }
        for of in [Heads, Pixels] {
            rows.push(row(
                set,
                of,
                Always,
                Status(404, "NoSuchKey", None),
                &["in dataset.json, but not there"],
            ));
            rows.push(row(set, of, Always, Whole, &["it ignores Range"]));
        }
        // One bit, in the middle of a transfer: it is read again.
        for place in 0..20 {
            rows.push(row(set, Pixels, Once, Flip(place * 9_000 + 77), &[]));
        }
        rows.push(row(
            set,
            Pixels,
            Always,
            Flip(77),
            &["image block", "3 times: publish the set again"],
        ));
    }
    for place in [0, 100, 300, 4095] {
        rows.push(row(
            "small",
            Heads,
            Always,
            Flip(place),
            &["not the shard that dataset.json lists"],
        ));
    }
    for place in [0, 40, 700] {
        rows.push(row("small", Tails, Once, Flip(place), &[]));
        rows.push(row(
            "small",
            Tails,
            Always,
            Flip(place),
            &["3 times: publish the set again"],
        ));
    }
    rows.push(row("small", Manifest, Always, Flip(1), &["dataset.json"]));
    rows.push(row(
        "small",
        Manifest,
        Always,
        Status(404, "NoSuchKey", None),
        &["there is no set"],
    ));
    rows
}

impl Row {
    fn check(&self, world: &World, expected: &BTreeMap<String, Vec<u8>>) -> Result<(), String> {
        let cache = tempfile::tempdir().unwrap();
        let spoilt = AtomicUsize::new(0);
        let row = self.clone();
        let met = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&met);
        let proxy = Proxy::start(&world.weed.host, move |_, request| {
            let meant = row.of.is(request)
                && (spoilt.fetch_add(1, Ordering::SeqCst) == 0 || row.when == When::Always);
            seen.fetch_or(meant, Ordering::SeqCst);
            match meant {
                true => row.change.clone(),
                false => Change::Pass,
            }
        });
        let mut command = world.fetch(&proxy.url, self.set, cache.path());
        command.args(["--retries", if self.when == When::Once { "3" } else { "1" }]);
        let output = command.output().unwrap();
        let error = said(&output);
        let right = is_right_or_none(cache.path(), expected);
        if !met.load(Ordering::SeqCst) {
            return Err("no request is of this kind".to_owned());
        }
        if output.status.success() != self.error.is_empty() || right != output.status.success() {
            return Err(format!("{}, {error}", output.status));
        }
        if !self.error.is_empty() && !error.contains(&format!("s3://sets/{}/", self.set)) {
            return Err(format!("the object is not named: {error}"));
        }
        if let Some(words) = self.error.iter().find(|words| !error.contains(**words)) {
            return Err(format!("no {words:?} in {error}"));
        }
        succeed(&mut world.fetch(&world.url(), self.set, cache.path()));
        match is_right_or_none(cache.path(), expected) {
            true => Ok(()),
            false => Err("the same command does not go on".to_owned()),
        }
    }
}

/// Seed of what is drawn.
fn seed() -> u64 {
    let seed = std::env::var("TINYRES_CRASH_SEED").ok();
    seed.map_or(1, |seed| seed.parse().unwrap())
}

#[test]
fn every_fault_leads_to_the_right_set_or_a_named_error() {
    let Some(world) = world() else { return };
    let expected = files(&world.set);
    let mut rows = rows();
    if std::env::var("TINYRES_REMOTE_FAULTS").as_deref() != Ok("all") {
        let mut draw = draws(seed());
        // One of each kind, and some of each place.
        let mut kinds = BTreeMap::new();
        rows.retain(|row| {
            let kind = format!(
                "{:?} {:?} {:?}",
                row.of,
                row.when,
                std::mem::discriminant(&row.change)
            );
            let count = kinds.entry(kind).or_insert(0);
            *count += 1;
            *count == 1 || draw(12) == 0
        });
    }
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    // Most of the time is spent waiting.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(what) = row.check(world, &expected) {
                        eprintln!("{row:?}: {what}");
                        wrong.lock().unwrap().push(format!("{row:?}: {what}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_fetch_that_is_killed_at_any_time_goes_on() {
    let Some(world) = world() else { return };
    let expected = files(&world.set);
    let rounds = std::env::var("TINYRES_CRASH_ROUNDS").map_or(8, |rounds| rounds.parse().unwrap());
    let mut draw = draws(seed() + 1);
    let mut killed = 0;
    for round in 0..rounds {
        let set = ["small", "small-zst"][round % 2];
        let cache = tempfile::tempdir().unwrap();
        let proxy = Proxy::start(&world.weed.host, |_, _| {
            Change::Late(Duration::from_millis(15))
        });
        // Killed again and again, always later, until it comes through.
        for longest in (1..).map(|kill| 100 * kill) {
            let mut command = world.fetch(&proxy.url, set, cache.path());
            let mut child = (command.stdout(Stdio::null()).stderr(Stdio::null()))
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(10 + draw(longest)));
            child.kill().unwrap();
            let status = child.wait().unwrap();
            let right = is_right_or_none(cache.path(), &expected);
            if status.success() {
                assert!(right);
                break;
            }
            killed += 1;
        }
    }
    println!("{killed} fetches were killed");
    assert!(killed > 0);
}

#[test]
fn a_set_that_is_replaced_while_it_is_fetched_is_never_mixed() {
    let Some(world) = world() else { return };
    let temporary = tempfile::tempdir().unwrap();
    let sets = ["one", "two"].map(|name| temporary.path().join(name));
    for (at, set) in sets.iter().enumerate() {
        write_set(set, 30 + at as u64, 150, 60);
    }
    world.publish(&sets[0], "changing");
    let publish = {
        let mut command = world.program(&world.url());
        command
            .arg("publish")
            .arg(&sets[1])
            .arg(address("changing"))
            .arg("--force");
        Mutex::new(command)
    };
    let count = AtomicUsize::new(0);
    let proxy = Proxy::start(&world.weed.host, move |_, request| {
        if Of::Pixels.is(request) && count.fetch_add(1, Ordering::SeqCst) == 1 {
            succeed(&mut publish.lock().unwrap());
        }
        Change::Pass
    });
    let cache = temporary.path().join("cache");
    let error = fail(&mut world.fetch(&proxy.url, "changing", &cache));
    assert!(error.contains("run the same command again"), "{error}");
    let result = succeed(&mut world.fetch(&proxy.url, "changing", &cache));
    assert!(files(&dir(&result)) == files(&sets[1]));
}

#[test]
fn a_disk_that_is_full_is_named_and_the_fetch_goes_on() {
    let Some(world) = world() else { return };
    let cache = tempfile::tempdir().unwrap();
    let fetch = world.fetch(&world.url(), "small", cache.path());
    let mut command = Command::new("bash");
    // Files of at most 100 blocks of 1,024 bytes.
    command.args(["-c", "ulimit -f 100; trap '' XFSZ; exec \"$@\"", "bash"]);
    command.arg(fetch.get_program()).args(fetch.get_args());
    for (name, value) in fetch.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let error = fail(&mut command);
    assert!(
        error.contains("train-00000.bin.part: File too large"),
        "{error}"
    );
    let result = succeed(&mut world.fetch(&world.url(), "small", cache.path()));
    assert!(files(&dir(&result)) == files(&world.set));
    assert!(fs::read_dir(dir(&result)).unwrap().count() == files(&world.set).len());
}
