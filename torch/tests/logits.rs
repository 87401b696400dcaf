//! Logits of networks whose weights other programs saved, against torchvision's. `tools/witness/logits_golden.py` wrote
//! the golden files, and documents their content.
#![cfg(feature = "torch")]

use std::path::Path;

use tch::{Device, Kind, Tensor};
use tinyres_format::Class;
use tinyres_torch::infer::foreign::{AnyWeights, Assumed};
use tinyres_torch::net::{ResNet18, Spec, Stem};
use tinyres_torch::train::init::Init;

/// Relative error of f32 against torchvision's f64.
const TOLERANCE: f64 = 1e-4;

/// The two images, `f32 [2, 3, side, side]`.
fn images(side: i64) -> Tensor {
    let axis =
        |size: i64, shape: &[i64]| Tensor::arange(size, (Kind::Int64, Device::Cpu)).view(shape);
    let image = axis(2, &[2, 1, 1, 1]);
    let channel = axis(3, &[3, 1, 1]);
    let (y, x) = (axis(side, &[side, 1]), axis(side, &[side]));
    let sum: Tensor = &x * 7 + &y * 13 + &channel * 31 + &image * 17 + &image * &x;
    (sum.remainder(17) - 8).to_kind(Kind::Float) / 8.0
}

#[track_caller]
fn close(what: &str, network: &ResNet18, side: i64, expected: &Tensor) {
    let logits = tch::no_grad(|| network.forward(&images(side), false)).unwrap();
    let off = (logits.to_kind(Kind::Double).view([-1]) - expected)
        .abs()
        .max();
    let off = (off / expected.abs().max()).double_value(&[]);
    assert!(off < TOLERANCE, "{what}: off by {off:.1e}");
}

#[test]
fn logits_are_torchvisions_however_the_weights_were_saved() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let text = std::fs::read_to_string(golden.join("logits.txt")).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let classes: Vec<_> = (0..5)
        .map(|number| Class {
            id: number.to_string(),
            name: number.to_string(),
        })
        .collect();
    for lines in lines.chunks(2) {
        let (name, numbers) = (lines[0], lines[1].split(' '));
        let [file, key, stem] = name.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{name}")
        };
        let stem: Stem = stem.parse().unwrap();
        let side = if stem == Stem::Small { 32 } else { 64 };
        let expected: Vec<f64> = numbers.map(|number| number.parse().unwrap()).collect();
        let expected = Tensor::from_slice(&expected);
        let place = golden.join(format!("{file}#{key}"));

        // For `predict`, `eval` and `export`: the stem is found.
        let weights = AnyWeights::read(&place).unwrap();
        let checkpoint = weights.describe(Assumed::default(), &mut ()).unwrap();
        assert_eq!(checkpoint.about.config.stem, stem, "{name}");
        let network = checkpoint.network(Device::Cpu).unwrap();
        close(name, &network, side, &expected);

        // For `train --init`: the classifier is taken if its name is torchvision's.
        let spec = Spec {
            stem,
            classes: 5,
            boxes: false,
        };
        let mut network = ResNet18::new(spec, 3, Device::Cpu).unwrap();
        let report = Init::read(&place)
            .unwrap()
            .load_into(&mut network, &classes)
            .unwrap();
        if report.new.is_empty() {
            close(name, &network, side, &expected);
        } else {
            let other = ["dropout", "shortcut", "stages"];
            assert!(other.contains(&key), "{name}: {report:?}");
        }
    }
    assert_eq!(lines.len(), 2 * 12);
}
