use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;
use tinyres_format::publish::{self, AtomicFile};
use tinyres_format::transport::SUFFIX;
use tinyres_format::{MANIFEST, Manifest, ZstdShard};

use super::report::ratio;
use super::{Error, Report, Result};
use crate::background::BackgroundJob;
use crate::event::{Event, Observer};
use crate::scratch::{STAGING, Scratch};

/// Blocks that are expanded between two reports of progress.
const STEP: usize = 256;

/// Expands the set in the directory `input`, or the one transport file there.
///
/// A set becomes a raw set in the directory `output`. Without one it does so where it is: the
/// transport files are removed when the raw set is whole, and whenever this is killed the directory
/// holds a whole set, of one form or of the other. A file is left as it is and expands to `output`,
/// or beside it.
///
/// # Errors
/// What is damaged, or why the shards could not be written. Nothing has been published then.
pub fn expand(input: &Path, output: Option<&Path>, watch: &mut dyn Observer) -> Result<Report> {
    let began = Instant::now();
    let mut work = Work::new(watch);
    let output = if input.is_dir() {
        let output = output.unwrap_or(input);
        let lock = lock(output)?.ok_or_else(|| Error::Busy(output.to_owned()))?;
        // Read only now: whoever held the lock may have expanded the set.
        work.set(input, output, &lock)?;
        output.to_owned()
    } else {
        work.file(input, output)?
    };
    Ok(work.report(output, began))
}

/// A directory that a set is expanded to, under the lock that pack takes of it, too.
pub(super) struct Output {
    path: PathBuf,
    inner: Option<Scratch>,
    /// Whether the directory was made for this.
    created: bool,
}

/// Takes the lock of the directory `output`, which is created if missing; `None` where another
/// process packs or expands to it.
pub(super) fn lock(output: &Path) -> Result<Option<Output>> {
    let created = !output.exists();
    let inner = output.join(STAGING);
    let scratch = Scratch::create(inner.clone()).map_err(refused(&inner))?;
    Ok(scratch.map(|scratch| Output {
        path: output.to_owned(),
        inner: Some(scratch),
        created,
    }))
}

impl Drop for Output {
    fn drop(&mut self) {
        self.inner = None;
        if self.created {
            // Only if it is empty, which it is unless a set has been published.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// What is being expanded, and what has been.
pub(super) struct Work<'a> {
    watch: &'a mut dyn Observer,
    shards: u64,
    compressed: u64,
    bytes: u64,
}

impl<'a> Work<'a> {
    pub(super) fn new(watch: &'a mut dyn Observer) -> Self {
        Self {
            watch,
            shards: 0,
            compressed: 0,
            bytes: 0,
        }
    }

    pub(super) fn report(self, output: PathBuf, began: Instant) -> Report {
        Report {
            output,
            shards: self.shards,
            compressed: self.compressed,
            bytes: self.bytes,
            ratio: ratio(self.bytes, self.compressed),
            seconds: began.elapsed().as_secs_f64(),
        }
    }

    /// Expands the set in `input` to the directory `output`, which may be the same.
    pub(super) fn set(&mut self, input: &Path, output: &Path, lock: &Output) -> Result<()> {
        let manifest = Manifest::load_any(input)?;
        let raw = Manifest {
            transport: None,
            ..manifest.clone()
        };
        let here = same(input, output)?;
        if !here && output.join(MANIFEST).exists() {
            let there = Manifest::load_any(output)?;
            if there != raw {
                return Err(Error::Occupied {
                    output: output.to_owned(),
                    fingerprint: there.fingerprint.to_string(),
                });
            }
            return Ok(());
        }
        if manifest.transport.is_some() {
            self.shards(input, &manifest, lock)?;
            let place = output.join(MANIFEST);
            for shard in raw.shards() {
                let place = output.join(&shard.file);
                fs::rename(lock.path(&shard.file), &place).map_err(refused(&place))?;
            }
            publish::sync_parent(&place).map_err(refused(output))?;
            raw.save(output)?;
        } else if !here {
            return Err(Error::Raw(input.to_owned()));
        }
        if here {
            remove_transport(input, &raw)?;
        }
        Ok(())
    }

    /// Expands every shard of the set in `input` to where its lock lets them wait.
    fn shards(&mut self, input: &Path, manifest: &Manifest, lock: &Output) -> Result<()> {
        lock.clear()?;
        let images: u64 = manifest.splits.iter().map(|split| split.images).sum();
        self.watch.on(&Event::Begin {
            task: "expanding".to_owned(),
            unit: "img",
            total: images,
        });
        std::thread::scope(|scope| -> Result<()> {
            let mut finishing = BackgroundJob::<Result<()>>::new(scope);
            let mut before = 0;
            for entry in &manifest.splits {
                for (index, listed) in entry.shards.iter().enumerate() {
                    let path = input.join(listed.transport_file());
                    if !path.exists() {
                        return Err(Error::Missing(path));
                    }
                    let shard = super::open(&path)?;
                    let to = lock.path(&listed.file);
                    let draft = manifest
                        .check(entry, index, &shard)
                        .and_then(|()| self.shard(&shard, &to, before))
                        .map_err(|error| error.at(&path))?;
                    before += listed.images;
                    finishing.wait().transpose()?;
                    finishing.start(move || draft.publish().map_err(refused(&to)));
                }
            }
            finishing.wait().unwrap_or(Ok(()))
        })?;
        self.watch.on(&Event::End);
        Ok(())
    }

    /// Expands one shard to a draft of `to`, `before` images having been expanded before it.
    fn shard(
        &mut self,
        shard: &ZstdShard<File>,
        to: &Path,
        before: u64,
    ) -> tinyres_format::Result<AtomicFile> {
        let draft = shard.expand(to, |blocks, job| {
            for first in (0..blocks).step_by(STEP) {
                let last = blocks.min(first + STEP as u64);
                (first..last).into_par_iter().try_for_each(job)?;
                let images = last * tinyres_format::BLOCK_IMAGES as u64;
                self.watch.on(&Event::Advance {
                    done: before + images.min(shard.len() as u64),
                });
            }
            Ok(())
        })?;
        self.shards += 1;
        self.compressed += shard.inner().compressed_len();
        self.bytes += shard.bytes().len() as u64;
        Ok(draft)
    }

    /// Expands the file `input` to `output`, or beside it, and says where.
    fn file(&mut self, input: &Path, output: Option<&Path>) -> Result<PathBuf> {
        let output = match output {
            Some(output) => output.to_owned(),
            None => {
                let name = input.to_str().and_then(|name| name.strip_suffix(SUFFIX));
                PathBuf::from(name.ok_or_else(|| Error::Nameless(input.to_owned()))?)
            }
        };
        let shard = super::open(input)?;
        match shard.inner().source().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy(input.to_owned())),
            Err(TryLockError::Error(error)) => return Err(refused(input)(error)),
        }
        if output.exists() {
            return Err(Error::Exists(output));
        }
        self.watch.on(&Event::Begin {
            task: "expanding".to_owned(),
            unit: "img",
            total: shard.len() as u64,
        });
        let draft = self
            .shard(&shard, &output, 0)
            .map_err(|error| error.at(input))?;
        draft.publish().map_err(refused(&output))?;
        self.watch.on(&Event::End);
        Ok(output)
    }
}

impl Output {
    fn path(&self, file: &str) -> PathBuf {
        self.path.join(STAGING).join(file)
    }

    fn clear(&self) -> Result<()> {
        let cleared = self.inner.as_ref().map_or(Ok(()), Scratch::clear);
        cleared.map_err(refused(&self.path))
    }
}

/// Removes the transport form of the shards that lie in `dir` as `raw` says: the last step, or the
/// one that a killed process did not come to. A file of the same name that is something else stays.
fn remove_transport(dir: &Path, raw: &Manifest) -> Result<()> {
    for listed in raw.shards() {
        let path = dir.join(listed.transport_file());
        if path.exists() && super::open(&path).is_ok_and(|shard| shard.digest() == listed.digest) {
            fs::remove_file(&path).map_err(refused(&path))?;
        }
    }
    Ok(())
}

/// Whether both are one directory. The second exists.
fn same(a: &Path, b: &Path) -> Result<bool> {
    let real = |path: &Path| path.canonicalize().map_err(refused(path));
    Ok(real(a)? == real(b)?)
}

pub(super) fn refused(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |reason| Error::Output {
        path: path.clone(),
        reason,
    }
}
