//! The network against torchvision's. `tools/witness/resnet18_golden.py` wrote the golden files, and
//! states the formulas that weights, images and labels follow from.

use std::collections::HashMap;

use safetensors::SafeTensors;
use tch::{Device, Kind, Tensor};
use tinyres_torch::model::{ResNet18, Role, Spec, Stem};

const GOLDEN: &[u8] = include_bytes!("golden/resnet18.safetensors");
const KEYS: &str = include_str!("golden/resnet18-keys.txt");
/// Of f32 against f64; torchvision's own f32 is off by a tenth of it.
const TOLERANCE: f64 = 1e-4;
const SPEC: Spec = Spec {
    stem: Stem::Imagenet,
    classes: 200,
};

fn splitmix64(key: u64, index: u64) -> u64 {
    let mut z = (key << 32)
        .wrapping_add(index)
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
fn unit(key: u64, dims: &[i64]) -> Tensor {
    let count: i64 = dims.iter().product();
    let at = |i| (splitmix64(key, i) >> 11) as f64 * 0.5_f64.powi(52) - 1.0;
    let values: Vec<f64> = (0..count.unsigned_abs()).map(at).collect();
    Tensor::from_slice(&values).view(dims)
}

fn initial(k: u64, name: &str, default: &Tensor) -> Tensor {
    let dims = default.size();
    if dims.len() > 1 {
        let fan_in: i64 = dims[1..].iter().product();
        unit(k, &dims) * (6.0 / f64::from(i32::try_from(fan_in).unwrap())).sqrt()
    } else if name.ends_with(".weight") {
        unit(k, &dims) / 4.0 + 1.0
    } else if name.ends_with(".bias") {
        unit(k, &dims) / 4.0
    } else {
        default.copy()
    }
}

fn golden() -> HashMap<String, Tensor> {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    file.iter()
        .map(|(name, view)| {
            let values: Vec<f32> = (view.data().as_chunks().0.iter())
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect();
            let dims: Vec<_> = view
                .shape()
                .iter()
                .map(|&d| i64::try_from(d).unwrap())
                .collect();
            (name.to_owned(), Tensor::from_slice(&values).view(&dims[..]))
        })
        .collect()
}

#[track_caller]
fn near(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.size(), want.size(), "{what}");
    let (got, want) = (got.to_kind(Kind::Double), want.to_kind(Kind::Double));
    let off = (got - &want).norm().double_value(&[]) / want.norm().double_value(&[]);
    assert!(off < TOLERANCE, "{what} is off by {off:.1e}");
}

#[test]
fn the_state_has_torchvisions_names_types_and_shapes() {
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
fn a_training_step_is_torchvisions() {
    let golden = golden();
    let mut net = ResNet18::new(SPEC, 0, Device::Cpu).unwrap();
    let state: Vec<_> = (0..)
        .zip(net.state().unwrap())
        .map(|(k, (name, default))| {
            let value = initial(k, &name, &default).to_kind(default.kind());
            (name, value)
        })
        .collect();
    net.load(&state).unwrap();
    let images = unit(1000, &[8, 3, 64, 64]).to_kind(Kind::Float);
    let labels: Vec<_> = (0..8)
        .map(|i| (splitmix64(1001, i) % 200).cast_signed())
        .collect();

    let logits = net.forward(&images, true).unwrap();
    let loss = logits.cross_entropy_for_logits(&Tensor::from_slice(&labels));
    loss.backward();
    near("logits", &logits, &golden["logits"]);
    near("loss", &loss, &golden["loss"]);

    let (mut norms, mut projections) = (Vec::new(), Vec::new());
    for (k, (name, _)) in (0..).zip(&state) {
        let Some(named) = net.named().iter().find(|named| named.name == *name) else {
            continue; // num_batches_tracked
        };
        if named.role == Role::Buffer {
            near(name, &named.tensor, &golden[name]);
            continue;
        }
        let grad = named
            .tensor
            .grad()
            .contiguous()
            .view([-1])
            .to_kind(Kind::Double);
        let count = i64::try_from(grad.numel()).unwrap();
        norms.push(grad.norm());
        projections.push(grad.dot(&unit(3000 + k, &[count])));
        let grad = if named.tensor.dim() == 1 {
            grad
        } else {
            let places: Vec<_> = (0..64)
                .map(|j| (splitmix64(2000 + k, j) % count.unsigned_abs()).cast_signed())
                .collect();
            grad.index_select(0, &Tensor::from_slice(&places))
        };
        near(name, &grad, &golden[&format!("grad.{name}")]);
    }
    assert_eq!(norms.len(), 62);
    near("norms", &Tensor::stack(&norms, 0), &golden["grad.norm"]);
    near(
        "projections",
        &Tensor::stack(&projections, 0),
        &golden["grad.projection"],
    );

    let logits = tch::no_grad(|| net.forward(&images, false)).unwrap();
    near("logits in evaluation", &logits, &golden["eval.logits"]);
    let batches = |(name, tensor): &(String, Tensor)| {
        assert!(
            !name.ends_with("tracked") || tensor.int64_value(&[]) == 1,
            "{name}"
        );
    };
    net.state().unwrap().iter().for_each(batches);
}

#[test]
fn initial_weights_are_torchvisions_in_distribution() {
    let net = ResNet18::new(SPEC, 5, Device::Cpu).unwrap();
    for (name, tensor) in net.state().unwrap() {
        let bound = |fan: i64| (1.0 / f64::from(i32::try_from(fan).unwrap())).sqrt();
        match tensor.size()[..] {
            [outputs, _, h, w] => {
                let deviation = 2.0_f64.sqrt() * bound(outputs * h * w);
                let got = tensor.std(false).double_value(&[]) / deviation;
                assert!((got - 1.0).abs() < 0.03, "{name}: {got} of its deviation");
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
fn stems_leave_maps_of_their_sizes() {
    for (stem, side) in [(Stem::Imagenet, 2), (Stem::Half, 4), (Stem::Small, 8)] {
        let net = ResNet18::new(Spec { stem, classes: 7 }, 0, Device::Cpu).unwrap();
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
            "layer5.weight is no tensor",
        ),
    ] {
        let message = net.load(&state).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}
