//! The output directory while a set is packed to it: a locked directory inside it for unfinished
//! shards, and the steps that publish the finished set. What a killed pack left is in `resume`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tinyres_format::{MANIFEST, Manifest, publish, shards_in};

use super::{Error, Result};
use crate::scratch::{STAGING, Scratch, output_error};

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
    pub fn begin(output: &Path) -> Result<Self> {
        let created = !output.exists();
        fs::create_dir_all(output).map_err(output_error(output))?;
        let inner = output.join(STAGING);
        let scratch = Scratch::create(inner.clone()).map_err(output_error(&inner))?;
        let Some(inner) = scratch else {
            return Err(Error::Busy {
                output: output.to_owned(),
            });
        };
        Ok(Self {
            output: output.to_owned(),
            inner,
            created,
            published: false,
        })
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

    /// Removes an older set, moves the shards of `manifest` to their places and writes the manifest.
    pub fn publish(mut self, manifest: &Manifest) -> Result<()> {
        let old = self.output.join(MANIFEST);
        match fs::remove_file(&old) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(output_error(&old)(error).into()),
        }
        // The old set ends here. This must be on the disk before its first shard goes.
        publish::sync_parent(&old).map_err(output_error(&old))?;
        for shard in shards_in(&self.output).map_err(output_error(&self.output))? {
            fs::remove_file(&shard).map_err(output_error(&shard))?;
        }
        for shard in manifest.shards() {
            let file = manifest.file(shard);
            let place = self.output.join(&*file);
            fs::rename(self.path(&file), &place).map_err(output_error(&place))?;
        }
        publish::sync_parent(&old).map_err(output_error(&self.output))?;
        if self.created {
            publish::sync_parent(&self.output).map_err(output_error(&self.output))?;
        }
        self.published = true;
        Ok(manifest.save(&self.output)?)
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
