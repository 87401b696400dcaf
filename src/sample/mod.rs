//! A synthetic data set in the layout of `tiny-imagenet-200`, for a first try, for tests and for
//! benchmarks. Its classes are outlines with a texture and a hue on varied grounds.
//!
//! Every picture is a function of the seed, its split, its class and its number in the class. The bytes
//! do not depend on the number of threads. Writes JPEGs and annotations only: it does not pack them.

mod class;
mod random;
mod scene;

use std::fmt;
use std::fs;
use std::path::Path;

use rayon::ThreadPool;
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};
use tinyres_format::{Draws, Split, Stream};
use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};

use crate::atomic_dir::AtomicDir;
pub use crate::atomic_dir::AtomicDirError;
use crate::event::{Event, Observer};
pub use crate::scratch::OutputError;
use crate::scratch::output_error;
use crate::text::{Bytes, Count, counted};
use crate::threads;
pub use class::MAX_CLASSES;
use class::SampleClass;
use scene::{Bounds, Scene};

/// Width and height of every picture, in pixels.
const SIDE: usize = 64;
/// JPEG quality, that of the real data set.
const QUALITY: i32 = 75;
/// Number of images drawn between two progress events.
const BATCH: usize = 1024;

/// Size and seed of a sample set.
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

/// Counts of what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SampleReport {
    /// Classes.
    pub classes: u32,
    /// Training images.
    pub train: u64,
    /// Validation images.
    pub val: u64,
    /// Test images.
    pub test: u64,
    /// Greyscale images, stored with one component.
    pub grey: u64,
    /// Bytes of all JPEGs.
    pub bytes: u64,
}

impl fmt::Display for SampleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [train, val, test, grey] = [self.train, self.val, self.test, self.grey].map(Count);
        let (classes, bytes) = (counted(self.classes, "class"), Bytes(self.bytes));
        write!(
            f,
            "{classes}: {train} train, {val} val, {test} test; {grey} grey; {bytes}"
        )
    }
}

/// Reason why no set was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The number of classes is 0, or more than there are.
    #[error("{got} classes asked for, expected 1 to {MAX_CLASSES}")]
    Classes {
        /// The requested number.
        got: u32,
    },
    /// The directory cannot be made.
    #[error(transparent)]
    Directory(#[from] AtomicDirError),
    /// The output could not be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The encoder failed.
    #[error("cannot encode a JPEG: {0}")]
    Encode(#[from] turbojpeg::Error),
    /// The threads could not be started.
    #[error("cannot start the threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Writes a set to `dir`, which appears whole or not at all, also after a loss of power.
///
/// # Errors
/// `dir` exists and is not empty, or the set cannot be written.
pub fn write(dir: &Path, config: &Config, observer: &mut dyn Observer) -> Result<SampleReport> {
    if !(1..=MAX_CLASSES).contains(&config.classes) {
        return Err(Error::Classes {
            got: config.classes,
        });
    }
    let output = AtomicDir::create(dir)?;
    let pool = threads::pool(config.threads)?;
    let classes: Vec<SampleClass> = (0..config.classes as usize).map(SampleClass::nth).collect();
    let in_all = |per_class: u32| u64::from(per_class) * u64::from(config.classes);
    let report = SampleReport {
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
    let result = artist.draw_set(output.path(), config);
    artist.observer.on(&Event::End);
    result?;
    let report = artist.report;
    output.publish()?;
    Ok(report)
}

/// The number of `split` in the random stream of its pictures.
fn stream_number(split: Split) -> u64 {
    match split {
        Split::Train => 0,
        Split::Val => 1,
        Split::Test => 2,
    }
}

/// Identity of a picture, which together with the seed determines it.
struct Subject {
    split: Split,
    class: usize,
    /// Its number among the pictures of its split and class.
    index: usize,
}

/// Draws pictures and counts them.
struct Artist<'a> {
    classes: &'a [SampleClass],
    seed: u64,
    pool: ThreadPool,
    observer: &'a mut dyn Observer,
    report: SampleReport,
    drawn: u64,
}

impl Artist<'_> {
    fn draw_set(&mut self, root: &Path, config: &Config) -> Result<()> {
        let classes = self.classes;
        let wnids: Vec<String> = classes.iter().map(SampleClass::wnid).collect();
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

        // Pictures of val and test cycle through the classes.
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
        let labelled = wnids.iter().cycle().zip(boxes).enumerate();
        let lines = labelled.map(|(i, (wnid, bounds))| format!("val_{i}.JPEG\t{wnid}\t{bounds}\n"));
        write_text(&folder.join("val_annotations.txt"), lines)?;

        let folder = root.join("test").join("images");
        self.draw(&folder, "test", config.test as usize, subject(Split::Test))?;
        Ok(())
    }

    /// Writes the pictures `prefix_0` to `prefix_(count - 1)` to `folder`, and returns their boxes.
    fn draw(
        &mut self,
        folder: &Path,
        prefix: &str,
        count: usize,
        subject: impl Fn(usize) -> Subject + Sync,
    ) -> Result<Vec<Bounds>> {
        fs::create_dir_all(folder).map_err(output_error(folder))?;
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
                    let draws = Draws::new(seed, Stream::Sample, stream_number(split))
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

/// Properties of a picture that was written.
struct Drawn {
    bounds: Bounds,
    grey: bool,
    bytes: u64,
}

/// Paints `scene` and writes it to `path`. Creates the encoder on first use.
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
    fs::write(path, &jpeg).map_err(output_error(path))?;
    Ok(Drawn {
        bounds: picture.bounds,
        grey: scene.grey,
        bytes: jpeg.len() as u64,
    })
}

/// The words of every possible class, sorted, as the real file lists all of WordNet.
fn words() -> impl Iterator<Item = String> {
    let mut lines: Vec<_> = (0..MAX_CLASSES as usize)
        .map(SampleClass::nth)
        .map(|class| format!("{}\t{class}\n", class.wnid()))
        .collect();
    lines.sort();
    lines.into_iter()
}

fn write_text(path: &Path, lines: impl Iterator<Item = String>) -> Result<()> {
    Ok(fs::write(path, lines.collect::<String>()).map_err(output_error(path))?)
}
