//! A cache of raw shards, so that training and evaluation can be given any source or a compressed set. A
//! source is packed once, a compressed set expanded once, each to a directory of its own.
//!
//! | in the cache directory | content |
//! |---|---|
//! | `shards/NAME/` | a set of raw shards; `NAME` is a digest of what it was made of |
//! | `shards/NAME.json` | where it came from; its modification time is that of the last use |
//! | `sources/NAME/`, `sources/NAME.json` | the same for a source that was fetched: see [`remote`](crate::remote) |
//! | `outgoing/NAME/`, `outgoing/NAME.json` | the same for a set that is to be published at an address, and then goes |
//! | `addresses/NAME.json` | `dataset.json` of a set in an object store; `NAME` is a digest of its address |
//!
//! A process locks `shards/NAME/` while it fills or removes it. Nothing is removed unless the user asks for it
//! ([`clear`]) or sets a limit ([`reserve`]). A set may be removed while others map its shards: on Linux they keep them.
//! A limit spares what is in use all the same: a process that uses a set has a shared lock on `shards/NAME.json`.

mod addresses;
mod error;
mod expanded;
mod limit;
mod list;
mod packed;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tinyres_format::transport::ReadAt;
use tinyres_format::{Digest, MANIFEST, Manifest, PAGE, ShardEntry, Split, publish, shards_in};

pub use addresses::{manifest_of, record_manifest};
pub use error::{Error, Result};
pub use limit::{Reserved, reserve};
pub use list::{CacheReport, CachedSet, Kind, clear, list};
pub use packed::find;

use crate::event::{Event, Observer};
use crate::scratch::{DirectoryLock, lock_directory, output_error};

/// Interval between two checks whether another process has finished.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The cache directory: `TINYRES_CACHE`, or `tinyres` in the user's cache directory.
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

/// Returns a directory with the raw shards of `path`: `path` itself if it is such a directory, otherwise one
/// below `cache`, to which a compressed set is expanded and a source packed, unless it was before. An address of
/// a source is fetched to the cache first.
///
/// A source is packed as by `tinyres pack` without flags. It must have the splits `needed`. Its set is used
/// again while path, listing, labels and boxes, and the [stamps](crate::source::Stamp) of all files are the
/// same; a changed source gets a new set. A set in the cache is used if each shard has the stated length and
/// header page; readers check the rest, as in any set. If another process is at work on the same set, waits
/// for it.
///
/// # Errors
/// `path` is neither a set nor a source, the source cannot be packed without flags, or there is no cache
/// directory or no room in it.
pub fn ready(
    path: &Path,
    needed: &[Split],
    cache: Option<&Path>,
    watch: &mut dyn Observer,
) -> Result<PathBuf> {
    #[cfg(feature = "remote")]
    let path = &*crate::remote::local(path, cache, watch)?;
    if !path.join(MANIFEST).exists() {
        return packed::ready(path, needed, cache, watch);
    }
    let manifest = Manifest::load_any(path)?;
    match manifest.transport {
        None => Ok(path.to_owned()),
        Some(_) => expanded::ready(path, manifest, cache, watch),
    }
}

/// The origin of a cached set, as its file holds it.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The source or the compressed set, as an absolute path.
    origin: String,
}

/// The directory of a cached set or of a fetched source, which may not exist.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
}

/// The directories of places, below the cache.
const SHARDS: &str = "shards";
const SOURCES: &str = "sources";
/// The directory of the sets that are packed to be published, below the cache.
const OUTGOING: &str = "outgoing";

impl Place {
    /// The place in `cache` of the set that is made of what `identity` identifies.
    fn new(cache: &Path, identity: Digest) -> Self {
        Self::below(&cache.join(SHARDS), identity)
    }

    /// The place in `cache` of the raw shards of `manifest`, which may list them in their transport form: copies of a
    /// set, in either form, share one place.
    ///
    /// # Errors
    /// None in practice: every manifest can be written as JSON.
    pub fn of_set(cache: &Path, manifest: &Manifest) -> Result<Self> {
        let raw = Manifest {
            transport: None,
            ..manifest.clone()
        };
        Ok(Self::new(cache, Digest::of(&raw.to_json()?)))
    }

    /// The place in `cache` of a set that is packed to be published at `address`.
    #[must_use]
    pub fn outgoing(cache: &Path, address: &str) -> Self {
        Self::below(&cache.join(OUTGOING), Digest::of(address.as_bytes()))
    }

    /// The place in `cache` of what is fetched from `address`.
    #[cfg(feature = "remote")]
    pub(crate) fn of_source(cache: &Path, address: &Path) -> Self {
        let identity = Digest::of(address.as_os_str().as_encoded_bytes());
        Self::below(&cache.join(SOURCES), identity)
    }

    /// The place whose directory is `dir`.
    #[cfg(feature = "remote")]
    pub(crate) fn at(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    fn below(dir: &Path, identity: Digest) -> Self {
        Self {
            dir: dir.join(format!("{:.32}", identity.to_string())),
        }
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn record(&self) -> PathBuf {
        self.dir.with_extension("json")
    }

    /// The manifest of the set, if it is whole as far as can be told without reading the pixels.
    #[must_use]
    pub fn whole(&self) -> Option<Manifest> {
        let manifest = Manifest::load(&self.dir).ok()?;
        let all = manifest.shards().all(|listed| self.has(listed));
        all.then_some(manifest)
    }

    /// True if the raw shard `listed` is here, by its length and its header page.
    #[must_use]
    pub fn has(&self, listed: &ShardEntry) -> bool {
        let has = || -> io::Result<bool> {
            let file = File::open(self.dir.join(&listed.file))?;
            let mut page = [0; PAGE];
            file.read_exact_at(&mut page, 0)?;
            Ok(ReadAt::len(&file)? == listed.bytes && Digest::of(&page) == listed.digest)
        };
        has().unwrap_or(false)
    }

    /// Locks the place, which is created if missing, when no other process holds it. Says once that it waits.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub fn lock(&self, watch: &mut dyn Observer, waiting: String) -> Result<Locked<'_>> {
        let mut waiting = Some(waiting);
        loop {
            let lock = lock_directory(&self.dir).map_err(output_error(&self.dir))?;
            if let Some(lock) = lock {
                return Ok(Locked {
                    place: self,
                    _lock: lock,
                });
            }
            if let Some(waiting) = waiting.take() {
                watch.on(&Event::Notice(waiting));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// The directory of the set that is here, which is used now, as `notice` says. A cache that cannot be written
    /// serves all the same.
    pub fn found(&self, watch: &mut dyn Observer, notice: String) -> PathBuf {
        watch.on(&Event::Notice(notice));
        let touch = || {
            let record = File::options().write(true).open(self.record())?;
            record.set_modified(SystemTime::now())
        };
        let _: io::Result<()> = touch();
        self.hold();
        self.dir.clone()
    }

    /// Keeps the set from being removed for a limit until this process ends.
    pub(crate) fn hold(&self) {
        if let Ok(record) = File::open(self.record())
            && record.try_lock_shared().is_ok()
        {
            // The lock ends with the process.
            std::mem::forget(record);
        }
    }
}

/// A [`Place`] that no other process fills or removes meanwhile.
#[derive(Debug)]
pub struct Locked<'a> {
    place: &'a Place,
    _lock: DirectoryLock,
}

impl Locked<'_> {
    /// Records that the set in this place was made of `origin`.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub fn record(&self, origin: &Path) -> Result<()> {
        let record = Record {
            origin: origin.to_string_lossy().into_owned(),
        };
        let path = self.place.record();
        let json = serde_json::to_vec(&record).map_err(io::Error::from);
        let written = json.and_then(|json| publish::write(&path, &json));
        written.map_err(output_error(&path))?;
        self.place.hold();
        Ok(())
    }

    /// Removes record and manifest: the shards that stay are no set any more.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn withdraw(&self) -> io::Result<()> {
        for file in [self.place.record(), self.place.dir.join(MANIFEST)] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
            publish::sync_parent(&file)?;
        }
        Ok(())
    }

    /// Removes the whole place.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub fn discard(&self) -> Result<()> {
        let removed = self
            .remove()
            .and_then(|()| fs::remove_dir_all(self.place.dir()));
        Ok(removed.map_err(output_error(self.place.dir()))?)
    }

    /// Removes record and set, in an order in which no part of the set is taken for all of it.
    fn remove(&self) -> io::Result<()> {
        self.withdraw()?;
        for shard in shards_in(&self.place.dir)? {
            fs::remove_file(shard)?;
        }
        Ok(())
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Removes only an empty directory: nothing was made, and no killed process left anything.
        let _ = fs::remove_dir(&self.place.dir);
    }
}
