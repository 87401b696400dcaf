//! The manifests of sets in object stores, so that a set that was fetched is found while its store is away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tinyres_format::{Digest, Manifest, publish};

use super::{Place, Result};
use crate::scratch::output_error;

/// The directory of the manifests, below the cache.
const ADDRESSES: &str = "addresses";

fn path(cache: &Path, address: &str) -> PathBuf {
    let name = Digest::of(address.as_bytes()).to_string();
    cache.join(ADDRESSES).join(format!("{name:.32}.json"))
}

/// The manifest that the set at `address` had when it was fetched to `cache` last.
#[must_use]
pub fn manifest_of(cache: &Path, address: &str) -> Option<Manifest> {
    Manifest::parse(&fs::read(path(cache, address)).ok()?).ok()
}

/// Records in `cache` that the set at `address` has this manifest.
///
/// # Errors
/// The cache cannot be written.
pub fn record_manifest(cache: &Path, address: &str, manifest: &Manifest) -> Result<()> {
    let path = path(cache, address);
    if manifest_of(cache, address).as_ref() == Some(manifest) {
        return Ok(());
    }
    let json = manifest.to_json()?;
    let write = || {
        fs::create_dir_all(cache.join(ADDRESSES))?;
        publish::write(&path, &json)
    };
    Ok(write().map_err(output_error(&path))?)
}

/// Removes the manifests of sets that are not in `cache` any more.
pub(super) fn forget(cache: &Path) -> Result<()> {
    let dir = cache.join(ADDRESSES);
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(output_error(&dir))?,
    };
    for entry in entries {
        let path = entry.map_err(output_error(&dir))?.path();
        let manifest = fs::read(&path).ok();
        let manifest = manifest.and_then(|json| Manifest::parse(&json).ok());
        let kept = match manifest {
            Some(manifest) => Place::of_set(cache, &manifest)?.dir().exists(),
            None => false,
        };
        if kept {
            continue;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(output_error(&path))?,
        }
    }
    Ok(())
}
