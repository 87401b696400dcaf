//! `tinyres pack`: its flags, and how they become settings of [`pack`].

use std::num::NonZeroU32;
#[cfg(feature = "remote")]
use std::path::Path;
use std::path::PathBuf;

#[cfg(feature = "remote")]
use anyhow::Context as _;
use clap::Args as _;
use clap::error::ErrorKind;
use tinyres_format::transport::Level;

#[cfg(feature = "remote")]
use crate::cache;
use crate::pack::{self, Config, Resize, SkipBad};
#[cfg(feature = "remote")]
use crate::remote;
use crate::source::{self, Source};
use crate::ui::Ui;

/// Pack a directory, zip, tar or tar.gz of labelled images into shards
///
/// Takes the layout of Tiny ImageNet (wnids.txt, train/WNID/images/, boxes and all) or class folders
/// (train/CLASS/*.jpg, val/CLASS/*.jpg, or CLASS/*.jpg alone), or ImageNet's (Kaggle's zip, or
/// ILSVRC/Data and Annotations with the boxes): JPEG, PNG, WebP, GIF, BMP, TIFF
/// and PNM. Archives are read
/// without unpacking them; .tar.gz and .tar.zst go through a temporary file in TMPDIR. Also takes Parquet
/// files of the Hugging Face Hub, CIFAR-10 and CIFAR-100 as published, Downsampled ImageNet (ImageNet 64x64 and
/// such), WebDataset (a tar or a directory of shards), and .npz files of images and labels as MedMNIST and Keras have them. The
/// shards hold every pixel as Pillow decodes it, turned upright where EXIF says so, and their bytes do not
/// depend on the number of threads.
///
/// An address, http://, https:// or hf://datasets/OWNER/NAME of the Hugging Face Hub (its Parquet files; @REVISION and
/// /PATH where needed), is fetched to the cache once. If the transfer breaks off, the same command goes on. HF_TOKEN
/// opens data sets that ask for a login, HF_ENDPOINT names another server, SSL_CERT_FILE certificates of your own.
///
/// With -o s3://BUCKET/PATH, gs:// or az:// the set is packed in the cache, and then published there, dataset.json last;
/// --force replaces another set there. `tinyres-remote --help` says where credentials come from.
///
/// The set appears in the output directory once all of it is written. A killed pack leaves no set;
/// the same command resumes it and keeps every finished shard whose source files have not changed
/// since, by identity, length, modification and change time. Nobody else may write to the output
/// directory meanwhile.
///
/// Whatever Pillow reads of these is packed with Pillow's pixels, told by its contents, not its name, and
/// of an animation the first frame. The report counts, and --json names, images that became other than a
/// person may expect: damaged JPEGs whose end is there; CMYK, as convert("RGB") gives it; greys of more than
/// 8 bits, cut off at 255. Lossy WebP is decoded by another library than Pillow's; all pictures compared so
/// far were equal. An image may have 178,956,970 pixels. Those of more than 4 million that
/// are decoded at one time have no more than that together, on any number of threads. Each takes 4
/// bytes a pixel, 4 more if it is turned, and up to 8 more while it is decoded.
///
/// If exactly this set is there already, pack writes nothing and succeeds: the fingerprint (names,
/// labels, boxes, sizes, resize, images in a shard), the version of tinyres and the form (raw or
/// compressed) are the same, all shards are whole, and no source file was changed after its shard was
/// written. Of each shard, the pixels of 16 images are compared. Another set, or a damaged one, is replaced only with --force.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directory, zip, tar, tar.gz, tar.zst, .npz or Parquet file to read, or an address of one
    source: PathBuf,
    /// Directory for the shards, created if missing, or an address in an object store
    #[arg(short, long, value_name = "DIR|ADDRESS", default_value = "shards")]
    output: PathBuf,
    /// Resize to this width and height: resize the shorter side, keep the middle of the longer one
    ///
    /// Each pixel becomes the mean of the area that it covers, weighted by a triangle, as torchvision's
    /// Resize and CenterCrop do. Smaller images are enlarged. Boxes are resized, too. Without this flag,
    /// all images must be squares of one size, and keep every pixel.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    size: Option<u32>,
    /// With --size: stretch the whole image instead of keeping its middle
    #[arg(long, requires = "size")]
    squash: bool,
    /// Hold out this fraction of train as val, chosen by a hash of each name: 0.1 takes about a tenth
    ///
    /// The choice depends on an image's own name alone, so images that are added later move no other.
    #[arg(long, value_name = "FRACTION", value_parser = fraction)]
    val_fraction: Option<f64>,
    /// Images in a shard
    #[arg(long, value_name = "N", default_value_t = pack::SHARD_IMAGES)]
    shard_images: NonZeroU32,
    /// Decoding threads [default: one a core]; if fewer than the cores, one more thread writes
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Leave out images that cannot be decoded, and record them, instead of failing; at most half of a
    /// split, or N% of it
    ///
    /// It is an error if that leaves a split without an image, or a class without one in train.
    #[arg(long, value_name = "N%", num_args = 0..=1, require_equals = true, default_missing_value = "50%", value_parser = percent)]
    skip_bad: Option<SkipBad>,
    /// Replace a finished set in the output directory, even by the same one, or shards without a dataset.json
    #[arg(long)]
    force: bool,
    /// Compress the shards to move or keep them, at a level from 1 (fast) to 22 (small); `tinyres
    /// expand` makes them raw again. Takes about 40 MB more memory, at level 19 about 6 MB for each
    /// thread
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, require_equals = true, default_missing_value = "3", value_parser = level)]
    zstd: Option<Level>,
}

const EXAMPLES: &str = "\
Examples:
  tinyres pack tiny-imagenet-200.zip -o /data/shards --threads 4
  tinyres pack tiny-imagenet-200.zip --zstd -o /mnt/usb/shards
  tinyres pack https://example.org/tiny-imagenet-200.zip
  tinyres pack hf://datasets/zh-plus/tiny-imagenet
  tinyres pack cifar-10-python.tar.gz --val-fraction 0.1
  tinyres pack imagenette2-160.tgz --size 128
  tinyres pack tiny-imagenet-200.zip --zstd -o s3://bucket/tiny-imagenet
  tinyres pack hub/tiny-imagenet                      data/train-*.parquet of the Hugging Face Hub
  tinyres pack photos --size 64 --squash --skip-bad --json | jq .refused";

fn fraction(text: &str) -> Result<f64, String> {
    let fraction = text.parse().map_err(|_| "not a number".to_owned())?;
    if 0.0 < fraction && fraction < 1.0 {
        Ok(fraction)
    } else {
        Err("expected more than 0 and less than 1".to_owned())
    }
}

fn percent(text: &str) -> Result<SkipBad, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse();
    let percent = number.ok().and_then(SkipBad::percent);
    percent.ok_or_else(|| "expected 0% to 100%".to_owned())
}

fn level(text: &str) -> Result<Level, String> {
    let number = text.parse().map_err(|_| "not a number".to_owned())?;
    Level::new(number).map_err(|error| error.to_string())
}

pub fn run(args: Args, ui: &mut Ui) -> anyhow::Result<()> {
    #[cfg(feature = "remote")]
    let args = Args {
        source: remote::local(&args.source, cache::cache_dir().as_deref(), ui)?.into_owned(),
        ..args
    };
    let mut source = Source::open(&args.source)?;
    if let Some(fraction) = args.val_fraction {
        match source.hold_out(fraction) {
            // A usage error, although only the source tells.
            Err(error @ source::Error::HasVal { .. }) => {
                let mut command = Args::augment_args(clap::Command::new("tinyres pack"));
                command.error(ErrorKind::ArgumentConflict, error).exit()
            }
            held => held?,
        }
    }
    let config = Config {
        output: args.output,
        shard_images: args.shard_images,
        resize: args.size.and_then(NonZeroU32::new).map(|side| Resize {
            side,
            squash: args.squash,
        }),
        threads: args.threads,
        skip_bad: args.skip_bad,
        force: args.force,
        zstd: args.zstd,
    };
    #[cfg(feature = "remote")]
    if let Some(address) = remote::store_address(&config.output)? {
        let report = publish(address, &source, &config, ui)?;
        return Ok(ui.result(&report)?);
    }
    let report = pack::pack(&source, &config, ui)?;
    Ok(ui.result(&report)?)
}

/// Packs `source` to the cache, and publishes the set at `address`. A set that could not be published stays there for the
/// same command.
#[cfg(feature = "remote")]
fn publish(
    address: &str,
    source: &Source,
    config: &Config,
    ui: &mut Ui,
) -> anyhow::Result<pack::PackReport> {
    let cache = cache::cache_dir().context("no cache directory is known: set TINYRES_CACHE")?;
    let place = cache::Place::outgoing(&cache, address);
    let dir = place.dir();
    let locked = place.lock(
        ui,
        format!(
            "{address}: another tinyres is packing it in {}",
            dir.display()
        ),
    )?;
    let local = Config {
        output: dir.to_owned(),
        force: false,
        ..config.clone()
    };
    let packed = match pack::pack(source, &local, ui) {
        // A set that another command could not publish.
        Err(pack::Error::Occupied { .. } | pack::Error::Leftover { .. }) => {
            let local = Config {
                force: true,
                ..local
            };
            pack::pack(source, &local, ui)
        }
        packed => packed,
    }?;
    locked.record(Path::new(address))?;
    remote::publish(dir, address, config.force, ui)?;
    locked.discard()?;
    Ok(pack::PackReport {
        output: PathBuf::from(address),
        ..packed
    })
}
