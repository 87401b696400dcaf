//! A synthetic data set in the layout of `tiny-imagenet-200`: for trying things out, for tests and
//! for benchmarks. Its classes are shapes of a texture and a hue on varied grounds.
//!
//! Every picture follows from the seed, its split, its class and its number alone.

mod class;
mod directory;
mod random;
mod scene;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rayon::ThreadPool;
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};
use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};

use crate::event::{Event, Observer};
use crate::text::{Bytes, Count};
use class::Class;
pub use class::MAX_CLASSES;
use directory::Draft;
use scene::{Bounds, Scene};
use tinyres_format::{Draws, Stream};

/// Width and height of every picture, in pixels.
const SIDE: usize = 64;
/// As in the real set.
const QUALITY: i32 = 75;
/// Images drawn between two reports of progress.
const BATCH: usize = 1024;

/// What to write.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Classes, 1 to [`MAX_CLASSES`].
    pub classes: u32,
    /// Training images of each class.
    pub train_per_class: u32,
    /// Validation images of each class.
    pub val_per_class: u32,
    /// Unlabelled test images.
    pub test: u32,
    /// Another seed gives other pictures of the same classes.
    pub seed: u64,
    /// Threads to draw with, 0 for one per core. The bytes written are the same for any number.
    pub threads: usize,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Classes.
    pub classes: u32,
    /// Training images.
    pub train: u64,
    /// Validation images.
    pub val: u64,
    /// Test images.
    pub test: u64,
    /// Images with one component.
    pub grey: u64,
    /// Bytes of all JPEGs.
    pub bytes: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [train, val, test, grey] = [self.train, self.val, self.test, self.grey].map(Count);
        let (classes, bytes) = (self.classes, Bytes(self.bytes));
        write!(
            f,
            "{classes} classes: {train} train, {val} val, {test} test; {grey} grey; {bytes}"
        )
    }
}

/// Why no set was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More classes than there are, or none.
    #[error("{got} classes asked for, expected 1 to {MAX_CLASSES}")]
    Classes {
        /// The number asked for.
        got: u32,
    },
    /// Nothing is ever overwritten.
    #[error("{}: exists and is not an empty directory: name another, or remove it first", .0.display())]
    Exists(PathBuf),
    /// Two runs must not mix their files.
    #[error("{}: another tinyres is writing here: wait for it, or name another directory", .0.display())]
    Busy(PathBuf),
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The encoder failed.
    #[error("cannot encode a JPEG: {0}")]
    Encode(#[from] turbojpeg::Error),
    /// The threads could not be started.
    #[error("cannot start the threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Says which file an operation was about.
fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io {
        path: path.to_owned(),
        source,
    }
}

/// Writes a set that appears at `dir` whole or not at all.
///
/// The files are not forced to the disk: after a power cut, write the set again.
///
/// # Errors
/// Where `dir` holds something already, and those of the operating system.
pub fn write(dir: &Path, config: &Config, observer: &mut dyn Observer) -> Result<Report> {
    if !(1..=MAX_CLASSES).contains(&config.classes) {
        return Err(Error::Classes {
            got: config.classes,
        });
    }
    let draft = Draft::create(dir)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(config.threads)
        .build()?;
    let classes: Vec<Class> = (0..config.classes as usize).map(Class::nth).collect();
    let in_all = |per_class: u32| u64::from(per_class) * u64::from(config.classes);
    let report = Report {
        classes: config.classes,
        train: in_all(config.train_per_class),
        val: in_all(config.val_per_class),
        test: config.test.into(),
        grey: 0,
        bytes: 0,
    };
    observer.on(&Event::Begin {
        task: "drawing".to_owned(),
        unit: "img",
        total: report.train + report.val + report.test,
    });
    let mut artist = Artist {
        classes: &classes,
        seed: config.seed,
        pool,
        observer,
        report,
        drawn: 0,
    };
    let result = artist.draw_set(draft.path(), config);
    artist.observer.on(&Event::End);
    result?;
    let report = artist.report;
    draft.publish()?;
    Ok(report)
}

/// The splits, by the number that draws know them by.
#[derive(Clone, Copy)]
enum Split {
    Train = 0,
    Val = 1,
    Test = 2,
}

/// What a picture shows: with the seed, all that decides it.
struct Subject {
    split: Split,
    class: usize,
    /// Among the pictures of its split and class.
    index: usize,
}

/// Draws pictures and keeps count.
struct Artist<'a> {
    classes: &'a [Class],
    seed: u64,
    pool: ThreadPool,
    observer: &'a mut dyn Observer,
    report: Report,
    drawn: u64,
}

impl Artist<'_> {
    fn draw_set(&mut self, root: &Path, config: &Config) -> Result<()> {
        let classes = self.classes;
        let wnids: Vec<String> = classes.iter().map(Class::wnid).collect();
        write_text(
            &root.join("wnids.txt"),
            wnids.iter().map(|wnid| format!("{wnid}\n")),
        )?;
        write_text(&root.join("words.txt"), words())?;

        for (class, wnid) in wnids.iter().enumerate() {
            let folder = root.join("train").join(wnid);
            let subject = |index| Subject {
                split: Split::Train,
                class,
                index,
            };
            let count = config.train_per_class as usize;
            let boxes = self.draw(&folder.join("images"), wnid, count, subject)?;
            let lines = boxes
                .iter()
                .enumerate()
                .map(|(i, bounds)| format!("{wnid}_{i}.JPEG\t{bounds}\n"));
            write_text(&folder.join(format!("{wnid}_boxes.txt")), lines)?;
        }

        // The classes take turns.
        let subject = |split| {
            move |i| Subject {
                split,
                class: i % classes.len(),
                index: i / classes.len(),
            }
        };
        let folder = root.join("val");
        let count = config.val_per_class as usize * classes.len();
        let boxes = self.draw(&folder.join("images"), "val", count, subject(Split::Val))?;
        let turns = wnids.iter().cycle().zip(boxes).enumerate();
        let lines = turns.map(|(i, (wnid, bounds))| format!("val_{i}.JPEG\t{wnid}\t{bounds}\n"));
        write_text(&folder.join("val_annotations.txt"), lines)?;

        let folder = root.join("test").join("images");
        self.draw(&folder, "test", config.test as usize, subject(Split::Test))?;
        Ok(())
    }

    /// Writes pictures `prefix_0` to `prefix_(count - 1)` to `folder`, and returns the box of each.
    fn draw(
        &mut self,
        folder: &Path,
        prefix: &str,
        count: usize,
        subject: impl Fn(usize) -> Subject + Sync,
    ) -> Result<Vec<Bounds>> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        let (seed, classes) = (self.seed, self.classes);
        let mut boxes = Vec::new();
        for start in (0..count).step_by(BATCH) {
            let batch = start..count.min(start + BATCH);
            let drawn: Vec<Drawn> = self.pool.install(|| {
                let one = |encoder: &mut Option<Compressor>, i| {
                    let Subject {
                        split,
                        class,
                        index,
                    } = subject(i);
                    let draws = Draws::new(seed, Stream::Sample, split as u64)
                        .of(class as u64)
                        .of(index as u64);
                    let scene = Scene::new(&classes[class], draws);
                    draw(&scene, encoder, &folder.join(format!("{prefix}_{i}.JPEG")))
                };
                batch
                    .into_par_iter()
                    .map_init(|| None, one)
                    .collect::<Result<_>>()
            })?;
            self.report.grey += drawn.iter().filter(|drawn| drawn.grey).count() as u64;
            self.report.bytes += drawn.iter().map(|drawn| drawn.bytes).sum::<u64>();
            self.drawn += drawn.len() as u64;
            self.observer.on(&Event::Advance { done: self.drawn });
            boxes.extend(drawn.iter().map(|drawn| drawn.bounds));
        }
        Ok(boxes)
    }
}

/// A picture that was written.
struct Drawn {
    bounds: Bounds,
    grey: bool,
    bytes: u64,
}

/// Paints `scene` and writes it to `path`, with an encoder that is made where there is none yet.
fn draw(scene: &Scene, encoder: &mut Option<Compressor>, path: &Path) -> Result<Drawn> {
    let picture = scene.paint();
    let encoder = match encoder {
        Some(encoder) => encoder,
        None => encoder.insert(Compressor::new()?),
    };
    encoder.set_quality(QUALITY)?;
    encoder.set_subsamp(if scene.grey {
        Subsamp::Gray
    } else {
        Subsamp::Sub2x2
    })?;
    let jpeg = encoder.compress_to_owned(Image {
        pixels: &picture.pixels[..],
        width: SIDE,
        pitch: SIDE * 3,
        height: SIDE,
        format: PixelFormat::RGB,
    })?;
    fs::write(path, &jpeg).map_err(at(path))?;
    Ok(Drawn {
        bounds: picture.bounds,
        grey: scene.grey,
        bytes: jpeg.len() as u64,
    })
}

/// The words of every class there could be, sorted, as the real file names all of WordNet.
fn words() -> impl Iterator<Item = String> {
    let mut lines: Vec<_> = (0..MAX_CLASSES as usize)
        .map(Class::nth)
        .map(|class| format!("{}\t{class}\n", class.wnid()))
        .collect();
    lines.sort();
    lines.into_iter()
}

fn write_text(path: &Path, lines: impl Iterator<Item = String>) -> Result<()> {
    fs::write(path, lines.collect::<String>()).map_err(at(path))
}
