//! The `tinyres` program: the commands that need no libtorch, and the way to those that do.

use std::process::ExitCode;

use clap::Parser;
use tinyres::cli::Cli;
use tinyres::{threads, ui};

fn main() -> ExitCode {
    ui::prepare_process();
    let cli = Cli::parse();
    let mut ui = cli.global.ui();
    if cli.computes() {
        // Nothing here uses the pool from a thread of its own.
        let _ = threads::start_pool();
    }
    match cli.run(&mut ui) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ui::exit(&error),
    }
}
