//! The output directory while a set is packed to it: a locked directory inside it for unfinished
//! shards, and the steps that publish the finished set. What a killed pack left is in `resume`.

use std::fs;
use std::path::{Path, PathBuf};

use tinyres_format::{MANIFEST, Manifest, publish, shards_in};

use super::{Error, Result};
use crate::event::{Event, Observer};
use crate::scratch::{Moves, OutputError, STAGING, Scratch, check_room, output_error, unforced};

/// Name of the directory, among the unfinished shards, that an older set is moved to while the new one is
/// published. If there is one and no manifest, publishing began and did not end: the shards in the output
/// directory are then those of this pack, or were to be replaced by it.
pub(super) const REPLACED: &str = "replaced";

/// An output directory that a set is being packed to.
///
/// Shards are written to a directory inside it, so that an older set stays whole until the last shard is
/// finished. Dropping this before [`publish`](Self::publish) removes the shards; a killed process
/// leaves the inner directory to the next pack.
pub(super) struct Staging {
    output: PathBuf,
    inner: Scratch,
    /// True if the output directory was created for this pack.
    created: bool,
    published: bool,
}

impl Staging {
    /// Creates `output` if missing, and locks it.
    ///
    /// # Errors
    /// [`Error::Leftover`] if shards without a manifest are there and may not be replaced, as `force` says.
    pub fn begin(output: &Path, force: bool, watch: &mut dyn Observer) -> Result<Self> {
        let created = !output.exists();
        fs::create_dir_all(output).map_err(output_error(output))?;
        let inner = output.join(STAGING);
        // In this order: a pack that is publishing now has the inner directory until its manifest is there.
        let shards = shards_in(output).map_err(output_error(output))?;
        let publishing = inner.join(REPLACED).exists();
        if let Some(first) = shards.first()
            && !(force || publishing || output.join(MANIFEST).exists())
        {
            return Err(Error::Leftover {
                output: output.to_owned(),
                count: shards.len(),
                first: first.file_name().unwrap_or_default().into(),
            });
        }
        let scratch = Scratch::create(inner.clone()).map_err(output_error(&inner))?;
        let Some(inner) = scratch else {
            return Err(Error::Busy {
                output: output.to_owned(),
            });
        };
        if let Some(warning) = inner.warning(output) {
            watch.on(&Event::Warning(warning));
        }
        Ok(Self {
            output: output.to_owned(),
            inner,
            created,
            published: false,
        })
    }

    /// Removes what a killed pack left in `output`, unless another process is at work there.
    pub fn clean(output: &Path) {
        let inner = output.join(STAGING);
        if inner.exists() {
            // Dropping it removes it. If that fails, the next pack removes it.
            if let Ok(Some(mut scratch)) = Scratch::create(inner)
                && scratch.warning(output).is_some()
            {
                // Without locks, another process may be at work there.
                scratch.keep();
            }
        }
    }

    /// Checks that there is room for `needed` bytes of shards, less what is finished already.
    pub fn check_room(&self, needed: u64) -> Result<()> {
        let finished = fs::read_dir(self.inner.path()).map_err(output_error(self.inner.path()))?;
        let lengths = finished.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
        Ok(check_room(
            &self.output,
            needed.saturating_sub(lengths.sum()),
        )?)
    }

    /// The output directory.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// The directory for unfinished shards.
    pub fn inner(&self) -> &Scratch {
        &self.inner
    }

    /// Path of the unfinished file `file`.
    pub fn path(&self, file: &str) -> PathBuf {
        self.inner.path().join(file)
    }

    /// Moves an older set out of the way, moves the shards of `manifest` to their places and writes the
    /// manifest. If a step fails, the older set is put back and the finished shards stay in the inner
    /// directory, for the next pack. If that fails, too, everything stays where it is, as after a kill.
    pub fn publish(mut self, manifest: &Manifest, watch: &mut dyn Observer) -> Result<()> {
        self.published = true;
        let mut moves = Moves::default();
        let Err(source) = self.exchange(manifest, &mut moves, watch) else {
            return Ok(());
        };
        if self.output.join(MANIFEST).exists() && moves.count() > 0 {
            // The new set is there, though it may not be on the disk.
            return Err(source);
        }
        self.inner.keep();
        let inner = self.inner.path().to_owned();
        Err(match self.restore(moves) {
            Ok(()) => Error::NotPublished {
                source: Box::new(source),
                inner,
            },
            Err(failure) => Error::HalfPublished {
                source: Box::new(source),
                failure,
                inner,
            },
        })
    }

    fn exchange(
        &self,
        manifest: &Manifest,
        moves: &mut Moves,
        watch: &mut dyn Observer,
    ) -> Result<()> {
        let replaced = self.path(REPLACED);
        // A killed pack may have left one. A link was left by nobody that we know.
        if !fs::symlink_metadata(&replaced).is_ok_and(|there| there.is_dir()) {
            let _ = fs::remove_file(&replaced);
            fs::create_dir(&replaced).map_err(output_error(&replaced))?;
        }
        sync(&replaced)?;
        let old = self.output.join(MANIFEST);
        let old_aside = replaced.join(MANIFEST);
        if old.exists() {
            moves.rename(old.clone(), old_aside.clone())?;
            // The old set ends here. This must be on the disk before its first shard goes.
            sync(&old)?;
        }
        for shard in shards_in(&self.output).map_err(output_error(&self.output))? {
            let aside = replaced.join(shard.file_name().unwrap_or_default());
            moves.rename(shard, aside)?;
        }
        for shard in manifest.shards() {
            let file = manifest.file(shard);
            let (from, to) = (self.path(&file), self.output.join(&*file));
            keep_mode(&replaced.join(&*file), &from);
            moves.rename(from, to)?;
        }
        let mut forced = sync(&old)?;
        if self.created {
            forced &= sync(&self.output)?;
        }
        manifest.save(&self.output)?;
        keep_mode(&old_aside, &old);
        if !forced {
            watch.on(&unforced(&self.output));
        }
        Ok(())
    }

    /// Undoes `moves`: the shards first, then, once they are on the disk, the manifest.
    fn restore(&self, mut moves: Moves) -> std::result::Result<(), OutputError> {
        let old = self.output.join(MANIFEST);
        while moves.count() > 1 {
            moves.undo_last()?;
        }
        sync(&old)?;
        moves.undo_last()?;
        sync(&old)?;
        Ok(())
    }
}

/// Forces the entry of `path` to the disk, if its file system can.
fn sync(path: &Path) -> std::result::Result<bool, OutputError> {
    publish::sync_parent(path).map_err(output_error(path))
}

/// Gives the file at `path` the permissions of the file `old` that it replaces, if there is one.
fn keep_mode(old: &Path, path: &Path) {
    if let Ok(old) = fs::symlink_metadata(old)
        && old.is_file()
    {
        // Some file systems refuse. The file then has the permissions of any new one.
        let _ = fs::set_permissions(path, old.permissions());
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            // Failures are ignored: no reader looks inside, and the next pack takes it over.
            let _ = fs::remove_dir_all(self.inner.path());
            if self.created {
                let _ = fs::remove_dir(&self.output);
            }
        }
    }
}
