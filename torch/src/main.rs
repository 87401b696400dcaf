//! `tinyres-torch`: the commands of `tinyres` that need libtorch. `tinyres` becomes this program
//! when one of them is called.

mod cli;
mod cmd;

use std::os::unix::process::CommandExt as _;
use std::process::{self, ExitCode};

use clap::Parser;
use tinyres::{threads, ui};

use cli::{Cli, Command};

fn main() -> ExitCode {
    #[expect(unsafe_code, reason = "only a program knows what it does first")]
    // SAFETY: no other thread exists yet that could read the environment.
    unsafe {
        tinyres_torch::tune_allocator();
    }
    ui::prepare_process();
    let cli = Cli::parse();
    if cli.command.computes() {
        start_again();
        if !threads::start_pool() {
            return ui::exit(&anyhow::anyhow!(
                "no thread can be started: end other programs, or raise the limit of processes (ulimit -u)"
            ));
        }
    }
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

/// Becomes this program again if its OpenMP threads were not told how to wait: they read that before `main`. Does
/// nothing if `tinyres` has started it, which tells them. A failure costs speed on a busy machine, and nothing else.
fn start_again() {
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut arguments = std::env::args_os();
    let mut command = process::Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments);
    if threads::sleep_early(&mut command) {
        let _ = command.exec();
    }
}
