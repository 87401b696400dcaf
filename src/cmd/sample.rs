//! `tinyres sample`: its flags, and how they become settings of [`sample`].

use std::path::PathBuf;

use crate::sample::{self, Config, MAX_CLASSES};
use crate::ui::Ui;

/// Write a synthetic data set in the layout of tiny-imagenet-200
///
/// Shapes of a texture and a hue on varied grounds, with true boxes: for trying things out, for
/// tests and for benchmarks. The same seed gives the same bytes, whatever the number of threads.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directory to write, which must be absent or empty
    #[arg(value_name = "DIR")]
    output: PathBuf,
    /// Classes
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CLASSES)))]
    classes: u32,
    /// Training images of each class
    #[arg(long, value_name = "N", default_value_t = 200)]
    train_per_class: u32,
    /// Validation images of each class
    #[arg(long, value_name = "N", default_value_t = 50)]
    val_per_class: u32,
    /// Test images, which have no labels
    #[arg(long, value_name = "N", default_value_t = 20)]
    test: u32,
    /// Another seed gives other pictures of the same classes
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Drawing threads [default: one a core]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
}

const EXAMPLES: &str = "\
Examples:
  tinyres sample set && tinyres pack set          ten classes that a ResNet18 learns in minutes
  tinyres sample big --classes 200 --train-per-class 500          as large as Tiny ImageNet";

pub fn run(args: Args, ui: &mut Ui) -> anyhow::Result<()> {
    let config = Config {
        classes: args.classes,
        train_per_class: args.train_per_class,
        val_per_class: args.val_per_class,
        test: args.test,
        seed: args.seed,
        threads: args.threads,
    };
    let report = sample::write(&args.output, &config, ui)?;
    Ok(ui.result(&report)?)
}
