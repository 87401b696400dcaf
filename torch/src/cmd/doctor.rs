//! `tinyres doctor`: what libtorch finds on this machine, and whether it computes correctly.

use std::num::NonZeroU32;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tinyres::ui::Ui;
use tinyres_format::{Class, Digest, Draws, SetOptions, SetWriter, Shape, Split, Stream};
use tinyres_load::Verify;
use tinyres_torch::doctor::examine;

/// Check what libtorch finds on this machine, and that every device computes correctly
///
/// Takes one training step on the CPU and on every GPU, and compares logits, loss and gradients with
/// torchvision's. Then compares the batches of each --placement with single images, connects two ranks by Gloo, and
/// looks for NCCL if there are GPUs. Says which launcher, if any, makes this one of several processes. The exit code
/// is 1 if a check fails.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: Args, ui: &mut Ui) -> anyhow::Result<ExitCode> {
    tinyres_torch::start_threads(None)?;
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
    let shape = Shape::rgb(64);
    let options = SetOptions {
        shape,
        classes: vec![Class {
            id: "n00000000".to_owned(),
            name: "noise".to_owned(),
        }],
        creator: "tinyres doctor".to_owned(),
        fingerprint: Digest::of(b"noise"),
        shard_images: NonZeroU32::MAX,
    };
    let mut set = SetWriter::create(dir, options)?;
    let draws = Draws::new(0, Stream::Augment, 0);
    for image in 0..100 {
        let pixel = |at| draws.of(image).draw(at).to_le_bytes()[0];
        let pixels: Vec<u8> = (0..shape.image_len() as u64).map(pixel).collect();
        let name = format!("noise {image}");
        set.image(Split::Train, &pixels, 0, [0, 0, 63, 63], &name)?;
    }
    set.finish().map(drop)
}
