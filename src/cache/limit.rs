//! A limit of the cache: makes room for a set that is about to come, by removing what was used longest ago.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use super::list::{all, remove};
use super::{Error, POLL_INTERVAL, Place, Result};
use crate::event::{Event, Observer};
use crate::scratch::output_error;
use crate::text::Bytes;

/// A set that was used so recently is spared: a program that was told its path may be about to open it.
const FRESH: Duration = Duration::from_secs(60);

/// The right to take the room that [`reserve`] made, until this is dropped. Others that want room wait.
#[derive(Debug)]
pub struct Reserved(#[allow(dead_code, reason = "its lock ends with it")] File);

/// Makes room in `cache`, so that all that is in it and `needed` more bytes for `place` are at most `limit` bytes.
/// Removes what was used longest ago first, but nothing that is in use. The processes of a host do this one after the
/// other: the caller takes its room, in files of their final length, before it drops what this returns.
///
/// # Errors
/// [`Error::Limit`]: not so much can be removed. [`Error::Output`]: the cache cannot be read or written.
pub fn reserve(
    cache: &Path,
    place: &Place,
    needed: u64,
    limit: u64,
    watch: &mut dyn Observer,
) -> Result<Reserved> {
    let path = cache.join("room.lock");
    let open = || {
        fs::create_dir_all(cache)?;
        File::options().create(true).append(true).open(&path)
    };
    let lock = open().map_err(output_error(&path))?;
    while let tinyres_format::publish::Lock::Busy =
        tinyres_format::publish::lock(&lock).map_err(output_error(&path))?
    {
        std::thread::sleep(POLL_INTERVAL);
    }
    let sets = all(cache)?;
    let others = sets.iter().filter(|(_, set)| set.dir != place.dir);
    let mut taken: u64 = others.clone().map(|(_, set)| set.bytes).sum();
    for (used, set) in others.rev() {
        if taken.saturating_add(needed) <= limit {
            break;
        }
        let old = Place {
            dir: set.dir.clone(),
        };
        let fresh = used.elapsed().unwrap_or_default() < FRESH;
        let removed = !fresh && !is_held(&old) && remove(&old)?;
        if removed {
            taken -= set.bytes;
            watch.on(&Event::Notice(format!(
                "removed {} from the cache, {}: it was used longest ago",
                set.origin.as_deref().unwrap_or("a set"),
                Bytes(set.bytes)
            )));
        }
    }
    match taken.saturating_add(needed) <= limit {
        true => Ok(Reserved(lock)),
        false => Err(Error::Limit {
            cache: cache.to_owned(),
            needed,
            limit,
            in_use: taken,
        }),
    }
}

/// True if a process uses what is in `place`.
fn is_held(place: &Place) -> bool {
    File::open(place.record())
        .is_ok_and(|record| matches!(record.try_lock(), Err(fs::TryLockError::WouldBlock)))
}
