//! `tinyres completions`: a script that completes commands and flags in a shell.

use clap_complete::Shell;

use crate::ui::Ui;

/// Print a script that completes commands and flags in a shell
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Shell to complete in
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  tinyres completions bash > ~/.local/share/bash-completion/completions/tinyres
  tinyres completions zsh > \"${fpath[1]}/_tinyres\"
  tinyres completions fish > ~/.config/fish/completions/tinyres.fish";

impl Args {
    /// Prints the script for `command`, the whole tree.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn run(&self, mut command: clap::Command, ui: &mut Ui) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "tinyres", &mut script);
        let script = String::from_utf8(script)?;
        Ok(ui.result(&script.trim_end())?)
    }
}
