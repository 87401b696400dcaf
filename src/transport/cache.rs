use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tinyres_format::transport::ReadAt;
use tinyres_format::{Digest, MANIFEST, Manifest, PAGE, publish};

use super::expand::{Work, lock, refused};
use super::{Error, Result};
use crate::event::{Event, Observer};
use crate::text::Bytes;

/// How long to wait before looking again whether another process is done.
const PAUSE: Duration = Duration::from_millis(100);

/// Where expanded sets are kept: `TINYRES_CACHE`, or `tinyres` in the user's cache directory.
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

/// The directory to read the set in `dir` from: itself where its shards are raw, and otherwise one
/// below `cache` that the set is expanded to once.
///
/// What is there already is used if it has the manifest that the set has when expanded, and each
/// shard the length and the header page that it states. A reader checks the rest, as ever. Where
/// another process is expanding the set, waits for it.
///
/// # Errors
/// No set, no cache, or why it could not be expanded.
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
        let Some(lock) = lock(&place)? else {
            if !waited {
                watch.on(&Event::Notice(shown("another tinyres is expanding it to")));
            }
            waited = true;
            std::thread::sleep(PAUSE);
            continue;
        };
        if holds(&place, &raw) {
            continue;
        }
        let bytes = Bytes(raw.shards().map(|shard| shard.bytes).sum());
        watch.on(&Event::Notice(format!(
            "{} ({bytes}, once; to be rid of it, remove that directory)",
            shown("expanding it to")
        )));
        // What is there is damaged: no set until it has been expanded again.
        let old = place.join(MANIFEST);
        if old.exists() {
            fs::remove_file(&old).map_err(refused(&old))?;
            publish::sync_parent(&old).map_err(refused(&old))?;
        }
        Work::new(watch).set(dir, &place, &lock)?;
        return Ok(place);
    }
}

/// Whether the set in `place` is the one of `raw`, as far as can be said without reading it all.
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
