//! The cached set of a source: packed as by `tinyres pack` without flags, and named by the state of the source.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};
use tinyres_format::{Digest, Manifest, Split};

use super::{Error, Place, Result};
use crate::event::{Event, Observer};
use crate::pack::{self, Config};
use crate::source::{self, Source, Stamp};

/// Time after which every file that was changed before has a settled stamp.
const SETTLING: Duration = Duration::from_secs(3);

/// The directory of the set that the source at `path` is packed to, with the splits `needed`.
pub(super) fn ready(
    path: &Path,
    needed: &[Split],
    cache: Option<&Path>,
    watch: &mut dyn Observer,
) -> Result<PathBuf> {
    let state = State::settled(path)?;
    let no_cache = || Error::NoCache {
        path: path.to_owned(),
        instead: "pack",
    };
    let place = Place::new(cache.ok_or_else(no_cache)?, state.identity);
    let shown = |what: &str| format!("{}: {what} {}", path.display(), place.dir.display());
    // The record is written last, when the source is known to have stayed the same.
    let held = || place.whole().filter(|_| place.record().exists());
    let reuse = |set: Manifest, watch: &mut dyn Observer| {
        let splits = set.splits.iter().map(|split| split.split);
        check_splits(path, splits, needed, None)?;
        Ok(place.found(watch, shown("using the shards packed to")))
    };
    if let Some(set) = held() {
        return reuse(set, watch);
    }
    let locked = place.lock(watch, shown("another tinyres is packing it to"))?;
    // Another process may have made it before this one got the lock.
    if let Some(set) = held() {
        return reuse(set, watch);
    }
    let source = match state.source {
        Some(source) => source,
        None => open(path)?,
    };
    let splits = source.splits.iter().map(|(split, _)| *split);
    check_splits(path, splits, needed, source.fraction_to_hold_out())?;
    watch.on(&Event::Notice(format!(
        "{}, once; `{}` packs it to a directory of your own, and `tinyres cache --clear` frees the space",
        shown("packing it to"),
        super::error::pack_command(path, "")
    )));
    let config = Config {
        output: place.dir.clone(),
        shard_images: pack::SHARD_IMAGES,
        resize: None,
        threads: 0,
        skip_bad: None,
        // A set that is there is damaged, or its pack was killed before its record was written.
        force: true,
        zstd: None,
    };
    let report = pack::pack(&source, &config, watch).map_err(|error| Error::Pack {
        path: path.to_owned(),
        error: Box::new(error),
    })?;
    if State::read(path)?.identity != state.identity {
        // A failure is ignored: without a record the set is not used.
        let _ = locked.remove();
        return Err(Error::Changed {
            path: path.to_owned(),
        });
    }
    locked.record(&state.path)?;
    watch.on(&Event::Notice(report.to_string()));
    Ok(place.dir.clone())
}

/// The first set in `cache` that has this fingerprint and that `open` accepts, opened. Finds the set that a
/// source was packed to although the source has changed since, or is gone.
pub fn find<T>(
    cache: &Path,
    fingerprint: Digest,
    mut open: impl FnMut(&Path) -> Option<T>,
    watch: &mut dyn Observer,
) -> Option<T> {
    let places = super::list::places(cache, super::SHARDS).ok()?;
    places.into_iter().find_map(|place| {
        let same = |set: Manifest| set.fingerprint == fingerprint;
        if !place.record().exists() || !place.whole().is_some_and(same) {
            return None;
        }
        let set = open(&place.dir)?;
        place.found(
            watch,
            format!("using the shards in {}", place.dir.display()),
        );
        Some(set)
    })
}

/// Checks that the splits `needed` are present. `fraction` of train can be held out as val.
fn check_splits(
    path: &Path,
    present: impl Iterator<Item = Split>,
    needed: &[Split],
    fraction: Option<f64>,
) -> Result<()> {
    let present: Vec<_> = present.collect();
    match needed.iter().find(|split| !present.contains(split)) {
        None => Ok(()),
        Some(&split) => Err(Error::NoSplit {
            path: path.to_owned(),
            split,
            present,
            fraction,
        }),
    }
}

fn open(path: &Path) -> Result<Source> {
    Source::open(path).map_err(|error| Error::Source {
        path: path.to_owned(),
        error: Box::new(error),
    })
}

/// All that the set of a source depends on, at one moment.
struct State {
    /// The source, as an absolute path without links.
    path: PathBuf,
    /// Digest of path, listing, labels, boxes and the stamps of all files; of a single file, of path and stamp.
    identity: Digest,
    /// False if a file was changed so recently that another change might not show.
    settled: bool,
    /// A directory's source, whose listing is a part of the identity.
    source: Option<Source>,
}

impl State {
    /// The state when no file was changed in the last two seconds. Waits for that, but not twice: a clock that
    /// is behind the file system's would never come to it.
    fn settled(path: &Path) -> Result<Self> {
        let state = Self::read(path)?;
        if state.settled {
            return Ok(state);
        }
        std::thread::sleep(SETTLING);
        Self::read(path)
    }

    fn read(path: &Path) -> Result<Self> {
        let unreadable = |reason| Error::Source {
            path: path.to_owned(),
            error: Box::new(source::Error::Open {
                path: path.to_owned(),
                reason,
            }),
        };
        let real = path.canonicalize().map_err(unreadable)?;
        let mut hash = Sha256::new();
        hash.update(pack::creator());
        hash.update([0]);
        hash.update(real.as_os_str().as_bytes());
        hash.update([0]);
        let (source, stamps) = match real.is_dir() {
            false => (None, vec![Stamp::of_file(&real).map_err(unreadable)?]),
            true => {
                let source = open(path)?;
                hash.update(pack::listing(&source).to_string());
                let items: Vec<_> = source.splits.iter().flat_map(|(_, items)| items).collect();
                let stamps: std::io::Result<Vec<_>> = (items.par_iter())
                    .filter_map(|item| source.stamp(item).transpose())
                    .collect();
                let stamps = stamps.map_err(unreadable)?;
                (Some(source), stamps)
            }
        };
        for stamp in &stamps {
            // Numbers of devices change when a machine starts again.
            hash.update(stamp.without_device().to_bytes());
        }
        Ok(Self {
            path: real,
            identity: Digest::from(<[u8; 32]>::from(hash.finalize())),
            settled: stamps.iter().all(Stamp::is_settled),
            source,
        })
    }
}
