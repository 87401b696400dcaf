//! Boxes: IoU against counted pixels, GIoU against torchvision's, the loss against finite differences, and
//! the head from its first step to its scores.
#![cfg(feature = "torch")]

mod common;

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::{Recorder, SIDE, config, train};
use tch::{Device, Kind, Tensor};
use tinyres_format::{Draws, Split, Stream};
use tinyres_torch::infer::box_score::overlap;
use tinyres_torch::infer::evaluate::evaluate;
use tinyres_torch::infer::tta::Tta;
use tinyres_torch::input::{Batch, FlipShift, Pipeline};
use tinyres_torch::libtorch::device::Placement;
use tinyres_torch::net::boxes::{self, Weights, edges, giou, iou, to_centres, to_edges};
use tinyres_torch::net::{ResNet18, Spec, Stem};
use tinyres_torch::run::Run;
use tinyres_torch::run::checkpoint::Checkpoint;
use tinyres_torch::train::{Epoch, Splits};

/// A box of inclusive pixels in a square of `side`, drawn from `draws`.
fn random_box(draws: Draws, side: u64) -> [i32; 4] {
    let (x0, y0) = (draws.below(0, side), draws.below(1, side));
    let (x1, y1) = (
        x0 + draws.below(2, side - x0),
        y0 + draws.below(3, side - y0),
    );
    [x0, y0, x1, y1].map(|at| i32::try_from(at).unwrap())
}

/// The pixels of a box.
fn pixels([x0, y0, x1, y1]: [i32; 4]) -> HashSet<(i32, i32)> {
    (x0..=x1)
        .flat_map(|x| (y0..=y1).map(move |y| (x, y)))
        .collect()
}

fn tensor(boxes: &[[f32; 4]]) -> Tensor {
    Tensor::from_slice(boxes.as_flattened()).view([-1, 4])
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).view([-1])).unwrap()
}

fn fraction(part: usize, whole: usize) -> f64 {
    let real = |count: usize| f64::from(u32::try_from(count).unwrap());
    real(part) / real(whole)
}

#[test]
fn iou_and_giou_match_counted_pixels() {
    const SIDE: u64 = 12;
    let draws = Draws::new(1, Stream::Augment, 0);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for pair in 0..500 {
        a.push(random_box(draws.of(pair).of(0), SIDE));
        b.push(random_box(draws.of(pair).of(1), SIDE));
    }
    let to_fractions = |boxes: &[[i32; 4]]| -> Vec<_> {
        boxes
            .iter()
            .map(|&pixels| edges(pixels, (12, 12)))
            .collect()
    };
    let (edges_a, edges_b) = (to_fractions(&a), to_fractions(&b));
    let ious = numbers(&iou(&tensor(&edges_a), &tensor(&edges_b)).unwrap());
    let gious = numbers(&giou(&tensor(&edges_a), &tensor(&edges_b)).unwrap());
    let mut apart = 0;
    for at in 0..a.len() {
        let (in_a, in_b) = (pixels(a[at]), pixels(b[at]));
        let union = in_a.union(&in_b).count();
        let expected = fraction(in_a.intersection(&in_b).count(), union);
        assert!(
            (ious[at] - expected).abs() < 1e-5,
            "{:?} {:?}",
            a[at],
            b[at]
        );
        let both = || in_a.iter().chain(&in_b);
        let (x0, x1) = (both().map(|p| p.0).min(), both().map(|p| p.0).max());
        let (y0, y1) = (both().map(|p| p.1).min(), both().map(|p| p.1).max());
        let around = pixels([x0, y0, x1, y1].map(Option::unwrap)).len();
        let expected_giou = expected - fraction(around - union, around);
        assert!(
            (gious[at] - expected_giou).abs() < 1e-5,
            "{:?} {:?}",
            a[at],
            b[at]
        );
        let on_host = overlap(edges_a[at].map(f64::from), edges_b[at].map(f64::from));
        assert!((on_host - expected).abs() < 1e-6);
        apart += usize::from(expected == 0.0);
    }
    assert!((50..450).contains(&apart), "{apart} of 500 do not meet");
}

#[test]
fn inclusive_pixels_become_edges() {
    // One pixel has an area, and the full image is all of it.
    assert_eq!(
        edges([0, 0, 0, 0], (64, 64)),
        [0.0, 0.0, 1.0 / 64.0, 1.0 / 64.0]
    );
    assert_eq!(edges([0, 0, 63, 31], (32, 64)), [0.0, 0.0, 1.0, 1.0]);
    assert_eq!(edges([16, 8, 31, 11], (16, 64)), [0.25, 0.5, 0.5, 0.75]);
    assert_eq!(edges([-1; 4], (64, 64)), [0.0; 4]);
    let known = [[0.25, 0.5, 0.5, 0.75], [0.0, 0.0, 1.0, 1.0], [0.0; 4]];
    let centres = to_centres(&tensor(&known)).unwrap();
    let expected = [[0.375, 0.625, 0.25, 0.25], [0.5, 0.5, 1.0, 1.0], [0.0; 4]];
    assert_eq!(centres, tensor(&expected));
    assert_eq!(to_edges(&centres).unwrap(), tensor(&known));
    let mean = boxes::mean(&known).unwrap();
    assert_eq!(mean, [0.4375, 0.5625, 0.625, 0.625]);
    assert_eq!(boxes::mean(&[[0.0; 4]]), None);
}

/// Pairs of edges that overlap, contain each other, touch, and lie apart.
const PAIRS: [([f32; 4], [f32; 4]); 5] = [
    ([0.1, 0.2, 0.5, 0.7], [0.3, 0.1, 0.9, 0.6]),
    ([0.2, 0.2, 0.8, 0.9], [0.3, 0.4, 0.5, 0.6]),
    ([0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]),
    ([0.05, 0.1, 0.2, 0.3], [0.6, 0.7, 0.9, 0.95]),
    ([0.25, 0.25, 0.75, 0.75], [0.2, 0.3, 0.7, 0.8]),
];

fn pairs() -> (Tensor, Tensor) {
    let (a, b): (Vec<_>, Vec<_>) = PAIRS.into_iter().unzip();
    (tensor(&a), tensor(&b))
}

/// `torchvision.ops.generalized_box_iou_loss(a, b)` of torchvision 0.28 for [`PAIRS`], and the
/// gradient of its sum by `a`.
const GIOU_LOSS: [f64; 5] = [0.934524, 0.904762, 1.5, 1.854671, 0.335857];
const GIOU_GRADIENT: [[f64; 4]; 5] = [
    [-0.278841, 0.802154, -1.115363, 0.806406],
    [-0.158730, -0.136054, 0.158730, 0.136054],
    [0.0, 0.0, -0.5, -0.5],
    [0.105841, 0.036637, -0.276817, -0.207612],
    [1.563495, -1.279223, 1.279223, -1.563495],
];

#[test]
fn giou_and_its_gradient_match_torchvision() {
    let (a, b) = pairs();
    let a = a.set_requires_grad(true);
    let loss = giou(&a, &b).unwrap().neg() + 1.0;
    for (got, expected) in numbers(&loss.detach()).into_iter().zip(GIOU_LOSS) {
        assert!((got - expected).abs() < 1e-5, "{got}, expected {expected}");
    }
    loss.sum(Kind::Float).backward();
    let gradient = numbers(&a.grad());
    for (got, &expected) in gradient.into_iter().zip(GIOU_GRADIENT.as_flattened()) {
        assert!((got - expected).abs() < 1e-4, "{got}, expected {expected}");
    }
}

#[test]
fn loss_gradient_matches_finite_differences() {
    let weights = Weights {
        smooth_l1: 3.0,
        giou: 2.0,
    };
    let (predicted, truth) = pairs();
    let predicted = to_centres(&predicted).unwrap().to_kind(Kind::Double);
    let truth = truth.to_kind(Kind::Double);
    let value = |centres: &Tensor| {
        let loss = boxes::loss(centres, &truth, weights).unwrap();
        f64::try_from(loss).unwrap()
    };
    let leaf = predicted.copy().set_requires_grad(true);
    boxes::loss(&leaf, &truth, weights).unwrap().backward();
    let gradient = numbers(&leaf.grad());
    for (at, &slope) in (0_i64..).zip(&gradient) {
        if at / 4 == 2 {
            continue; // Boxes that touch are a corner of the loss.
        }
        let moved = |by: f64| {
            let moved = predicted.copy();
            let mut one = moved.view([-1]).get(at);
            let _ = one.g_add_scalar_(by);
            value(&moved)
        };
        const STEP: f64 = 1e-4;
        let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
        assert!(
            (slope - expected).abs() < 1e-4,
            "{at}: {slope}, expected {expected}"
        );
    }
}

#[test]
fn images_without_a_box_do_not_affect_the_loss() {
    let weights = Weights {
        smooth_l1: 3.0,
        giou: 2.0,
    };
    let (predicted, truth) = pairs();
    let predicted = to_centres(&predicted).unwrap();
    let some = truth.copy();
    let _ = some.narrow(0, 1, 2).zero_();
    let leaf = predicted.copy().set_requires_grad(true);
    let loss = boxes::loss(&leaf, &some, weights).unwrap();
    loss.backward();
    let kept = Tensor::from_slice(&[0_i64, 3, 4]);
    let alone = boxes::loss(
        &predicted.index_select(0, &kept),
        &truth.index_select(0, &kept),
        weights,
    );
    let (loss, alone) = (numbers(&loss.detach())[0], numbers(&alone.unwrap())[0]);
    assert!((loss - alone).abs() < 1e-6, "{loss} {alone}");
    assert_eq!(numbers(&leaf.grad())[4..12], [0.0; 8]);

    let none = Tensor::zeros_like(&truth);
    let leaf = predicted.copy().set_requires_grad(true);
    let loss = boxes::loss(&leaf, &none, weights).unwrap();
    loss.backward();
    assert_eq!(numbers(&loss.detach()), [0.0]);
    assert_eq!(numbers(&leaf.grad()), [0.0; 20]);
}

/// Marks the pixels of each box, moves image and box, and checks that the box still contains exactly those
/// pixels.
#[test]
fn boxes_move_with_their_pixels() {
    const SIDES: (u32, u32) = (12, 16);
    let (height, width) = (12_usize, 16_usize);
    let ids: Vec<u32> = (0..200).collect();
    let draws = Draws::new(3, Stream::Augment, 0);
    let mut planes = Vec::new();
    let mut all = Vec::new();
    for image in 0..200_u64 {
        let [x0, y0, x1, y1] = random_box(draws.of(image).of(9), 12);
        for _ in 0..3 {
            for at in 0..height * width {
                let (y, x) = (at / width, at % width);
                let inside = |at: usize, from: i32, to: i32| {
                    (from..=to).contains(&i32::try_from(at).unwrap())
                };
                planes.push(u8::from(inside(y, y0, y1) && inside(x, x0, x1)));
            }
        }
        all.push(edges([x0, y0, x1, y1], SIDES));
    }
    let images = Tensor::from_slice(&planes).view([200, 3, 12, 16]);
    let mut gone = 0;
    for (flip, shift) in [(true, 0), (false, 3), (true, 5)] {
        let moves = FlipShift::new(flip, shift, draws, &ids, SIDES, Device::Cpu);
        let moves = moves.unwrap().unwrap();
        // A range that does not start at 0, so that it is used.
        let at = 50..200;
        let moved = moves.apply(&images.narrow(0, 50, 150), &at).unwrap();
        let moved = Vec::<u8>::try_from(moved.contiguous().view([-1])).unwrap();
        let boxes = moves.move_boxes(&tensor(&all[50..]), &at).unwrap();
        let boxes = numbers(&boxes);
        for (pixels, edges) in moved.chunks(3 * height * width).zip(boxes.chunks(4)) {
            let scaled = [
                edges[0] * 16.0,
                edges[1] * 12.0,
                edges[2] * 16.0,
                edges[3] * 12.0,
            ];
            let [x0, y0, x1, y1] = scaled.map(|edge| {
                assert!((edge - edge.round()).abs() < 1e-4, "{edges:?}");
                edge.round()
            });
            gone += usize::from(x0 >= x1 || y0 >= y1);
            let real = |at: usize| f64::from(u32::try_from(at).unwrap());
            for (at, &pixel) in pixels[..height * width].iter().enumerate() {
                let (y, x) = (real(at / width), real(at % width));
                let inside = x0 <= x && x < x1 && y0 <= y && y < y1;
                // Reflection may repeat the box near the edges of the image, but not elsewhere.
                let edge = real(usize::try_from(shift).unwrap());
                let reflected = x < edge || y < edge || x >= 16.0 - edge || y >= 12.0 - edge;
                assert!(
                    pixel == u8::from(inside) || (reflected && !inside),
                    "{edges:?}"
                );
            }
        }
    }
    assert!(gone > 0, "no box left its image");
}

fn network(stem: Stem, boxes: bool) -> ResNet18 {
    let spec = Spec {
        stem,
        classes: 5,
        boxes,
    };
    ResNet18::new(spec, 3, Device::Cpu).unwrap()
}

/// Two images of noise, `f32 [2, 3, side, side]`. Does not draw from libtorch's global generator, from
/// which other tests draw networks at the same time.
fn noise(side: i64) -> Tensor {
    let draws = Draws::new(0, Stream::Sample, 0);
    let value = |at| f32::from(u8::try_from(draws.below(at, 256)).unwrap()) / 255.0;
    let values: Vec<f32> = (0..6 * side.unsigned_abs().pow(2)).map(value).collect();
    Tensor::from_slice(&values).view([2, 3, side, side])
}

#[test]
fn box_head_leaves_the_rest_of_the_network_unchanged() {
    let (plain, boxed) = (
        network(Stem::Imagenet, false),
        network(Stem::Imagenet, true),
    );
    let (plain_state, state) = (plain.state().unwrap(), boxed.state().unwrap());
    assert_eq!(state[..plain_state.len()], plain_state);
    let added = &state[plain_state.len()..];
    assert!(added.iter().all(|(name, _)| name.starts_with("box_head.")));
    let images = noise(64);
    let outputs = plain.outputs(&images, false).unwrap();
    assert!(outputs.boxes.is_none());
    let logits = boxed.outputs(&images, false).unwrap().logits;
    assert_eq!(outputs.logits, logits);
    assert_eq!(plain.forward(&images, false).unwrap(), logits);

    let mut plain = plain;
    let error = plain.load(&state).unwrap_err().to_string();
    assert!(error.contains("tensor box_head."), "{error}");
}

#[test]
fn untrained_box_head_predicts_the_mean_box_at_any_map_size() {
    for (stem, side) in [
        (Stem::Imagenet, 32),
        (Stem::Imagenet, 48),
        (Stem::Imagenet, 64),
        (Stem::Imagenet, 96),
        (Stem::Half, 64),
        (Stem::Small, 32),
        (Stem::Small, 64),
    ] {
        let mut net = network(stem, true);
        let mean = [0.5, 0.625, 0.75, 0.25];
        net.start_boxes_at(mean).unwrap();
        assert_eq!(net.mean_box().unwrap(), Some(mean));
        let images = noise(side);
        let boxes = net.outputs(&images, true).unwrap().boxes.unwrap();
        assert_eq!(boxes.size(), [2, 4]);
        for (got, expected) in numbers(&boxes.detach())
            .chunks(4)
            .flatten()
            .zip(mean.iter().cycle())
        {
            assert!((got - expected).abs() < 1e-6, "{stem:?} {side}: {got}");
        }
    }
}

/// A set of noise images with one bright quarter, which is the box. Every seventh image has no box.
fn quarters(dir: &Path, train: usize, val: usize) -> Splits {
    common::write_boxed(
        dir,
        &common::wnids(3),
        (train, val),
        |split, image, label| {
            let mut bytes = common::pixels(split, image, usize::try_from(label).unwrap());
            if image % 7 == 6 {
                return (bytes, label, [-1; 4]);
            }
            let draws = Draws::new(split as u64, Stream::Sample, image as u64);
            let start = |n| i32::try_from(16 * draws.below(n, 2)).unwrap();
            let (x0, y0) = (start(0), start(1));
            let bbox = [x0, y0, x0 + 15, y0 + 15];
            let side = usize::try_from(SIDE).unwrap();
            for (x, y) in pixels(bbox) {
                let at = usize::try_from(y).unwrap() * side + usize::try_from(x).unwrap();
                for channel in 0..3 {
                    bytes[channel * side * side + at] = 255;
                }
            }
            (bytes, label, bbox)
        },
    );
    Splits {
        train: Arc::new(common::open(dir, Split::Train)),
        val: Arc::new(common::open(dir, Split::Val)),
    }
}

fn run(dir: &Path, name: &str, flags: &str, data: &Splits) -> Vec<Epoch> {
    let fingerprint = data.train.fingerprint();
    let mut run = Run::create(&dir.join(name), config(flags), dir, fingerprint).unwrap();
    let mut recorder = Recorder::default();
    train(&mut run, None, data, &mut recorder, &AtomicBool::new(false)).unwrap();
    recorder.epochs
}

#[test]
fn boxes_are_learnt_and_scored() {
    const SEVEN: NonZeroUsize = NonZeroUsize::new(7).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let data = quarters(dir.path(), 280, 40);
    let flags = "boxes = true\nprecision = 'f32'\nepochs = 8\nbatch = 16\nlr = 0.05\nshift = 2";
    let epochs = run(dir.path(), "run", flags, &data);
    let scores: Vec<_> = epochs
        .iter()
        .map(|epoch| epoch.val.unwrap().boxes.unwrap())
        .collect();

    let checkpoint = Checkpoint::load(&dir.path().join("run/final.safetensors")).unwrap();
    let net = checkpoint.network(Device::Cpu).unwrap();
    let expected = boxes::mean(&boxes::of(&data.train).unwrap()).unwrap();
    for (got, expected) in net.mean_box().unwrap().unwrap().iter().zip(expected) {
        assert!((got - expected).abs() < 1e-6, "{got}, expected {expected}");
    }
    let about = &checkpoint.about;
    let (size, normalize) = (about.position.size, about.config.normalize);
    let pipeline = Pipeline::evaluation(data.val.shape(), size, normalize, Device::Cpu).unwrap();

    // Computed image by image, with IoUs on the host.
    let (mut ious, mut found, mut both) = (Vec::new(), 0, 0);
    for image in 0..data.val.len() {
        let truth = edges(data.val.bbox(image).unwrap(), (SIDE, SIDE));
        let mut pixels = vec![0; data.val.shape().image_len()];
        data.val.gather(&[image], &mut pixels).unwrap();
        let pixels = Tensor::from_slice(&pixels).view([1, 3, 32, 32]);
        let batch = Batch {
            pixels: &pixels,
            labels: Tensor::from_slice(&[0_i64]),
            boxes: None,
            at: 0..1,
            number: 0,
        };
        let examples = pipeline.apply(&batch).unwrap();
        let outputs = tch::no_grad(|| net.outputs(&examples.images, false)).unwrap();
        if !boxes::is_box(&truth) {
            continue;
        }
        let centres = numbers(&outputs.boxes.unwrap());
        let (half_w, half_h) = (centres[2] / 2.0, centres[3] / 2.0);
        let predicted = [
            centres[0] - half_w,
            centres[1] - half_h,
            centres[0] + half_w,
            centres[1] + half_h,
        ];
        let iou = overlap(predicted, truth.map(f64::from));
        let class = i64::try_from(outputs.logits.argmax(1, false)).unwrap();
        found += usize::from(iou >= 0.5);
        both += usize::from(iou >= 0.5 && class == data.val.label(image).unwrap());
        ious.push(iou);
    }
    for placement in [Placement::Mapped, Placement::Resident] {
        let feed = common::feed(&data.val, true, placement);
        let mut scores_now = evaluate(&net, &feed, &pipeline, Tta::None, SEVEN, &mut ()).unwrap();
        let scored = scores_now.boxes.as_mut().unwrap();
        assert_eq!(scored.images, ious.len());
        let mean = ious.iter().sum::<f64>() / fraction(ious.len(), 1);
        assert!((scored.score.mean_iou - mean).abs() < 1e-5);
        assert_eq!(scored.score.gt_known_loc, fraction(found, ious.len()));
        assert_eq!(scored.score.top1_loc, fraction(both, ious.len()));
        assert!((scores[7].mean_iou - mean).abs() < 1e-5);

        scored.compare(net.mean_box().unwrap().unwrap());
        let best = scored.baselines[2].score.mean_iou;
        assert!(mean > best + 0.3, "{scores:#?} {:#?}", scored.baselines);
    }
    assert!(scores[7].mean_iou > scores[0].mean_iou + 0.3, "{scores:#?}");
}

#[test]
fn training_boxes_on_a_set_without_boxes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    common::write_boxed(
        dir.path(),
        &common::wnids(3),
        (10, 10),
        |split, image, label| {
            let pixels = common::pixels(split, image, usize::try_from(label).unwrap());
            (pixels, label, [-1; 4])
        },
    );
    let data = Splits {
        train: Arc::new(common::open(dir.path(), Split::Train)),
        val: Arc::new(common::open(dir.path(), Split::Val)),
    };
    let error = tinyres_torch::train::check(&config("boxes = true\nbatch = 5"), &data, Device::Cpu);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("boxes is true, expected false, as no image"),
        "{error}"
    );
}
