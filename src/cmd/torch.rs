//! The way to `tinyres-torch`, which carries out the commands that need libtorch.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, anyhow};

use crate::threads;
use crate::ui::Ui;

/// The program that links libtorch. It takes half a second to start, so `tinyres` itself does not link it.
const PROGRAM: &str = "tinyres-torch";

/// `tinyres-torch` is neither at this path nor in `PATH`.
#[must_use]
pub struct Missing(PathBuf);

/// Becomes `tinyres-torch` with the arguments of this process. Returns only if there is no such program.
pub fn exec() -> anyhow::Result<Missing> {
    let itself = std::env::current_exe().context("cannot find this executable's path")?;
    let sibling = itself
        .canonicalize()
        .unwrap_or(itself)
        .with_file_name(PROGRAM);
    let program = if sibling.is_file() {
        sibling.clone()
    } else {
        PathBuf::from(PROGRAM)
    };
    let mut command = Command::new(&program);
    command.args(std::env::args_os().skip(1));
    threads::sleep_early(&mut command);
    let error = command.exec();
    if error.kind() == ErrorKind::NotFound {
        return Ok(Missing(sibling));
    }
    Err(error).with_context(|| format!("starting {}", program.display()))
}

impl Missing {
    /// The error of a command that cannot do without.
    pub fn error(&self) -> anyhow::Error {
        anyhow!(
            "this command needs {PROGRAM}, which is neither at {} nor in PATH: \
             install it with `pip install 'tinyres[train]'`, or build it with `tools/setup && cargo build --release`",
            self.0.display()
        )
    }

    /// Warns that the flags of its commands are not known.
    pub fn warn(&self, ui: &Ui) {
        ui.warn(&format!(
            "the flags of train, eval, predict, export and doctor are left out: {PROGRAM} is neither at {} nor \
             in PATH",
            self.0.display()
        ));
    }
}
