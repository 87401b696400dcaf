//! Exported networks, run by the programs that they are for.
#![cfg(feature = "torch")]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use common::{Ear, SIDE, config};
use serde_json::json;
use tch::{CModule, Device, Tensor};
use tinyres::event::Event;
use tinyres_torch::augment::Normalizer;
use tinyres_torch::checkpoint::Checkpoint;
use tinyres_torch::export::{Target, export};
use tinyres_torch::run::Run;
use tinyres_torch::train::train;

/// Of logits of about 1.
const TOLERANCE: f64 = 1e-4;
const CLASSES: usize = 7;

/// A network after a few steps, so that no tensor of it is as it began.
fn trained(dir: &Path, flags: &str) -> Checkpoint {
    let data = common::splits(dir, CLASSES, 60, 10);
    let run = dir.join("run");
    let flags =
        format!("max_steps = 6\nbatch = 10\nlr = 0.02\nzero_init_residual = false\n{flags}");
    let fingerprint = data.train.fingerprint();
    let mut record = Run::create(&run, config(&flags), dir, fingerprint).unwrap();
    let (ear, stop) = (&mut Ear::default(), AtomicBool::new(false));
    train(&mut record, None, &data, ear, &stop).unwrap();
    Checkpoint::load(&Run::weights(&run).unwrap()).unwrap()
}

/// Five images of noise, `u8 [5, 3, SIDE, SIDE]`, and what the network makes of them.
fn examples(checkpoint: &Checkpoint) -> (Tensor, Tensor) {
    let side = i64::from(SIDE);
    let images = Tensor::randint(256, [5, 3, side, side], (tch::Kind::Uint8, Device::Cpu));
    let normalizer = Normalizer::new(checkpoint.about.config.normalize, Device::Cpu).unwrap();
    let network = checkpoint.network(Device::Cpu).unwrap();
    let x = normalizer.apply(&images).unwrap();
    let logits = tch::no_grad(|| network.forward(&x, false)).unwrap();
    (images, logits)
}

fn bytes<T: Copy, const N: usize>(tensor: &Tensor, of: impl Fn(T) -> [u8; N]) -> Vec<u8>
where
    Vec<T>: TryFrom<Tensor, Error: std::fmt::Debug>,
{
    let values = Vec::<T>::try_from(tensor.contiguous().view([-1])).unwrap();
    values.into_iter().flat_map(of).collect()
}

/// The largest difference that `consumer` finds; `None`, with a word, where it is not installed.
fn consume(consumer: &str, dir: &Path) -> Option<f64> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/consumers.py");
    let output = Command::new("python3")
        .arg(script)
        .arg(consumer)
        .arg(dir)
        .output();
    let Ok(output) = output else {
        println!("skipped {consumer}: there is no python3");
        return None;
    };
    if output.status.code() == Some(77) {
        println!(
            "skipped {consumer}: python3 lacks it here; TINYRES_TORCH=1 tools/test installs it"
        );
        return None;
    }
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{consumer}: {error}");
    Some(
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .unwrap(),
    )
}

fn runs_where_it_is_for(flags: &str) {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = trained(dir.path(), flags);
    let (images, logits) = examples(&checkpoint);
    let mut ear = Ear::default();
    for (target, name) in [
        (Target::TorchScript, "model.pt"),
        (Target::Safetensors, "model.safetensors"),
        (Target::Onnx, "model.onnx"),
    ] {
        let file = export(&checkpoint, target, &mut ear).unwrap();
        let again = export(&checkpoint, target, &mut ()).unwrap();
        assert!(file == again, "{target}: not the same bytes again");
        std::fs::write(dir.path().join(name), file).unwrap();
    }
    // The notice ends in the line of Python that torchvision's network needs.
    let notice = ear.events.iter().find_map(|event| match event {
        Event::Notice(text) => text.lines().last(),
        _ => None,
    });
    let about = json!({ "side": SIDE, "classes": CLASSES, "stem": notice.unwrap_or("").trim() });
    for (name, bytes) in [
        ("about.json", about.to_string().into_bytes()),
        ("images.bin", bytes(&images, u8::to_le_bytes)),
        ("logits.bin", bytes(&logits, f32::to_le_bytes)),
    ] {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    // What torch.jit.load calls, whether there is a Python or not.
    let module = CModule::load(dir.path().join("model.pt")).unwrap();
    let off = (module.forward_ts(&[&images]).unwrap() - &logits)
        .abs()
        .max();
    assert!(off.double_value(&[]) < TOLERANCE, "{off}");
    for consumer in ["onnxruntime", "torchvision", "torchscript"] {
        if let Some(off) = consume(consumer, dir.path()) {
            assert!(off < TOLERANCE, "{consumer}: off by {off:.1e}");
        }
    }
}

#[test]
fn the_imagenet_stem() {
    runs_where_it_is_for("stem = 'imagenet'");
}

#[test]
fn the_half_stem_without_normalisation() {
    runs_where_it_is_for("stem = 'half'\nnormalize = 'none'");
}

#[test]
fn the_small_stem() {
    runs_where_it_is_for("stem = 'small'");
}
