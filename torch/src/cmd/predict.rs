//! `tinyres predict`: what pictures show, on standard output, and as a contact sheet.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead};
use std::num::{NonZeroU32, NonZeroUsize};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use tinyres::event::{Event, Observer};
use tinyres::pack::Resize;
use tinyres::picture::Picture;
use tinyres::source::{self, Problems};
use tinyres::text::{Count, counted};
use tinyres::ui::{Closed, Ui};
use tinyres_format::{Refused, publish};
use tinyres_torch::infer::predict::{Drawing, Options, PictureResult, Prediction, Predictor};
use tinyres_torch::libtorch::device::{self, DeviceChoice, Precision};
use tinyres_torch::run::Run;

/// Predict the classes of pictures
///
/// Prints the likeliest classes of each picture, of any size and any format that `tinyres pack` reads. Pictures are turned upright as
/// EXIF says, resized so that the shorter side has the size that the network was trained at (or, if that was enlarged for
/// training, the size of the set's images, and enlarged in the same way), and cropped to
/// the middle, exactly as by `tinyres pack --size`. A picture that cannot be decoded is named, and the exit
/// code is 1 at the end; the other pictures are predicted all the same. A ResNet18 of another program is taken
/// as one for 64x64 pixels (--size), normalised by ImageNet's mean and std.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directory of a run, or a file of weights, .safetensors or .pth; FILE#KEY names one network of several
    #[arg(value_name = "RUN|WEIGHTS")]
    weights: PathBuf,
    /// Pictures, folders of pictures, or - for a list of files on standard input, one a line
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// How many of the likeliest classes to print
    #[arg(long, value_name = "N", default_value = "5")]
    top: NonZeroUsize,
    /// Write the first 1,000 pictures, each with its likeliest class, into one PNG
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// Do not draw the pictures in the terminal, as is done for up to 16 of them
    #[arg(long)]
    no_picture: bool,
    /// Width and height to resize pictures to [default: the size that the network was trained at]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    size: Option<u32>,
    /// Classes of weights of another program: a line for each, ID, or ID, a tab and NAME [default: numbers]
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// Squash the whole picture to a square instead of cropping it, as `tinyres pack --squash` does
    #[arg(long)]
    squash: bool,
    /// Pictures in a batch
    #[arg(long, value_name = "N", default_value = "64")]
    batch: NonZeroUsize,
    /// Device to compute on: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Threads that compute [default: one for each core, or what a CPU quota allows]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Precision of the forward pass [default: that of the training]
    #[arg(long, value_parser = super::name_of::<Precision>())]
    precision: Option<Precision>,
}

const EXAMPLES: &str = "\
Examples:
  tinyres predict runs/default-1 cat.jpg
  tinyres predict runs/default-1 holiday/ --png holiday.png
  tinyres predict best.safetensors holiday/ --top 1 --json | jq -r '.image, .top[0].name'
  find . -name '*.png' | tinyres predict runs/default-1 -";

/// Largest number of pictures on a contact sheet, which is in memory as a whole.
const MAX_DRAWN: usize = 1000;
/// Largest number of pictures that are drawn in a terminal, their width there in characters, and in pixels.
const MAX_SHOWN: usize = 16;
const COLUMNS: usize = 32;
const SIDE: u32 = 32;

pub fn run(args: Args, ui: &mut Ui) -> anyhow::Result<ExitCode> {
    super::expect_alone("predict")?;
    tinyres_torch::start_threads(args.threads)?;
    let weights = Run::weights(&args.weights)?;
    let checkpoint = super::described(&weights, args.classes.as_deref(), args.size, ui)?;
    let nonzero =
        |side| NonZeroU32::new(side).context("the network was trained on images of no size");
    let size = nonzero(args.size.unwrap_or(checkpoint.about.position.size))?;
    // Enlarged as in training, where the images were, from the size that they had.
    let from = checkpoint.about.side.filter(|_| args.size.is_none());
    let side = from
        .map(nonzero)
        .transpose()?
        .map_or(size, |side| side.min(size));
    let (images, total) = list(args.images)?;
    let shows = !args.no_picture && ui.draws() && total.is_some_and(|total| total <= MAX_SHOWN);
    let drawn = NonZeroU32::new(match &args.png {
        Some(_) => Picture::side(total.unwrap_or(MAX_DRAWN)),
        None => SIDE,
    });
    let options = Options {
        resize: Resize {
            side,
            squash: args.squash,
        },
        size,
        batch: args.batch,
        threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        top: args.top,
        drawn: drawn
            .filter(|_| args.png.is_some() || shows)
            .map(|side| (MAX_DRAWN, side)),
    };
    let device = device::open(args.device)?;
    let predictor = Predictor::new(&checkpoint, device, args.precision)?;
    if let Some(total) = total {
        ui.on(&Event::Begin {
            task: "predicting".to_owned(),
            unit: "img",
            total: total as u64,
        });
    }
    let mut tally = Tally {
        shows,
        ..Tally::default()
    };
    let predicted = predictor.predict(images, &options, |result| {
        tally.add(result, ui)?;
        ensure!(!ui.is_closed() || args.png.is_some(), Closed);
        Ok(())
    });
    match predicted {
        Err(error) if error.is::<Closed>() => {}
        predicted => predicted?,
    }
    ui.on(&Event::End);
    ensure!(tally.count > 0, "standard input named no picture");
    if let Some(file) = &args.png {
        tally.draw(file, ui)?;
    }
    tally.finish()
}

/// Files to predict, as they become known.
type Images = Box<dyn Iterator<Item = io::Result<PathBuf>> + Send>;

/// The pictures that `paths` name, and their number, unless they come from standard input.
fn list(paths: Vec<PathBuf>) -> anyhow::Result<(Images, Option<usize>)> {
    if paths.iter().any(|path| path == Path::new("-")) {
        ensure!(
            paths.len() == 1,
            "- reads the list of pictures from standard input: give no other pictures with it"
        );
        let lines = io::BufReader::new(io::stdin()).split(b'\n');
        let named = lines.filter(|line| !line.as_ref().is_ok_and(Vec::is_empty));
        let paths = named.map(|line| line.map(|line| OsString::from_vec(line).into()));
        return Ok((Box::new(paths), None));
    }
    let mut images = Vec::new();
    for path in paths {
        if path.is_dir() {
            let found = source::in_folder(&path)?;
            ensure!(
                !found.is_empty(),
                "{}: no file in this folder has the extension of a picture (.jpg, .jpeg, .png)",
                path.display()
            );
            images.extend(found);
        } else {
            images.push(path);
        }
    }
    let total = images.len();
    Ok((Box::new(images.into_iter().map(Ok)), Some(total)))
}

/// The results so far that are not on standard output yet.
#[derive(Default)]
struct Tally {
    /// Pictures, good and bad.
    count: usize,
    /// True if drawings are shown in the terminal.
    shows: bool,
    bad: Problems<Refused>,
    /// The drawings, each with its caption.
    drawings: Vec<(Drawing, String)>,
}

impl Tally {
    /// Counts and prints the result for one picture.
    fn add(&mut self, mut picture: PictureResult, ui: &mut Ui) -> anyhow::Result<()> {
        self.count += 1;
        let name = picture.image.display().to_string();
        match &mut picture.found {
            Ok(prediction) => {
                if let Some(drawing) = prediction.drawing.take() {
                    if self.shows {
                        ui.picture(&Picture::plain(&drawing.panel("")), COLUMNS)?;
                    }
                    self.drawings.push((drawing, caption(prediction)));
                }
            }
            Err(bad) => self.bad.push(Refused {
                name: name.clone(),
                reason: bad.to_string(),
            }),
        }
        ui.on(&Event::Advance {
            done: self.count as u64,
        });
        let found = picture.found.map_err(|bad| PredictionError {
            error: bad.to_string(),
        });
        Ok(ui.result(&PredictionLine { image: name, found })?)
    }

    /// Writes the contact sheet.
    fn draw(&self, file: &Path, ui: &mut Ui) -> anyhow::Result<()> {
        if self.drawings.is_empty() {
            return Ok(()); // All pictures are bad, and each has its error.
        }
        let panels: Vec<_> = (self.drawings.iter())
            .map(|(drawing, caption)| drawing.panel(caption))
            .collect();
        let png = Picture::sheet(&panels).png()?;
        publish::write_output(file, &png).with_context(|| file.display().to_string())?;
        if self.count > MAX_DRAWN {
            let (drawn, count) = (Count(MAX_DRAWN as u64), Count(self.count as u64));
            ui.on(&Event::Notice(format!(
                "{}: shows the first {drawn} of {count} pictures",
                file.display()
            )));
        }
        Ok(())
    }

    /// The error that names the bad pictures, if there are any.
    fn finish(self) -> anyhow::Result<ExitCode> {
        if self.bad.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let bad = Count(self.bad.count() as u64);
        let pictures = counted(self.count, "picture");
        bail!("{bad} of {pictures} could not be predicted: {}", self.bad)
    }
}

/// The caption for a drawing, such as `61% Egyptian cat`: the first of the class's synonyms.
fn caption(prediction: &Prediction) -> String {
    prediction.top.first().map_or_else(String::new, |guess| {
        let name = guess.name.split(',').next().unwrap_or_default();
        format!("{:.0}% {name}", 100.0 * guess.probability)
    })
}

/// The result for one picture, as it is printed.
#[derive(Serialize)]
struct PredictionLine {
    image: String,
    #[serde(flatten, serialize_with = "either")]
    found: Result<Prediction, PredictionError>,
}

/// The line of a picture that cannot be decoded.
#[derive(Serialize)]
struct PredictionError {
    error: String,
}

fn either<S: serde::Serializer>(
    found: &Result<Prediction, PredictionError>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match found {
        Ok(prediction) => prediction.serialize(to),
        Err(problem) => problem.serialize(to),
    }
}

impl fmt::Display for PredictionLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.image)?;
        match &self.found {
            Ok(prediction) => {
                for guess in &prediction.top {
                    // Names are lists of synonyms, cut to fit a line.
                    let name: String = guess.name.chars().take(56).collect();
                    let percent = 100.0 * guess.probability;
                    write!(f, "\n  {percent:5.1}%  {}  {name}", guess.id)?;
                }
                if let Some([x0, y0, x1, y1]) = prediction.bbox {
                    write!(f, "\n  box     x {x0}-{x1}, y {y0}-{y1} pixels")?;
                }
                Ok(())
            }
            Err(error) => write!(f, "\n  {}", error.error),
        }
    }
}
