use std::num::NonZeroU32;
use std::path::PathBuf;

use tinyres::pack::{self, Config};
use tinyres::source::Source;
use tinyres::ui::Ui;
use tinyres_format::transport::Level;

/// Pack a Tiny ImageNet directory or zip into shards
///
/// Reads the zip without unpacking it. The shards hold every pixel as Pillow decodes it, labels in
/// the order of wnids.txt, boxes and names, and their bytes do not depend on the number of threads.
/// Nothing appears in the output directory until all of it is there.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directory or zip in the layout of tiny-imagenet-200
    source: PathBuf,
    /// Directory for the shards, created if missing
    #[arg(short, long, value_name = "DIR", default_value = "shards")]
    output: PathBuf,
    /// Images in a shard
    #[arg(long, value_name = "N", default_value = "8192")]
    shard_images: NonZeroU32,
    /// Width and height of every image, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    side: u32,
    /// Decoding threads [default: one a core]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Leave out images that cannot be decoded, and record them, instead of failing
    #[arg(long)]
    skip_bad: bool,
    /// Replace a finished set in the output directory
    #[arg(long)]
    force: bool,
    /// Compress the shards for moving and keeping, at a level from 1 (fast) to 22 (small); `tinyres
    /// expand` makes them raw again. Takes about 40 MB of memory more, at level 19 about 30 MB for
    /// each thread
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, require_equals = true, default_missing_value = "3", value_parser = level)]
    zstd: Option<Level>,
}

const EXAMPLES: &str = "\
Examples:
  tinyres pack tiny-imagenet-200
  tinyres pack tiny-imagenet-200.zip -o /data/shards --threads 4
  tinyres pack tiny-imagenet-200.zip --zstd -o /mnt/usb/shards
  tinyres pack tiny-imagenet-200 --skip-bad --json | jq .refused";

fn level(text: &str) -> Result<Level, String> {
    let number = text.parse().map_err(|_| "not a number".to_owned())?;
    Level::new(number).map_err(|error| error.to_string())
}

pub fn run(args: Args, ui: &mut Ui) -> anyhow::Result<()> {
    let source = Source::open(&args.source)?;
    let config = Config {
        output: args.output,
        shard_images: args.shard_images,
        side: args.side,
        threads: args.threads,
        skip_bad: args.skip_bad,
        force: args.force,
        zstd: args.zstd,
    };
    let report = pack::pack(&source, &config, ui)?;
    Ok(ui.result(&report)?)
}
