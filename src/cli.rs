//! The command line of the programs `tinyres`, `tinyres-view` and `tinyres-torch`: not an interface for other programs.
//!
//! `tinyres` parses [`Cli`] and runs it. `tinyres-view` carries out commands whose flags are here. `tinyres-torch` has
//! the commands that need libtorch, with their flags; it takes the rest of the tree from here, so that completions and
//! man pages cover all.

use std::ffi::OsString;
use std::path::Path;

use clap::{CommandFactory, Parser, Subcommand};

use crate::cmd;
pub use crate::cmd::completions::Args as Completions;
pub use crate::cmd::man::Args as Man;
use crate::cmd::program;
pub use crate::cmd::report::Args as Report;
pub use crate::cmd::view::Args as View;
use crate::ui::{self, Output, Ui};
use crate::{siblings, threads};

/// Pack labelled images into memory-mapped tensor shards, and train ResNet18 from them
#[derive(Parser)]
#[command(name = "tinyres", version, disable_help_subcommand = true, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    command: Command,
    /// Flags of every command
    #[command(flatten)]
    pub global: Global,
}

/// The flags of every command.
#[derive(clap::Args)]
pub struct Global {
    /// Show no progress
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Write results as JSON, one value a line
    #[arg(long, global = true)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tinyres pack tiny-imagenet-200.zip -o shards   JPEGs to shards, no unpacking
  tinyres inspect shards --verify                what they hold, and whether they are whole
  tinyres train shards                           ResNet18 from them
  tinyres view shards --run runs/default-1       look at both in a browser
  tinyres sample set && tinyres pack set         no data at hand? a synthetic set";

#[derive(Subcommand)]
enum Command {
    Pack(cmd::pack::Args),
    Inspect(cmd::inspect::Args),
    Expand(cmd::expand::Args),
    Unpack(cmd::unpack::Args),
    Sample(cmd::sample::Args),
    Cache(cmd::cache::Args),
    Runs(cmd::runs::Args),
    Compare(cmd::compare::Args),
    View(View),
    Report(Report),
    /// Train ResNet18 from shards
    Train(Passed),
    /// Score trained weights on a split
    Eval(Passed),
    /// Say what pictures show
    Predict(Passed),
    /// Write a trained network in the format of another tool
    Export(Passed),
    /// Show what libtorch finds on this machine, and check that devices and loader agree
    Doctor(Passed),
    Completions(Completions),
    Man(Man),
}

/// Arguments of a command that `tinyres-torch` carries out: it parses them itself.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<OsString>,
}

/// The program `tinyres`: carries out the command of `args`, of which the first is a name of the program, and returns the
/// exit code. A wrong command line, `--help` and `--version` end the process. `file` is where the program lies, if not in
/// the file of the process: others are looked for next to it.
#[must_use]
pub fn main(args: &[OsString], file: Option<&Path>) -> u8 {
    ui::prepare_process();
    if let Some(file) = file {
        siblings::started_as(file);
    }
    let cli = Cli::parse_from(args);
    let mut ui = cli.global.ui();
    if cli.computes() {
        // Nothing here uses the pool from a thread of its own.
        let _ = threads::start_pool();
    }
    match cli.run(args, &mut ui) {
        Ok(()) => 0,
        Err(error) => {
            ui::complain(&error);
            1
        }
    }
}

impl Global {
    /// The terminal that these flags ask for.
    #[must_use]
    pub fn ui(&self) -> Ui {
        let output = if self.json {
            Output::Json
        } else {
            Output::Text
        };
        Ui::new(output, self.quiet)
    }
}

impl Cli {
    /// True for a command that `tinyres` carries out with rayon's global pool.
    fn computes(&self) -> bool {
        matches!(
            self.command,
            Command::Pack(_) | Command::Expand(_) | Command::Inspect(_) | Command::Unpack(_)
        )
    }

    /// Carries out the command.
    fn run(self, args: &[OsString], ui: &mut Ui) -> anyhow::Result<()> {
        match self.command {
            Command::Pack(flags) => cmd::pack::run(flags, ui),
            Command::Expand(flags) => cmd::expand::run(flags, ui),
            Command::Unpack(flags) => cmd::unpack::run(flags, ui),
            Command::Inspect(flags) => cmd::inspect::run(flags, ui),
            Command::Sample(flags) => cmd::sample::run(flags, ui),
            Command::Cache(flags) => cmd::cache::run(flags, ui),
            Command::Runs(flags) => cmd::runs::run(&flags, ui),
            Command::Compare(flags) => cmd::compare::run(&flags, ui),
            Command::View(_) | Command::Report(_) => Err(program::VIEW.exec(args)?.error()),
            Command::Train(_)
            | Command::Eval(_)
            | Command::Predict(_)
            | Command::Export(_)
            | Command::Doctor(_) => Err(program::TORCH.exec(args)?.error()),
            Command::Completions(flags) => {
                program::TORCH.exec(args)?.warn(ui);
                flags.run(Self::command(), ui)
            }
            Command::Man(flags) => {
                program::TORCH.exec(args)?.warn(ui);
                flags.run(Self::command(), ui)
            }
        }
    }
}
