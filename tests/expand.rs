//! `tinyres pack --zstd` and `tinyres expand`, as a user runs them.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Tree, failure, files, tinyres};
use serde_json::Value;
use tinyres::cache::ready;
use tinyres::event::{Event, Observer};
use tinyres_format::{Error, Manifest, ZstdShard};

/// A set in `set`, packed to `raw`, and compressed to `packed`.
struct Sets {
    dir: tempfile::TempDir,
    raw: BTreeMap<String, Vec<u8>>,
}

impl Sets {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Tree::small().write_dir(&dir.path().join("set"));
        pack(dir.path(), "raw", &[]);
        pack(dir.path(), "packed", &["--zstd"]);
        let raw = files(&dir.path().join("raw"));
        Self { dir, raw }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn expand(&self, args: &[&str]) -> assert_cmd::Command {
        let mut command = tinyres();
        command
            .current_dir(self.dir.path())
            .arg("expand")
            .args(args);
        command
    }

    /// A fresh copy of `packed`.
    fn copy(&self, name: &str) -> PathBuf {
        let to = self.path(name);
        fs::create_dir(&to).unwrap();
        for (file, bytes) in files(&self.path("packed")) {
            fs::write(to.join(file), bytes).unwrap();
        }
        to
    }

    #[track_caller]
    fn assert_raw(&self, name: &str) {
        assert!(files(&self.path(name)) == self.raw, "{name} differs");
        assert!(!self.path(name).join(".packing").exists());
    }
}

fn pack(dir: &Path, output: &str, flags: &[&str]) {
    let mut command = tinyres();
    command.current_dir(dir);
    command.args(["pack", "set", "--shard-images", "4", "-o", output]);
    command.args(flags).assert().success();
}

fn names(dir: &Path) -> Vec<String> {
    files(dir).into_keys().collect()
}

fn json(command: &mut assert_cmd::Command) -> Value {
    let out = command
        .arg("--json")
        .assert()
        .success()
        .get_output()
        .clone();
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn expanded_bytes_are_those_of_a_raw_pack() {
    let sets = Sets::new();
    let packed = files(&sets.path("packed"));
    let expected: Vec<String> = sets
        .raw
        .keys()
        .map(|name| match &name[..] {
            "dataset.json" => name.clone(),
            shard => format!("{shard}.zst"),
        })
        .collect();
    assert_eq!(packed.keys().cloned().collect::<Vec<_>>(), expected);

    // To another directory: the compressed set stays.
    let report = json(&mut sets.expand(&["packed", "-o", "there/raw"]));
    sets.assert_raw("there/raw");
    assert!(files(&sets.path("packed")) == packed);
    let raw: usize = sets.raw.values().map(Vec::len).sum();
    let manifest = sets.raw["dataset.json"].len();
    assert_eq!(report["bytes"], raw - manifest);
    let compressed: usize = packed.values().map(Vec::len).sum();
    let manifest = packed["dataset.json"].len();
    assert_eq!(report["compressed"], compressed - manifest);
    assert_eq!(report["shards"], 7);
    assert!(report["ratio"].as_f64().unwrap() > 1.0, "{report}");

    // In place: it does not.
    sets.copy("here");
    sets.expand(&["here"]).assert().success();
    sets.assert_raw("here");

    // Once more, of either kind.
    for args in [&["here"][..], &["packed", "-o", "there/raw"]] {
        let again = json(&mut sets.expand(args));
        assert_eq!(
            (&again["shards"], &again["ratio"]),
            (&0.into(), &Value::Null)
        );
    }
    sets.assert_raw("here");
}

#[test]
fn bytes_depend_on_no_number_of_threads_and_on_the_level() {
    let sets = Sets::new();
    let packed = files(&sets.path("packed"));
    for threads in ["1", "5"] {
        pack(
            sets.dir.path(),
            threads,
            &["--zstd=3", "--threads", threads],
        );
        assert!(files(&sets.path(threads)) == packed, "{threads} threads");
    }
    pack(sets.dir.path(), "small", &["--zstd=19"]);
    assert!(files(&sets.path("small")) != packed);
    sets.expand(&["small"]).assert().success();
    sets.assert_raw("small");
}

#[test]
fn packing_over_the_other_form_leaves_one_form() {
    let sets = Sets::new();
    pack(sets.dir.path(), "packed", &["--force"]);
    sets.assert_raw("packed");
    pack(sets.dir.path(), "packed", &["--zstd", "--force"]);
    let names = names(&sets.path("packed"));
    assert!(
        names
            .iter()
            .all(|name| name == "dataset.json" || name.ends_with(".zst")),
        "{names:?}"
    );
}

#[test]
fn one_file_expands_beside_itself() {
    let sets = Sets::new();
    let file = "packed/val-00000.bin.zst";
    let held = fs::File::open(sets.path(file)).unwrap();
    held.lock().unwrap();
    let busy = failure(&mut sets.expand(&[file]), 1);
    assert!(busy.contains("another tinyres is at work"), "{busy}");
    drop(held);
    sets.expand(&[file]).assert().success();
    let written = fs::read(sets.path("packed/val-00000.bin")).unwrap();
    assert!(written == sets.raw["val-00000.bin"]);
    let again = failure(&mut sets.expand(&[file]), 1);
    assert!(again.contains("is there already"), "{again}");
    fs::rename(sets.path(file), sets.path("shard")).unwrap();
    let nameless = failure(&mut sets.expand(&["shard"]), 1);
    assert!(nameless.contains("name the shard with -o"), "{nameless}");
    sets.expand(&["shard", "-o", "val.bin"]).assert().success();
    assert!(fs::read(sets.path("val.bin")).unwrap() == sets.raw["val-00000.bin"]);
}

#[test]
fn levels_and_flags() {
    let sets = Sets::new();
    for level in ["0", "23", "-1", "fast"] {
        let error = failure(
            tinyres().args(["pack", "set", &format!("--zstd={level}")]),
            2,
        );
        assert!(error.contains("--zstd"), "{error}");
    }
    // The level is not taken from what follows.
    let mut command = tinyres();
    command.current_dir(sets.dir.path());
    command.args([
        "pack",
        "--zstd",
        "set",
        "--shard-images",
        "4",
        "-o",
        "after",
    ]);
    let report = json(&mut command);
    assert_eq!(report["zstd"]["level"], 3);
    assert!(report["zstd"]["ratio"].as_f64().unwrap() > 1.0, "{report}");
    assert!(files(&sets.path("after")) == files(&sets.path("packed")));
}

#[test]
fn what_reads_raw_shards_says_what_to_do() {
    let sets = Sets::new();
    let error = Manifest::load(&sets.path("packed"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("packed") && error.contains("tinyres expand"),
        "{error}"
    );
    let shard = sets.path("packed/val-00000.bin.zst");
    let shard = tinyres_format::Shard::new(fs::read(shard).unwrap());
    assert!(matches!(shard, Err(Error::Compressed)));
    let output = failure(&mut sets.expand(&["raw", "-o", "elsewhere"]), 1);
    assert!(output.contains("raw already"), "{output}");
    assert!(!sets.path("elsewhere").exists());
    let mut other = tinyres();
    other.current_dir(sets.dir.path());
    other
        .args(["pack", "set", "-o", "other"])
        .assert()
        .success();
    let output = failure(&mut sets.expand(&["packed", "-o", "other"]), 1);
    assert!(output.contains("another set already"), "{output}");
}

/// Nothing appears, and nothing goes, when anything is wrong.
#[test]
fn a_set_expands_as_a_whole_or_not_at_all() {
    type Damage = fn(&Path);
    let sets = Sets::new();
    let cases: [(&str, Damage, &str); 6] = [
        (
            "missing",
            |dir| fs::remove_file(dir.join("val-00000.bin.zst")).unwrap(),
            "val-00000.bin.zst: in dataset.json, but not here",
        ),
        (
            "flipped",
            |dir| flip(&dir.join("test-00002.bin.zst"), 5000),
            "test-00002.bin.zst: image block 0",
        ),
        (
            "cut",
            |dir| {
                let path = dir.join("train-00001.bin.zst");
                let bytes = fs::read(&path).unwrap();
                fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
            },
            "train-00001.bin.zst: no seek table",
        ),
        (
            "swapped",
            |dir| {
                fs::copy(
                    dir.join("test-00000.bin.zst"),
                    dir.join("test-00001.bin.zst"),
                )
                .unwrap();
            },
            "test-00001.bin.zst: the shard's index is 0",
        ),
        (
            "unfinished",
            |dir| fs::remove_file(dir.join("dataset.json")).unwrap(),
            "no dataset.json",
        ),
        (
            "unknown",
            |dir| {
                let path = dir.join("dataset.json");
                let text = fs::read_to_string(&path).unwrap();
                fs::write(&path, text.replace("\"zstd\"", "\"xz\"")).unwrap();
            },
            "unknown variant `xz`",
        ),
    ];
    for (name, damage, says) in cases {
        let dir = sets.copy(name);
        damage(&dir);
        let before = files(&dir);
        for args in [&[name][..], &[name, "-o", "new"]] {
            let error = failure(&mut sets.expand(args), 1);
            assert!(error.contains(says), "{name}: {error}");
            assert!(files(&dir) == before, "{name}");
            assert!(!dir.join(".packing").exists() && !sets.path("new").exists());
        }
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn two_at_once_are_refused() {
    let sets = Sets::new();
    let inner = sets.path("packed/.packing");
    fs::create_dir(&inner).unwrap();
    let lock = fs::File::open(&inner).unwrap();
    lock.lock().unwrap();
    let busy = failure(&mut sets.expand(&["packed"]), 1);
    assert!(busy.contains("another tinyres is at work here"), "{busy}");
    drop(lock);
    sets.expand(&["packed"]).assert().success();
    sets.assert_raw("packed");
}

/// A process that died between the manifest and the removal leaves compressed files beside a whole
/// raw set; the next one removes these, and no other.
#[test]
fn leftovers_of_a_finished_set_are_removed() {
    let sets = Sets::new();
    sets.copy("here");
    sets.expand(&["here"]).assert().success();
    let shards = ["train-00000.bin.zst", "val-00000.bin.zst"];
    for shard in shards {
        fs::copy(
            sets.path("packed").join(shard),
            sets.path("here").join(shard),
        )
        .unwrap();
    }
    fs::write(sets.path("here/test-00000.bin.zst"), "somebody's own").unwrap();
    sets.expand(&["here"]).assert().success();
    fs::remove_file(sets.path("here/test-00000.bin.zst")).unwrap();
    sets.assert_raw("here");
}

#[test]
fn inspect_shows_the_transport_form() {
    let sets = Sets::new();
    let inspect = |args: &[&str]| {
        let mut command = tinyres();
        command
            .current_dir(sets.dir.path())
            .arg("inspect")
            .args(args);
        command
    };
    let raw = json(&mut inspect(&["raw", "--classes"]));
    let mut packed = json(&mut inspect(&["packed", "--classes"]));
    let transport = packed["transport"].take();
    packed["path"] = raw["path"].clone();
    assert_eq!(packed, raw, "all but the form is that of the raw set");
    let len: u64 = files(&sets.path("packed"))
        .iter()
        .filter(|(name, _)| name.ends_with(".zst"))
        .map(|(_, bytes)| bytes.len() as u64)
        .sum();
    assert_eq!(transport["form"], "zstd");
    assert_eq!(
        (&transport["bytes"], &transport["shards"]),
        (&len.into(), &7.into())
    );

    let report = inspect(&["packed", "packed/val-00000.bin.zst", "--verify"]);
    let out = { report }.assert().success().get_output().stdout.clone();
    let out = String::from_utf8(out).unwrap();
    assert_eq!(
        out.matches("`tinyres expand` undoes it").count(),
        2,
        "{out}"
    );
    assert_eq!(
        out.matches("all are as they were written").count(),
        2,
        "{out}"
    );

    for image in ["0", "5", "9"] {
        let args = |set| [set, "--image", image, "--png", "image.png"];
        let mut pictures = ["raw", "packed"].map(|set| {
            let sample = json(&mut inspect(&args(set)));
            (
                sample["name"].clone(),
                sample["box"].clone(),
                fs::read(sets.path("image.png")).unwrap(),
            )
        });
        let [raw, packed] = &mut pictures;
        assert!(raw == packed, "image {image}");
    }
    inspect(&["raw", "--sheet", "raw.png"]).assert().success();
    inspect(&["packed", "--sheet", "packed.png"])
        .assert()
        .success();
    assert!(fs::read(sets.path("raw.png")).unwrap() == fs::read(sets.path("packed.png")).unwrap());

    flip(&sets.path("packed/train-00001.bin.zst"), 5000);
    let output = inspect(&["packed", "--verify"])
        .assert()
        .code(1)
        .get_output()
        .clone();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.contains("1 block is damaged"), "{out}");
    assert!(
        out.contains("train-00001.bin.zst: images 0-3 (4-7 of train): image block 0"),
        "{out}"
    );
    let image = failure(&mut inspect(&["packed", "--image", "6"]), 1);
    assert!(
        image.contains("train-00001.bin.zst: image block 0"),
        "{image}"
    );
}

/// Notices that were given.
#[derive(Default)]
struct Notices(Vec<String>);

impl Observer for Notices {
    fn on(&mut self, event: &Event) {
        if let Event::Notice(text) = event {
            self.0.push(text.clone());
        }
    }
}

#[test]
fn a_cache_holds_what_was_expanded_once() {
    let sets = Sets::new();
    let (packed, cache) = (sets.path("packed"), sets.path("cache"));
    let once = |says: &str| {
        let mut notices = Notices::default();
        let place = ready(&packed, &[], Some(&cache), &mut notices).unwrap();
        assert!(files(&place) == sets.raw);
        assert!(place.starts_with(cache.join("shards")));
        let [notice] = &notices.0[..] else {
            panic!("{:?}", notices.0)
        };
        assert!(notice.contains(says), "{notice}");
        assert!(notice.contains(&place.display().to_string()), "{notice}");
        place
    };
    let place = once("expanding it to");
    let written = fs::metadata(place.join("train-00000.bin"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(once("using the shards expanded to"), place);
    let again = fs::metadata(place.join("train-00000.bin"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(written, again);
    // Damage that the readers would meet at once is mended.
    fs::remove_file(place.join("val-00000.bin")).unwrap();
    once("expanding it to");
    flip(&place.join("val-00000.bin"), 30);
    once("expanding it to");
    fs::remove_file(place.join("dataset.json")).unwrap();
    once("expanding it to");

    let raw = sets.path("raw");
    assert_eq!(ready(&raw, &[], None, &mut ()).unwrap(), raw);
    let error = ready(&packed, &[], None, &mut ()).unwrap_err().to_string();
    assert!(error.contains("TINYRES_CACHE"), "{error}");
    // Two at once: one expands, the other waits for it.
    fs::remove_dir_all(&cache).unwrap();
    let places: Vec<PathBuf> = std::thread::scope(|scope| {
        let runs =
            [0, 1, 2].map(|_| scope.spawn(|| ready(&packed, &[], Some(&cache), &mut ()).unwrap()));
        runs.map(|run| run.join().unwrap()).into()
    });
    assert!(places.iter().all(|other| *other == place));
    assert!(files(&place) == sets.raw);
}

/// A killed expand never leaves a directory that opens as whole and is not, and the next one ends
/// with the same bytes. `TINYRES_KILLS` sets how often it is killed.
#[test]
fn killed_at_any_moment() {
    let kills = std::env::var("TINYRES_KILLS").map_or(30, |kills| kills.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set");
    tinyres()
        .args([
            "sample",
            "--classes",
            "3",
            "--train-per-class",
            "400",
            "--val-per-class",
            "10",
        ])
        .arg(&set)
        .assert()
        .success();
    let pack = |output: &Path, flags: &[&str]| {
        let mut command = tinyres();
        command.arg("pack").arg(&set).arg("-o").arg(output);
        command.args(["--shard-images", "200"]).args(flags);
        command.assert().success();
    };
    let (raw, packed) = (dir.path().join("raw"), dir.path().join("packed"));
    pack(&raw, &[]);
    pack(&packed, &["--zstd=1"]);
    let (raw, packed) = (files(&raw), files(&packed));
    let work = dir.path().join("work");
    let out = dir.path().join("out");
    let fresh = || {
        let _ = fs::remove_dir_all(&work);
        let _ = fs::remove_dir_all(&out);
        fs::create_dir(&work).unwrap();
        packed
            .iter()
            .for_each(|(name, bytes)| fs::write(work.join(name), bytes).unwrap());
    };
    let expand = |in_place: bool| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tinyres"));
        command
            .arg("expand")
            .arg(&work)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if !in_place {
            command.arg("-o").arg(&out);
        }
        command
    };
    let mut whole = Duration::ZERO;
    for _ in 0..2 {
        fresh();
        let began = Instant::now();
        assert!(expand(true).status().unwrap().success());
        whole = whole.max(began.elapsed());
        assert!(files(&work) == raw);
    }
    fresh();
    let (mut kill, mut stopped, mut state) = (0, 0, [0; 3]);
    while stopped < kills {
        let in_place = kill % 2 == 0;
        // Evenly over the time that it takes, by a step that comes to no rhythm.
        let moment = whole * (kill * 617 % 1000) / 1000;
        let mut child = expand(in_place).spawn().unwrap();
        std::thread::sleep(moment);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        if status.success() {
            // Too late: it has become faster since it was measured.
            whole = whole * 9 / 10;
        } else {
            assert_eq!(status.signal(), Some(9), "{status}");
            stopped += 1;
        }
        let place = if in_place { &work } else { &out };
        state[match Manifest::load_any(place) {
            Ok(manifest) if manifest.transport.is_some() => {
                let there = files(place);
                let same = |(name, bytes)| there.get(name) == Some(bytes);
                assert!(in_place && packed.iter().all(same), "the set that was");
                for name in there.keys().filter(|name| name.ends_with(".bin")) {
                    assert!(there[name] == raw[name], "{name} is whole where it is");
                }
                0
            }
            Ok(_) => {
                let there = files(place);
                assert!(
                    raw.iter()
                        .all(|(name, bytes)| there.get(name) == Some(bytes))
                );
                1
            }
            Err(_) => {
                assert!(!in_place, "there is always a set");
                2
            }
        }] += 1;
        // Half of the time over what was left, and half of the time once more from the start; unless it
        // came to its end before the kill, as what is raw cannot be expanded elsewhere.
        if kill % 4 < 2 || Manifest::load(&work).is_ok() {
            assert!(expand(in_place).status().unwrap().success());
            assert!(files(place) == raw, "as if nothing had happened");
            assert!(!place.join(".packing").exists());
            fresh();
        }
        kill += 1;
    }
    eprintln!("killed {stopped} of {kill}: {state:?} held the old set, the new one, none");
}

/// What `zstd -d` does, through its library.
#[test]
fn a_plain_decoder_gives_the_raw_shard() {
    let sets = Sets::new();
    for (name, bytes) in files(&sets.path("packed")) {
        let Some(raw) = name.strip_suffix(".zst") else {
            continue;
        };
        let decoded = zstd::stream::decode_all(&bytes[..]).unwrap();
        assert!(decoded == sets.raw[raw], "{name}");
        assert_eq!(
            ZstdShard::open(&bytes[..]).unwrap().bytes().len(),
            decoded.len()
        );
    }
}
