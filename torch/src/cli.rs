//! The command line of `tinyres-torch`: the commands that need libtorch, and completions and man pages of all.

use clap::{CommandFactory, Parser, Subcommand};
use tinyres::cli::{Completions, Global, Man};

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
    #[command(flatten)]
    pub global: Global,
}

#[derive(Subcommand)]
pub enum Command {
    Train(Box<cmd::train::Args>),
    Eval(cmd::eval::Args),
    Predict(cmd::predict::Args),
    Export(cmd::export::Args),
    Doctor(cmd::doctor::Args),
    Completions(Completions),
    Man(Man),
}

impl Command {
    /// True for a command that computes with the threads of libtorch.
    pub fn computes(&self) -> bool {
        match self {
            Self::Train(_) | Self::Eval(_) | Self::Predict(_) | Self::Doctor(_) => true,
            Self::Export(_) | Self::Completions(_) | Self::Man(_) => false,
        }
    }
}

/// The commands of both programs, as `tinyres` offers them.
pub fn whole() -> clap::Command {
    let own = Cli::command();
    own.get_subcommands()
        .fold(tinyres::cli::Cli::command(), |whole, command| {
            whole.mut_subcommand(command.get_name(), |_| command.clone())
        })
}
