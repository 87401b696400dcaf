//! The `tinyres` program: the commands that need no libtorch, and the way to those that do.

use std::env;
use std::process::ExitCode;

use tinyres::cli::{self, Started};

fn main() -> ExitCode {
    ExitCode::from(cli::main(&Started {
        file: env::current_exe(),
        args: env::args_os().collect(),
    }))
}
