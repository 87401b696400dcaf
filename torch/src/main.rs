//! `tinyres-torch`: the commands of `tinyres` that need libtorch. `tinyres` becomes this program
//! when one of them is called.

mod cli;
mod cmd;

use std::process::ExitCode;

use clap::Parser;
use tinyres::ui;

use cli::{Cli, Command};

fn main() -> ExitCode {
    #[expect(unsafe_code, reason = "only a program knows what it does first")]
    // SAFETY: no other thread exists yet that could read the environment.
    unsafe {
        tinyres_torch::tune_allocator();
    }
    ui::report_faults();
    let cli = Cli::parse();
    let mut ui = cli.global.ui();
    let result = match cli.command {
        Command::Train(args) => cmd::train::run(*args, &mut ui),
        Command::Eval(args) => cmd::eval::run(args, &mut ui),
        Command::Predict(args) => cmd::predict::run(args, &mut ui),
        Command::Export(args) => cmd::export::run(args, &mut ui),
        Command::Doctor(args) => cmd::doctor::run(args, &mut ui),
        Command::Completions(args) => args.run(cli::whole(), &mut ui).map(|()| ExitCode::SUCCESS),
        Command::Man(args) => args.run(cli::whole(), &mut ui).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| ui::exit(&error))
}
