//! Expands a set, or one shard, from its transport form to raw shards. A set is published whole: at any
//! moment, a killed process leaves either the compressed set or the raw one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;
use tinyres_format::publish::{self, AtomicFile, Lock};
use tinyres_format::transport::SUFFIX;
use tinyres_format::{MANIFEST, Manifest, ZstdShard, shards_in};

use super::report::ratio;
use super::{Error, ExpandReport, Result};
use crate::background::BackgroundJob;
use crate::event::{Event, Observer};
use crate::scratch::{Moves, STAGING, Scratch, check_room, output_error, unforced};

/// Number of blocks expanded between two progress events.
const PROGRESS_BLOCKS: usize = 256;

/// Expands the set in the directory `input`, or the single file `input`.
///
/// A set is written to the directory `output`. Without `output` it is expanded in place: the compressed
/// files are removed after the raw set is complete. A process that is killed at any moment leaves a
/// complete set in one form or the other. A single file is written to the file `output`, or without
/// `output` to the same name without `.zst`; the compressed file stays.
///
/// # Errors
/// A shard is damaged or cannot be written. Nothing has been published then.
pub fn expand(
    input: &Path,
    output: Option<&Path>,
    watch: &mut dyn Observer,
) -> Result<ExpandReport> {
    let began = Instant::now();
    let mut expansion = Expansion::new(watch);
    let output = if input.is_dir() {
        let output = output.unwrap_or(input);
        if output != input {
            refuse_leftovers(output)?;
        }
        let busy = || Error::Busy(output.to_owned());
        let lock = lock(output, expansion.watch)?.ok_or_else(busy)?;
        // Reads the set only now, since the process that held the lock may have expanded it.
        expansion.expand_set(input, output, &lock)?;
        output.to_owned()
    } else {
        expansion.expand_file(input, output)?
    };
    Ok(expansion.report(output, began))
}

/// The directory that a set is expanded to, under the same lock that `pack` takes.
struct LockedOutput {
    path: PathBuf,
    /// The directory inside `path` in which shards wait. `None` only while this is dropped.
    staging: Option<Scratch>,
    /// Whether this process created the directory `path`.
    created: bool,
}

/// Refuses an output directory with shards and no manifest, which may be another program's, unless a killed
/// process left them.
fn refuse_leftovers(output: &Path) -> Result<()> {
    // In this order: a process that is publishing now has the inner directory until its manifest is there.
    let shards = shards_in(output).unwrap_or_default();
    match shards.first() {
        Some(first) if !(output.join(STAGING).exists() || output.join(MANIFEST).exists()) => {
            Err(Error::Leftover {
                output: output.to_owned(),
                count: shards.len(),
                first: first.file_name().unwrap_or_default().into(),
            })
        }
        _ => Ok(()),
    }
}

/// Locks the directory `output`, which is created if missing. Returns `None` if another process packs or
/// expands to it.
fn lock(output: &Path, watch: &mut dyn Observer) -> Result<Option<LockedOutput>> {
    let created = !output.exists();
    let staging = output.join(STAGING);
    let scratch = Scratch::create(staging.clone()).map_err(output_error(&staging))?;
    if let Some(warning) = scratch.as_ref().and_then(|scratch| scratch.warning(output)) {
        watch.on(&Event::Warning(warning));
    }
    Ok(scratch.map(|scratch| LockedOutput {
        path: output.to_owned(),
        staging: Some(scratch),
        created,
    }))
}

impl LockedOutput {
    /// The path at which the shard `file` waits until all are expanded.
    fn staged(&self, file: &str) -> PathBuf {
        self.path.join(STAGING).join(file)
    }

    fn clear(&self) -> Result<()> {
        let clear = |scratch: &Scratch| scratch.clear(None);
        let cleared = self.staging.as_ref().map_or(Ok(()), clear);
        Ok(cleared.map_err(output_error(&self.path.join(STAGING)))?)
    }
}

impl Drop for LockedOutput {
    fn drop(&mut self) {
        self.staging = None;
        if self.created {
            // Removes only an empty directory: it has files if a set was published.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// An expansion in progress, with its totals.
struct Expansion<'a> {
    watch: &'a mut dyn Observer,
    shards: u64,
    /// Bytes read, in the transport form.
    compressed: u64,
    /// Bytes written, raw.
    bytes: u64,
}

impl<'a> Expansion<'a> {
    fn new(watch: &'a mut dyn Observer) -> Self {
        Self {
            watch,
            shards: 0,
            compressed: 0,
            bytes: 0,
        }
    }

    fn report(self, output: PathBuf, began: Instant) -> ExpandReport {
        ExpandReport {
            output,
            shards: self.shards,
            compressed: self.compressed,
            bytes: self.bytes,
            ratio: ratio(self.bytes, self.compressed),
            seconds: began.elapsed().as_secs_f64(),
        }
    }

    /// Expands the set in `input` to the directory `output`, which may be the same.
    fn expand_set(&mut self, input: &Path, output: &Path, lock: &LockedOutput) -> Result<()> {
        let manifest = Manifest::load_any(input)?;
        let raw = Manifest {
            transport: None,
            ..manifest.clone()
        };
        let in_place = is_same_directory(input, output)?;
        if !in_place && output.join(MANIFEST).exists() {
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
            self.expand_shards(input, &manifest, lock)?;
            let mut moves = Moves::default();
            if let Err(error) = self.publish(&raw, output, lock, &mut moves) {
                // The compressed set is still there. A second failure leaves raw shards, as a kill does.
                let published = Manifest::load(output).is_ok_and(|there| there == raw);
                while !published && moves.undo_last().is_ok_and(|undone| undone) {}
                return Err(error);
            }
        } else if !in_place {
            return Err(Error::Raw(input.to_owned()));
        }
        if in_place {
            remove_transport(input, &raw)?;
        }
        Ok(())
    }

    /// Moves the expanded shards of the set `raw` to `output`, and writes its manifest.
    fn publish(
        &mut self,
        raw: &Manifest,
        output: &Path,
        lock: &LockedOutput,
        moves: &mut Moves,
    ) -> Result<()> {
        for shard in raw.shards() {
            moves.rename(lock.staged(&shard.file), output.join(&shard.file))?;
        }
        let forced = publish::sync_parent(&output.join(MANIFEST)).map_err(output_error(output))?;
        raw.save(output)?;
        if !forced {
            self.watch.on(&unforced(output));
        }
        Ok(())
    }

    /// Expands every shard of the set in `input` to the staging directory of `lock`.
    fn expand_shards(
        &mut self,
        input: &Path,
        manifest: &Manifest,
        lock: &LockedOutput,
    ) -> Result<()> {
        lock.clear()?;
        let bytes = manifest.shards().map(|shard| shard.bytes);
        check_room(&lock.path, bytes.fold(0, u64::saturating_add))?;
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
                    let to = lock.staged(&listed.file);
                    let draft = manifest
                        .check(entry, index, &shard)
                        .and_then(|()| self.expand_shard(&shard, &to, before))
                        .map_err(|error| error.at(&path))?;
                    before += listed.images;
                    finishing.wait().transpose()?;
                    finishing.start(move || Ok(draft.publish().map_err(output_error(&to))?));
                }
            }
            finishing.wait().unwrap_or(Ok(()))
        })?;
        self.watch.on(&Event::End);
        Ok(())
    }

    /// Expands one shard to an unpublished file at `to`. `before` is the number of images expanded before
    /// it, for progress.
    fn expand_shard(
        &mut self,
        shard: &ZstdShard<File>,
        to: &Path,
        before: u64,
    ) -> tinyres_format::Result<AtomicFile> {
        let draft = shard.expand(to, |blocks, job| {
            for first in (0..blocks).step_by(PROGRESS_BLOCKS) {
                let last = blocks.min(first + PROGRESS_BLOCKS as u64);
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

    /// Expands the file `input` to `output`, or to its own name without the suffix. Returns the path of
    /// the raw shard.
    fn expand_file(&mut self, input: &Path, output: Option<&Path>) -> Result<PathBuf> {
        let output = match output {
            Some(output) => output.to_owned(),
            None => {
                let name = input.to_str().and_then(|name| name.strip_suffix(SUFFIX));
                PathBuf::from(name.ok_or_else(|| Error::Nameless(input.to_owned()))?)
            }
        };
        let shard = super::open(input)?;
        match publish::lock(shard.inner().source()).map_err(output_error(input))? {
            // Without locks, two that expand the same file at once would write the same bytes.
            Lock::Held | Lock::Unsupported => {}
            Lock::Busy => return Err(Error::Busy(input.to_owned())),
        }
        // A link may lead to a pipe, which has no path.
        match fs::metadata(&output) {
            Ok(there) if there.is_file() || there.is_dir() => return Err(Error::Exists(output)),
            Ok(_) => return Err(Error::NoFile(output)),
            Err(_) => {}
        }
        let output = publish::followed(&output);
        let dir = match output.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        check_room(dir, shard.bytes().len() as u64)?;
        self.watch.on(&Event::Begin {
            task: "expanding".to_owned(),
            unit: "img",
            total: shard.len() as u64,
        });
        let draft = self
            .expand_shard(&shard, &output, 0)
            .map_err(|error| error.at(input))?;
        draft.publish().map_err(output_error(&output))?;
        self.watch.on(&Event::End);
        Ok(output)
    }
}

/// Removes from `dir` the transport form of each shard of `raw`, the raw set there. This is the last step
/// of an expansion, which a killed process may have missed. Keeps a file of the same name that is not the
/// transport form of that shard.
fn remove_transport(dir: &Path, raw: &Manifest) -> Result<()> {
    for listed in raw.shards() {
        let path = dir.join(listed.transport_file());
        if !path.is_file() {
            continue;
        }
        match super::open(&path) {
            Ok(shard) if shard.digest() == listed.digest => {
                fs::remove_file(&path).map_err(output_error(&path))?;
            }
            Err(error) if is_unread(&error) => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// True if the file could not be read, or not in the memory there is: what it holds is unknown.
fn is_unread(error: &tinyres_format::Error) -> bool {
    use tinyres_format::Error;
    match error {
        Error::At { source, .. } => is_unread(source),
        error => matches!(error, Error::Io(_) | Error::Memory),
    }
}

/// Returns whether both paths, which must exist, name the same directory.
fn is_same_directory(a: &Path, b: &Path) -> Result<bool> {
    let real = |path: &Path| path.canonicalize().map_err(output_error(path));
    Ok(real(a)? == real(b)?)
}
