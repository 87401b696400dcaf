use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::cmd;

/// Pack labelled images into memory-mapped tensor shards, and train ResNet18 from them
#[derive(Parser)]
#[command(version, disable_help_subcommand = true, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
    /// Show no progress
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Write results as JSON, one value a line
    #[arg(long, global = true)]
    pub json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tinyres pack tiny-imagenet-200.zip -o shards   JPEGs to shards, no unpacking
  tinyres inspect shards --verify                what they hold, and whether they are whole
  tinyres train shards                           ResNet18 from them
  tinyres sample set && tinyres pack set         no data at hand? a synthetic set";

#[derive(Subcommand)]
pub enum Command {
    Pack(cmd::pack::Args),
    Inspect(cmd::inspect::Args),
    Expand(cmd::expand::Args),
    Sample(cmd::sample::Args),
    /// Train ResNet18 from shards
    Train(Passed),
    /// Score trained weights on a split
    Eval(Passed),
    /// Say what pictures show
    Predict(Passed),
    /// Write a trained network in the format of another tool
    Export(Passed),
    /// Say what libtorch finds on this machine, and check that it computes alike everywhere
    Doctor(Passed),
}

/// Arguments of a command that `tinyres-torch` carries out: it parses them itself.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<OsString>,
}
