//! The `tinyres` program: the commands that need no libtorch, and the way to those that do.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = env::args_os().collect();
    ExitCode::from(tinyres::cli::main(&args, None))
}
