//! `tinyres runs`: lists runs with their figures.

use std::path::PathBuf;

use crate::runs;
use crate::ui::Ui;

/// List the runs below a directory, with their figures
///
/// The run that was trained last comes last. Top-1, loss and size are those of the last epoch that was evaluated,
/// best is the best top-1, and time that of training alone.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directories to look in
    #[arg(value_name = "DIR", default_value = "runs")]
    dirs: Vec<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  tinyres runs                                    those in ./runs
  tinyres runs . ~/old --json | jq '.runs | max_by(.best.top1) | .dir'";

pub fn run(args: &Args, ui: &mut Ui) -> anyhow::Result<()> {
    Ok(ui.result(&runs::list(&args.dirs)?)?)
}
