use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tinyres_format::{MANIFEST, Manifest, publish, shards_in};

use super::{Error, Result};
use crate::scratch::Scratch;

/// Where shards wait, inside the output directory, until all of them are there.
const STAGING: &str = ".packing";

/// An output directory that a set is being packed to.
///
/// Shards are written to a directory inside it, so that what it held before stays whole until the
/// last one is done. Dropped before [`publish`](Self::publish), it takes the shards with it; a
/// killed process leaves the inner directory, which the next pack clears.
pub(super) struct Staging {
    output: PathBuf,
    inner: Scratch,
    /// Whether the output directory was made for this pack.
    created: bool,
    published: bool,
}

impl Staging {
    /// Prepares `output`, which must not hold a finished set unless `force`.
    pub fn begin(output: &Path, force: bool) -> Result<Self> {
        if !force && output.join(MANIFEST).exists() {
            let holds = match Manifest::load(output) {
                Ok(manifest) => format!("fingerprint {:.12}", manifest.fingerprint.to_string()),
                Err(error) => error.to_string(),
            };
            return Err(Error::Occupied {
                output: output.to_owned(),
                holds,
            });
        }
        let created = !output.exists();
        fs::create_dir_all(output).map_err(refused(output))?;
        let inner = output.join(STAGING);
        match Scratch::create(inner.clone()) {
            Ok(Some(inner)) => Ok(Self {
                output: output.to_owned(),
                inner,
                created,
                published: false,
            }),
            Ok(None) => Err(Error::Busy {
                output: output.to_owned(),
            }),
            Err(error) => Err(refused(&inner)(error)),
        }
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
        for entry in &manifest.splits {
            for shard in &entry.shards {
                let place = self.output.join(&shard.file);
                fs::rename(self.path(&shard.file), &place).map_err(refused(&place))?;
            }
        }
        publish::sync_parent(&old).map_err(refused(&self.output))?;
        self.published = true;
        Ok(manifest.save(&self.output)?)
    }
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

fn refused(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |reason| Error::Output {
        path: path.clone(),
        reason,
    }
}
