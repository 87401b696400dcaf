//! Errors of the cache. Where a source cannot be packed as it is, they name the `tinyres pack` that can.

use std::path::{Path, PathBuf};

use tinyres_format::{Refused, Split};

use crate::scratch::OutputError;
use crate::text::{Bytes, shell_word};
use crate::{pack, source, transport};

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Reason why there are no raw shards of a path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path is neither a set of shards nor a source.
    #[error("{}{error}", not_a_set(path))]
    Source {
        /// The path given.
        path: PathBuf,
        /// Why it cannot be read as a source.
        error: Box<source::Error>,
    },
    /// The source cannot be packed without flags.
    #[error("{error}{}", by_hand(path, error))]
    Pack {
        /// The source.
        path: PathBuf,
        /// Why it cannot be packed.
        error: Box<pack::Error>,
    },
    /// The source lacks a split that is needed.
    #[error("{}: no {split} split, only {}: {}", path.display(), names(present), remedy(path, *split, present, *fraction))]
    NoSplit {
        /// The source.
        path: PathBuf,
        /// The split.
        split: Split,
        /// The splits that it has.
        present: Vec<Split>,
        /// A part of train that can be held out as val, if it is known.
        fraction: Option<f64>,
    },
    /// The source changed while it was packed.
    #[error("{}: changed while it was packed: run this again when nothing writes to it any more", path.display())]
    Changed {
        /// The source.
        path: PathBuf,
    },
    /// No cache directory is known.
    #[error(
        "{}: there is no cache directory to {instead} it to; set TINYRES_CACHE, or run `tinyres {instead} {} -o shards` and name shards",
        path.display(), shell_word(path)
    )]
    NoCache {
        /// The source or compressed set.
        path: PathBuf,
        /// The command that does the same: pack or expand.
        instead: &'static str,
    },
    /// Sets in use leave too little of the cache's limit.
    #[error(
        "{}: {} are needed, but of the limit of {} {} are in use: raise the limit, or wait until the runs that use the sets have ended",
        cache.display(), Bytes(*needed), Bytes(*limit), Bytes(*in_use)
    )]
    Limit {
        /// The directory of the cache.
        cache: PathBuf,
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that the cache may have.
        limit: u64,
        /// Bytes that cannot be removed.
        in_use: u64,
    },
    /// The source cannot be fetched.
    #[cfg(feature = "remote")]
    #[error(transparent)]
    Remote(#[from] crate::remote::Error),
    /// The cache cannot be read or written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A compressed set cannot be expanded.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// The manifest of a set cannot be read.
    #[error(transparent)]
    Format(#[from] tinyres_format::Error),
}

/// The words before the error of a path that is not a source. A directory may have been meant as a set.
fn not_a_set(path: &Path) -> String {
    match path.is_dir() {
        true => format!(
            "{}: not a packed set, since it has no dataset.json, and not a source of images: ",
            path.display()
        ),
        false => String::new(),
    }
}

/// How to pack a source by hand that cannot be packed to the cache.
fn by_hand(path: &Path, error: &pack::Error) -> String {
    let flags = flags(error);
    let command = pack_command(path, &flags);
    match error {
        pack::Error::Output(_) | pack::Error::Format(_) => {
            format!(
                "\nset TINYRES_CACHE to a directory with room, or run `{command}` and name shards"
            )
        }
        _ if flags.is_empty() => String::new(),
        _ => format!(
            "\nonly `tinyres pack` takes flags: run `{command}`, then name shards in place of {}",
            path.display()
        ),
    }
}

/// The flags of `pack`, with a space after each, with which the images of `error` can be packed.
fn flags(error: &pack::Error) -> String {
    let (images, skip) = match error {
        pack::Error::NotSquare { .. } => return "--size 64 ".into(),
        pack::Error::BadImages { images } => (images, "--skip-bad ".to_owned()),
        pack::Error::ManyLeftOut { images, needed, .. } => {
            (images, format!("--skip-bad={needed}% "))
        }
        pack::Error::NoneLeft { images, .. } => (images, String::new()),
        _ => return String::new(),
    };
    let of_size = |bad: &&Refused| bad.reason.contains("--size");
    let sizes = images.first().iter().filter(of_size).count();
    match (sizes, images.first().len() - sizes) {
        (0, _) => skip,
        (_, 0) => "--size 64 ".into(),
        _ => "--size 64 --skip-bad ".into(),
    }
}

fn remedy(path: &Path, split: Split, present: &[Split], fraction: Option<f64>) -> String {
    match split {
        Split::Val if present.contains(&Split::Train) => format!(
            "`{}` holds out a part of train as val; then name shards in place of {}",
            pack_command(
                path,
                &format!("--val-fraction {} ", fraction.unwrap_or(0.1))
            ),
            path.display()
        ),
        _ => "name a source that has one".into(),
    }
}

fn names(splits: &[Split]) -> String {
    let names: Vec<_> = splits.iter().map(|split| split.name()).collect();
    names.join(", ")
}

/// The command that packs `path` to `shards`. `flags` end with a space.
pub(super) fn pack_command(path: &Path, flags: &str) -> String {
    format!("tinyres pack {} {flags}-o shards", shell_word(path))
}
