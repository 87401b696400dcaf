use clap::{Parser, Subcommand};

use crate::cmd;

/// The commands of tinyres that need libtorch
#[derive(Parser)]
#[command(
    name = "tinyres",
    bin_name = "tinyres",
    version,
    disable_help_subcommand = true
)]
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

#[derive(Subcommand)]
pub enum Command {
    Train(Box<cmd::train::Args>),
    Eval(cmd::eval::Args),
    Predict(cmd::predict::Args),
    Export(cmd::export::Args),
    Doctor(cmd::doctor::Args),
}
