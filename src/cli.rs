//! The command line of the programs `tinyres`, `tinyres-view` and `tinyres-torch`: not an interface for other programs.
//!
//! `tinyres` parses [`Cli`] and runs it. `tinyres-view` carries out commands whose flags are here. `tinyres-torch` has
//! the commands that need libtorch, with their flags; it takes the rest of the tree from here, so that completions and
//! man pages cover all.

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};

use crate::cmd;
pub use crate::cmd::completions::Args as Completions;
pub use crate::cmd::man::Args as Man;
use crate::cmd::program;
pub use crate::cmd::program::Started;
pub use crate::cmd::report::Args as Report;
pub use crate::cmd::view::Args as View;
use crate::threads;
use crate::ui::{self, Output, Ui};

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

/// The program `tinyres`: carries out the command that it was started with, and returns the exit code. A wrong command
/// line, `--help` and `--version` end the process.
#[must_use]
pub fn main(started: &Started) -> u8 {
    ui::prepare_process();
    let cli = Cli::parse_from(&started.args);
    let mut ui = cli.global.ui();
    if cli.computes() {
        // Nothing here uses the pool from a thread of its own.
        let _ = threads::start_pool();
    }
    match cli.run(started, &mut ui) {
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
    fn run(self, started: &Started, ui: &mut Ui) -> anyhow::Result<()> {
        match self.command {
            Command::Pack(args) => cmd::pack::run(args, ui),
            Command::Expand(args) => cmd::expand::run(args, ui),
            Command::Unpack(args) => cmd::unpack::run(args, ui),
            Command::Inspect(args) => cmd::inspect::run(args, ui),
            Command::Sample(args) => cmd::sample::run(args, ui),
            Command::Cache(args) => cmd::cache::run(args, ui),
            Command::Runs(args) => cmd::runs::run(&args, ui),
            Command::Compare(args) => cmd::compare::run(&args, ui),
            Command::View(_) | Command::Report(_) => Err(program::VIEW.exec(started)?.error()),
            Command::Train(_)
            | Command::Eval(_)
            | Command::Predict(_)
            | Command::Export(_)
            | Command::Doctor(_) => Err(program::TORCH.exec(started)?.error()),
            Command::Completions(args) => {
                program::TORCH.exec(started)?.warn(ui);
                args.run(Self::command(), ui)
            }
            Command::Man(args) => {
                program::TORCH.exec(started)?.warn(ui);
                args.run(Self::command(), ui)
            }
        }
    }
}
