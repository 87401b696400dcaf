//! Lists and empties the cache.

use std::cmp::Reverse;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::{Locked, OUTGOING, Place, Record, Result, SHARDS, SOURCES};
use crate::scratch::{lock_directory, output_error};
use crate::text::{Bytes, Count, counted};

const DAY: u64 = 24 * 60 * 60;

/// Sets and fetched sources of the cache, those used last first.
#[derive(Clone, Debug, Serialize)]
pub struct CacheReport {
    /// The directory of the cache.
    pub dir: PathBuf,
    /// The sets and sources that are there, or that were removed.
    pub sets: Vec<CachedSet>,
    /// Length of all their files in bytes.
    pub bytes: u64,
    /// True if they were removed.
    pub removed: bool,
}

/// A set of the cache, or a source that was fetched.
#[derive(Clone, Debug, Serialize)]
pub struct CachedSet {
    /// Kind of its content.
    pub kind: Kind,
    /// Its directory.
    pub dir: PathBuf,
    /// The source or the compressed set that it was made of, or the address that it was fetched from, if that is recorded.
    pub origin: Option<String>,
    /// Number of its images; `None` for a source, and if it is unfinished or damaged.
    pub images: Option<u64>,
    /// Length of its files in bytes.
    pub bytes: u64,
    /// Whole days since it was used.
    pub unused_days: u64,
}

/// Kind of what the cache keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Raw shards.
    Shards,
    /// A source.
    Source,
}

/// The directories of sets, or of what `kind` says, in `cache`, finished or not.
pub(super) fn places(cache: &Path, kind: &str) -> Result<Vec<Place>> {
    let dir = cache.join(kind);
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(output_error(&dir))?,
    };
    let mut places = Vec::new();
    for entry in entries {
        let entry = entry.map_err(output_error(&dir))?;
        // Names as `Place::new` makes them, so that nothing else is ever removed.
        let is_hex = |name: &str| name.len() == 32 && name.bytes().all(|at| at.is_ascii_hexdigit());
        if entry.file_name().to_str().is_some_and(is_hex) {
            places.push(Place { dir: entry.path() });
        }
    }
    Ok(places)
}

/// The sets in `cache` that were not used for `unused` days.
///
/// # Errors
/// The cache cannot be read.
pub fn list(cache: &Path, unused: u64) -> Result<CacheReport> {
    let sets = all(cache)?.into_iter().map(|(_, set)| set);
    let sets: Vec<_> = sets.filter(|set| set.unused_days >= unused).collect();
    Ok(CacheReport {
        dir: cache.to_owned(),
        bytes: sets.iter().map(|set| set.bytes).sum(),
        sets,
        removed: false,
    })
}

/// All that is in `cache`, with the time of its last use, those used last first.
pub(super) fn all(cache: &Path) -> Result<Vec<(SystemTime, CachedSet)>> {
    let mut sets = Vec::new();
    let mut all = Vec::new();
    for (kind, dir) in [
        (Kind::Shards, SHARDS),
        (Kind::Shards, OUTGOING),
        (Kind::Source, SOURCES),
    ] {
        all.extend(places(cache, dir)?.into_iter().map(|place| (kind, place)));
    }
    for (kind, place) in all {
        match describe(kind, &place) {
            Ok(set) => sets.push(set),
            // Another process has just removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(output_error(&place.dir)(error).into()),
        }
    }
    sets.sort_by_key(|(used, _)| Reverse(*used));
    Ok(sets)
}

/// Removes the sets in `cache` that were not used for `unused` days, except those that another process is
/// making. Runs that map a set go on.
///
/// # Errors
/// The cache cannot be read, or a set cannot be removed.
pub fn clear(cache: &Path, unused: u64) -> Result<CacheReport> {
    let all = list(cache, unused)?;
    let mut sets = Vec::new();
    for set in all.sets {
        let place = Place {
            dir: set.dir.clone(),
        };
        if remove(&place)? {
            sets.push(set);
        }
    }
    super::addresses::forget(cache)?;
    Ok(CacheReport {
        bytes: sets.iter().map(|set| set.bytes).sum(),
        sets,
        removed: true,
        ..all
    })
}

/// Removes what is in `place`, with the remains of a killed process. False if another process is making it.
pub(super) fn remove(place: &Place) -> Result<bool> {
    let lock = lock_directory(&place.dir).map_err(output_error(&place.dir))?;
    let Some(lock) = lock else {
        return Ok(false);
    };
    let locked = Locked { place, _lock: lock };
    locked.discard().map(|()| true)
}

/// The set or source in `place`, and when it was used last.
fn describe(kind: Kind, place: &Place) -> io::Result<(SystemTime, CachedSet)> {
    let record = fs::read(place.record()).unwrap_or_default();
    let record = serde_json::from_slice::<Record>(&record).ok();
    let last = fs::metadata(place.record()).or_else(|_| fs::metadata(&place.dir))?;
    let used = last.modified()?;
    let unused = used.elapsed().unwrap_or_default();
    let manifest = place.whole();
    let set = CachedSet {
        kind,
        dir: place.dir.clone(),
        origin: record.map(|record| record.origin),
        images: manifest.map(|set| set.splits.iter().map(|split| split.images).sum()),
        bytes: length(&place.dir)?,
        unused_days: unused.as_secs() / DAY,
    };
    Ok((used, set))
}

/// Length of all files below `dir` in bytes. Ignores what another process removes meanwhile.
fn length(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let length = match entry.metadata() {
            Ok(file) if file.is_dir() => length(&entry.path()),
            file => file.map(|file| file.len()),
        };
        match length {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            length => sum += length?,
        }
    }
    Ok(sum)
}

impl fmt::Display for CacheReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dir, bytes) = (self.dir.display(), Bytes(self.bytes));
        if !self.sets.is_empty() {
            writeln!(f, "    images       size  last used     made of")?;
        }
        for set in &self.sets {
            let images = match (set.kind, set.images) {
                (Kind::Source, _) => "source".to_owned(),
                (Kind::Shards, Some(images)) => Count(images).to_string(),
                (Kind::Shards, None) => "unfinished".to_owned(),
            };
            let used = match set.unused_days {
                0 => "today".to_owned(),
                1 => "yesterday".to_owned(),
                days => format!("{} days ago", Count(days)),
            };
            let origin = set.origin.as_deref().unwrap_or("not recorded");
            writeln!(
                f,
                "{images:>10}  {:>9}  {used:<12}  {origin}",
                Bytes(set.bytes)
            )?;
        }
        let of = |kind| self.sets.iter().filter(|set| set.kind == kind).count();
        let mut sets = counted(of(Kind::Shards), "set");
        if of(Kind::Source) > 0 {
            sets += &format!(" and {}", counted(of(Kind::Source), "source"));
        }
        match self.removed {
            true => write!(f, "removed {sets}, {bytes}, from {dir}"),
            false => write!(f, "{sets}, {bytes}, in {dir}"),
        }
    }
}
