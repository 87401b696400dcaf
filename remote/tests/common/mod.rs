//! Sets to publish and fetch, and the program to do it with.
#![allow(dead_code, reason = "each of the test programs uses a part")]

pub mod proxy;
#[path = "../../../tests/common/skip.rs"]
pub mod skip;
pub mod weed;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use assert_cmd::cargo::cargo_bin;
use tinyres_format::{
    Class, Digest, Draws, Form, MANIFEST, Manifest, SetOptions, SetWriter, Shape, Split,
};
use weed::{BUCKET, KEY, SECRET, Weed};

/// Length of an image in bytes.
pub const IMAGE: usize = 3 * 64 * 64;

/// Writes a set of `train` images and a tenth of them in val, with `shard_images` in a shard, to `dir`. Pixels are noise
/// that follows from `seed`.
pub fn write_set(dir: &Path, seed: u64, train: usize, shard_images: u32) {
    let options = SetOptions {
        shape: Shape::rgb(64),
        classes: vec![Class {
            id: "n1".to_owned(),
            name: "noise".to_owned(),
        }],
        creator: "a test".to_owned(),
        fingerprint: Digest::of(&seed.to_le_bytes()),
        shard_images: NonZeroU32::new(shard_images).unwrap(),
    };
    let mut set = SetWriter::create(dir, options).unwrap();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for (split, count) in [(Split::Train, train), (Split::Val, train / 10)] {
        for image in 0..count {
            let mut pixels = vec![0; IMAGE];
            for pixels in pixels.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                pixels.copy_from_slice(&(state & 0x0F0F_0F0F_0F0F_0F0F).to_le_bytes());
            }
            set.image(split, &pixels, 0, [0, 0, 1, 1], &format!("{split}-{image}"))
                .unwrap();
        }
    }
    set.finish().unwrap();
}

/// Writes the transport form of the set in `raw` to `dir`.
pub fn compress(raw: &Path, dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let level = tinyres_format::transport::Level::new(1).unwrap();
    let manifest = Manifest::load(raw).unwrap();
    for shard in manifest.shards() {
        let to = dir.join(shard.transport_file());
        tinyres::transport::write(&raw.join(&shard.file), &to, level).unwrap();
    }
    let manifest = Manifest {
        transport: Some(Form::Zstd),
        ..manifest
    };
    manifest.save(dir).unwrap();
}

/// The files of a directory, by name.
pub fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        files.insert(name, fs::read(entry.path()).unwrap());
    }
    files
}

/// A store with two small sets, `small` and `small-zst`, that are the same, for all tests of a program. `None` if this
/// machine lacks it.
pub fn world() -> Option<&'static World> {
    static WORLD: OnceLock<Option<World>> = OnceLock::new();
    WORLD.get_or_init(World::start).as_ref()
}

pub struct World {
    pub weed: Weed,
    /// The small set.
    pub set: PathBuf,
    _dir: tempfile::TempDir,
}

impl World {
    fn start() -> Option<Self> {
        let weed = Weed::start()?;
        let dir = tempfile::tempdir().unwrap();
        let set = dir.path().join("set");
        write_set(&set, 1, 150, 60);
        let zst = dir.path().join("zst");
        compress(&set, &zst);
        let world = Self {
            weed,
            set,
            _dir: dir,
        };
        for (dir, name) in [(&world.set, "small"), (&zst, "small-zst")] {
            world.publish(dir, name);
        }
        Some(world)
    }

    /// The program with the keys of this store, at `url`.
    pub fn program(&self, url: &str) -> Command {
        let mut command = remote();
        command
            .env("AWS_ENDPOINT_URL", url)
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET);
        command
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.weed.host)
    }

    /// Publishes the set in `dir` as `name`.
    pub fn publish(&self, dir: &Path, name: &str) {
        let mut command = self.program(&self.url());
        command.arg("publish").arg(dir).arg(address(name));
        succeed(&mut command);
    }

    /// The command that fetches the set `name` through `url` to `cache`, with little patience.
    pub fn fetch(&self, url: &str, name: &str, cache: &Path) -> Command {
        let mut command = self.program(url);
        command.args([
            "fetch",
            &address(name),
            "--json",
            "--timeout",
            "2",
            "--cache",
        ]);
        command.arg(cache);
        command
    }
}

/// The program, without the settings of whoever runs the tests.
pub fn remote() -> Command {
    let mut command = Command::new(cargo_bin("tinyres-remote"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let prefixes = [
            "AWS_",
            "GOOGLE_",
            "AZURE_",
            "TINYRES_CACHE",
            "STORAGE_EMULATOR",
        ];
        let lower = name.to_lowercase();
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) || lower.ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command.env("AWS_CONFIG_FILE", "/dev/null");
    command.env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command
}

pub fn address(name: &str) -> String {
    format!("s3://{BUCKET}/{name}")
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The result of a command that must succeed, as JSON if it is JSON.
pub fn succeed(command: &mut Command) -> serde_json::Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// The message of a command that must fail.
pub fn fail(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(1),
        "{command:?}: {}",
        said(&output)
    );
    said(&output)
}

/// The directory that a fetch names.
pub fn dir(result: &serde_json::Value) -> PathBuf {
    PathBuf::from(result["dir"].as_str().unwrap())
}

/// Fails unless `cache` holds no set, or only ones that are byte for byte the set `expected`. Returns true if it has one.
pub fn is_right_or_none(cache: &Path, expected: &BTreeMap<String, Vec<u8>>) -> bool {
    let mut is_there = false;
    for place in fs::read_dir(cache.join("shards"))
        .into_iter()
        .flatten()
        .flatten()
    {
        if place.path().join(MANIFEST).exists() {
            let there = files(&place.path());
            assert!(there == *expected, "{:?} has another set", place.path());
            is_there = true;
        }
    }
    is_there
}

/// Numbers that follow from `seed`: each call gives the next, below its argument.
pub fn draws(seed: u64) -> impl FnMut(u64) -> u64 {
    let (draws, mut count) = (Draws::new(seed, tinyres_format::Stream::Order, 0), 0);
    move |below| {
        count += 1;
        draws.below(count, below)
    }
}
