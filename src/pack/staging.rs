use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tinyres_format::transport::{Expander, Level, SUFFIX};
use tinyres_format::{
    MANIFEST, Manifest, Metadata, Refused, Shard, ShardEntry, publish, shards_in,
};

use super::{Error, Result};
use crate::scratch::{STAGING, Scratch};
use crate::source::{Item, Source};
use crate::transport;

/// A file there, as old as the first of the packs whose shards wait: their form, empty where raw.
const BEGAN: &str = "began";

/// An output directory that a set is being packed to.
///
/// Shards are written to a directory inside it, so that what it held before stays whole until the
/// last one is done. Dropped before [`publish`](Self::publish), it takes the shards with it; a
/// killed process leaves the inner directory, and the next pack goes on with it.
pub(super) struct Staging {
    output: PathBuf,
    inner: Scratch,
    /// Whether the shards are compressed, and how.
    zstd: Option<Level>,
    /// When the interrupted pack began that this one goes on with.
    resumed: Option<SystemTime>,
    /// Whether the output directory was made for this pack.
    created: bool,
    published: bool,
}

impl Staging {
    /// Prepares `output`, which must not hold a finished set unless `force`.
    pub fn begin(output: &Path, force: bool, zstd: Option<Level>) -> Result<Self> {
        let vacant = || {
            if !force && output.join(MANIFEST).exists() {
                return Err(occupied(output));
            }
            Ok(())
        };
        vacant()?;
        let created = !output.exists();
        fs::create_dir_all(output).map_err(refused(output))?;
        let inner = output.join(STAGING);
        let scratch = Scratch::create(inner.clone()).map_err(refused(&inner))?;
        let Some(scratch) = scratch else {
            return Err(Error::Busy {
                output: output.to_owned(),
            });
        };
        // Another pack may have finished between the first look and the lock.
        vacant()?;
        let mut staging = Self {
            output: output.to_owned(),
            inner: scratch,
            zstd,
            resumed: None,
            created,
            published: false,
        };
        let began = staging.path(BEGAN);
        let form = zstd.map_or(String::new(), |level| format!("zstd {}", level.get()));
        let at = || fs::metadata(&began)?.modified();
        match fs::read_to_string(&began).and_then(|form| Ok((form, at()?))) {
            Ok((same, began)) if same == form => staging.resume(began)?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(refused(&began)(error));
            }
            // Nothing is there, or what would become another file.
            _ => {
                staging.inner.clear().map_err(refused(&inner))?;
                fs::write(&began, form).map_err(refused(&began))?;
            }
        }
        Ok(staging)
    }

    fn resume(&mut self, began: SystemTime) -> Result<()> {
        self.resumed = Some(began);
        if !self.output.join(MANIFEST).exists() {
            // Killed while it moved its shards out: they stay where they are, too, until the end.
            // Those from before it began are of other pixels, for all that anybody knows.
            let written = |shard: &Path| fs::metadata(shard)?.modified();
            for shard in shards_in(&self.output).map_err(refused(&self.output))? {
                if let Some(name) = shard.file_name()
                    && written(&shard).is_ok_and(|written| written >= began)
                {
                    // Where there are no links, the shard is packed anew.
                    let _ = fs::hard_link(&shard, self.inner.path().join(name));
                }
            }
        }
        Ok(())
    }

    /// Whether an interrupted pack left shards to go on with.
    pub fn resumes(&self) -> bool {
        self.resumed.is_some() && shards_in(self.inner.path()).is_ok_and(|left| !left.is_empty())
    }

    /// The shard `file` as an interrupted pack finished it, if it is whole and would be the same
    /// again: made by this version of the same items, none of which has been touched since it began.
    /// `expected` takes the count of grey images and the refused ones, which only decoding tells.
    pub fn kept(
        &self,
        file: &str,
        expected: impl FnOnce(u64, Vec<Refused>) -> Metadata,
        source: &Source,
        items: &[Item],
    ) -> Option<Kept> {
        let path = self.path(file);
        if self.zstd.is_some() {
            let path = path.with_file_name(file.to_owned() + SUFFIX);
            let shard = transport::open(&path).ok()?;
            let mut kept = self.same(file, &shard, expected, source, items)?;
            let mut expander = Expander::new().ok()?;
            let whole = |block| shard.expand_block(block, &mut expander).is_ok();
            kept.compressed = shard.inner().compressed_len();
            return (shard.verify_columns().is_ok() && (0..shard.blocks()).all(whole))
                .then_some(kept);
        }
        #[expect(unsafe_code, reason = "nobody else writes to what waits here")]
        // SAFETY: this process holds the lock of the directory, and replaces files in it by renaming.
        let shard = unsafe { tinyres_format::map(&path) }.ok()?;
        let kept = self.same(file, &shard, expected, source, items)?;
        shard.verify().is_ok().then_some(kept)
    }

    /// What is kept of `shard` if it is of the same items, none of which has been touched since.
    fn same<B: AsRef<[u8]>>(
        &self,
        file: &str,
        shard: &Shard<B>,
        expected: impl FnOnce(u64, Vec<Refused>) -> Metadata,
        source: &Source,
        items: &[Item],
    ) -> Option<Kept> {
        let began = self.resumed?;
        let untouched = |item| {
            let touched = source.modified(item);
            touched.is_ok_and(|touched| touched < began)
        };
        let metadata = shard.metadata();
        let same = expected(metadata.grey, metadata.refused.clone());
        (*metadata == same && items.iter().all(untouched)).then(|| Kept {
            entry: ShardEntry {
                file: file.to_owned(),
                images: shard.len() as u64,
                bytes: shard.bytes().len() as u64,
                digest: shard.digest(),
            },
            labels: shard.labels().iter().map(|label| label.get()).collect(),
            grey: metadata.grey,
            refused: metadata.refused.clone(),
            compressed: 0,
        })
    }

    /// Where the shard named `file` is to be written.
    pub fn path(&self, file: &str) -> PathBuf {
        self.inner.path().join(file)
    }

    /// Moves the shards of `manifest` to their place, in which nothing else of a set remains, and
    /// says with the manifest that they are whole.
    pub fn publish(mut self, manifest: &Manifest) -> Result<()> {
        let old = self.output.join(MANIFEST);
        match fs::remove_file(&old) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused(&old)(error)),
        }
        // The old set ends here: a shard of it must not be met by a reader of the new one.
        publish::sync_parent(&old).map_err(refused(&old))?;
        for shard in shards_in(&self.output).map_err(refused(&self.output))? {
            fs::remove_file(&shard).map_err(refused(&shard))?;
        }
        for shard in manifest.shards() {
            let file = manifest.file(shard);
            let place = self.output.join(&*file);
            fs::rename(self.path(&file), &place).map_err(refused(&place))?;
        }
        publish::sync_parent(&old).map_err(refused(&self.output))?;
        if self.created {
            publish::sync_parent(&self.output).map_err(refused(&self.output))?;
        }
        self.published = true;
        Ok(manifest.save(&self.output)?)
    }
}

/// A shard that need not be packed again.
pub(super) struct Kept {
    pub entry: ShardEntry,
    pub labels: Vec<i64>,
    pub grey: u64,
    pub refused: Vec<Refused>,
    /// Length of its transport form in bytes; 0 where it is raw.
    pub compressed: u64,
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            // Nothing can be done about a failure here, and no reader looks inside.
            let _ = fs::remove_dir_all(self.inner.path());
            if self.created {
                let _ = fs::remove_dir(&self.output);
            }
        }
    }
}

fn occupied(output: &Path) -> Error {
    let holds = match Manifest::load_any(output) {
        Ok(manifest) => format!("fingerprint {:.12}", manifest.fingerprint.to_string()),
        Err(error) => error.to_string(),
    };
    Error::Occupied {
        output: output.to_owned(),
        holds,
    }
}

fn refused(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |reason| Error::Output {
        path: path.clone(),
        reason,
    }
}
