//! The cached set of a compressed one: named by the digest of the raw manifest, so that copies of a set share
//! one.

use std::path::{Path, PathBuf};

use tinyres_format::Manifest;

use super::{Error, Place, Result};
use crate::event::{Event, Observer};
use crate::scratch::output_error;
use crate::text::Bytes;
use crate::transport;

/// The directory of the raw shards of the compressed set in `dir`, whose manifest is `manifest`.
pub(super) fn ready(
    dir: &Path,
    manifest: Manifest,
    cache: Option<&Path>,
    watch: &mut dyn Observer,
) -> Result<PathBuf> {
    let no_cache = || Error::NoCache {
        path: dir.to_owned(),
        instead: "expand",
    };
    let place = Place::of_set(cache.ok_or_else(no_cache)?, &manifest)?;
    let raw = Manifest {
        transport: None,
        ..manifest
    };
    let holds = || place.whole().is_some_and(|there| there == raw);
    let shown = |what: &str| {
        let (dir, place) = (dir.display(), place.dir.display());
        format!("{dir}: compressed for transport; {what} {place}")
    };
    let reuse =
        |watch: &mut dyn Observer| place.found(watch, shown("using the shards expanded to"));
    if holds() {
        return Ok(reuse(watch));
    }
    let locked = place.lock(watch, shown("another tinyres is expanding it to"))?;
    // Another process may have made it before this one got the lock.
    if holds() {
        return Ok(reuse(watch));
    }
    let bytes = Bytes(raw.shards().map(|shard| shard.bytes).sum());
    watch.on(&Event::Notice(format!(
        "{} ({bytes}, once; `tinyres cache --clear` frees the space)",
        shown("expanding it to")
    )));
    // The set there is damaged.
    locked.remove().map_err(output_error(&place.dir))?;
    transport::expand(dir, Some(&place.dir), watch)?;
    locked.record(&dir.canonicalize().unwrap_or_else(|_| dir.to_owned()))?;
    Ok(place.dir.clone())
}
