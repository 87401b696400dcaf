//! The way to the other programs, which carry out the commands that `tinyres` does not.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};

use crate::ui::Ui;
use crate::{siblings, threads};

/// A program that `tinyres` becomes.
#[derive(Clone, Copy)]
pub struct Program {
    name: &'static str,
    /// How to get it.
    install: &'static str,
}

/// The program that links libtorch. It takes half a second to start, so `tinyres` itself does not link it.
pub const TORCH: Program = Program {
    name: "tinyres-torch",
    install: "install it with `pip install 'tinyres[train]'`, or build it with `tools/setup && cargo build --release`",
};

/// The program that shows sets and runs in a browser. It has a web server, so `tinyres` itself stays small.
pub const VIEW: Program = Program {
    name: "tinyres-view",
    install: "install it with `pip install 'tinyres[view]'`, or build it with `cargo build --release -p tinyres-view`",
};

/// The program is neither at this path nor in `PATH`.
#[must_use]
pub struct Missing(Program, PathBuf);

impl Program {
    /// Becomes this program with the arguments `args`, of which the first is a name of `tinyres`. Returns only if there is
    /// no such program.
    pub fn exec(self, args: &[OsString]) -> anyhow::Result<Missing> {
        let unknown = "cannot find this executable's path";
        let mut command = siblings::command(self.name).context(unknown)?;
        command.args(args.iter().skip(1));
        threads::sleep_early(&mut command);
        let error = command.exec();
        if error.kind() == ErrorKind::NotFound {
            let place = siblings::place(self.name).context(unknown)?;
            return Ok(Missing(self, place));
        }
        Err(error).with_context(|| format!("starting {}", command.get_program().display()))
    }
}

impl Missing {
    /// The error of a command that cannot do without.
    pub fn error(&self) -> anyhow::Error {
        let Program { name, install } = self.0;
        anyhow!(
            "this command needs {name}, which is neither at {} nor in PATH: {install}",
            self.1.display()
        )
    }

    /// Warns that the flags of the commands of `tinyres-torch` are not known.
    pub fn warn(&self, ui: &Ui) {
        ui.warn(&format!(
            "the flags of train, eval, predict, export and doctor are left out: {} is neither at {} nor \
             in PATH",
            self.0.name,
            self.1.display()
        ));
    }
}
