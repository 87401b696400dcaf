//! The optimizers against PyTorch's. `tools/witness/optim_golden.py` printed the numbers, and defines the
//! parameters and gradients.
#![cfg(feature = "torch")]

mod common;

use tch::{Device, Kind, Tensor};
use tinyres_torch::libtorch::Workers;
use tinyres_torch::libtorch::device::Precision;
use tinyres_torch::net::{NamedTensor, Role};
use tinyres_torch::train::optim::Optimizer;

const SGD: [f32; 9] = [
    -0.1836366,
    -0.04462413,
    0.09438831,
    0.2334007,
    0.3724132,
    0.5114257,
    0.02150911,
    0.0953913,
    0.1692735,
];
const NESTEROV: [f32; 9] = [
    -0.0946622, 0.01041397, 0.1154901, 0.2205663, 0.3256424, 0.4307186, 0.06010414, 0.1176428,
    0.1751815,
];
const ADAM: [f32; 9] = [
    -0.2713605,
    -0.02178872,
    0.1807189,
    0.2825556,
    0.2833682,
    0.528043,
    0.09720324,
    0.185132,
    0.2431466,
];
/// The filter after Muon's steps. The other parameters are trained with Nesterov's.
const MUON: [f32; 24] = include!("golden/muon.rs");
const ALGORITHMS: [(&str, [f32; 9]); 4] = [
    ("optimizer = 'sgd'\nnesterov = false", SGD),
    ("optimizer = 'sgd'\nnesterov = true", NESTEROV),
    ("optimizer = 'adam'\nnesterov = false", ADAM),
    (
        "optimizer = 'muon'\nmuon_momentum = 0.6\nmuon_lr_factor = 0.6\nprecision = 'f32'",
        NESTEROV,
    ),
];

/// The same filters in channels-last layout.
fn channels_last(filters: &Tensor) -> Tensor {
    let last = filters.permute([0, 2, 3, 1]).contiguous();
    last.permute([0, 3, 1, 2])
}

fn parameters() -> Vec<NamedTensor> {
    let named = |name: &str, tensor: Tensor, role| NamedTensor {
        name: name.to_owned(),
        tensor: tensor
            .to_kind(Kind::Float)
            .set_requires_grad(role != Role::Buffer),
        role,
    };
    let arange = |n: i64| Tensor::arange(n, (Kind::Double, Device::Cpu));
    vec![
        named("w", ((arange(6) - 2.0) / 4.0).view([2, 3]), Role::Weight),
        named("b", arange(3) / 8.0 - 0.125, Role::NoDecay),
        named("running_mean", arange(3), Role::Buffer),
        named(
            "filter",
            channels_last(&((arange(24) - 10.0) / 12.0).view([4, 3, 1, 2])),
            Role::Weight,
        ),
    ]
}

fn optimizer(flags: &str, named: &[NamedTensor]) -> Optimizer {
    let config = common::config(&format!("{flags}\nmomentum = 0.9\nweight_decay = 0.1"));
    Optimizer::new(&config, named, &[]).unwrap()
}

fn step(s: u8, optimizer: &mut Optimizer, named: &[NamedTensor]) {
    step_by(&Workers::calling_thread(), s, optimizer, named);
}

fn step_by(workers: &Workers, s: u8, optimizer: &mut Optimizer, named: &[NamedTensor]) {
    let s = f64::from(s);
    for named in named.iter().filter(|named| named.role != Role::Buffer) {
        let p = &named.tensor;
        let loss = p.square().sum(Kind::Float) * ((s + 1.0) / 4.0) - p.sum(Kind::Float) * 0.25;
        loss.backward();
    }
    optimizer.step(0.1 / (s + 1.0), workers).unwrap();
}

fn values(named: &[NamedTensor]) -> Vec<f32> {
    let flat =
        |named: &NamedTensor| Vec::<f32>::try_from(named.tensor.detach().reshape([-1])).unwrap();
    named.iter().flat_map(flat).collect()
}

#[test]
fn five_steps_match_pytorch() {
    for (flags, golden) in ALGORITHMS {
        let named = parameters();
        let mut optimizer = optimizer(flags, &named);
        for s in 0..5 {
            step(s, &mut optimizer, &named);
        }
        let values = values(&named);
        for (got, want) in values.iter().zip(golden) {
            assert!((got - want).abs() < 2e-7, "{flags}: {got}, expected {want}");
        }
        assert_eq!(values[9..12], [0.0, 1.0, 2.0]);
        if flags.contains("muon") {
            // Muon's products are in bfloat16 where the processor multiplies it, and have 8 bits. Those in f32 are compared
            // in `muon.rs`.
            let most = match Precision::Auto.on(Device::Cpu) {
                Precision::Bf16 => 1e-2,
                _ => 2e-6,
            };
            for (got, want) in values[12..].iter().zip(MUON) {
                assert!((got - want).abs() < most, "{flags}: {got}, expected {want}");
            }
        }
    }
}

#[test]
fn several_workers_take_the_same_steps() {
    tinyres_torch::set_threads(3);
    let several = Workers::new(3);
    assert_eq!(several.count(), 3);
    for (flags, _) in ALGORITHMS {
        let [by_one, by_several] = [&Workers::calling_thread(), &several].map(|workers| {
            let named = parameters();
            let mut optimizer = optimizer(flags, &named);
            for s in 0..3 {
                step_by(workers, s, &mut optimizer, &named);
            }
            values(&named)
        });
        assert_eq!(by_one, by_several, "{flags}");
    }
}

#[test]
fn restored_optimizer_continues_bit_for_bit() {
    for (flags, _) in ALGORITHMS {
        let named = parameters();
        let mut first = optimizer(flags, &named);
        for s in 0..3 {
            step(s, &mut first, &named);
        }
        let copies: Vec<NamedTensor> = parameters()
            .into_iter()
            .zip(&named)
            .map(|(mut copy, named)| {
                tch::no_grad(|| copy.tensor.copy_(&named.tensor));
                copy
            })
            .collect();
        let mut second = optimizer(flags, &copies);
        second.load(&first.state()).unwrap();
        for s in 3..5 {
            step(s, &mut first, &named);
            step(s, &mut second, &copies);
        }
        assert_eq!(values(&named), values(&copies), "{flags}");
    }
}

#[test]
fn step_without_gradients_is_an_error() {
    let named = parameters();
    let error = optimizer("optimizer = 'sgd'", &named)
        .step(0.1, &Workers::calling_thread())
        .unwrap_err();
    assert!(error.to_string().contains("has no gradient"), "{error}");
}
