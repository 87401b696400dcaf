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
use tinyres::inspect::{self, Panel};
use tinyres::pack::{ImageError, Resize};
use tinyres::source::{self, Problems};
use tinyres::text::Count;
use tinyres::ui::Ui;
use tinyres_format::{Refused, publish};
use tinyres_torch::infer::predict::{Drawing, Options, Picture, Prediction, Predictor};
use tinyres_torch::libtorch::device::{self, DeviceChoice, Precision};
use tinyres_torch::run::Run;
use tinyres_torch::run::checkpoint::Checkpoint;

/// Say what pictures show
///
/// The likeliest classes of each picture, JPEG or PNG of any size, turned upright where EXIF says so: the
/// shorter side is brought to the size that the network was trained at, and the middle of the longer one
/// kept, exactly as `tinyres pack --size` does. Pictures that cannot be decoded are named, the others told
/// all the same; the exit code is 1 then.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directory of a run, or a file of weights that `tinyres train` wrote
    #[arg(value_name = "RUN|WEIGHTS")]
    weights: PathBuf,
    /// Pictures, folders of them, or - for a list of files on standard input, one a line
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// How many of the likeliest classes to tell
    #[arg(long, value_name = "N", default_value = "5")]
    top: NonZeroUsize,
    /// Write the pictures, each with its likeliest class, as one PNG; at most the first 1,000
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// Width and height to bring pictures to [default: those that the network was trained at]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    size: Option<u32>,
    /// Stretch the whole picture instead of keeping its middle, as for `tinyres pack --squash`
    #[arg(long)]
    squash: bool,
    /// Pictures at a time
    #[arg(long, value_name = "N", default_value = "64")]
    batch: NonZeroUsize,
    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Threads that compute [default: libtorch's choice]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// What forward passes compute in [default: what the run was trained in]
    #[arg(long, value_parser = super::name_of::<Precision>())]
    precision: Option<Precision>,
}

const EXAMPLES: &str = "\
Examples:
  tinyres predict runs/default-1 cat.jpg
  tinyres predict runs/default-1 holiday/ --png holiday.png
  tinyres predict best.safetensors holiday/ --top 1 --json | jq -r '.image, .top[0].name'
  find . -name '*.png' | tinyres predict runs/default-1 -";

/// Most pictures of a contact sheet, which lies in memory as a whole.
const DRAWN: usize = 1000;

pub fn run(args: Args, ui: &mut Ui) -> anyhow::Result<ExitCode> {
    let checkpoint = Checkpoint::load(&Run::weights(&args.weights)?)?;
    let side = args.size.unwrap_or(checkpoint.about.position.size);
    let side = NonZeroU32::new(side).context("the network was trained on images of no size")?;
    let (images, total) = list(args.images)?;
    if let Some(threads) = args.threads {
        tinyres_torch::set_threads(threads.get());
    }
    let drawn = NonZeroU32::new(inspect::Picture::side(total.unwrap_or(DRAWN)));
    let options = Options {
        resize: Resize {
            side,
            squash: args.squash,
        },
        batch: args.batch,
        threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        top: args.top,
        drawn: drawn
            .filter(|_| args.png.is_some())
            .map(|side| (DRAWN, side)),
    };
    let device = device::open(args.device)?;
    let predictor = Predictor::new(&checkpoint, device, args.precision)?;
    if let Some(total) = total {
        ui.on(&Event::Begin {
            task: "looking at pictures".to_owned(),
            unit: "img",
            total: total as u64,
        });
    }
    let mut heard = Heard::default();
    predictor.predict(images, &options, |picture| heard.take(picture, ui))?;
    ui.on(&Event::End);
    ensure!(heard.count > 0, "standard input named no picture");
    if let Some(file) = &args.png {
        heard.draw(file, ui)?;
    }
    heard.end()
}

/// Files to look at, as they become known.
type Images = Box<dyn Iterator<Item = io::Result<PathBuf>> + Send>;

/// The pictures that `paths` name, and how many they are, where that is known.
fn list(paths: Vec<PathBuf>) -> anyhow::Result<(Images, Option<usize>)> {
    if paths.iter().any(|path| path == Path::new("-")) {
        ensure!(
            paths.len() == 1,
            "- takes the list of all pictures from standard input: name no others beside it"
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
                "{}: no file here has the name of a picture (.jpg, .jpeg, .png)",
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

/// What has been told so far, beyond what stdout has.
#[derive(Default)]
struct Heard {
    count: usize,
    bad: Problems<Refused>,
    /// Each with its caption.
    drawings: Vec<(Drawing, String)>,
}

impl Heard {
    fn take(&mut self, mut picture: Picture, ui: &mut Ui) -> anyhow::Result<()> {
        self.count += 1;
        let name = picture.image.display().to_string();
        match &mut picture.found {
            Ok(prediction) => {
                if let Some(drawing) = prediction.drawing.take() {
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
        let found = picture.found.map_err(Problem::from);
        Ok(ui.result(&Told { image: name, found })?)
    }

    /// Writes the contact sheet.
    fn draw(&self, file: &Path, ui: &mut Ui) -> anyhow::Result<()> {
        if self.drawings.is_empty() {
            return Ok(()); // Why, is said of each picture.
        }
        let panels: Vec<_> = (self.drawings.iter())
            .map(|(drawing, caption)| Panel {
                shape: drawing.shape,
                pixels: &drawing.pixels,
                bbox: drawing.bbox,
                caption,
            })
            .collect();
        let png = inspect::Picture::sheet(&panels).png()?;
        publish::write(file, &png).with_context(|| file.display().to_string())?;
        if self.count > DRAWN {
            let (drawn, count) = (Count(DRAWN as u64), Count(self.count as u64));
            ui.on(&Event::Notice(format!(
                "{}: shows the first {drawn} of {count} pictures",
                file.display()
            )));
        }
        Ok(())
    }

    fn end(self) -> anyhow::Result<ExitCode> {
        if self.bad.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let (bad, count) = (Count(self.bad.count() as u64), Count(self.count as u64));
        bail!(
            "{bad} of {count} pictures could not be looked at: {}",
            self.bad
        )
    }
}

/// `61% Egyptian cat`: the first word for the likeliest class.
fn caption(prediction: &Prediction) -> String {
    prediction.top.first().map_or_else(String::new, |guess| {
        let name = guess.name.split(',').next().unwrap_or_default();
        format!("{:.0}% {name}", 100.0 * guess.probability)
    })
}

/// One picture, as it is told.
#[derive(Serialize)]
struct Told {
    image: String,
    #[serde(flatten, serialize_with = "either")]
    found: Result<Prediction, Problem>,
}

/// Why there is nothing to tell.
#[derive(Serialize)]
struct Problem {
    error: String,
}

impl From<ImageError> for Problem {
    fn from(bad: ImageError) -> Self {
        let error = bad.to_string();
        Self { error }
    }
}

fn either<S: serde::Serializer>(
    found: &Result<Prediction, Problem>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match found {
        Ok(prediction) => prediction.serialize(to),
        Err(problem) => problem.serialize(to),
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.image)?;
        match &self.found {
            Ok(prediction) => {
                for guess in &prediction.top {
                    // Names are lists of synonyms: as many characters as fit a line.
                    let name: String = guess.name.chars().take(56).collect();
                    let percent = 100.0 * guess.probability;
                    write!(f, "\n  {percent:5.1}%  {}  {name}", guess.id)?;
                }
                if let Some([x0, y0, x1, y1]) = prediction.bbox {
                    write!(f, "\n  box     x {x0}-{x1}, y {y0}-{y1} pixels")?;
                }
                Ok(())
            }
            Err(problem) => write!(f, "\n  {}", problem.error),
        }
    }
}
