//! A cache of expanded sets, so that readers of raw shards can use a set in its transport form. Each set
//! is expanded once, to a directory named by the digest of its manifest. Nothing here ever evicts a set.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tinyres_format::transport::ReadAt;
use tinyres_format::{Digest, MANIFEST, Manifest, PAGE, publish};

use super::expand::{Expansion, lock};
use super::{Error, Result};
use crate::event::{Event, Observer};
use crate::scratch::output_error;
use crate::text::Bytes;

/// Interval between two checks whether another process has finished.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The directory for expanded sets: `TINYRES_CACHE`, or `tinyres` in the user's cache directory.
#[must_use]
pub fn cache_dir() -> Option<PathBuf> {
    let dir = |name| std::env::var_os(name).filter(|dir| !dir.is_empty());
    let user = || {
        let cache = dir("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || Some(PathBuf::from(dir("HOME")?).join(".cache"));
        Some(cache.or_else(home)?.join("tinyres"))
    };
    dir("TINYRES_CACHE").map(PathBuf::from).or_else(user)
}

/// Returns a directory with the raw shards of the set in `dir`: `dir` itself if they are raw, otherwise
/// a directory below `cache`, to which the set is expanded if it has not been before.
///
/// An expanded set is used again if its manifest is the expected one and each shard has the stated
/// length and header page. Readers check the rest, as in any set. If another process is expanding the
/// set, waits for it.
///
/// # Errors
/// There is no set in `dir`, no cache directory, or the set could not be expanded.
pub fn ready(dir: &Path, cache: Option<&Path>, watch: &mut dyn Observer) -> Result<PathBuf> {
    let manifest = Manifest::load_any(dir)?;
    if manifest.transport.is_none() {
        return Ok(dir.to_owned());
    }
    let raw = Manifest {
        transport: None,
        ..manifest
    };
    let name = format!("{:.32}", Digest::of(&raw.to_json()?).to_string());
    let place = cache.ok_or(Error::NoCache)?.join("shards").join(name);
    let shown = |what: &str| {
        let (dir, place) = (dir.display(), place.display());
        format!("{dir}: compressed for transport; {what} {place}")
    };
    let mut waited = false;
    loop {
        if holds(&place, &raw) {
            watch.on(&Event::Notice(shown("using the shards expanded to")));
            return Ok(place);
        }
        let Some(lock) = lock(&place, watch)? else {
            if !waited {
                watch.on(&Event::Notice(shown("another tinyres is expanding it to")));
            }
            waited = true;
            std::thread::sleep(POLL_INTERVAL);
            continue;
        };
        if holds(&place, &raw) {
            continue;
        }
        let bytes = Bytes(raw.shards().map(|shard| shard.bytes).sum());
        watch.on(&Event::Notice(format!(
            "{} ({bytes}, once; to free the space, remove that directory)",
            shown("expanding it to")
        )));
        // The old copy is damaged. Without its manifest it is not a set while it is replaced.
        let old = place.join(MANIFEST);
        if old.exists() {
            fs::remove_file(&old).map_err(output_error(&old))?;
            publish::sync_parent(&old).map_err(output_error(&old))?;
        }
        Expansion::new(watch).expand_set(dir, &place, &lock)?;
        return Ok(place);
    }
}

/// Returns whether `place` holds the set of `raw`, without reading the pixels.
fn holds(place: &Path, raw: &Manifest) -> bool {
    let whole = |listed: &tinyres_format::ShardEntry| -> std::io::Result<bool> {
        let file = File::open(place.join(&listed.file))?;
        let mut page = [0; PAGE];
        file.read_exact_at(&mut page, 0)?;
        Ok(ReadAt::len(&file)? == listed.bytes && Digest::of(&page) == listed.digest)
    };
    Manifest::load(place).is_ok_and(|there| there == *raw)
        && raw.shards().all(|listed| whole(listed).unwrap_or(false))
}
