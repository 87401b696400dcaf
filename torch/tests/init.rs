//! Initial weights from files that PyTorch and torchvision write. `tools/witness/pth_golden.py` wrote the golden
//! files, and documents their content.
#![cfg(feature = "torch")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use common::{Recorder, config, train};
use tch::{Device, Kind, Tensor};
use tinyres::event::Event;
use tinyres_format::{Class, Digest};
use tinyres_torch::Error;
use tinyres_torch::net::{ResNet18, Spec, Stem};
use tinyres_torch::run::Run;
use tinyres_torch::run::checkpoint::Checkpoint;
use tinyres_torch::train::Splits;
use tinyres_torch::train::init::{self, Init};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name)
}

fn network(stem: Stem, classes: i64) -> ResNet18 {
    let boxes = false;
    let spec = Spec {
        stem,
        classes,
        boxes,
    };
    ResNet18::new(spec, 7, Device::Cpu).unwrap()
}

#[track_caller]
fn refused(path: &Path, part: &str) {
    let message = match Init::read(path) {
        Err(error @ Error::Checkpoint { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(message.starts_with(path.to_str().unwrap()), "{message}");
    assert!(message.contains(part), "{message}");
}

#[test]
fn torchvision_state_dict_is_loaded_by_name() {
    let init = Init::read(&golden("resnet18.pth")).unwrap();
    let mut network = network(Stem::Imagenet, 1000);
    let report = init.load_into(&mut network, &common::wnids(1000)).unwrap();
    assert_eq!(report, init::InitReport::default());
    let state = network.state().unwrap();
    assert_eq!(state.len(), 122);
    for (k, (name, tensor)) in (0_i32..).zip(state) {
        if tensor.kind() == Kind::Int64 {
            // The network has one count of batches. Files of torchvision have equal ones.
            continue;
        }
        let off = (tensor - f64::from(k + 1) / 128.0).abs().max();
        assert_eq!(off.double_value(&[]), 0.0, "{name}");
    }
}

#[test]
fn other_number_of_classes_gets_a_new_classifier() {
    let init = Init::read(&golden("resnet18.pth")).unwrap();
    let mut network = network(Stem::Imagenet, 5);
    let before: Vec<_> = network
        .state()
        .unwrap()
        .into_iter()
        .map(|(name, t)| (name, t.copy()))
        .collect();
    let report = init.load_into(&mut network, &common::wnids(5)).unwrap();
    assert_eq!(report.new, ["fc.weight", "fc.bias"]);
    assert_eq!(
        report.why,
        ["fc, since it has 1000 classes, and the data 5"]
    );
    for ((name, before), (_, after)) in before.iter().zip(network.state().unwrap()) {
        assert_eq!(*before == after, name.starts_with("fc."), "{name}");
    }
}

#[test]
fn tensors_of_every_dtype_and_stride_are_read() {
    // These are not names of a ResNet18: `load_into` would refuse them.
    let init = Init::read(&golden("tensors.pth")).unwrap();
    let values = Tensor::arange(6, (Kind::Double, Device::Cpu)) / 4.0;
    let matrix = values.view([2, 3]);
    let mut seen = 0;
    for (name, tensor) in init.tensors() {
        let expected = match name.as_str() {
            "long" => Tensor::arange(6, (Kind::Double, Device::Cpu)),
            "transposed" => matrix.transpose(0, 1),
            "offset" => matrix.get(1),
            _ => values.shallow_clone(),
        };
        assert_eq!(tensor.size(), expected.size(), "{name}");
        let off = (tensor.to_kind(Kind::Double) - expected).abs().max();
        assert_eq!(off.double_value(&[]), 0.0, "{name}");
        seen += 1;
    }
    assert_eq!(seen, 9);
}

#[test]
fn other_files_are_refused_by_name() {
    refused(
        &golden("legacy.pth"),
        "format of torch.save before PyTorch 1.6",
    );
    refused(
        &golden("module.pth"),
        "holds a torch.nn.modules.linear.Linear, expected a state dict",
    );
    refused(
        &golden("resnet18-keys.txt"),
        "neither a safetensors file nor one of torch.save",
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.pth");
    let whole = fs::read(golden("tensors.pth")).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    refused(&path, "is damaged");
    // A byte of a storage changes, so that the zip's checksum does not match.
    let at = whole
        .windows(4)
        .position(|part| part == 0.25_f32.to_le_bytes())
        .unwrap();
    let mut bent = whole.clone();
    bent[at] ^= 1;
    fs::write(&path, bent).unwrap();
    refused(&path, "is damaged");
    // A file with any byte changed is read or refused: no panic, no endless loop.
    for at in 0..whole.len() {
        let mut bent = whole.clone();
        bent[at] = !bent[at];
        fs::write(&path, bent).unwrap();
        drop(Init::read(&path));
    }
    let mut network = network(Stem::Imagenet, 5);
    let init = Init::read(&golden("tensors.pth")).unwrap();
    let error = init
        .load_into(&mut network, &common::wnids(5))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("has no conv1.weight: it is not of a ResNet18"),
        "{error}"
    );
}

#[test]
fn another_stem_is_refused_with_the_remedy() {
    let init = Init::read(&golden("resnet18.pth")).unwrap();
    for stem in [Stem::Half, Stem::Small] {
        let error = init
            .load_into(&mut network(stem, 5), &common::wnids(5))
            .unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("[64, 3, 7, 7]") && error.contains("train with --stem imagenet"),
            "{error}"
        );
    }
}

/// Trains for two steps and gives the final weights and what was said.
fn run(dir: &Path, flags: &str, data: &Splits) -> (Checkpoint, Vec<String>) {
    let mut config = config(&format!("batch = 8\nmax_steps = 2\nwarmup = 0.0\n{flags}"));
    init::settle(&mut config, data.train.classes()).unwrap();
    let mut run =
        Run::create(dir, config, dir.parent().unwrap(), data.train.fingerprint()).unwrap();
    let mut recorder = Recorder::default();
    train(&mut run, None, data, &mut recorder, &AtomicBool::new(false)).unwrap();
    let notices = recorder.events.into_iter().filter_map(|event| match event {
        Event::Notice(text) => Some(text),
        _ => None,
    });
    (
        Checkpoint::load(&dir.join("final.safetensors")).unwrap(),
        notices.collect(),
    )
}

fn state(weights: &Checkpoint) -> Vec<(String, Tensor)> {
    weights.network(Device::Cpu).unwrap().state().unwrap()
}

#[test]
fn frozen_layers_stay_and_new_layers_have_their_own_rate() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 16, 8);
    let init = golden("resnet18.pth");
    let begin = |name: &str, flags: &str| {
        let flags = format!(
            "init = '{}'\noptimizer = 'sgd'\nweight_decay = 0.0\nmomentum = 0.0\nnesterov = false\nlr = 1e-30\n{flags}",
            init.display()
        );
        run(&dir.path().join(name), &flags, &data)
    };
    let (weights, said) = begin(
        "frozen",
        "freeze = ['stem', 'layer1', 'layer4']\nnew_lr_factor = 1e28",
    );
    assert!(
        said.iter()
            .any(|text| text.ends_with("; new: fc, since it has 1000 classes, and the data 3")),
        "{said:?}"
    );
    assert_eq!(weights.about.new, ["fc.weight", "fc.bias"]);
    let mut first = network(Stem::Imagenet, 3);
    Init::read(&init)
        .unwrap()
        .load_into(&mut first, &common::wnids(3))
        .unwrap();
    let fresh = ResNet18::new(
        Spec {
            stem: Stem::Imagenet,
            classes: 3,
            boxes: false,
        },
        0,
        Device::Cpu,
    )
    .unwrap();
    let fresh = fresh.state().unwrap();
    for ((name, before), (_, after)) in first.state().unwrap().iter().zip(state(&weights)) {
        let frozen = ["conv1", "bn1", "layer1", "layer4"]
            .iter()
            .any(|layer| name.starts_with(layer));
        if name.starts_with("fc.") {
            // A rate of 0.01 moves it, though 1e-30 moves nothing.
            let (_, before) = fresh.iter().find(|(other, _)| other == name).unwrap();
            assert_ne!(*before, after, "{name}");
        } else if !name.contains("running") {
            assert!(*before == after || name.ends_with("tracked"), "{name}");
        } else {
            assert_eq!(*before == after, frozen, "{name}");
        }
    }
}

#[test]
fn resume_does_not_need_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 70, 20);
    let file = dir.path().join("init.pth");
    fs::copy(golden("resnet18.pth"), &file).unwrap();
    let flags = format!(
        "init = '{}'\nbatch = 8\nmax_steps = 4\nlr = 0.001\nnew_lr_factor = 10.0\nfreeze = ['stem']",
        file.display()
    );
    let begin = |name: &str| {
        let mut config = config(&flags);
        init::settle(&mut config, data.train.classes()).unwrap();
        assert_eq!(
            config.init_digest,
            Some(Digest::of(&fs::read(&file).unwrap()))
        );
        Run::create(
            &dir.path().join(name),
            config,
            dir.path(),
            data.train.fingerprint(),
        )
        .unwrap()
    };
    let go = |run: &mut Run, from: Option<&Checkpoint>, stop: bool| {
        let mut recorder = Recorder::default();
        train(run, from, &data, &mut recorder, &AtomicBool::new(stop)).map(drop)
    };
    let mut whole = begin("whole");
    go(&mut whole, None, false).unwrap();
    // Stopped before the first step.
    let mut broken = begin("broken");
    go(&mut broken, None, true).unwrap();
    let mut unsaved = begin("unsaved");
    fs::write(&file, "changed").unwrap();
    let (mut broken, from) = Run::resume(broken.dir()).unwrap();
    go(&mut broken, from.as_ref(), false).unwrap();
    let weights = |run: &Run| fs::read(run.dir().join("final.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&broken));
    // A run without a checkpoint needs the same file again.
    assert!(go(&mut unsaved, None, false).is_err());
    let mut other = fs::read(golden("resnet18.pth")).unwrap();
    other.extend([0; 7]);
    fs::write(&file, other).unwrap();
    let error = go(&mut unsaved, None, false).unwrap_err().to_string();
    assert!(
        error.contains("has SHA-256") || error.contains("is damaged"),
        "{error}"
    );
}

#[test]
fn run_starts_from_the_weights_of_another_run() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 16, 8);
    let (first, _) = run(&dir.path().join("first"), "lr = 0.01", &data);
    for file in ["final.safetensors", "last.safetensors"] {
        let path = dir.path().join("first").join(file);
        let init = Init::read(&path).unwrap();
        let mut same = network(Stem::Imagenet, 3);
        assert_eq!(
            init.load_into(&mut same, &common::wnids(3)).unwrap().new,
            Vec::<String>::new()
        );
        for ((name, own), (_, saved)) in same.state().unwrap().iter().zip(state(&first)) {
            assert_eq!(*own, saved, "{name}");
        }
        // The same number of classes, but other ones.
        let mut others = common::wnids(3);
        others.swap(0, 1);
        let report = init.load_into(&mut same, &others).unwrap();
        assert_eq!(
            report.why,
            ["fc, since its classes are not those of the data"]
        );
        let none: &[Class] = &[];
        assert_eq!(
            init.load_into(&mut network(Stem::Imagenet, 0), none)
                .unwrap()
                .new
                .len(),
            2
        );
    }
}
