//! One file for each command: what was typed, and how its result is shown.

pub mod doctor;
pub mod eval;
pub mod export;
pub mod predict;
pub mod train;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use strum::VariantNames;
use tinyres::transport;
use tinyres::ui::Ui;
use tinyres_format::Split;
use tinyres_load::{Dataset, Verify};

/// What the help of each command that maps shards says of them.
pub const MAPPED: &str = "\
The shards are mapped, not read: nobody may write to or truncate them meanwhile. `tinyres pack`
never does; copying another file over a shard in use would.";

/// A parser of the names of `T`, which help and errors then list.
pub fn name_of<T>() -> impl TypedValueParser<Value = T>
where
    T: Clone + FromStr<Err: std::error::Error> + Send + Sync + VariantNames + 'static,
{
    PossibleValuesParser::new(T::VARIANTS)
        .map(|name| name.parse().expect("strum parses the names it lists"))
}

/// The directory of raw shards to open for `shards`: another one where these are compressed.
pub fn ready(shards: &Path, ui: &mut Ui) -> transport::Result<PathBuf> {
    transport::ready(shards, transport::cache_dir().as_deref(), ui)
}

/// Opens a split of a directory of raw shards.
#[expect(unsafe_code, reason = "the command's help states the rule of the map")]
pub fn open(dir: &Path, split: Split, verify: Verify) -> tinyres_load::Result<Dataset> {
    // SAFETY: that nobody writes to or truncates the shards is the rule that `--help` gives whoever
    // calls the command; nothing in tinyres does.
    unsafe { Dataset::open(dir, split, verify) }
}
