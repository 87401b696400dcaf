//! `tinyres inspect`: its flags, and which report, picture or sheet they ask for.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tinyres_format::{Split, publish};

use crate::inspect::{Sample, Set};
use crate::picture::{Panel, Picture};
use crate::text::counted;
use crate::ui::Ui;

/// Show what shards hold, and whether they are whole
///
/// The files are mapped: do not write to them meanwhile. tinyres never does, it renames finished
/// files into place.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Shards, directories of them, or addresses of sets such as s3://BUCKET/PATH, which are fetched to the cache once
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Compare all pixels with their checksums, too
    #[arg(long)]
    verify: bool,
    /// List every class
    #[arg(long)]
    classes: bool,
    /// Show one image: its number, from 0, in the shard or in a split of the directory. A terminal shows the picture, too
    #[arg(long, value_name = "N", conflicts_with_all = ["verify", "classes", "sheet"])]
    image: Option<u64>,
    /// Write the image, enlarged and with its box, as a PNG
    #[arg(long, value_name = "FILE", requires = "image")]
    png: Option<PathBuf>,
    /// Do not draw the image in the terminal
    #[arg(long, requires = "image")]
    no_picture: bool,
    /// Write a contact sheet, images evenly spread over a split, as a PNG
    #[arg(long, value_name = "FILE", conflicts_with_all = ["verify", "classes"])]
    sheet: Option<PathBuf>,
    /// Images on the contact sheet
    #[arg(long, value_name = "N", default_value_t = 40, requires = "sheet", value_parser = clap::value_parser!(u64).range(1..=1000))]
    count: u64,
    /// The split of --image and --sheet [default: the first there is]
    #[arg(long)]
    split: Option<Split>,
}

const EXAMPLES: &str = "\
Examples:
  tinyres inspect shards                              what a packed set holds
  tinyres inspect shards --verify                     whether all is as written
  tinyres inspect shards --split val --image 7 --png 7.png
  tinyres inspect shards/train-00000.bin --sheet sheet.png --count 100
  tinyres inspect s3://bucket/shards                  a set in an object store
  tinyres inspect shards --classes --json | jq '.per_class[].name'";

/// Widest picture in a terminal, in characters.
const COLUMNS: usize = 64;

pub fn run(args: Args, ui: &mut Ui) -> anyhow::Result<()> {
    if args.paths.len() > 1 && (args.image.is_some() || args.sheet.is_some()) {
        bail!(
            "--image and --sheet look at one PATH, but there are {}",
            args.paths.len()
        );
    }
    let mut unsound = Vec::new();
    for path in &args.paths {
        let path = &*super::set(path, ui)?;
        let set = Set::open(path, super::map)?;
        if let Some(image) = args.image {
            let sample = set.sample(args.split, image)?;
            if let Some(file) = &args.png {
                write(file, &Picture::of(&Panel::from(&sample)))?;
            }
            if !args.no_picture {
                ui.picture(&Picture::plain(&Panel::from(&sample)), COLUMNS)?;
            }
            ui.result(&sample)?;
        } else if let Some(file) = &args.sheet {
            let images = set.spread(args.split, args.count)?;
            let panels: Vec<_> = images.iter().map(Panel::from).collect();
            write(file, &Picture::sheet(&panels))?;
            ui.result(&Sheet { file, images })?;
        } else {
            let mut report = set.report(args.classes);
            report.verification = args.verify.then(|| set.verify(ui)).transpose()?;
            ui.result(&report)?;
            // Also for the exit code, whether anybody reads the report or not.
            if !report.is_sound() {
                unsound.push(path.display().to_string());
            }
        }
    }
    if !unsound.is_empty() {
        bail!(
            "{}: not as it was packed, the report says why",
            unsound.join(", ")
        );
    }
    Ok(())
}

/// A contact sheet that was written.
#[derive(serde::Serialize)]
struct Sheet<'a> {
    #[serde(serialize_with = "crate::text::path")]
    file: &'a Path,
    /// In rows, from the top left.
    images: Vec<Sample<'a>>,
}

impl fmt::Display for Sheet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let split = self
            .images
            .first()
            .map_or("no split", |sample| sample.split.name());
        write!(
            f,
            "{}: {} of {split}",
            self.file.display(),
            counted(self.images.len(), "image")
        )
    }
}

fn write(file: &Path, picture: &Picture) -> anyhow::Result<()> {
    publish::write_output(file, &picture.png()?).with_context(|| file.display().to_string())
}
