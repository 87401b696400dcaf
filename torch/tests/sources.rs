//! `train` and `eval` on what `tinyres pack` reads: packed once, to a cache.
#![cfg(feature = "torch")]

#[path = "../../tests/common/inject.rs"]
mod inject;
#[path = "../../tests/common/server.rs"]
mod server;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tinyres::sample;
use zip::write::SimpleFileOptions;

/// A directory with pictures of three classes, and a cache of its own.
struct Fixture {
    dir: tempfile::TempDir,
    /// Class and encoded image.
    pictures: Vec<(String, Vec<u8>)>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let set = dir.path().join("set");
        let config = sample::Config {
            classes: 3,
            train_per_class: 8,
            val_per_class: 0,
            test: 0,
            seed: 0,
            threads: 1,
        };
        sample::write(&set, &config, &mut ()).unwrap();
        let mut pictures = Vec::new();
        for class in fs::read_dir(set.join("train")).unwrap() {
            let class = class.unwrap();
            for file in fs::read_dir(class.path().join("images")).unwrap() {
                let bytes = fs::read(file.unwrap().path()).unwrap();
                pictures.push((class.file_name().into_string().unwrap(), bytes));
            }
        }
        pictures.sort();
        Self { dir, pictures }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a zip of class folders, every fourth picture for validation, without the first `without`.
    fn zip(&self, name: &str, without: usize) {
        let mut zip = zip::ZipWriter::new(fs::File::create(self.path(name)).unwrap());
        for (at, (class, bytes)) in self.pictures.iter().enumerate().skip(without) {
            let split = if at % 4 == 3 { "val" } else { "train" };
            let options = SimpleFileOptions::default();
            zip.start_file(format!("{split}/{class}/{at}.jpg"), options)
                .unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
    }

    fn tinyres(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tinyres-torch"));
        command.current_dir(self.dir.path()).args(args);
        command.env("TINYRES_CACHE", self.path("cache"));
        command
    }

    fn train(&self, source: &str) -> Command {
        let args = ["--max-steps=2", "--batch=8", "--threads=1", "--device=cpu"];
        self.tinyres(&[&["train", source][..], &args].concat())
    }

    /// Weights of another program for three classes.
    fn eval(&self, source: &str) -> Command {
        let weights = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/dropout.pth");
        self.tinyres(&["eval", weights, source, "--device=cpu"])
    }

    /// Names of the sets in the cache.
    fn cached(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("cache/shards")) else {
            return Vec::new();
        };
        let entries = entries.map(|entry| entry.unwrap());
        let sets = entries.filter(|entry| entry.path().join("dataset.json").exists());
        sets.map(|set| set.file_name().into_string().unwrap())
            .collect()
    }
}

#[track_caller]
fn ok(command: &mut Command) -> (String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let [out, err] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(status.success(), "{err}");
    (out, err)
}

#[track_caller]
fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_zip_of_class_folders_is_trained_evaluated_and_resumed() {
    let fixture = Fixture::new();
    fixture.zip("photos.zip", 0);
    let (_, err) = ok(&mut fixture.train("photos.zip"));
    assert!(err.contains("photos.zip: packing it to "), "{err}");
    assert!(err.contains("`tinyres pack photos.zip -o shards`"), "{err}");
    assert!(
        err.contains("24 images of 3x64x64 and 3 classes, 305 kB"),
        "{err}"
    );
    let (_, err) = ok(&mut fixture.train("photos.zip"));
    assert!(
        err.contains("photos.zip: using the shards packed to "),
        "{err}"
    );
    let [set] = &fixture.cached()[..] else {
        panic!("{:?}", fixture.cached())
    };
    let (of_zip, _) = ok(&mut fixture.tinyres(&["eval", "runs/default-1", "photos.zip"]));
    let shards = format!("cache/shards/{set}");
    let (of_set, _) = ok(&mut fixture.tinyres(&["eval", "runs/default-1", &shards]));
    assert_eq!(of_zip, of_set);
    let config = fs::read_to_string(fixture.path("runs/default-1/config.toml")).unwrap();
    assert!(
        config.contains("photos.zip\"") && !config.contains(set),
        "{config}"
    );

    // Resumed on its own set although the source has changed, or is gone.
    let resume = ["train", "--resume", "runs/default-1"];
    fixture.zip("photos.zip", 1);
    let (_, err) = ok(&mut fixture.train("photos.zip"));
    assert!(err.contains("23 images"), "{err}");
    assert_eq!(fixture.cached().len(), 2);
    let (_, err) = ok(&mut fixture.tinyres(&resume));
    assert!(
        err.contains(&format!(
            "using the shards in {}",
            fixture.path(&shards).display()
        )),
        "{err}"
    );
    fs::remove_file(fixture.path("photos.zip")).unwrap();
    ok(&mut fixture.tinyres(&resume));
    // Without the cache: the same source gives the same set, another one does not.
    fs::remove_dir_all(fixture.path("cache")).unwrap();
    fixture.zip("photos.zip", 1);
    let err = refused(&mut fixture.tinyres(&resume));
    assert!(
        err.contains("photos.zip holds another data set than the run"),
        "{err}"
    );
    fixture.zip("moved.zip", 0);
    ok(&mut fixture.tinyres(&[&resume[..], &["moved.zip"]].concat()));
}

#[test]
fn a_run_from_an_address_is_recorded_by_it_and_goes_on_without_its_server() {
    let fixture = Fixture::new();
    fixture.zip("set.zip", 0);
    let bytes = fs::read(fixture.path("set.zip")).unwrap();
    let server = server::Server::start(move |_, request| server::file(request, &bytes, "\"one\""));
    let url = format!("{}/set.zip", server.url);
    ok(fixture.train(&url).args(["--output", "run"]));
    assert_eq!(server.requests().len(), 1);
    let config = fs::read_to_string(fixture.path("run/config.toml")).unwrap();
    assert!(config.contains(&format!("data = \"{url}\"")), "{config}");
    drop(server);
    ok(&mut fixture.tinyres(&["train", "--resume", "run"]));
    ok(&mut fixture.eval(&url));
}

#[test]
fn two_trainings_that_start_at_once_pack_once() {
    let fixture = Fixture::new();
    fixture.zip("photos.zip", 0);
    let both = ["a", "b"].map(|run| {
        let mut train = fixture.train("photos.zip");
        train
            .args(["-o", run])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        train.spawn().unwrap()
    });
    let said = both.map(|child| {
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{err}");
        err
    });
    let packed = said.iter().filter(|err| err.contains("images/s"));
    assert_eq!(packed.count(), 1, "{said:?}");
    assert_eq!(fixture.cached().len(), 1);
    let weights =
        ["a", "b"].map(|run| fs::read(fixture.path(run).join("final.safetensors")).unwrap());
    assert!(weights[0] == weights[1]);
}

/// Every `count`-th of `calls`, and the last.
fn picks(calls: usize, count: usize) -> impl Iterator<Item = usize> {
    (1..=count).map(move |pick| pick * calls / count)
}

fn remove(dir: &Path) {
    if dir.exists() {
        fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn after_a_full_disk_or_a_kill_the_next_one_makes_the_set() {
    let fixture = Fixture::new();
    fixture.zip("photos.zip", 0);
    let cache = fixture.path("cache");
    let plain = inject::run(&mut fixture.eval("photos.zip"), &cache, "");
    assert!(plain.output.status.success(), "{plain:?}");
    let out = plain.output.stdout;
    let calls = plain.calls.len();
    assert!(calls > 30, "{:?}", plain.calls);
    let mut kept = 0;
    // Once, so that cleaning up works; for good; and a kill, after which nothing is cleaned up.
    for (fault, plus, count) in [("ENOSPC", "", 4), ("ENOSPC", "+", 4), ("kill", "", 8)] {
        for number in picks(calls, count) {
            remove(&cache);
            let inject = format!("{fault}:{number}{plus}");
            let failed = inject::run(&mut fixture.eval("photos.zip"), &cache, &inject);
            let err = String::from_utf8_lossy(&failed.output.stderr);
            if fault == "ENOSPC" && !failed.output.status.success() {
                assert!(err.contains("No space left on device"), "{inject}: {err}");
                assert!(!err.contains("panicked"), "{inject}: {err}");
            }
            let mut again = fixture.eval("photos.zip");
            let again = again.output().unwrap();
            let err = String::from_utf8_lossy(&again.stderr);
            assert!(again.status.success(), "{inject}: {err}");
            assert!(again.stdout == out, "{inject}: {err}");
            kept += usize::from(err.contains("kept 1 shard of a killed pack"));
        }
    }
    assert!(kept > 0, "no killed pack was resumed");
}
