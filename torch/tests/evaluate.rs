//! Evaluation, compared with scores worked out image by image, and checkpoints read back.
#![cfg(feature = "torch")]

mod common;

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;

use common::{Recorder, config, train};
use tch::{Device, Kind, Tensor};
use tinyres::event::Event;
use tinyres_format::Class;
use tinyres_torch::Error;
use tinyres_torch::config::Normalize;
use tinyres_torch::infer::evaluate::evaluate;
use tinyres_torch::infer::tta::Tta;
use tinyres_torch::input::{Normalizer, Pipeline, Targets};
use tinyres_torch::libtorch::device::Placement;
use tinyres_torch::net::{ResNet18, Spec, Stem};
use tinyres_torch::run::Run;
use tinyres_torch::run::checkpoint::Checkpoint;

const SEVEN: NonZeroUsize = NonZeroUsize::new(7).unwrap();

fn network(classes: i64) -> ResNet18 {
    let stem = Stem::Imagenet;
    ResNet18::new(
        Spec {
            stem,
            classes,
            boxes: false,
        },
        3,
        Device::Cpu,
    )
    .unwrap()
}

#[test]
fn scores_agree_with_single_images() {
    let dir = tempfile::tempdir().unwrap();
    // Shards of 48 images: batches of 7 end at the shards' ends, and the last of all is smaller.
    let data = common::splits(dir.path(), 8, 8, 60).val;
    let net = network(8);
    let imagenet = Normalize::Imagenet;
    let pipeline = Pipeline::evaluation(data.shape(), 32, imagenet, Device::Cpu).unwrap();
    let normalizer = Normalizer::new(Normalize::Imagenet, Device::Cpu).unwrap();
    let (mut losses, mut first, mut five) = (Vec::new(), 0, 0);
    let mut right = [0; 8];
    for image in 0..60 {
        let mut pixels = vec![0; data.shape().image_len()];
        data.gather(&[image], &mut pixels).unwrap();
        let x = Tensor::from_slice(&pixels).view([1, 3, 32, 32]);
        let logits = tch::no_grad(|| net.forward(&normalizer.apply(&x).unwrap(), false)).unwrap();
        let logits = Vec::<f64>::try_from(logits.to_kind(Kind::Double).view([-1])).unwrap();
        let label = usize::try_from(data.label(image).unwrap()).unwrap();
        let above = logits
            .iter()
            .filter(|&&other| other > logits[label])
            .count();
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        losses.push(sum.ln() - logits[label]);
        first += usize::from(above == 0);
        right[label] += usize::from(above == 0);
        five += usize::from(above < 5);
    }
    for placement in [Placement::Mapped, Placement::Resident] {
        let feed = common::feed(&data, false, placement);
        let mut recorder = Recorder::default();
        let scores = evaluate(&net, &feed, &pipeline, Tta::None, SEVEN, &mut recorder).unwrap();
        assert_eq!((scores.images, scores.split.as_str()), (60, "val"));
        let mean = losses.iter().sum::<f64>() / 60.0;
        assert!((scores.loss - mean).abs() < 1e-5, "{} {mean}", scores.loss);
        assert_eq!(scores.top1, f64::from(u8::try_from(first).unwrap()) / 60.0);
        assert_eq!(scores.top5, f64::from(u8::try_from(five).unwrap()) / 60.0);
        let got: Vec<_> = scores.classes.iter().map(|class| class.correct).collect();
        assert_eq!(got, right);
        assert_eq!(
            scores
                .classes
                .iter()
                .map(|class| class.images)
                .sum::<usize>(),
            60
        );
        assert_eq!(scores.worst()[0].correct, *right.iter().min().unwrap());
        assert!(recorder.events.contains(&Event::Advance { done: 60 }));
    }
}

#[test]
fn mapped_batches_are_views_of_the_map() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 8, 60).val;
    let feed = common::feed(&data, false, Placement::Auto);
    assert_eq!(feed.placement(), Placement::Mapped);
    let own: Vec<_> = data
        .sequential(7)
        .map(|(_, bytes)| bytes.unwrap().as_ptr())
        .collect();
    let mut seen = Vec::new();
    let mut at = 0;
    feed.in_order(SEVEN, |batch| {
        seen.push(batch.pixels.data_ptr().cast_const().cast::<u8>());
        assert_eq!(batch.at.start, at);
        at = batch.at.end;
        let labels = &data.labels().unwrap()[usize::try_from(batch.at.start).unwrap()..]
            [..batch.labels.numel()];
        assert_eq!(Vec::<i64>::try_from(&batch.labels).unwrap(), labels);
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, own);
    assert_eq!(at, 60);
}

#[test]
fn final_weights_score_as_the_last_epoch_reported() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 70, 20);
    let path = dir.path().join("run");
    let config = config("epochs = 1\nbatch = 10\nlr = 0.01\nnormalize = 'none'");
    let fingerprint = data.train.fingerprint();
    let mut run = Run::create(&path, config.clone(), dir.path(), fingerprint).unwrap();
    let mut recorder = Recorder::default();
    train(
        &mut run,
        None,
        &data,
        &mut recorder,
        &AtomicBool::new(false),
    )
    .unwrap();
    let said = recorder.epochs[0].val;

    let weights = Run::weights(&path).unwrap();
    assert_eq!(weights, path.join("final.safetensors"));
    let checkpoint = Checkpoint::load(&weights).unwrap();
    assert_eq!(checkpoint.about.config, config);
    assert_eq!(checkpoint.about.classes, common::wnids(3));
    assert_eq!(
        (checkpoint.about.position.step, checkpoint.about.fingerprint),
        (7, fingerprint)
    );
    let net = checkpoint.network(Device::Cpu).unwrap();
    let feed = common::feed(&data.val, false, Placement::Auto);
    let about = &checkpoint.about;
    let (size, normalize) = (about.position.size, about.config.normalize);
    let pipeline = Pipeline::evaluation(data.val.shape(), size, normalize, Device::Cpu).unwrap();
    let scores = evaluate(&net, &feed, &pipeline, Tta::None, SEVEN, &mut recorder).unwrap();
    let said = said.unwrap();
    assert_eq!((scores.top1, scores.top5), (said.top1, said.top5));
    assert!((scores.loss - said.val_loss).abs() < 1e-6);

    // The checkpoint has the same weights, and the optimizer's state.
    let last = Checkpoint::load(&path.join("last.safetensors")).unwrap();
    let state = |checkpoint: &Checkpoint| checkpoint.network(Device::Cpu).unwrap().state().unwrap();
    assert_eq!(state(&last), state(&checkpoint));
    let file = std::fs::read(path.join("last.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert!(
        file.names()
            .contains(&"optimizer/momentum/layer4.1.conv2.weight")
    );
}

#[test]
fn other_classes_are_refused_and_another_order_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 10, 20);
    let path = dir.path().join("run");
    let config = config("max_steps = 1\nbatch = 10");
    let mut run = Run::create(&path, config, dir.path(), data.train.fingerprint()).unwrap();
    train(
        &mut run,
        None,
        &data,
        &mut Recorder::default(),
        &AtomicBool::new(false),
    )
    .unwrap();
    let mut weights = Checkpoint::load(&Run::weights(&path).unwrap()).unwrap();
    let classes = common::wnids(3);
    assert!(!weights.order_classes(&classes).unwrap());
    let others = common::wnids(4);
    for (other, only_weights, only_data) in [
        (&classes[..2], vec![&classes[2]], vec![]),
        (&others[..], vec![], vec![&others[3]]),
        (&others[1..], vec![&classes[0]], vec![&others[3]]),
    ] {
        let ids = |classes: Vec<&Class>| -> Vec<_> {
            classes.into_iter().map(|class| class.id.clone()).collect()
        };
        match weights.order_classes(other).unwrap_err() {
            Error::Classes { weights, data } => {
                assert_eq!((weights, data), (ids(only_weights), ids(only_data)));
            }
            error => panic!("{error}"),
        }
    }
    let outputs = |weights: &Checkpoint| {
        let images = Tensor::ones([1, 3, 32, 32], (Kind::Float, Device::Cpu));
        let network = weights.network(Device::Cpu).unwrap();
        let logits = tch::no_grad(|| network.forward(&images, false)).unwrap();
        Vec::<f32>::try_from(logits.view([-1])).unwrap()
    };
    let before = outputs(&weights);
    let order = [2, 0, 1];
    let moved = order.map(|label: usize| classes[label].clone());
    assert!(weights.order_classes(&moved).unwrap());
    for (logit, label) in outputs(&weights).into_iter().zip(order) {
        assert!((logit - before[label]).abs() < 1e-5, "{label}");
    }
    assert_eq!(weights.about.classes, moved);
}

#[test]
fn images_without_labels_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    common::write_labelled(dir.path(), &common::wnids(3), (10, 10), |image, label| {
        if image == 7 { -1 } else { label }
    });
    let data = common::open(dir.path(), tinyres_format::Split::Val);
    let error = Targets::read(&data, false).unwrap_err().to_string();
    assert!(
        error.contains("val: image 7 (val_7.JPEG) has no label"),
        "{error}"
    );
}

#[test]
fn damaged_files_of_weights_are_refused_with_their_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights.safetensors");
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]);
    let foreign = safetensors::serialize([("fc.bias", view.unwrap())], None).unwrap();
    for (bytes, part) in [
        (&b"not weights at all"[..], "is damaged"),
        (&foreign[..foreign.len() - 1], "is damaged"),
        (&foreign[..], "was not written by tinyres"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = Checkpoint::load(&path).unwrap_err().to_string();
        assert!(
            error.contains("weights.safetensors") && error.contains(part),
            "{error}"
        );
    }
}
