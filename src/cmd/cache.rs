//! `tinyres cache`: lists and removes the sets that `train` and `eval` keep.

use anyhow::Context;

use crate::cache;
use crate::ui::Ui;

/// List or remove the sets that train and eval packed or expanded for themselves, and sets and sources that were fetched
///
/// They are kept in TINYRES_CACHE, by default ~/.cache/tinyres, until this command removes them. A removed set is
/// made again when it is needed, if its source is still the same; a run that uses it goes on.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Remove the sets, except those that are being made
    #[arg(long)]
    clear: bool,
    /// Only sets that were not used for this many days
    #[arg(
        long,
        value_name = "DAYS",
        default_value_t = 0,
        hide_default_value = true
    )]
    unused: u64,
}

const EXAMPLES: &str = "\
Examples:
  tinyres cache                           what there is, of which source, and when it was used
  tinyres cache --clear --unused 30       remove what was not used for 30 days
  tinyres cache --json | jq -r '.sets[].dir'";

pub fn run(args: Args, ui: &mut Ui) -> anyhow::Result<()> {
    let dir = cache::cache_dir().context("no cache directory is known: set TINYRES_CACHE")?;
    let report = match args.clear {
        true => cache::clear(&dir, args.unused)?,
        false => cache::list(&dir, args.unused)?,
    };
    Ok(ui.result(&report)?)
}
