//! `tinyres expand`: its flags, and where its report goes.

use std::path::PathBuf;

use crate::transport;
use crate::ui::Ui;

/// Turn shards that `pack --zstd` compressed back into raw ones
///
/// The shards, and dataset.json, become byte for byte what `pack` writes without --zstd. A directory
/// is expanded where it is, and its .zst files are removed when all is done, unless -o names another
/// one; a killed run leaves the set as it was, or done. A single file is kept, and expands beside
/// itself. Everything is compared with its checksum before it appears.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directory of compressed shards, or one .bin.zst file
    #[arg(value_name = "DIR|FILE")]
    input: PathBuf,
    /// Where to write instead: a directory, created if missing; for a file, a file
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  tinyres expand shards                        in place
  tinyres expand /mnt/usb/shards -o shards     the compressed set stays
  tinyres expand train-00000.bin.zst           to train-00000.bin; so does zstd -d";

pub fn run(args: Args, ui: &mut Ui) -> anyhow::Result<()> {
    let report = transport::expand(&args.input, args.output.as_deref(), ui)?;
    Ok(ui.result(&report)?)
}
