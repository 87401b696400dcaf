//! One file for each command: what was typed, and how its result is shown.

pub mod cache;
pub mod compare;
pub mod completions;
pub mod expand;
pub mod inspect;
pub mod man;
pub mod pack;
pub mod program;
pub mod report;
pub mod runs;
pub mod sample;
pub mod unpack;
pub mod view;

use std::borrow::Cow;
use std::path::Path;

#[cfg(feature = "remote")]
use crate::remote;
use crate::ui::Ui;

/// The set at `path`: `path` itself, or the directory in the cache of a set that lies in an object store.
#[cfg(feature = "remote")]
fn set<'a>(path: &'a Path, ui: &mut Ui) -> anyhow::Result<Cow<'a, Path>> {
    match remote::set_address(path) {
        None => Ok(Cow::Borrowed(path)),
        Some(_) => Ok(remote::local(
            path,
            crate::cache::cache_dir().as_deref(),
            ui,
        )?),
    }
}

/// The set at `path`: `path` itself.
#[cfg(not(feature = "remote"))]
#[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
fn set<'a>(path: &'a Path, _: &mut Ui) -> anyhow::Result<Cow<'a, Path>> {
    Ok(Cow::Borrowed(path))
}

/// Maps and opens the shard at `path`: where the commands of `tinyres` take the risk of a map.
fn map(path: &Path) -> tinyres_format::Result<tinyres_format::Shard<tinyres_format::Map>> {
    #[expect(unsafe_code, reason = "only the user can keep others off the file")]
    // SAFETY: the help of each command that comes here asks that nobody write to the shard
    // meanwhile, and tinyres itself renames finished files into place.
    unsafe {
        tinyres_format::map(path)
    }
}
