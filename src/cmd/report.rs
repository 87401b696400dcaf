//! `tinyres report`: its flags. `tinyres-view` carries it out.

use std::path::PathBuf;

use tinyres_format::Split;

/// Write a report of one or more runs, as one HTML file
///
/// The figures of a run, its curves, confusions, classes and calibration, the photographs that it gets wrong, labels that
/// seem wrong, duplicates, boxes, and its configuration. Of several runs, also what differs between them, and which
/// images and classes one gets right and another wrong. The file needs nothing else: no script, no network.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{MAPPED}\n\n{EXAMPLES}"))]
pub struct Args {
    /// Directories of runs
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// File to write; one that is there is replaced
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub output: PathBuf,
    /// Split whose predictions are shown; `tinyres eval` makes those of others than val
    #[arg(long, default_value = "val")]
    pub split: Split,
    /// Directory of shards, or source, for the photographs [default: what the first run was trained on]
    #[arg(long, value_name = "SHARDS|SOURCE")]
    pub data: Option<PathBuf>,
}

const MAPPED: &str = "\
The shards are mapped into memory: no program may write to or truncate them
while the command runs.";

const EXAMPLES: &str = "\
Examples:
  tinyres report runs/default-1
  tinyres report runs/default-1 runs/default-2 -o compared.html
  tinyres report runs/default-1 --data tiny-imagenet-200.zip";
