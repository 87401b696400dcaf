//! Fetches a set to the cache: whole or not at all, and once for all processes of a host.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tinyres::cache::{self, Place};
use tinyres::event::{Event, Observer};
use tinyres::remote::relay::UNIT;
use tinyres::scratch::{check_room, output_error};
use tinyres::text::Bytes;
use tinyres_format::{MANIFEST, Manifest};

use crate::address::Address;
use crate::error::{Error, Result};
use crate::shard::Incoming;
use crate::store::{Patience, Store};

/// Parts that come at the same time.
const FLIGHT: usize = 8;
/// Shards whose beginning is read while others come.
const AHEAD: usize = 2;
/// Longest manifest that is read, in bytes: as in the format crate.
const MANIFEST_MAX: u64 = 64 << 20;
/// Interval between two reports of progress.
const TICK: Duration = Duration::from_millis(200);

/// The fetch of one set.
pub struct Fetch<'a> {
    pub address: Address,
    pub cache: &'a Path,
    /// Bytes that the cache may have.
    pub limit: Option<u64>,
    pub patience: Patience,
}

/// A set that is in the cache.
#[derive(Debug, serde::Serialize)]
pub struct Fetched {
    #[serde(serialize_with = "tinyres::text::path")]
    pub dir: PathBuf,
    pub address: String,
    /// Bytes of the raw shards that this fetch brought: 0 if the set was there.
    pub fetched: u64,
    /// Bytes of all raw shards.
    pub bytes: u64,
    pub seconds: f64,
}

impl std::fmt::Display for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.dir.display())
    }
}

impl Fetch<'_> {
    pub fn run(&self, watch: &mut dyn Observer) -> Result<Fetched> {
        let began = Instant::now();
        let runtime = runtime(&self.address.text)?;
        let address = &self.address.text;
        let known = cache::manifest_of(self.cache, address);
        let known = known.filter(|known| {
            Place::of_set(self.cache, known).is_ok_and(|place| place.whole().is_some())
        });
        let patience = match known {
            // The set that is there will do.
            Some(_) => Patience {
                retries: 0,
                ..self.patience
            },
            None => self.patience,
        };
        let asked = runtime.block_on(async {
            let store = Store::open(self.address.clone(), patience, false).await?;
            let manifest = manifest(&store).await?;
            Ok((store, manifest))
        });
        let (store, manifest) = match (asked, known) {
            (Ok((store, manifest)), _) => (Some(store), manifest),
            (Err(error @ Error::Settings { .. }), Some(known)) => {
                self.offline(&error, known, watch)
            }
            (Err(error), Some(known)) if error.is_of_the_store() => {
                self.offline(&error, known, watch)
            }
            (Err(error), _) => return Err(error),
        };
        let bytes = manifest.shards().map(|shard| shard.bytes).sum();
        let place = Place::of_set(self.cache, &manifest)?;
        let fetched = |fetched| Fetched {
            dir: place.dir().to_owned(),
            address: address.clone(),
            fetched,
            bytes,
            seconds: began.elapsed().as_secs_f64(),
        };
        let reuse = |watch: &mut dyn Observer| {
            place.found(watch, format!("{address}: using {}", place.dir().display()));
            cache::record_manifest(self.cache, address, &manifest)
        };
        if place.whole().is_some() {
            reuse(watch)?;
            return Ok(fetched(0));
        }
        let waiting = format!(
            "{address}: another tinyres is fetching it to {}",
            place.dir().display()
        );
        let locked = place.lock(watch, waiting)?;
        if place.whole().is_some() {
            reuse(watch)?;
            return Ok(fetched(0));
        }
        let Some(store) = store else {
            // It was there a moment ago.
            return Err(Error::NoSet {
                object: format!("{address}/{MANIFEST}"),
            });
        };
        watch.on(&Event::Notice(format!(
            "{address}: fetching it to {} ({}, once; `tinyres cache --clear` frees the space)",
            place.dir().display(),
            Bytes(bytes)
        )));
        // Shards that are there stay; the set is whole when the manifest comes.
        locked.withdraw().map_err(output_error(place.dir()))?;
        self.make_room(&place, &manifest, watch)?;
        let store = Store {
            patience: self.patience,
            ..store
        };
        let came = runtime.block_on(shards(&store, &manifest, &place, watch))?;
        let raw = Manifest {
            transport: None,
            ..manifest.clone()
        };
        raw.save(place.dir())?;
        locked.record(Path::new(address))?;
        cache::record_manifest(self.cache, address, &manifest)?;
        Ok(fetched(came))
    }

    /// Takes what was fetched before, since the store does not answer.
    fn offline(
        &self,
        error: &Error,
        known: Manifest,
        watch: &mut dyn Observer,
    ) -> (Option<Store>, Manifest) {
        let reason = match error {
            // Nothing has to go on.
            Error::Transfer { object, reason } => format!("{object}: {reason}"),
            error => error.to_string(),
        };
        watch.on(&Event::Notice(format!(
            "{reason}; using what was fetched before"
        )));
        (None, known)
    }

    /// Checks that there is room for what is missing, and takes it where the cache has a limit.
    fn make_room(
        &self,
        place: &Place,
        manifest: &Manifest,
        watch: &mut dyn Observer,
    ) -> Result<()> {
        let missing = || manifest.shards().filter(|listed| !place.has(listed));
        let part = |file: &str| place.dir().join(format!("{file}.part"));
        if let Some(limit) = self.limit {
            let all = manifest.shards().map(|shard| shard.bytes).sum();
            let _reserved = cache::reserve(self.cache, place, all, limit, watch)?;
            for listed in missing() {
                let part = part(&listed.file);
                let take = || -> std::io::Result<()> {
                    let mut options = std::fs::File::options();
                    let file = options
                        .write(true)
                        .create(true)
                        .truncate(false)
                        .open(&part)?;
                    file.set_len(listed.bytes)
                };
                take().map_err(output_error(&part))?;
            }
        }
        let needed = missing().map(|listed| {
            use std::os::unix::fs::MetadataExt as _;
            let there = std::fs::metadata(part(&listed.file)).map_or(0, |part| part.blocks() * 512);
            listed.bytes.saturating_sub(there)
        });
        check_room(place.dir(), needed.sum())?;
        Ok(())
    }
}

/// A runtime for the requests.
pub fn runtime(address: &str) -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.map_err(|error| Error::Settings {
        address: address.to_owned(),
        reason: error.to_string(),
    })
}

/// The manifest of the set in `store`.
pub async fn manifest(store: &Store) -> Result<Manifest> {
    let object = store.object(MANIFEST);
    let json = match store.read_all(MANIFEST, MANIFEST_MAX).await {
        Err(Error::Missing { object }) => return Err(Error::NoSet { object }),
        json => json?,
    };
    Manifest::parse(&json).map_err(|error| Error::Manifest {
        object,
        error: Box::new(error),
    })
}

/// Fetches the shards of `manifest` to `place`, in their order, and returns how many bytes came. On an error, what came
/// stays for the next fetch.
async fn shards(
    store: &Store,
    manifest: &Manifest,
    place: &Place,
    watch: &mut dyn Observer,
) -> Result<u64> {
    let missing: Vec<_> = (manifest.shards())
        .filter(|listed| !place.has(listed))
        .collect();
    watch.on(&Event::Begin {
        task: "fetching".to_owned(),
        unit: UNIT,
        total: missing.iter().map(|listed| listed.bytes).sum::<u64>() / 1000,
    });
    let (came, there) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
    let begun = stream::iter(missing)
        .map(|listed| Incoming::begin(store, manifest, listed, place.dir()))
        .buffered(AHEAD);
    let jobs = begun
        .and_then(|shard| {
            there.fetch_add(shard.there, Ordering::Relaxed);
            async move {
                let shard = Arc::new(shard);
                if shard.jobs.is_empty() {
                    shard.finish().await?;
                }
                let jobs = shard.jobs.clone().into_iter();
                let jobs = jobs.map(move |run| Ok((Arc::clone(&shard), run)));
                Ok(stream::iter(jobs))
            }
        })
        .try_flatten();
    let work = jobs.try_for_each_concurrent(FLIGHT, |(shard, run)| {
        let came = Arc::clone(&came);
        async move {
            let job = tokio::spawn(async move { shard.fetch(run, &came).await });
            job.await
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
        }
    });
    let mut work = std::pin::pin!(work);
    let done = loop {
        let step = match tokio::time::timeout(TICK, &mut work).await {
            Ok(done) => ControlFlow::Break(done),
            Err(_) => ControlFlow::Continue(()),
        };
        let done = came.load(Ordering::Relaxed) + there.load(Ordering::Relaxed);
        watch.on(&Event::Advance { done: done / 1000 });
        if let ControlFlow::Break(done) = step {
            break done;
        }
    };
    watch.on(&Event::End);
    done?;
    Ok(came.load(Ordering::Relaxed))
}
