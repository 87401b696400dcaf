//! One file for each command: its arguments, and how its result is printed. The work itself is the library's.

pub mod doctor;
pub mod eval;
pub mod export;
mod flags;
mod pictures;
pub mod predict;
mod progress;
mod ranked;
mod sparkline;
mod stop;
pub mod train;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use strum::VariantNames;
use tinyres::cache;
use tinyres::ui::Ui;
use tinyres_format::Split;
use tinyres_load::{Dataset, Verify};
use tinyres_torch::infer::foreign::{AnyWeights, Assumed, read_classes};
use tinyres_torch::ranks::Launch;
use tinyres_torch::run::checkpoint::Checkpoint;

/// The part of the help of each command that maps shards: the rule that keeps the map sound.
pub const MAPPED: &str = "\
The shards are mapped into memory: no program may write to or truncate them
while the command runs. `tinyres pack` never does; copying another file over a
shard in use does.";

/// A parser of the names of `T`, which help and errors then list.
pub fn name_of<T>() -> impl TypedValueParser<Value = T>
where
    T: Clone + FromStr<Err: std::error::Error> + Send + Sync + VariantNames + 'static,
{
    PossibleValuesParser::new(T::VARIANTS)
        .map(|name| name.parse().expect("strum parses the names it lists"))
}

/// The directory of raw shards for `path`: the same one, or one in the cache for a source and for compressed
/// shards. The set must have the splits `needed`.
pub fn ready(path: &Path, needed: &[Split], ui: &mut Ui) -> cache::Result<PathBuf> {
    cache::ready(path, needed, cache::cache_dir().as_deref(), ui)
}

/// The weights in `path`, `FILE` or `FILE#KEY`. For weights of another program, `classes` is a file of classes,
/// and `side` the side of the images.
pub fn described(
    path: &Path,
    classes: Option<&Path>,
    side: Option<u32>,
    ui: &mut Ui,
) -> anyhow::Result<Checkpoint> {
    let weights = AnyWeights::read(path)?;
    if let (Some(file), AnyWeights::Own(_)) = (classes, &weights) {
        anyhow::bail!(
            "{} has classes of its own: leave out --classes {}",
            path.display(),
            file.display()
        );
    }
    let origin = |file: &Path| format!("as in {}", file.display());
    let named = classes.map(|file| Ok::<_, anyhow::Error>((read_classes(file)?, origin(file))));
    let classes = named.transpose()?;
    Ok(weights.describe(Assumed { classes, side }, ui)?)
}

/// Refuses to run as one of several processes, which `command` does not divide its work among.
pub fn expect_alone(command: &str) -> anyhow::Result<()> {
    match Launch::from_env()? {
        None => Ok(()),
        Some(launch) => anyhow::bail!(
            "`tinyres {command}` runs as one process, but {} says that this is one of {}: start it by itself, without the launcher",
            launch.launcher,
            launch.size
        ),
    }
}

/// Opens a split of a directory of raw shards.
#[expect(unsafe_code, reason = "the command's help states the rule of the map")]
pub fn open(dir: &Path, split: Split, verify: Verify) -> tinyres_load::Result<Dataset> {
    // SAFETY: nothing in tinyres writes to or truncates a shard in place, and `--help` of each command
    // tells the user that no other program may.
    unsafe { Dataset::open(dir, split, verify) }
}
