//! Exported networks, run by the programs that they are for.
#![cfg(feature = "torch")]

mod common;
#[path = "../../tests/common/skip.rs"]
mod skip;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

use common::{Recorder, SIDE, config, train};
use serde_json::{Value, json};
use tch::{CModule, Device, Tensor};
use tinyres::event::Event;
use tinyres_torch::infer::export::{Target, export};
use tinyres_torch::input::Normalizer;
use tinyres_torch::run::Run;
use tinyres_torch::run::checkpoint::Checkpoint;

/// Largest difference of logits, which are about 1.
const TOLERANCE: f64 = 1e-4;
const CLASSES: usize = 7;
/// Names of networks, and their flags.
const NETWORKS: [(&str, &str); 4] = [
    ("imagenet", "stem = 'imagenet'"),
    ("half", "stem = 'half'\nnormalize = 'none'"),
    ("small", "stem = 'small'"),
    ("boxes", "stem = 'half'\nboxes = true"),
];
/// `consumers.py` has as many.
const CONSUMERS: usize = 3;

/// A run of a few steps, so that every tensor differs from its initial value.
fn trained(dir: &Path, flags: &str) -> PathBuf {
    let data = common::splits(dir, CLASSES, 40, 10);
    let run = dir.join("run");
    let flags = format!(
        "max_steps = 4\nbatch = 10\nlr = 0.02\nprecision = 'f32'\nsizes = 'full'\nzero_init_residual = false\n{flags}"
    );
    let fingerprint = data.train.fingerprint();
    let mut record = Run::create(&run, config(&flags), dir, fingerprint).unwrap();
    let stop = AtomicBool::new(false);
    train(&mut record, None, &data, &mut Recorder::default(), &stop).unwrap();
    run
}

/// Five images of noise, `u8 [5, 3, SIDE, SIDE]`, and the network's logits for them.
fn examples(checkpoint: &Checkpoint) -> (Tensor, Tensor) {
    let side = i64::from(SIDE);
    let images = Tensor::randint(256, [5, 3, side, side], (tch::Kind::Uint8, Device::Cpu));
    let normalizer = Normalizer::new(checkpoint.about.config.normalize, Device::Cpu).unwrap();
    let network = checkpoint.network(Device::Cpu).unwrap();
    let x = normalizer.apply(&images).unwrap();
    let logits = tch::no_grad(|| network.forward(&x, false)).unwrap();
    (images, logits)
}

/// Exports a network to `dir`, together with the images and logits that `consumers.py` compares with.
fn prepare(dir: &Path, flags: &str) {
    let checkpoint = Checkpoint::load(&Run::weights(&trained(dir, flags)).unwrap()).unwrap();
    let (images, logits) = examples(&checkpoint);
    let mut recorder = Recorder::default();
    for (target, name) in [
        (Target::TorchScript, "model.pt"),
        (Target::Safetensors, "model.safetensors"),
        (Target::Onnx, "model.onnx"),
    ] {
        let file = export(&checkpoint, target, &mut recorder).unwrap();
        let again = export(&checkpoint, target, &mut ()).unwrap();
        assert!(file == again, "{target}: not the same bytes again");
        std::fs::write(dir.join(name), file).unwrap();
    }
    // The last line of the notice is the Python code that torchvision's network needs.
    let stem = recorder.events.iter().find_map(|event| match event {
        Event::Notice(text) if text.contains("load_state_dict") => text.lines().last(),
        _ => None,
    });
    let stem = stem.unwrap_or_default().trim();
    let about = json!({ "side": SIDE, "classes": CLASSES, "stem": stem });
    let images_bin = Vec::<u8>::try_from(images.view([-1])).unwrap();
    let logits_bin = Vec::<f32>::try_from(logits.view([-1])).unwrap();
    let logits_bin = logits_bin.into_iter().flat_map(f32::to_le_bytes).collect();
    for (name, bytes) in [
        ("about.json", about.to_string().into_bytes()),
        ("images.bin", images_bin),
        ("logits.bin", logits_bin),
    ] {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    // Loads as torch.jit.load does, and needs no Python.
    let module = CModule::load(dir.join("model.pt")).unwrap();
    let off = module.forward_ts(&[&images]).unwrap() - &logits;
    let off = off.abs().max().double_value(&[]);
    assert!(off < TOLERANCE, "libtorch: off by {off:.1e}");
}

#[test]
fn exports_compute_the_same_logits_in_their_tools() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/consumers.py"));
    for (name, flags) in NETWORKS {
        let home = dir.path().join(name);
        std::fs::create_dir(&home).unwrap();
        prepare(&home, flags);
        command.arg(home);
    }
    let Ok(output) = command.output() else {
        skip::skip("python3 is missing");
        return;
    };
    let error = String::from_utf8_lossy(&output.stderr);
    if error.contains("No module named 'numpy'") {
        skip::skip("python3 has no numpy here; tools/test installs one");
        return;
    }
    assert!(output.status.success(), "{error}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), NETWORKS.len() * CONSUMERS, "{text}");
    for line in text.lines() {
        let [consumer, network, off] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        match off.parse::<f64>() {
            Ok(off) => {
                println!("{consumer}, {network}: off by {off:.1e}");
                assert!(off < TOLERANCE, "{consumer}, {network}: off by {off:.1e}");
            }
            Err(_) => skip::skip(&format!(
                "{consumer}, {network}: python3 lacks it; tools/test installs onnxruntime, and with \
                 TINYRES_TORCH=1 torch and torchvision"
            )),
        }
    }
}

fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tinyres-torch"));
    command.current_dir(dir).args(args).output().unwrap()
}

#[test]
fn export_prints_what_it_wrote_and_refuses_wrong_arguments() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    trained(home, "stem = 'half'");
    let stdout = |args: &[&str]| {
        let output = run(home, args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{error}");
        (String::from_utf8(output.stdout).unwrap(), error)
    };

    let (out, err) = stdout(&["export", "run", "--to", "onnx"]);
    assert!(out.starts_with("run/final.onnx: 44."), "{out}");
    let said = "ONNX, opset 13; takes images u8 [batch, 3, 32, 32] RGB, gives logits [batch, 7]\n";
    assert!(out.ends_with(said), "{out}");
    assert_eq!(err, "");
    let (out, err) = stdout(&["export", "run", "--to", "safetensors", "--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["file"], "run/final.torchvision.safetensors");
    assert_eq!((&json["side"], &json["classes"]), (&32.into(), &7.into()));
    let written = std::fs::metadata(home.join("run/final.torchvision.safetensors")).unwrap();
    assert_eq!(json["bytes"], written.len());
    assert!(err.contains("another stem"), "{err}");
    assert!(
        err.contains("model.conv1 = torch.nn.Conv2d(3, 64, 3, stride=2"),
        "{err}"
    );
    let (out, _) = stdout(&[
        "export",
        "run/best.safetensors",
        "--to=torchscript",
        "-o",
        "b.pt",
    ]);
    assert!(out.starts_with("b.pt: "), "{out}");

    std::fs::write(home.join("noise.safetensors"), "noise").unwrap();
    for (args, code, part) in [
        (&["export", "run"][..], 2, "--to <FORMAT>"),
        (
            &["export", "run", "--to", "pickle"],
            2,
            "[possible values: torchscript, safetensors, onnx]",
        ),
        (&["export", "nowhere", "--to", "onnx"], 1, "nowhere"),
        (
            &["export", "noise.safetensors", "--to", "onnx"],
            1,
            "noise.safetensors is",
        ),
        (
            &["export", "run", "--to", "onnx", "-o", "no/x.onnx"],
            1,
            "no/x.onnx",
        ),
        (
            &[
                "export",
                "run",
                "--to",
                "safetensors",
                "-o",
                "./run/final.safetensors",
            ],
            1,
            "is the file to export from",
        ),
    ] {
        let output = run(home, args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(part), "{args:?}: {error}");
        assert!(output.stdout.is_empty());
    }
}
