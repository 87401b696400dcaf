use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

/// The binary that links libtorch. It takes half a second to start, which is why it is another one.
const BINARY: &str = "tinyres-torch";

/// Becomes `tinyres-torch` with the arguments of this process.
pub fn exec() -> anyhow::Result<()> {
    let itself = std::env::current_exe().context("where is this program?")?;
    let beside = itself
        .canonicalize()
        .unwrap_or(itself)
        .with_file_name(BINARY);
    let program = if beside.is_file() {
        beside.clone()
    } else {
        PathBuf::from(BINARY)
    };
    let error = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        bail!(
            "this command needs {BINARY}, which is neither at {} nor in PATH: \
             build it with `tools/setup && cargo build --release`",
            beside.display()
        );
    }
    Err(error).with_context(|| format!("starting {}", program.display()))
}
