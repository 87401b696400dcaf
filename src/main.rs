//! The `tinyres` command: everything that needs no libtorch, and the way to what does.

mod cli;
mod cmd;

use std::process::ExitCode;

use clap::Parser;
use tinyres::ui::{self, Output, Ui};

use cli::{Cli, Command};

fn main() -> ExitCode {
    ui::report_faults();
    let cli = Cli::parse();
    let output = if cli.json { Output::Json } else { Output::Text };
    let mut ui = Ui::new(output, cli.quiet);
    let result = match cli.command {
        Command::Pack(args) => cmd::pack::run(args, &mut ui),
        Command::Expand(args) => cmd::expand::run(args, &mut ui),
        Command::Inspect(args) => cmd::inspect::run(args, &mut ui),
        Command::Sample(args) => cmd::sample::run(args, &mut ui),
        Command::Train(_)
        | Command::Eval(_)
        | Command::Predict(_)
        | Command::Export(_)
        | Command::Doctor(_) => cmd::torch::exec(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ui::exit(&error),
    }
}
