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

/// Checks that the tensors in `place` are those of the golden files: tensor k of torchvision's order is
/// (k + 1) / 128.
#[track_caller]
fn holds_the_golden_tensors(place: &Path, stem: Stem, new: &[&str]) -> init::InitReport {
    let init = Init::read(place).unwrap();
    let mut network = network(stem, 1000);
    let report = init.load_into(&mut network, &common::wnids(1000)).unwrap();
    assert_eq!(report.new, new, "{}", place.display());
    for (k, (name, tensor)) in (0_i32..).zip(network.state().unwrap()) {
        if tensor.kind() != Kind::Int64 && !new.contains(&name.as_str()) {
            let off = (tensor - f64::from(k + 1) / 128.0).abs().max();
            assert_eq!(off.double_value(&[]), 0.0, "{}: {name}", place.display());
        }
    }
    report
}

const FC: [&str; 2] = ["fc.weight", "fc.bias"];

#[test]
fn checkpoint_of_a_compiled_parallel_network_is_read() {
    let report = holds_the_golden_tensors(&golden("checkpoint.pth"), Stem::Imagenet, &[]);
    assert_eq!(report.why, [""; 0]);
    assert_eq!(report.unused.unwrap(), "not used: val_confusion");
}

#[test]
fn legacy_pickle_of_a_module_is_read() {
    holds_the_golden_tensors(&golden("whole.pth"), Stem::Imagenet, &[]);
}

#[test]
fn one_of_several_networks_is_named_by_its_key() {
    let two = golden("two.pth");
    refused(
        &two,
        "holds 2 ResNet18s, #state_dict and #state_dict_ema: name one of them, as in FILE#state_dict_ema",
    );
    for key in ["state_dict", "state_dict_ema"] {
        let place = PathBuf::from(format!("{}#{key}", two.display()));
        holds_the_golden_tensors(&place, Stem::Imagenet, &[]);
    }
    let place = PathBuf::from(format!("{}#model", two.display()));
    let error = Init::read(&place).unwrap_err().to_string();
    assert!(
        error.contains("has no ResNet18 at model, but at state_dict, state_dict_ema"),
        "{error}"
    );
}

#[test]
fn names_of_other_programs_are_understood() {
    let place = |key: &str| PathBuf::from(format!("{}#{key}", golden("namings.pth").display()));
    let why = |classifier: &str| {
        [format!(
            "fc, since the file's classifier is {classifier}, of 1,000 classes"
        )]
    };
    let report = holds_the_golden_tensors(&place("shortcut"), Stem::Small, &FC);
    assert_eq!(report.why, why("linear"));
    holds_the_golden_tensors(&place("residual"), Stem::Small, &[]);
    let report = holds_the_golden_tensors(&place("children"), Stem::Imagenet, &FC);
    assert_eq!(report.why, ["fc, since the file has no classifier"]);
    let report = holds_the_golden_tensors(&place("stages"), Stem::Imagenet, &FC);
    assert_eq!(report.why, why("classifier.1"));
}

#[test]
fn bfloat16_weights_with_another_classifier_are_read() {
    let init = Init::read(&golden("dropout.pth")).unwrap();
    let mut network = network(Stem::Imagenet, 3);
    let report = init.load_into(&mut network, &common::wnids(3)).unwrap();
    assert_eq!(report.new, FC);
    assert_eq!(
        report.why,
        ["fc, since the file's classifier is fc.1, of 3 classes"]
    );
    let state = network.state().unwrap();
    assert_eq!(state[0].1.kind(), Kind::Float);
    assert_eq!(
        state[1].1,
        Tensor::from_slice(&[2.0_f32 / 128.0]).expand([64], false)
    );
}

#[test]
fn safetensors_in_half_precision_under_a_prefix_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("half.safetensors");
    let state = network(Stem::Imagenet, 3).state().unwrap();
    let halves: Vec<_> = (state.iter())
        .map(|(name, tensor)| {
            (
                format!("backbone.model.{name}"),
                tensor.to_kind(Kind::Half).contiguous(),
            )
        })
        .collect();
    let named: Vec<_> = halves
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    Tensor::write_safetensors(&named, &path).unwrap();
    let mut loaded = network(Stem::Imagenet, 3);
    let init = Init::read(&path).unwrap();
    assert_eq!(
        init.load_into(&mut loaded, &common::wnids(3)).unwrap(),
        init::InitReport::default()
    );
    for ((name, loaded), (_, half)) in loaded.state().unwrap().iter().zip(&halves) {
        assert_eq!(loaded.to_kind(Kind::Half), *half, "{name}");
    }
}

#[test]
fn another_architecture_is_named() {
    refused(
        &golden("resnet34.pth"),
        "holds a ResNet34, expected a ResNet18, the only network of tinyres: it holds layer1.2.conv1.weight",
    );
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
        ["fc, since it has 1,000 classes, and the data 5"]
    );
    for ((name, before), (_, after)) in before.iter().zip(network.state().unwrap()) {
        assert_eq!(*before == after, name.starts_with("fc."), "{name}");
    }
}

#[test]
fn other_files_are_refused_by_name() {
    for (name, holds) in [
        ("legacy.pth", "it holds weight"),
        ("module.pth", "it holds weight, bias"),
        (
            "tensors.pth",
            "it holds float, double, half, bfloat16 and 5 more",
        ),
    ] {
        refused(
            &golden(name),
            &format!("has no conv1.weight: it is not of a ResNet18; {holds}"),
        );
    }
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
    let network = fs::read(golden("resnet18.pth")).unwrap();
    let at = network
        .windows(4)
        .position(|part| part == (5.0_f32 / 128.0).to_le_bytes())
        .unwrap();
    let mut bent = network;
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
            .any(|text| text.ends_with("; new: fc, since it has 1,000 classes, and the data 3")),
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
    let dir_of_broken = broken.dir().to_path_buf();
    drop(broken);
    let (mut broken, from) = Run::resume(&dir_of_broken).unwrap();
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
