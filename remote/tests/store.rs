//! Sets in a real store, fetched and published as a user does it.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use common::proxy::{Change, Proxy};
use common::skip::skip;
use common::weed::{BUCKET, KEY, PUBLIC, SECRET};
use common::{address, compress, dir, fail, files, remote, said, succeed, world, write_set};

/// Bytes of one part.
const PART: u64 = 16 << 20;

#[test]
fn a_set_is_fetched_once_and_used_while_its_store_is_away() {
    let Some(world) = world() else { return };
    for name in ["small", "small-zst"] {
        let cache = tempfile::tempdir().unwrap();
        let proxy = Proxy::start(&world.weed.host, |_, _| Change::Pass);
        let first = succeed(&mut world.fetch(&proxy.url, name, cache.path()));
        assert!(files(&dir(&first)) == files(&world.set), "{name}");
        assert!(first["fetched"].as_u64().unwrap() > 0);
        let requests = proxy.seen().len();
        let second = succeed(&mut world.fetch(&proxy.url, name, cache.path()));
        assert_eq!((dir(&second), &second["fetched"]), (dir(&first), &0.into()));
        // Only the manifest was asked for.
        assert_eq!(proxy.seen().len(), requests + 1);
        let url = proxy.url.clone();
        drop(proxy);
        let mut away = world.fetch(&url, name, cache.path());
        let output = away.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert!(
            said(&output).contains("refused (os error 111); using what was fetched before"),
            "{}",
            said(&output)
        );
        let third: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(dir(&third), dir(&first));
    }
}

#[test]
fn both_forms_of_a_set_share_one_place() {
    let Some(world) = world() else { return };
    let cache = tempfile::tempdir().unwrap();
    let raw = succeed(&mut world.fetch(&world.url(), "small", cache.path()));
    let zst = succeed(&mut world.fetch(&world.url(), "small-zst", cache.path()));
    assert_eq!((dir(&raw), &zst["fetched"]), (dir(&zst), &0.into()));
}

#[test]
fn processes_that_want_one_set_fetch_it_once() {
    let Some(world) = world() else { return };
    let cache = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&world.weed.host, |_, _| {
        Change::Late(Duration::from_millis(20))
    });
    let ranks: Vec<_> = (0..4)
        .map(|_| {
            let mut command = world.fetch(&proxy.url, "small", cache.path());
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut fetched = 0;
    for rank in ranks {
        let output = rank.wait_with_output().unwrap();
        assert!(output.status.success());
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(files(&dir(&result)) == files(&world.set));
        fetched += u64::from(result["fetched"].as_u64().unwrap() > 0);
    }
    assert_eq!(fetched, 1);
    let set: u64 = files(&world.set)
        .values()
        .map(|file| file.len() as u64)
        .sum();
    // Each asks for the manifest.
    assert!(proxy.sent() < set + set / 10, "{} of {set}", proxy.sent());
}

#[test]
fn a_killed_fetch_reads_at_most_one_part_again() {
    let Some(world) = world() else { return };
    let temporary = tempfile::tempdir().unwrap();
    let set = temporary.path().join("set");
    write_set(&set, 7, 5_000, 2_000);
    world.publish(&set, "large");
    let bytes: u64 = files(&set).values().map(|file| file.len() as u64).sum();
    assert!(bytes > 4 * PART);
    let cache = temporary.path().join("cache");
    // Stalls in the middle of parts, so that the kill comes while many are on their way.
    let stalled = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stalled);
    let proxy = Proxy::start(&world.weed.host, move |_, request| match request.range {
        Some((first, last)) if last - first > PART / 2 => {
            seen.store(true, Ordering::SeqCst);
            Change::Stall(12_000_000)
        }
        _ => Change::Pass,
    });
    let mut command = world.program(&proxy.url);
    command
        .args(["fetch", &address("large"), "--timeout", "60", "--cache"])
        .arg(&cache);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let mut before = (0, 0);
    // All that came is on its way no more when nothing more comes.
    loop {
        std::thread::sleep(Duration::from_millis(500));
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        let now = (taken(&cache), u64::from(stalled.load(Ordering::SeqCst)));
        if now == before && now.1 > 0 && now.0 > 3 * PART / 2 {
            break;
        }
        before = now;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let there = before.0;
    drop(proxy);
    let proxy = Proxy::start(&world.weed.host, |_, _| Change::Pass);
    let result = succeed(&mut world.fetch(&proxy.url, "large", &cache));
    assert!(files(&dir(&result)) == files(&set));
    let again = proxy.sent() + there - bytes;
    assert!(again < PART, "{again} bytes were read again");
    assert!(proxy.sent() < bytes - PART, "it went on");
}

/// Bytes of the disk that the shards in `cache` take.
fn taken(cache: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for place in fs::read_dir(cache.join("shards"))
        .into_iter()
        .flatten()
        .flatten()
    {
        for file in fs::read_dir(place.path()).into_iter().flatten().flatten() {
            sum += file.metadata().map_or(0, |file| file.blocks() * 512);
        }
    }
    sum
}

#[test]
fn a_set_is_published_once_and_replaced_only_by_force() {
    let Some(world) = world() else { return };
    let temporary = tempfile::tempdir().unwrap();
    let [one, two, cache] = ["one", "two", "cache"].map(|name| temporary.path().join(name));
    write_set(&one, 11, 90, 40);
    write_set(&two, 12, 90, 40);
    let publish = |set: &Path, flags: &[&str]| {
        let mut command = world.program(&world.url());
        command
            .arg("publish")
            .arg(set)
            .arg(address("published"))
            .arg("--json")
            .args(flags);
        command
    };
    assert_eq!(succeed(&mut publish(&one, &[]))["sent"], 4);
    assert_eq!(succeed(&mut publish(&one, &[]))["sent"], 0);
    let error = fail(&mut publish(&two, &[]));
    assert!(error.contains("holds another set already"), "{error}");
    succeed(&mut world.fetch(&world.url(), "published", &cache));
    assert_eq!(succeed(&mut publish(&two, &["--force"]))["sent"], 4);
    let result = succeed(&mut world.fetch(&world.url(), "published", &cache));
    assert!(files(&dir(&result)) == files(&two));
}

#[test]
fn a_damaged_set_is_not_published() {
    let Some(world) = world() else { return };
    let temporary = tempfile::tempdir().unwrap();
    let [raw, zst] = ["raw", "zst"].map(|name| temporary.path().join(name));
    write_set(&raw, 13, 40, 40);
    compress(&raw, &zst);
    for (set, file) in [(&raw, "train-00000.bin"), (&zst, "train-00000.bin.zst")] {
        let path = set.join(file);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let mut command = world.program(&world.url());
        let error = fail(command.arg("publish").arg(set).arg(address("damaged")));
        assert!(error.contains(file), "{error}");
    }
    let error = fail(&mut world.fetch(&world.url(), "damaged", temporary.path()));
    assert!(
        error.contains("s3://sets/damaged/dataset.json: there is no such object"),
        "{error}"
    );
}

#[test]
fn a_broken_publication_goes_on() {
    let Some(world) = world() else { return };
    let temporary = tempfile::tempdir().unwrap();
    let [set, cache] = ["set", "cache"].map(|name| temporary.path().join(name));
    write_set(&set, 14, 90, 40);
    // Another answer after the second shard.
    let proxy = Proxy::start(&world.weed.host, |_, request| {
        match request.method.as_str() {
            "PUT" if request.path.contains("00002") => Change::Status(403, "AccessDenied", None),
            _ => Change::Pass,
        }
    });
    let mut command = world.program(&proxy.url);
    let error = fail(command.arg("publish").arg(&set).arg(address("broken")));
    assert!(
        error.contains("train-00002.bin: the store answers 403 (AccessDenied)"),
        "{error}"
    );
    let error = fail(&mut world.fetch(&world.url(), "broken", &cache));
    assert!(error.contains("there is no such object"), "{error}");
    let mut command = world.program(&world.url());
    command
        .arg("publish")
        .arg(&set)
        .arg(address("broken"))
        .arg("--json");
    assert_eq!(succeed(&mut command)["sent"], 2);
    let result = succeed(&mut world.fetch(&world.url(), "broken", &cache));
    assert!(files(&dir(&result)) == files(&set));
}

#[test]
fn a_limit_removes_what_was_used_longest_ago_but_nothing_in_use() {
    let Some(world) = world() else { return };
    let temporary = tempfile::tempdir().unwrap();
    let cache = temporary.path().join("cache");
    let mut places = Vec::new();
    for (at, name) in ["lru-a", "lru-b", "lru-c"].into_iter().enumerate() {
        let set = temporary.path().join(name);
        write_set(&set, 20 + at as u64, 60, 60);
        world.publish(&set, name);
    }
    let bytes = |set: &str| -> u64 {
        let set = files(&temporary.path().join(set));
        set.values().map(|file| file.len() as u64).sum()
    };
    // Two of them, and not three.
    let limit = (bytes("lru-a") * 5 / 2).to_string();
    let fetch = |name: &str| {
        let mut command = world.fetch(&world.url(), name, &cache);
        command.args(["--cache-size", &limit]);
        command
    };
    let record = |place: &Path| place.with_extension("json");
    let used = |place: &Path, hours: u64| {
        let file = fs::File::options().write(true).open(record(place)).unwrap();
        let time = std::time::SystemTime::now() - Duration::from_secs(hours * 3600);
        file.set_modified(time).unwrap();
    };
    for (name, hours) in [("lru-a", 3), ("lru-b", 2)] {
        let place = dir(&succeed(&mut fetch(name)));
        used(&place, hours);
        places.push(place);
    }
    // The one used longest ago is in use: the other goes.
    let held = fs::File::open(record(&places[0])).unwrap();
    held.lock_shared().unwrap();
    places.push(dir(&succeed(&mut fetch("lru-c"))));
    let there: Vec<_> = places.iter().map(|place| place.exists()).collect();
    assert_eq!(there, [true, false, true]);
    // Nothing can go now.
    used(&places[2], 1);
    let second = fs::File::open(record(&places[2])).unwrap();
    second.lock_shared().unwrap();
    let error = fail(&mut fetch("lru-b"));
    assert!(error.contains("raise the limit, or wait"), "{error}");
    drop(held);
    succeed(&mut fetch("lru-b"));
    assert!(!places[0].exists() && places[2].exists());
}

#[test]
fn settings_are_those_of_the_aws_tools() {
    let Some(world) = world() else { return };
    let temporary = tempfile::tempdir().unwrap();
    let path = |name: &str| temporary.path().join(name);
    let config = format!(
        "[profile lab]\nregion = us-east-1\nservices = lab\n[services lab]\ns3 =\n  endpoint_url = {}\n",
        world.url()
    );
    fs::write(path("config"), config).unwrap();
    let keys = format!("[lab]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n");
    fs::write(path("credentials"), keys).unwrap();
    let fetch = |profile: &str| {
        let mut command = remote();
        command
            .args(["fetch", &address("small"), "--json", "--cache"])
            .arg(path("cache"));
        command
            .env("AWS_CONFIG_FILE", path("config"))
            .env("AWS_PROFILE", profile);
        command.env("AWS_SHARED_CREDENTIALS_FILE", path("credentials"));
        command
    };
    let error = fail(&mut fetch("another"));
    assert!(
        error.contains("there is no profile another in ~/.aws"),
        "{error}"
    );
    let result = succeed(&mut fetch("lab"));
    assert!(files(&dir(&result)) == files(&world.set));
}

#[test]
fn without_or_with_wrong_keys_the_error_says_what_to_set() {
    let Some(world) = world() else { return };
    let cache = tempfile::tempdir().unwrap();
    let mut command = world.fetch(&world.url(), "small", cache.path());
    let error = fail(command.env("AWS_SECRET_ACCESS_KEY", "wrong"));
    assert!(
        error.contains("403 (SignatureDoesNotMatch): look for a typing error in the keys"),
        "{error}"
    );
    let mut command = world.fetch(&world.url(), "small", cache.path());
    let error = fail(command.env("AWS_SKIP_SIGNATURE", "true"));
    assert!(
        error.contains("403 (AccessDenied): use credentials with the right to do this"),
        "{error}"
    );
}

#[test]
fn a_public_set_needs_no_keys() {
    let Some(world) = world() else { return };
    let temporary = tempfile::tempdir().unwrap();
    let address = format!("s3://{PUBLIC}/set");
    let mut publish = world.program(&world.url());
    succeed(publish.arg("publish").arg(&world.set).arg(&address));
    let mut fetch = remote();
    fetch.env("AWS_ENDPOINT_URL", world.url());
    fetch.env("AWS_SKIP_SIGNATURE", "true");
    fetch.args(["fetch", &address, "--json", "--cache"]);
    let result = succeed(fetch.arg(temporary.path()));
    assert!(files(&dir(&result)) == files(&world.set));
}

/// By the requests of Google's XML interface, without its credentials.
#[test]
fn a_set_is_published_and_fetched_as_google_takes_it() {
    let Some(world) = world() else { return };
    let temporary = tempfile::tempdir().unwrap();
    let path = |name: &str| temporary.path().join(name);
    let proxy = Proxy::start(&world.weed.host, |_, _| Change::Pass);
    // Shards of several parts, and others.
    write_set(&path("large"), 8, 2_000, 1_500);
    for (name, set) in [("large", path("large")), ("small", world.set.clone())] {
        let address = format!("gs://{PUBLIC}/{name}");
        let google = || {
            let mut command = remote();
            command.env("STORAGE_EMULATOR_HOST", &proxy.url);
            command
        };
        let sent = succeed(google().args(["publish", "--json"]).arg(&set).arg(&address));
        assert_eq!(sent["sent"], sent["shards"], "{sent}");
        let again = succeed(google().args(["publish", "--json"]).arg(&set).arg(&address));
        assert_eq!(again["sent"], 0, "{again}");
        let mut fetch = google();
        fetch.args(["fetch", &address, "--json", "--cache"]);
        let result = succeed(fetch.arg(path("cache")));
        assert!(files(&dir(&result)) == files(&set), "{name}");
        let mut fetch = google();
        fetch.args(["fetch", &format!("{address}/not"), "--cache"]);
        let error = fail(fetch.arg(path("cache")));
        assert!(
            error.contains(&format!(
                "{address}/not/dataset.json: there is no such object"
            )),
            "{error}"
        );
    }
}

#[test]
fn the_other_commands_take_an_address() {
    let Some(world) = world() else { return };
    let tinyres = cargo_bin("tinyres-remote").with_file_name("tinyres");
    if !tinyres.is_file() {
        return skip("tinyres is not built: `cargo build -p tinyres`");
    }
    let cache = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&tinyres);
        command.args(arguments).env("TINYRES_CACHE", cache.path());
        command.env("AWS_ENDPOINT_URL", world.url());
        command
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET);
        command
    };
    let report = succeed(&mut run(&[
        "inspect",
        &address("small-zst"),
        "--verify",
        "--json",
    ]));
    assert_eq!(report["splits"][0]["images"], 150, "{report}");
    let error = fail(&mut run(&["inspect", &address("nothing")]));
    assert!(
        error.contains(&format!(
            "s3://{BUCKET}/nothing/dataset.json: there is no such object"
        )),
        "{error}"
    );
    // Packed, and then published.
    let source = cache.path().join("source");
    let counts = ["--classes=2", "--train-per-class=20", "--val-per-class=5"];
    succeed(run(&["sample", source.to_str().unwrap()]).args(counts));
    let packed = succeed(&mut run(&[
        "pack",
        source.to_str().unwrap(),
        "-o",
        &address("packed"),
        "--json",
    ]));
    assert_eq!(packed["output"], address("packed"), "{packed}");
    let local = cache.path().join("local");
    succeed(&mut run(&[
        "pack",
        source.to_str().unwrap(),
        "-o",
        local.to_str().unwrap(),
    ]));
    let fetched = succeed(&mut world.fetch(&world.url(), "packed", cache.path()));
    assert!(files(&dir(&fetched)) == files(&local));
}
