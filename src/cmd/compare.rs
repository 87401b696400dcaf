//! `tinyres compare`: shows what tells runs apart.

use std::path::PathBuf;

use crate::runs;
use crate::ui::Ui;

/// Show what tells runs apart: values that differ, and results
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directories of runs
    #[arg(value_name = "RUN", required = true, num_args = 2..)]
    runs: Vec<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  tinyres compare runs/default-1 runs/default-2
  tinyres compare runs/* --json | jq .differs";

pub fn run(args: &Args, ui: &mut Ui) -> anyhow::Result<()> {
    Ok(ui.result(&runs::compare(&args.runs)?)?)
}
