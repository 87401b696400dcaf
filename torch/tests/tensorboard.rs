//! Event files, read by an independent reader of framing and protocol buffers, and by TensorBoard's reader.
#![cfg(feature = "torch")]

mod common;
#[path = "../../tests/common/skip.rs"]
mod skip;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Recorder, config, train};
use tinyres_torch::run::Run;
use tinyres_torch::train::Splits;

/// CRC-32C of RFC 3720, bit by bit, with the mask of TensorFlow's `crc32c.h`.
fn masked_crc(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1));
        }
    }
    crc = !crc;
    crc.rotate_left(17).wrapping_add(0xa282_ead8)
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The records of a file. Compares all checksums.
fn records(mut file: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while !file.is_empty() {
        let (head, rest) = file.split_at(12);
        assert_eq!(number(&head[8..]), u64::from(masked_crc(&head[..8])));
        let (data, rest) = rest.split_at(usize::try_from(number(&head[..8])).unwrap());
        let (crc, rest) = rest.split_at(4);
        assert_eq!(number(crc), u64::from(masked_crc(data)));
        records.push(data);
        file = rest;
    }
    records
}

/// The fields of a message: each with its number, and the value of a number or the bytes of the rest.
fn fields(mut message: &[u8]) -> Vec<(u64, u64, &[u8])> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = message[0];
            *message = &message[1..];
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                break;
            }
        }
        value
    }
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let len = match key & 7 {
            0 => {
                fields.push((key >> 3, varint(&mut message), &message[..0]));
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)).unwrap(),
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = message.split_at(len);
        let plain = if key & 7 == 2 { 0 } else { number(value) };
        fields.push((key >> 3, plain, value));
        message = rest;
    }
    fields
}

/// The content of a file: (step, tag, figure), or (step, `start`, 1).
fn events(path: &Path) -> Vec<(u64, String, f64)> {
    let bytes = fs::read(path).unwrap();
    let mut said = Vec::new();
    for (at, record) in records(&bytes).into_iter().enumerate() {
        let event = fields(record);
        let step = event
            .iter()
            .find(|field| field.0 == 2)
            .map_or(0, |field| field.1);
        for (field, _, bytes) in event {
            match field {
                3 => assert_eq!((at, bytes), (0, &b"brain.Event:2"[..])),
                7 => said.push((step, "start".to_owned(), f64::from(fields(bytes)[0].1 == 1))),
                5 => {
                    for (_, _, value) in fields(bytes) {
                        let value = fields(value);
                        let tag = String::from_utf8(value[0].2.to_vec()).unwrap();
                        let figure = match value[1].0 {
                            2 => f32::from_bits(u32::try_from(value[1].1).unwrap()).into(),
                            4 => f64::from(fields(value[1].2)[3].2.starts_with(b"\x89PNG")),
                            other => panic!("value {other}"),
                        };
                        said.push((step, tag, figure));
                    }
                }
                _ => {}
            }
        }
    }
    said
}

fn event_files(run: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(run).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| path.to_string_lossy().contains("events.out.tfevents"))
        .collect();
    files.sort();
    files
}

const FLAGS: &str = "epochs = 2\nbatch = 8\nlr = 0.02\nshift = 2";

/// A run of two epochs of two steps that stops after step 3 as if killed, with a last checkpoint of step
/// `saved`, and is resumed.
fn broken_run(dir: &Path, data: &Splits, saved: u64) -> PathBuf {
    let path = dir.join("run");
    let mut run = Run::create(&path, config(FLAGS), dir, data.train.fingerprint()).unwrap();
    let flag = AtomicBool::new(false);
    let mut recorder = Recorder {
        at_step: Some(Box::new(|step| {
            flag.store(step == saved, Ordering::Relaxed)
        })),
        ..Recorder::default()
    };
    train(&mut run, None, data, &mut recorder, &flag).unwrap();
    drop((recorder, run)); // A run holds the lock of its directory.
    let checkpoint = fs::read(path.join("last.safetensors")).unwrap();
    let go = || {
        let (mut run, from) = Run::resume(&path).unwrap();
        let mut recorder = Recorder {
            at_step: Some(Box::new(|step| flag.store(step == 3, Ordering::Relaxed))),
            ..Recorder::default()
        };
        train(&mut run, from.as_ref(), data, &mut recorder, &flag).unwrap();
    };
    flag.store(false, Ordering::Relaxed);
    go();
    fs::write(path.join("last.safetensors"), checkpoint).unwrap();
    flag.store(false, Ordering::Relaxed);
    let (mut run, from) = Run::resume(&path).unwrap();
    train(&mut run, from.as_ref(), data, &mut (), &flag).unwrap();
    path
}

#[test]
fn each_start_writes_a_file_that_voids_later_steps() {
    for (saved, void, steps) in [(1, 2, 4), (2, 2, 3)] {
        every_start(saved, void, steps);
    }
}

/// With the checkpoint of step `saved`, the next start voids step `void` and later steps; at the end, `steps`
/// steps have figures. If the last step of an epoch was done, but the epoch has no figures, that step is void
/// too.
fn every_start(saved: u64, void: u64, steps: usize) {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 16, 12);
    let run = broken_run(dir.path(), &data, saved);
    let files = event_files(&run);
    assert_eq!(files.len(), 3);
    let starts: Vec<_> = files.iter().map(|file| events(file)[0].clone()).collect();
    let start = |step: u64| (step, "start".to_owned(), 1.0);
    assert_eq!(starts, [start(1), start(void), start(void)]);
    // The figures that are left agree with the metrics, to the 24 bits of f32.
    let mut left = BTreeMap::new();
    for (step, tag, figure) in files.iter().flat_map(|file| events(file)) {
        if tag == "start" {
            left.retain(|&(_, of), _| of < step);
        } else {
            assert_eq!(left.insert((tag, step), figure), None);
        }
    }
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut compared = 0;
    for line in metrics.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let step = line["step"].as_u64().unwrap();
        let names: &[(&str, &str)] = match line["kind"].as_str().unwrap() {
            "step" => &[
                ("loss/step", "loss"),
                ("learning_rate", "lr"),
                ("images_per_second", "images_per_second"),
            ],
            _ => &[
                ("loss/train", "train_loss"),
                ("wait_share", "wait_share"),
                ("loss/val", "val_loss"),
                ("top1/val", "top1"),
                ("top5/val", "top5"),
            ],
        };
        if names.len() == 3 && steps < 4 && step == saved {
            continue;
        }
        for (tag, name) in names {
            let (got, expected) = (left.remove(&((*tag).to_owned(), step)), line[name].as_f64());
            let (got, expected) = (got.unwrap(), expected.unwrap());
            assert!((got - expected).abs() <= expected.abs() * 1e-7, "{tag}");
            compared += 1;
        }
    }
    assert_eq!(metrics.lines().count(), 4 + 2);
    assert_eq!(compared, steps * 3 + 2 * 5);
    let sheets = [2, 4].map(|step| (("val".to_owned(), step), 1.0));
    assert!(left.into_iter().eq(sheets));
}

#[test]
fn tensorboard_false_writes_no_event_file() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 16, 8);
    let path = dir.path().join("run");
    let flags = "batch = 8\nmax_steps = 1\ntensorboard = false";
    let mut run = Run::create(&path, config(flags), dir.path(), data.train.fingerprint()).unwrap();
    train(&mut run, None, &data, &mut (), &AtomicBool::new(false)).unwrap();
    assert_eq!(event_files(&path), Vec::<PathBuf>::new());
}

/// Reads with `event_accumulator`, TensorBoard's own reader.
#[test]
fn tensorboard_reads_event_files() {
    const READ: &str = r#"
import io, json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator, IMAGES, SCALARS
events = EventAccumulator(sys.argv[1], size_guidance={SCALARS: 0, IMAGES: 0}).Reload()
tags = events.Tags()
images = {tag: [(e.step, e.width, e.height, e.encoded_image_string[:4].hex()) for e in events.Images(tag)] for tag in tags["images"]}
scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags["scalars"]}
print(json.dumps({"images": images, "scalars": scalars}))
"#;
    let python = |code: &str, args: &[&Path]| {
        let mut python = Command::new("python3");
        python.arg("-c").arg(code).args(args).output()
    };
    match python("import tensorboard", &[]) {
        Ok(output) if output.status.success() => {}
        _ => {
            skip::skip("python3 has no tensorboard; tools/test installs one");
            return;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 16, 12);
    let run = broken_run(dir.path(), &data, 1);
    let read = python(READ, &[&run]).unwrap();
    assert!(read.status.success(), "{read:?}");
    let read: serde_json::Value = serde_json::from_slice(&read.stdout).unwrap();
    let scalars = read["scalars"].as_object().unwrap();
    assert_eq!(scalars.len(), 8, "{scalars:?}");
    for (tag, points) in scalars {
        let points = points.as_array().unwrap();
        let steps: Vec<_> = points
            .iter()
            .map(|point| point[0].as_u64().unwrap())
            .collect();
        let every_step = ["loss/step", "learning_rate", "images_per_second"].contains(&&tag[..]);
        assert_eq!(
            steps,
            if every_step {
                vec![1, 2, 3, 4]
            } else {
                vec![2, 4]
            },
            "{tag}"
        );
        assert!(points.iter().all(|point| point[1].is_number()), "{tag}");
    }
    let sheets = read["images"]["val"].as_array().unwrap();
    assert_eq!(sheets.len(), 2);
    for (sheet, step) in sheets.iter().zip([2, 4]) {
        // Eight images of 128 pixels with their margins; two lines of text below each.
        let cell = 128 + 16;
        assert_eq!(
            *sheet,
            serde_json::json!([step, 8 * cell, 2 * (cell + 32), "89504e47"])
        );
    }
}
