//! `tinyres doctor`: what libtorch finds on this machine, and whether it computes correctly.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tinyres::ui::Ui;
use tinyres_format::{
    Class, Columns, Digest, Draws, Manifest, Metadata, Shape, ShardEntry, Split, SplitEntry,
    Stream, Writer,
};
use tinyres_load::Verify;
use tinyres_torch::doctor::examine;

/// Check what libtorch finds on this machine, and that every device computes correctly
///
/// Takes one training step on the CPU and on every GPU, and compares logits, loss and gradients with
/// torchvision's. Then compares the batches of each --placement with single images. The exit code is 1 if a
/// check fails.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: Args, ui: &mut Ui) -> anyhow::Result<ExitCode> {
    let dir = tempfile::tempdir()?;
    noise(dir.path())?;
    let data = super::open(dir.path(), Split::Train, Verify::Full)?;
    let report = examine(&Arc::new(data));
    ui.result(&report)?;
    Ok(if report.healthy() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Writes a set of noise to `dir`. Its number of images is not a multiple of the batch that is checked.
fn noise(dir: &Path) -> tinyres_format::Result<()> {
    const IMAGES: usize = 100;
    let (split, shape) = (Split::Train, Shape::rgb(64));
    let (creator, fingerprint) = ("tinyres doctor".to_owned(), Digest::of(b"noise"));
    let file = split.shard_name(0);
    let mut writer = Writer::create(&dir.join(&file), shape)?;
    let draws = Draws::new(0, Stream::Augment, 0);
    for image in 0..IMAGES as u64 {
        let pixel = |at| draws.of(image).draw(at).to_le_bytes()[0];
        let pixels: Vec<u8> = (0..shape.image_len() as u64).map(pixel).collect();
        writer.append(&pixels)?;
    }
    let columns = Columns {
        labels: vec![0; IMAGES],
        boxes: vec![[0, 0, 63, 63]; IMAGES],
        names: (0..IMAGES).map(|image| format!("noise {image}")).collect(),
    };
    let metadata = Metadata {
        creator: creator.clone(),
        fingerprint,
        split,
        shard: 0,
        shards: 1,
        grey: 0,
        refused: Vec::new(),
        classes: vec![Class {
            id: "n00000000".to_owned(),
            name: "noise".to_owned(),
        }],
    };
    let shard = writer.finish(&columns, &metadata)?;
    let entry = SplitEntry {
        split,
        images: shard.images,
        shards: vec![ShardEntry {
            file,
            images: shard.images,
            bytes: shard.bytes,
            digest: shard.digest,
        }],
    };
    Manifest::new(creator, fingerprint, shape, 1, vec![entry]).save(dir)
}
