//! `tinyres-view`: the commands of `tinyres` that show sets and runs. `tinyres` becomes this program when one of them is
//! called. Their flags are in `tinyres::cli`.

mod cmd;
mod error;
mod follow;
mod run;
mod server;
mod split;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tinyres::cli::{Global, Report, View};
use tinyres::ui;

/// The commands of tinyres that show sets and runs
#[derive(Parser)]
#[command(
    name = "tinyres",
    bin_name = "tinyres",
    version,
    disable_help_subcommand = true
)]
struct Cli {
    /// What to do
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Subcommand)]
enum Command {
    View(View),
    Report(Report),
}

fn main() -> ExitCode {
    ui::prepare_process();
    let cli = Cli::parse();
    let mut ui = cli.global.ui();
    let result = match cli.command {
        Command::View(args) => cmd::view::run(args, &mut ui),
        Command::Report(args) => cmd::report::run(&args, &mut ui),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ui::exit(&error),
    }
}
