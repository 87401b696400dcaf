//! Helpers of the tests: a small set of shards that a network can learn, and an observer.
#![allow(dead_code, reason = "each of the test programs uses a part")]

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tch::Device;
use tinyres::event::{Event, Observer};
use tinyres_format::{Class, Digest, Draws, SetOptions, SetWriter, Shape, Split, Stream};
use tinyres_load::{Dataset, Verify};
use tinyres_torch::config::Config;
use tinyres_torch::input::{Feed, Targets};
use tinyres_torch::libtorch::device::Placement;
use tinyres_torch::run::Run;
use tinyres_torch::run::checkpoint::Checkpoint;
use tinyres_torch::train::{self, Epoch, Outcome, Splits, Step, TrainingObserver, check};

pub const SIDE: u32 = 32;

/// Writes a set with `train` and `val` images of `classes` classes, in shards of 48 images, and
/// opens it. An image is noise around its class's own grey in each quarter.
pub fn splits(dir: &Path, classes: usize, train: usize, val: usize) -> Splits {
    write(dir, &wnids(classes), train, val);
    Splits {
        train: Arc::new(open(dir, Split::Train)),
        val: Arc::new(open(dir, Split::Val)),
    }
}

#[expect(unsafe_code, reason = "a test's own files, which nobody else touches")]
pub fn open(dir: &Path, split: Split) -> Dataset {
    // SAFETY: `dir` is a fresh temporary directory of the calling test, and nothing writes there.
    unsafe { Dataset::open(dir, split, Verify::Lazy) }.unwrap()
}

pub fn wnids(classes: usize) -> Vec<Class> {
    // Not in order, as in the real set.
    let class = |label: usize| Class {
        id: format!("n{:08}", 500 - label * 7 % 101),
        name: format!("thing {label}"),
    };
    (0..classes).map(class).collect()
}

pub fn write(dir: &Path, classes: &[Class], train: usize, val: usize) {
    write_labelled(dir, classes, (train, val), |_, label| label);
}

/// As [`write`], with the labels that `relabel` makes of an image and its class.
pub fn write_labelled(
    dir: &Path,
    classes: &[Class],
    (train, val): (usize, usize),
    relabel: impl Fn(usize, i64) -> i64,
) {
    write_boxed(dir, classes, (train, val), |split, image, label| {
        let side = i32::try_from(SIDE).unwrap() - 1;
        let pixels = pixels(split, image, usize::try_from(label).unwrap());
        (pixels, relabel(image, label), [0, 0, side, side])
    });
}

/// Writes a set whose images have the pixels, the label and the box that `draw` makes of split, image
/// and class.
pub fn write_boxed(
    dir: &Path,
    classes: &[Class],
    (train, val): (usize, usize),
    draw: impl Fn(Split, usize, i64) -> (Vec<u8>, i64, [i32; 4]),
) {
    let options = SetOptions {
        shape: Shape::rgb(SIDE),
        classes: classes.to_vec(),
        creator: "tests".to_owned(),
        fingerprint: Digest::of(format!("{} {train} {val}", classes.len()).as_bytes()),
        shard_images: NonZeroU32::new(48).unwrap(),
    };
    let mut set = SetWriter::create(dir, options).unwrap();
    for (split, images) in [(Split::Train, train), (Split::Val, val)] {
        for image in 0..images {
            let class = (image % classes.len()).try_into().unwrap();
            let (pixels, label, bbox) = draw(split, image, class);
            let name = format!("{split}_{image}.JPEG");
            set.image(split, &pixels, label, bbox, &name).unwrap();
        }
    }
    set.finish().unwrap();
}

/// Each quarter has a grey of its class's own, under noise.
pub fn pixels(split: Split, image: usize, label: usize) -> Vec<u8> {
    let noise = Draws::new(split as u64, Stream::Augment, image as u64);
    let class = Draws::new(99, Stream::Augment, label as u64);
    let side = SIDE as usize;
    (0..3 * side * side)
        .map(|at| {
            let (y, x) = (at / side % side, at % side);
            let quarter = u64::from(y >= side / 2) * 2 + u64::from(x >= side / 2);
            let value = class.below(quarter, 180) + noise.below(at as u64, 75);
            u8::try_from(value).unwrap()
        })
        .collect()
}

/// A configuration: `flags` over a recipe, on the CPU, and with one thread and the plainest optimizer if they
/// do not say.
pub fn config(flags: &str) -> Config {
    let mut table: toml::Table = flags.parse().unwrap();
    table.entry("threads").or_insert(1.into());
    table.entry("optimizer").or_insert("sgd".into());
    table.insert("device".into(), "cpu".into());
    Config::layered(None, table, false).unwrap()
}

/// Checks `data` and trains on the CPU, as the binary does.
pub fn train(
    run: &mut Run,
    from: Option<&Checkpoint>,
    data: &Splits,
    watch: &mut dyn TrainingObserver,
    stop: &AtomicBool,
) -> tinyres_torch::Result<Outcome> {
    let data = check(run.config(), data, Device::Cpu)?;
    train::train(run, from, data, Device::Cpu, watch, stop)
}

/// A feed on the CPU.
pub fn feed(data: &Arc<Dataset>, with_boxes: bool, placement: Placement) -> Feed {
    let targets = Targets::read(data, with_boxes).unwrap();
    Feed::new(Arc::clone(data), targets, Device::Cpu, placement).unwrap()
}

/// Keeps what it is told, and may call a function at each step.
#[derive(Default)]
pub struct Recorder<'a> {
    pub events: Vec<Event>,
    pub epochs: Vec<Epoch>,
    pub at_step: Option<Box<dyn FnMut(u64) + 'a>>,
}

impl Observer for Recorder<'_> {
    fn on(&mut self, event: &Event) {
        self.events.push(event.clone());
    }
}

impl TrainingObserver for Recorder<'_> {
    fn on_step(&mut self, step: &Step) {
        if let Some(call) = &mut self.at_step {
            call(step.step);
        }
    }

    fn on_epoch(&mut self, epoch: &Epoch) {
        self.epochs.push(*epoch);
    }
}
