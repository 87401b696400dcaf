//! `tinyres eval`: scores of trained weights on a split.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use tch::Device;
use tinyres::event::{Event, Observer as _};
use tinyres::ui::{Output, Ui};
use tinyres_format::Split;
use tinyres_load::Verify;
use tinyres_torch::Error;
use tinyres_torch::infer::evaluate::{Wanted, outputs, score};
use tinyres_torch::infer::foreign::{AnyWeights, Assumed};
use tinyres_torch::infer::predictions::{self, Origin};
use tinyres_torch::infer::tta::Tta;
use tinyres_torch::input::{Feed, Pipeline, Targets};
use tinyres_torch::libtorch::device::{self, DeviceChoice, Placement, Precision};
use tinyres_torch::net::ResNet18;
use tinyres_torch::ranks::{Launch, Meeting, Ranks};
use tinyres_torch::run::Run;

use super::pictures::Pictures;
use super::ranked;

/// Evaluate trained weights on a split
///
/// Prints loss, top-1 and top-5 over all images of the split, and the ten classes with the lowest top-1;
/// --json has every class. For weights trained with --boxes it also prints the scores of the boxes,
/// compared with boxes that are the same for every image: the full image, the mean box of the training
/// split, and the two constant boxes with the best scores on this split. Labels are matched by class id;
/// weights trained on other classes are refused. A ResNet18 of another program is taken as one for pixels of
/// the shards' size, normalised by ImageNet's mean and std, and for the classes of the shards in their order.
///
/// The predictions for each image go to SPLIT.parquet, which pandas, polars and DuckDB read: name, label, the five
/// likeliest classes, loss, margin and boxes. Logits and features are in .npy files next to it, and in the directory
/// SPLIT pictures: confusions, accuracy by class, calibration, mistakes, labels that seem wrong, boxes.
///
/// Several processes, started as for `tinyres train`, divide the images among them on CPUs, with the same result. Rank 0
/// writes it.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{}\n\n{EXAMPLES}", super::MAPPED))]
pub struct Args {
    /// Directory of a run, or a file of weights, .safetensors or .pth; FILE#KEY names one network of several
    #[arg(value_name = "RUN|WEIGHTS")]
    weights: PathBuf,
    /// Directory of shards, or any source that `tinyres pack` reads, which is packed once, into a cache
    #[arg(value_name = "SHARDS|SOURCE")]
    shards: PathBuf,
    /// Split to evaluate on: train, val or test
    #[arg(long, default_value = "val")]
    split: Split,
    /// Images in a batch
    #[arg(long, value_name = "N", default_value = "256")]
    batch: NonZeroUsize,
    /// Device to compute on: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Precision of the forward pass [default: that of the training]
    #[arg(long, value_parser = super::name_of::<Precision>())]
    precision: Option<Precision>,
    /// Pixels of the shorter side that the images are scaled to [default: that of the end of the training]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(8..=4096))]
    size: Option<u32>,
    /// Average predictions over views of an image; flip adds its mirror image
    #[arg(long, default_value = "none", value_parser = super::name_of::<Tta>())]
    tta: Tta,
    /// Write the predictions for each image to this directory [default: `eval` in the directory of the run, if the
    /// shards are those of the run]
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Write the outputs of the last pooled layer next to the predictions, as f16 [N, 512]
    #[arg(long)]
    features: bool,
    /// Draw pictures of the predictions, in a directory next to them: on or off
    #[arg(
        long,
        value_name = "on|off",
        default_value = "on",
        hide_possible_values = true
    )]
    pictures: Pictures,
    /// Threads that compute [default: one for each core, or what a CPU quota allows]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// With several processes, the time that one waits for the others
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    rank_timeout: Duration,
}

const EXAMPLES: &str = "\
Examples:
  tinyres eval runs/default-1 shards
  tinyres eval runs/default-1/best.safetensors shards --split train
  tinyres eval runs/default-1 shards --tta flip
  tinyres eval runs/default-1 tiny-imagenet-200.zip
  tinyres eval runs/default-1 shards --json | jq .top1";

pub fn run(args: Args, ui: &mut Ui) -> anyhow::Result<ExitCode> {
    let Some(launch) = Launch::from_env()? else {
        return evaluate(&args, None, ui);
    };
    ranked::as_rank(&launch, args.common(), args.rank_timeout, |meeting| {
        let mut silent = Ui::new(Output::Text, true);
        let ui = if launch.rank == 0 { ui } else { &mut silent };
        evaluate(&args, Some((&launch, meeting)), ui)
    })
}

impl Args {
    /// Flags and their values that several processes must be given alike.
    fn common(&self) -> BTreeMap<String, String> {
        let precision = self.precision.map(|precision| precision.to_string());
        let flags = [
            ("split", Some(self.split.to_string())),
            ("batch", Some(self.batch.to_string())),
            ("size", self.size.map(|size| size.to_string())),
            ("tta", Some(self.tta.to_string())),
            ("features", Some(self.features.to_string())),
            ("precision", precision),
        ];
        let flags = flags.into_iter();
        flags
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect()
    }
}

/// Evaluates as one process, or as one of several that have met.
fn evaluate(
    args: &Args,
    met: Option<(&Launch, &Meeting)>,
    ui: &mut Ui,
) -> anyhow::Result<ExitCode> {
    let part = met.and_then(|(launch, _)| launch.threads());
    tinyres_torch::start_threads(args.threads.or(part))?;
    let file = Run::weights(&args.weights)?;
    let weights = AnyWeights::read(&file)?;
    let shards = super::ready(&args.shards, &[args.split], ui)?;
    let data = Arc::new(super::open(&shards, args.split, Verify::Lazy)?);
    let shape = data.shape();
    let assumed = Assumed {
        classes: Some((
            data.classes().to_vec(),
            "of the data, in its order".to_owned(),
        )),
        side: Some(shape.height.min(shape.width)),
    };
    let mut checkpoint = weights.describe(assumed, ui)?;
    if checkpoint.order_classes(data.classes())? {
        ui.on(&Event::Notice(
            "the data has the classes of the weights in another order: labels are matched by class id".to_owned(),
        ));
    }
    let device = match met {
        Some((launch, _)) => launch.device(args.device)?,
        None => device::open(args.device)?,
    };
    let mut model = checkpoint.network(device)?;
    if let Some(precision) = args.precision {
        model = model.with_precision(precision);
    }
    let mean_box = model.mean_box()?;
    let targets = Targets::read(&data, mean_box.is_some())?;
    let about = &checkpoint.about;
    let (size, normalize) = (
        args.size.unwrap_or(about.position.size),
        about.config.normalize,
    );
    let pipeline = Pipeline::evaluation(data.shape(), size, normalize, device)?;
    let feed = Feed::new(data, targets, device, Placement::Auto)?;
    let is_own = about.fingerprint == feed.data().fingerprint();
    let own = Run::predictions(&args.weights).filter(|_| is_own);
    let own_run = own.is_some();
    let to = args.save.clone().or(own);
    ensure!(
        to.is_some() || !args.features,
        "--features needs a directory to write to: name one with --save DIR"
    );
    let wanted = Wanted {
        tta: args.tta,
        features: args.features,
    };
    let ranks = match met {
        Some((_, meeting)) => agree(meeting, &model, &feed, device)?,
        None => Ranks::alone(),
    };
    let outputs = outputs(&ranks, &model, &feed, &pipeline, wanted, args.batch, ui)?;
    ranks.finish()?;
    if !ranks.is_first() {
        return Ok(ExitCode::SUCCESS);
    }
    let mut evaluation = score(&feed, &outputs)?;
    if let (Some(boxes), Some(mean)) = (&mut evaluation.boxes, mean_box) {
        boxes.compare(mean);
    }
    if let Some(dir) = to {
        let precision = model.precision();
        let saved = Origin::new(feed.data(), &file, size, precision, args.tta)
            .and_then(|origin| predictions::save(&dir, feed.data(), &outputs, &origin));
        match saved {
            Ok(path) => {
                let run = own_run.then_some(args.weights.as_path());
                args.pictures.draw(&path, run, feed.data(), &[], ui);
                evaluation.predictions = Some(path);
            }
            // Nobody asked for them, and the run may be another user's.
            Err(error @ Error::Io { .. }) if args.save.is_none() => {
                ui.warn(&format!("the predictions are not saved: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    ui.result(&evaluation)?;
    Ok(ExitCode::SUCCESS)
}

/// Connects the ranks, which have the same weights and images if each finds those of rank 0.
fn agree(
    meeting: &Meeting,
    model: &ResNet18,
    feed: &Feed,
    device: Device,
) -> anyhow::Result<Ranks> {
    let own = (model.checksum()?, feed.data().digest(), device.is_cuda());
    let first = meeting.settle(&own)?;
    ranked::expect_alike(own.2, first.2)?;
    ensure!(
        own.0 == first.0,
        "its weights are not those of rank 0: give every rank the same file"
    );
    ensure!(
        own.1 == first.1,
        "{} of its set differs from that of rank 0: give every rank the same shards",
        feed.data().split()
    );
    meeting.ready()?;
    Ok(meeting.connect(device)?)
}
