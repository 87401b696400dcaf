//! `tinyres man`: a man page for each command.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::ui::Ui;

/// Write a man page for each command to a directory
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directory for the pages, created if missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  tinyres man ~/.local/share/man/man1 && man tinyres-train";

/// The pages that were written.
#[derive(serde::Serialize)]
struct Pages<'a> {
    #[serde(serialize_with = "crate::text::path")]
    dir: &'a Path,
    pages: usize,
}

impl fmt::Display for Pages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} pages", self.dir.display(), self.pages)
    }
}

impl Args {
    /// Writes the pages of `command`, the whole tree.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn run(&self, command: clap::Command, ui: &mut Ui) -> anyhow::Result<()> {
        let dir = self.dir.as_path();
        let pages = 1 + command.get_subcommands().count();
        std::fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(command, dir))
            .with_context(|| dir.display().to_string())?;
        Ok(ui.result(&Pages { dir, pages })?)
    }
}
