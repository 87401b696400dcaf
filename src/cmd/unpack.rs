//! `tinyres unpack`: its flags, and where its report goes.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::inspect::Set;
use crate::ui::Ui;
use crate::unpack;

/// Write the images of shards as PNG files in class folders, with labels and boxes in CSV files
///
/// DIR/train/CLASS/0.png and so on, as torchvision's ImageFolder reads them; classes.csv has the order and names of the
/// classes, and train/metadata.csv, which Hugging Face's imagefolder reads, each file's label, name in the shards,
/// and box (x0, y0, x1, y1 in pixels, the last ones included, or -1). A class whose id cannot name a folder has the folder
/// class-LABEL. Images of a split without labels lie in the folder of the split. Raw and compressed shards are read.
///
/// Packing DIR gives the same pixels, labels and boxes. Every image is compared with its checksum before it is written,
/// and DIR appears once all are there: after an error, nothing does.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directory of the shards, one shard, or an address of a set such as s3://BUCKET/PATH
    shards: PathBuf,
    /// Directory to write, which must be absent or empty
    dir: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  tinyres unpack shards images
  tinyres unpack shards images && tinyres pack images -o again";

pub fn run(args: Args, ui: &mut Ui) -> anyhow::Result<()> {
    let shards = super::set(&args.shards, ui)?;
    let set = Set::open(&shards, super::map)?;
    let report = unpack::unpack(&set, &args.dir, &AtomicBool::new(false), ui)?;
    Ok(ui.result(&report)?)
}
