//! Margins of training images (`--track`): their values, that wrong labels have the lowest, and that they follow from the
//! configuration.
#![cfg(feature = "torch")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Recorder, config, train};
use tch::{Device, Kind, Tensor};
use tinyres_format::Split;
use tinyres_torch::run::Run;
use tinyres_torch::run::checkpoint::Checkpoint;
use tinyres_torch::train::Splits;

/// Trains until step `stop`, or to the end.
fn begin(run: &Path, flags: &str, data: &Splits, stop: Option<u64>) {
    let mut run = Run::create(run, config(flags), run, data.train.fingerprint()).unwrap();
    let flag = AtomicBool::new(false);
    let mut recorder = Recorder {
        at_step: Some(Box::new(|step| {
            flag.store(Some(step) == stop, Ordering::Relaxed);
        })),
        ..Recorder::default()
    };
    train(&mut run, None, data, &mut recorder, &flag).unwrap();
}

/// The margins of each epoch, and their values as bits.
fn margins(run: &Path) -> (Vec<Vec<f64>>, Vec<Vec<u8>>) {
    let files = (1..).map(|epoch| run.join(format!("margins/epoch-{epoch:04}.npy")));
    let bytes: Vec<_> = files.map_while(|path| fs::read(path).ok()).collect();
    let values = bytes.iter().map(|bytes| {
        let values =
            Tensor::from_data_size(&bytes[128..], &[(bytes.len() as i64 - 128) / 2], Kind::Half);
        Vec::try_from(values.to_kind(Kind::Double)).unwrap()
    });
    (values.collect(), bytes)
}

/// Logits of the images of train, normalised by the statistics of all of them, by the weights that `run` ended with.
fn logits(data: &Splits, run: &Path) -> Tensor {
    let weights = Checkpoint::load(&run.join("final.safetensors")).unwrap();
    let network = weights.network(Device::Cpu).unwrap();
    let images: Vec<u32> = (0..data.train.len()).collect();
    let mut pixels = vec![0; images.len() * data.train.shape().image_len()];
    data.train.gather(&images, &mut pixels).unwrap();
    let side = i64::from(common::SIDE);
    let images = Tensor::from_slice(&pixels).view([-1, 3, side, side]);
    let images = images.to_kind(Kind::Float) / 255.0;
    tch::no_grad(|| network.forward(&images, true)).unwrap()
}

#[test]
fn margins_are_those_of_the_logits_that_trained() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 30, 8);
    let run = dir.path().join("run");
    // Nothing changes an image, and a step this small no weight.
    let plain =
        "flip = false\nshift = 0\nsizes = 'full'\nghost_batch = 0\nnormalize = 'none'\nlr = 1e-9";
    let flags = format!("track = true\nbatch = 30\nmax_steps = 1\nprecision = 'f32'\n{plain}");
    begin(&run, &flags, &data, None);
    let (found, _) = margins(&run);
    let logits = logits(&data, &run);
    assert_eq!(found.len(), 1);
    for (image, found) in (0_i64..).zip(&found[0]) {
        let label = usize::try_from(image % 3).unwrap();
        let row = Vec::<f64>::try_from(logits.get(image).to_kind(Kind::Double)).unwrap();
        let others = (0..3)
            .filter(|&class| class != label)
            .map(|class| row[class]);
        let want = row[label] - others.fold(f64::NEG_INFINITY, f64::max);
        assert!(
            (found - want).abs() < 0.01,
            "{image}: {found}, expected {want}"
        );
    }
}

#[test]
fn a_wrong_label_has_the_lowest_mean_margin() {
    let dir = tempfile::tempdir().unwrap();
    common::write_labelled(
        dir.path(),
        &common::wnids(3),
        (60, 9),
        |image, label| match image {
            31 => (label + 1) % 3,
            _ => label,
        },
    );
    let data = Splits {
        train: Arc::new(common::open(dir.path(), Split::Train)),
        val: Arc::new(common::open(dir.path(), Split::Val)),
    };
    let run = dir.path().join("run");
    begin(
        &run,
        "track = true\nbatch = 10\nepochs = 4\nlr = 0.02",
        &data,
        None,
    );
    let (found, _) = margins(&run);
    assert_eq!(found.len(), 4);
    let mean = |image: usize| found.iter().map(|epoch| epoch[image]).sum::<f64>() / 4.0;
    let lowest = (0..60).min_by(|&a, &b| mean(a).total_cmp(&mean(b)));
    assert_eq!(
        lowest,
        Some(31),
        "{:?}",
        (0..60).map(mean).collect::<Vec<_>>()
    );
}

#[test]
fn a_resumed_run_has_the_margins_of_the_unbroken_one_for_any_threads() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 70, 20);
    let flags = "track = true\nepochs = 2\nbatch = 8\nlr = 0.02\nshift = 2\nghost_batch = 4";
    let [whole, broken, threads] = ["whole", "broken", "threads"].map(|name| dir.path().join(name));
    begin(&whole, flags, &data, None);
    begin(&threads, &format!("{flags}\nthreads = 2"), &data, None);
    begin(&broken, flags, &data, Some(5));
    assert!(!broken.join("margins").exists());
    let (mut run, from) = Run::resume(&broken).unwrap();
    let go = AtomicBool::new(false);
    train(&mut run, from.as_ref(), &data, &mut (), &go).unwrap();
    let (values, bytes) = margins(&whole);
    assert!(bytes == margins(&broken).1);
    assert!(bytes == margins(&threads).1);
    // 64 of 70 images are in the batches of an epoch.
    for epoch in values {
        assert_eq!(epoch.len(), 70);
        assert_eq!(epoch.iter().filter(|margin| margin.is_nan()).count(), 6);
    }
}

#[test]
fn mixed_images_have_no_margin() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::splits(dir.path(), 3, 64, 8);
    let of = |name: &str, flags: &str| {
        let run = dir.path().join(name);
        begin(
            &run,
            &format!("batch = 8\nepochs = 1\n{flags}"),
            &data,
            None,
        );
        let (values, _) = margins(&run);
        let known = values
            .first()
            .map(|epoch| epoch.iter().filter(|margin| !margin.is_nan()).count());
        (values.len(), known)
    };
    assert_eq!(
        of("all", "track = true\ncutmix = 1.0\nmix_probability = 1.0"),
        (1, Some(0))
    );
    let (_, some) = of("some", "track = true\ncutmix = 1.0\nmix_probability = 0.5");
    assert!(
        some.is_some_and(|known| known > 0 && known < 64 && known % 8 == 0),
        "{some:?}"
    );
    assert_eq!(of("none", "track = true"), (1, Some(64)));
    assert_eq!(of("untracked", ""), (0, None));
}
