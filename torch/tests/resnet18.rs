//! The network against torchvision's. `tools/witness/resnet18_golden.py` wrote the golden files.
#![cfg(feature = "torch")]

use tch::{Device, Kind, Tensor};
use tinyres_torch::doctor::parity::{Difference, against_torchvision};
use tinyres_torch::libtorch::device::Precision;
use tinyres_torch::net::{ResNet18, Spec, Stem};

const KEYS: &str = include_str!("../golden/resnet18-keys.txt");
/// Relative error of f32 against torchvision's f64. torchvision's own f32 has a tenth of it.
const TOLERANCE: f64 = 1e-4;
const SPEC: Spec = Spec {
    stem: Stem::Imagenet,
    classes: 200,
    boxes: false,
};

#[test]
fn state_has_torchvisions_names_types_and_shapes() {
    let state = ResNet18::new(SPEC, 0, Device::Cpu)
        .unwrap()
        .state()
        .unwrap();
    let lines = state.iter().map(|(name, tensor)| {
        let kind = match tensor.kind() {
            Kind::Float => "float32",
            Kind::Int64 => "int64",
            other => panic!("{name} is {other:?}"),
        };
        let dims: String = tensor.size().iter().map(|d| format!(" {d}")).collect();
        format!("{name} {kind}{dims}\n")
    });
    assert_eq!(lines.collect::<String>(), KEYS);
}

#[test]
fn training_step_matches_torchvision() {
    let differences = against_torchvision(Device::Cpu, Precision::F32).unwrap();
    // Logits twice, loss, 62 gradients with their norms and projections, 40 statistics.
    assert_eq!(differences.len(), 3 + 62 + 2 + 40);
    for Difference { what, relative } in differences {
        assert!(relative < TOLERANCE, "{what} is off by {relative:.1e}");
    }
}

#[test]
fn initial_weights_have_torchvisions_distribution() {
    let net = ResNet18::new(SPEC, 5, Device::Cpu).unwrap();
    for (name, tensor) in net.state().unwrap() {
        let bound = |fan: i64| (1.0 / f64::from(i32::try_from(fan).unwrap())).sqrt();
        match tensor.size()[..] {
            [outputs, _, h, w] => {
                let std = 2.0_f64.sqrt() * bound(outputs * h * w);
                let got = tensor.std(false).double_value(&[]) / std;
                assert!((got - 1.0).abs() < 0.03, "{name}: {got} of its std");
            }
            [_, inputs] => {
                let most = tensor.abs().max().double_value(&[]) / bound(inputs);
                assert!((0.99..=1.0).contains(&most), "{name}: {most} of its bound");
            }
            [_] if name == "fc.bias" => {
                assert!(tensor.abs().max().double_value(&[]) <= bound(512));
            }
            [_] => {
                let ones = name.ends_with(".weight") || name.ends_with("running_var");
                let off = (tensor - f64::from(u8::from(ones))).abs().max();
                assert_eq!(off.double_value(&[]), 0.0, "{name}");
            }
            _ => assert_eq!(tensor.int64_value(&[]), 0, "{name}"),
        }
    }
    let again = ResNet18::new(SPEC, 5, Device::Cpu).unwrap();
    let other = ResNet18::new(SPEC, 6, Device::Cpu).unwrap();
    let first = |net: &ResNet18| net.named()[0].tensor.copy();
    assert_eq!(first(&net), first(&again));
    assert_ne!(first(&net), first(&other));
}

#[test]
fn each_stem_gives_its_map_size() {
    for (stem, side) in [(Stem::Imagenet, 2), (Stem::Half, 4), (Stem::Small, 8)] {
        let net = ResNet18::new(
            Spec {
                stem,
                classes: 7,
                boxes: false,
            },
            0,
            Device::Cpu,
        )
        .unwrap();
        let images = Tensor::zeros([2, 3, 64, 64], (Kind::Float, Device::Cpu));
        tch::no_grad(|| {
            let map = net.features(&images, false).unwrap();
            assert_eq!(map.size(), [2, 512, side, side], "{stem:?}");
            assert_eq!(net.forward(&images, false).unwrap().size(), [2, 7]);
        });
    }
}

#[test]
fn weights_of_another_network_are_refused_by_name() {
    let mut net = ResNet18::new(SPEC, 0, Device::Cpu).unwrap();
    let state = net.state().unwrap();
    let small = Spec {
        stem: Stem::Small,
        ..SPEC
    };
    let other = ResNet18::new(small, 0, Device::Cpu)
        .unwrap()
        .state()
        .unwrap();
    let extra = [("layer5.weight".to_owned(), Tensor::from(0.0_f32))];
    let clone = |state: &[(String, Tensor)]| -> Vec<_> {
        state
            .iter()
            .map(|(n, t)| (n.clone(), t.shallow_clone()))
            .collect()
    };
    for (state, part) in [
        (
            clone(&other),
            "conv1.weight has shape [64, 3, 3, 3], expected [64, 3, 7, 7]",
        ),
        (clone(&state[1..]), "conv1.weight is missing"),
        (
            clone(&state).into_iter().chain(extra).collect(),
            "layer5.weight is not in this network",
        ),
    ] {
        let message = net.load(&state).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}
