//! The way to the other programs, which carry out the commands that `tinyres` does not.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, anyhow};

use crate::threads;
use crate::ui::Ui;

/// How `tinyres` was started.
pub struct Started {
    /// The file that the program lies in. Others are looked for next to it.
    pub file: io::Result<PathBuf>,
    /// The arguments, of which the first is a name of the program.
    pub args: Vec<OsString>,
}

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
    /// Becomes this program with the arguments of this process. Returns only if there is no such program.
    pub fn exec(self, started: &Started) -> anyhow::Result<Missing> {
        let itself = (started.file.as_ref())
            .map_err(|error| anyhow!("cannot find this executable's path: {error}"))?;
        let sibling = itself
            .canonicalize()
            .unwrap_or_else(|_| itself.clone())
            .with_file_name(self.name);
        let program = if sibling.is_file() {
            sibling.clone()
        } else {
            PathBuf::from(self.name)
        };
        let mut command = Command::new(&program);
        command.args(started.args.iter().skip(1));
        threads::sleep_early(&mut command);
        let error = command.exec();
        if error.kind() == ErrorKind::NotFound {
            return Ok(Missing(self, sibling));
        }
        Err(error).with_context(|| format!("starting {}", program.display()))
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
