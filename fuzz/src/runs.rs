//! The files of a run, fed anything. Not in `lib.rs`, since they need the torch crate with libtorch.

#![allow(dead_code, reason = "each target uses one of them")]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tinyres_torch::config::Config;
use tinyres_torch::run::Run;
use tinyres_torch::run::checkpoint::Checkpoint;
use toml::Table;

/// Steps of the run whose metrics are read, and its epochs that are finished.
const DONE: (u64, u64) = (3, 1);

/// Any bytes as a file of values, for `--config` and as the `config.toml` of a run.
pub fn config(data: &[u8]) -> bool {
    thread_local!(static DIR: TempDir = directory());
    DIR.with(|dir| {
        let path = dir.path().join("config.toml");
        fs::write(&path, data).expect("room for it");
        let mut taken = false;
        for cuda in [false, true] {
            match Config::layered(Some(&path), Table::new(), cuda) {
                Ok(config) => {
                    examine(&config);
                    taken = true;
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        if let Err(error) = Run::provenance(dir.path()) {
            assert!(!error.to_string().is_empty());
        }
        taken
    })
}

/// Any bytes as the metrics of a run that is resumed: the lines that are kept must be those that another reader of JSON
/// finds to be of the past.
pub fn metrics(data: &[u8]) -> bool {
    thread_local!(static DIR: TempDir = run());
    DIR.with(|dir| {
        let path = dir.path().join("metrics.jsonl");
        fs::write(&path, data).expect("room for it");
        let resumed = || {
            let (_, checkpoint) = Run::resume(dir.path()).expect("a run, whatever its metrics");
            assert_eq!(
                checkpoint.map(|last| last.about.position.step),
                Some(DONE.0)
            );
            fs::read(&path).expect("what was written")
        };
        let kept = resumed();
        let lines = data.split(|&byte| byte == b'\n');
        let twins = lines.filter(|line| is_past(line)).flat_map(|line| {
            let end = line.trim_ascii_end().iter();
            end.chain(b"\n").copied().collect::<Vec<_>>()
        });
        assert!(twins.eq(kept.iter().copied()));
        assert_eq!(resumed(), kept);
        !kept.is_empty()
    })
}

/// True if `line` says something of the steps and epochs that are [`DONE`].
fn is_past(line: &[u8]) -> bool {
    let text = std::str::from_utf8(line).ok();
    let Some(Value::Object(fields)) = text.and_then(|text| text.parse().ok()) else {
        return false;
    };
    let number = |key| fields.get(key).and_then(Value::as_u64);
    let is_epoch = fields.get("kind").and_then(Value::as_str) == Some("epoch");
    number("step").is_some_and(|step| step <= DONE.0)
        && (!is_epoch || number("epoch").is_some_and(|epoch| epoch < DONE.1))
}

/// Any bytes as the description in a checkpoint that is whole but for them.
pub fn checkpoint(data: &[u8]) -> bool {
    thread_local!(static DIR: TempDir = directory());
    DIR.with(|dir| {
        let path = dir.path().join("last.safetensors");
        let Ok(text) = std::str::from_utf8(data) else {
            return false;
        };
        let load = |text: &str| {
            fs::write(&path, sealed(text)).expect("room for it");
            Checkpoint::load(&path)
        };
        let read = match load(text) {
            Ok(checkpoint) => checkpoint.about,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return false;
            }
        };
        examine(&read.config);
        assert!((1..=4096).contains(&read.position.size));
        let text = serde_json::to_string(&read).expect("it came from JSON");
        assert_eq!(load(&text).expect("what we wrote").about, read);
        true
    })
}

/// Reads `config` back, and follows it through a run.
fn examine(config: &Config) {
    let text = toml::to_string(config).expect("it came from TOML");
    let values: Table = text.parse().expect("what we wrote");
    let again = Config::layered(None, values, false);
    assert_eq!(again.expect("what we wrote"), *config);
    for progress in [0.0, 1e-9, 0.25, 0.5, 0.999, 1.0, f64::MAX] {
        for epoch in [0, 1, u32::MAX - 1] {
            assert!(config.schedule.rate(progress, epoch) >= 0.0);
        }
        for side in [1, 64, 65_535] {
            assert!(config.sizes.at(progress, side) > 0);
        }
    }
}

/// A file without tensors, of which `about` is the description.
fn sealed(about: &str) -> Vec<u8> {
    const CRC: std::ops::Range<usize> = 62..70;
    let description = format!(r#"{{"format":1,"crc32":"00000000","about":{about}}}"#);
    let mut header = json!({"__metadata__": {"tinyres": description}}).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    let crc = format!("{:08x}", crc32fast::hash(&file));
    file[CRC].copy_from_slice(crc.as_bytes());
    file
}

/// A run with a checkpoint after the steps and epochs that are [`DONE`].
fn run() -> TempDir {
    const SEEDS: [&[u8]; 2] = [
        include_bytes!("../seeds/config/whole.toml"),
        include_bytes!("../seeds/checkpoint/whole.json"),
    ];
    let dir = directory();
    let [config, about] = SEEDS.map(|seed| std::str::from_utf8(seed).expect("text"));
    write(dir.path(), "config.toml", config.as_bytes());
    write(dir.path(), "last.safetensors", &sealed(about));
    dir
}

fn write(dir: &Path, name: &str, data: &[u8]) {
    fs::write(dir.join(name), data).expect("room for it");
}

/// A directory of its own, in memory if there is one: each input is written again, and a run forces its metrics to the
/// disk.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a directory of its own")
}
