//! Image sizes of other data sets, from files to weights: packed with a resize, verified, trained on.
#![cfg(feature = "torch")]

mod common;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::{Recorder, config, train};
use tinyres::pack::{Config, Resize, pack};
use tinyres::sample;
use tinyres::source::Source;
use tinyres_format::{Shape, Split};
use tinyres_load::{Dataset, Verify};
use tinyres_torch::run::Run;
use tinyres_torch::train::Epoch;
use tinyres_torch::train::Splits;

/// 32 pixels is CIFAR-10; 128 and 160 are usual for Imagenette.
#[test]
fn sets_of_32_128_and_160_pixels_pack_and_train() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("set");
    let drawn = sample::Config {
        classes: 2,
        train_per_class: 8,
        val_per_class: 2,
        test: 0,
        seed: 0,
        threads: 1,
    };
    sample::write(&tree, &drawn, &mut ()).unwrap();
    let source = Source::open(&tree).unwrap();
    for side in [32, 128, 160] {
        let shards = dir.path().join(format!("shards-{side}"));
        let packed = Config {
            output: shards.clone(),
            shard_images: 8192.try_into().unwrap(),
            resize: Some(Resize {
                side: NonZeroU32::new(side).unwrap(),
                squash: false,
            }),
            threads: 1,
            skip_bad: None,
            force: false,
            zstd: None,
        };
        pack(&source, &packed, &mut ()).unwrap();
        #[expect(unsafe_code, reason = "a test's own files, which nobody else touches")]
        // SAFETY: the directory is a fresh temporary one, and nothing writes there any more.
        let open = |split| unsafe { Dataset::open(&shards, split, Verify::Full) }.unwrap();
        let data = Splits {
            train: Arc::new(open(Split::Train)),
            val: Arc::new(open(Split::Val)),
        };
        assert_eq!(data.train.shape(), Shape::rgb(side));

        let run = dir.path().join(format!("run-{side}"));
        let flags = config("max_steps = 2\nbatch = 8\nstem = 'imagenet'");
        let mut run = Run::create(&run, flags, &shards, data.train.fingerprint()).unwrap();
        let mut recorder = Recorder::default();
        train(
            &mut run,
            None,
            &data,
            &mut recorder,
            &AtomicBool::new(false),
        )
        .unwrap();
        let learnt = |epoch: &Epoch| epoch.train_loss.is_finite() && epoch.val.is_some();
        assert!(
            recorder.epochs.iter().any(learnt),
            "{side}: {:?}",
            recorder.epochs
        );
    }
}
