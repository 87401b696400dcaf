use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tinyres::ui::Ui;
use tinyres_format::Split;
use tinyres_load::Verify;
use tinyres_torch::infer::evaluate::evaluate;
use tinyres_torch::infer::tta::Tta;
use tinyres_torch::input::feed::Feed;
use tinyres_torch::libtorch::device::{self, DeviceChoice, Placement, Precision};
use tinyres_torch::run::Run;
use tinyres_torch::run::checkpoint::Checkpoint;

/// Score trained weights on a split
///
/// Loss, top-1 and top-5 over all images of the split, and the ten classes that fare worst; --json
/// gives every class. Of weights trained with --boxes also how well their boxes fit, beside boxes that
/// are the same for every image: the full one, the training split's mean, and the two that are best for
/// this very split. Weights trained on other classes, or on the same in another order, are refused.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{}\n\n{EXAMPLES}", super::MAPPED))]
pub struct Args {
    /// Directory of a run, or a file of weights that `tinyres train` wrote
    #[arg(value_name = "RUN|WEIGHTS")]
    weights: PathBuf,
    /// Directory of shards, as `tinyres pack` wrote it; compressed ones are expanded once, to a cache
    shards: PathBuf,
    /// Split to score on: train, val or test
    #[arg(long, default_value = "val")]
    split: Split,
    /// Images at a time
    #[arg(long, value_name = "N", default_value = "256")]
    batch: NonZeroUsize,
    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// What forward passes compute in [default: what the run was trained in]
    #[arg(long, value_parser = super::name_of::<Precision>())]
    precision: Option<Precision>,
    /// Views of an image whose predictions are averaged: none, or flip for its mirror image beside it
    #[arg(long, default_value = "none", value_parser = super::name_of::<Tta>())]
    tta: Tta,
    /// Threads that compute [default: libtorch's choice]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

const EXAMPLES: &str = "\
Examples:
  tinyres eval runs/default-1 shards
  tinyres eval runs/default-1/best.safetensors shards --split train
  tinyres eval runs/default-1 shards --tta flip
  tinyres eval runs/default-1 shards --json | jq .top1";

pub fn run(args: Args, ui: &mut Ui) -> anyhow::Result<ExitCode> {
    let checkpoint = Checkpoint::load(&Run::weights(&args.weights)?)?;
    let shards = super::ready(&args.shards, ui)?;
    let data = Arc::new(super::open(&shards, args.split, Verify::Lazy)?);
    checkpoint.expect_classes(data.classes())?;
    if let Some(threads) = args.threads {
        tinyres_torch::set_threads(threads.get());
    }
    let device = device::open(args.device)?;
    let mut model = checkpoint.network(device)?;
    if let Some(precision) = args.precision {
        model = model.with_precision(precision);
    }
    let mut feed = Feed::new(data, device, Placement::Auto)?;
    let mean_box = model.mean_box()?;
    if mean_box.is_some() {
        feed = feed.with_boxes()?;
    }
    let inputs = checkpoint.about.inputs(feed.data().shape(), device)?;
    let mut evaluation = evaluate(&model, &feed, &inputs, args.tta, args.batch, ui)?;
    if let (Some(boxes), Some(mean)) = (&mut evaluation.boxes, mean_box) {
        boxes.compare(mean);
    }
    ui.result(&evaluation)?;
    Ok(ExitCode::SUCCESS)
}
