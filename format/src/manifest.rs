//! `dataset.json`: the list of all shards of a set, and the check that a shard is the one listed.
//!
//! The manifest knows shards by their header pages alone. It opens no shard file.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::metadata::from_json;
use crate::{Digest, Error, RawShard, Result, Shape, Shard, Split, publish};

/// Name of the manifest's file. A directory of shards without it is unfinished.
pub const MANIFEST: &str = "dataset.json";
/// Ending of the file name of a shard in its transport form, after the raw shard's name.
pub const TRANSPORT_SUFFIX: &str = ".zst";
/// The newest manifest version that this build reads, and the one that it writes.
const VERSION: u32 = 1;
/// The longest manifest that is read, in bytes: 100,000 shards take under 20 MiB.
const MAX_LEN: u64 = 64 << 20;

/// The content of `dataset.json`. It is written after the shards, so a directory that has it holds a
/// whole set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the manifest: 1.
    pub version: u32,
    /// The program that wrote the set: `tinyres 0.1.0`.
    pub creator: String,
    /// Identifies the set; every shard carries the same.
    pub fingerprint: Digest,
    /// The shape of every image: `[channels, height, width]`.
    pub shape: Shape,
    /// The number of classes.
    pub classes: usize,
    /// The splits, in the order train, val, test.
    pub splits: Vec<SplitEntry>,
    /// The form of the shards, or `None` if they are raw. All other fields describe the raw shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Form>,
}

/// A form of shards for moving and keeping them, which must be expanded before use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Each shard is a `.zst` file of the transport form, section 9 of `SPEC.md`.
    Zstd,
}

/// A split of the set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitEntry {
    /// The split.
    pub split: Split,
    /// Images in all its shards.
    pub images: u64,
    /// Its shards, in order. The images of the split are those of its shards, one shard after the other.
    pub shards: Vec<ShardEntry>,
}

/// An entry of the manifest for one shard of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// The name of its raw file in the directory.
    pub file: String,
    /// The number of images.
    pub images: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// The SHA-256 of its header page, which holds the checksums of everything else.
    pub digest: Digest,
}

impl ShardEntry {
    /// The shard's file name in the directory of a set in its transport form.
    #[must_use]
    pub fn transport_file(&self) -> String {
        self.file.clone() + TRANSPORT_SUFFIX
    }
}

/// Lists the files in `dir` that are named like a shard, raw or in its transport form, in the order
/// of splits and shards.
///
/// # Errors
/// Those of the operating system.
pub fn shards_in(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut shards = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let place = name.to_str().and_then(|name| {
            let raw = name.strip_suffix(TRANSPORT_SUFFIX).unwrap_or(name);
            let (split, index) = raw.strip_suffix(".bin")?.split_once('-')?;
            let (split, index): (Split, usize) = (split.parse().ok()?, index.parse().ok()?);
            (split.shard_name(index) == raw).then_some((split, index, raw != name))
        });
        shards.extend(place.map(|place| (place, dir.join(name))));
    }
    shards.sort();
    Ok(shards.into_iter().map(|(_, path)| path).collect())
}

impl Manifest {
    /// A manifest of the current version.
    #[must_use]
    pub fn new(
        creator: String,
        fingerprint: Digest,
        shape: Shape,
        classes: usize,
        splits: Vec<SplitEntry>,
    ) -> Self {
        Self {
            version: VERSION,
            creator,
            fingerprint,
            shape,
            classes,
            splits,
            transport: None,
        }
    }

    /// Reads the manifest of the set of raw shards in `dir`.
    ///
    /// # Errors
    /// [`Error::Unfinished`] if there is none, [`Error::Transport`] if the shards must be expanded
    /// first, or whatever is wrong with the manifest. Each error names the file or the directory.
    pub fn load(dir: &Path) -> Result<Self> {
        let manifest = Self::load_any(dir)?;
        match manifest.transport {
            None => Ok(manifest),
            Some(Form::Zstd) => Err(Error::Transport.at(dir)),
        }
    }

    /// Reads the manifest of the set in `dir`, whose shards may be in their transport form.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_any(dir: &Path) -> Result<Self> {
        let path = dir.join(MANIFEST);
        let read = || match std::fs::metadata(&path) {
            Ok(file) if file.len() > MAX_LEN => Err(Error::TooLarge {
                what: "the manifest",
                got: file.len(),
                max: MAX_LEN,
                remedy: "pack the set again with --force and more images in each shard",
            }),
            Ok(_) => Self::parse(&std::fs::read(&path)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && dir.is_dir() => {
                Err(Error::Unfinished)
            }
            Err(error) => Err(error.into()),
        };
        read().map_err(|error| match error {
            Error::Unfinished => error.at(dir),
            error => error.at(&path),
        })
    }

    /// Reads a manifest's JSON text.
    ///
    /// # Errors
    /// [`Error::Version`], or [`Error::Manifest`] with the problem.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let wrong = |reason: String| Error::Manifest { reason };
        let manifest: Self = from_json(json).map_err(wrong)?;
        if manifest.version != VERSION {
            return Err(Error::Version {
                what: "dataset.json",
                got: manifest.version,
                max: VERSION,
            });
        }
        if manifest.shape.check().is_err() {
            let shape = manifest.shape;
            return Err(wrong(format!("no shard holds images of {shape}")));
        }
        for (at, entry) in manifest.splits.iter().enumerate() {
            let split = entry.split;
            if let Some(earlier) = at.checked_sub(1).map(|at| manifest.splits[at].split)
                && earlier >= split
            {
                return Err(wrong(if earlier == split {
                    format!("split {split} is listed twice")
                } else {
                    format!("split {split} is listed after {earlier}")
                }));
            }
            if let Some((index, shard)) = entry
                .shards
                .iter()
                .enumerate()
                .find(|(index, shard)| shard.file != split.shard_name(*index))
            {
                let expected = split.shard_name(index);
                return Err(wrong(format!(
                    "shard {index} of {split} is {:?}, expected {expected:?}",
                    shard.file
                )));
            }
            let images = entry
                .shards
                .iter()
                .try_fold(0u64, |sum, shard| sum.checked_add(shard.images));
            if images != Some(entry.images) {
                return Err(wrong(format!(
                    "split {split} has {} images, but its shards do not",
                    entry.images
                )));
            }
        }
        Ok(manifest)
    }

    /// Returns the manifest's JSON text, as it is written to the file.
    ///
    /// # Errors
    /// None in practice: every manifest can be written as JSON.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self).map_err(|error| Error::Manifest {
            reason: error.to_string(),
        })?;
        json.push(b'\n');
        Ok(json)
    }

    /// Writes the manifest to `dir`, whole or not at all: the last step of a pack.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let path = dir.join(MANIFEST);
        publish::write(&path, &self.to_json()?).map_err(|error| Error::from(error).at(&path))
    }

    /// The entry of `split`, if the set has it.
    #[must_use]
    pub fn split(&self, split: Split) -> Option<&SplitEntry> {
        self.splits.iter().find(|entry| entry.split == split)
    }

    /// All shards, split by split.
    pub fn shards(&self) -> impl Iterator<Item = &ShardEntry> {
        self.splits.iter().flat_map(|entry| &entry.shards)
    }

    /// The name of the file that holds `shard` in the set's directory, in the form that the set has.
    #[must_use]
    pub fn file<'a>(&self, shard: &'a ShardEntry) -> Cow<'a, str> {
        match self.transport {
            None => (&shard.file).into(),
            Some(Form::Zstd) => shard.transport_file().into(),
        }
    }

    /// Checks by its header alone that `shard` is shard `index` of `entry`. Its metadata is read only
    /// after a mismatch, to say what differs.
    ///
    /// # Errors
    /// [`Error::Foreign`] with the first property that differs, or whatever is wrong with the shard.
    pub fn check_header<B: AsRef<[u8]>>(
        &self,
        entry: &SplitEntry,
        index: usize,
        shard: &RawShard<B>,
    ) -> Result<()> {
        let is_listed = entry.shards.get(index).is_some_and(|listed| {
            listed.images == shard.len() as u64
                && listed.bytes == shard.bytes().len() as u64
                && listed.digest == shard.digest()
        });
        if is_listed && self.shape == shard.shape() {
            return Ok(());
        }
        self.check(entry, index, &Shard::new(shard.bytes())?)
    }

    /// Checks that `shard` is shard `index` of `entry`, and the same file that this manifest was
    /// written for.
    ///
    /// # Errors
    /// [`Error::Foreign`] with the first property that differs.
    pub fn check<B: AsRef<[u8]>>(
        &self,
        entry: &SplitEntry,
        index: usize,
        shard: &Shard<B>,
    ) -> Result<()> {
        let metadata = shard.metadata();
        let listed = entry.shards.get(index);
        let listed_as = |number: fn(&ShardEntry) -> String| {
            listed.map_or_else(|| "no such shard".to_owned(), number)
        };
        for (what, got, expected) in [
            (
                "the set's fingerprint",
                metadata.fingerprint.to_string(),
                self.fingerprint.to_string(),
            ),
            (
                "the image shape",
                shard.shape().to_string(),
                self.shape.to_string(),
            ),
            (
                "the number of classes",
                metadata.classes.len().to_string(),
                self.classes.to_string(),
            ),
            (
                "the split",
                metadata.split.to_string(),
                entry.split.to_string(),
            ),
            (
                "the shard's index",
                metadata.shard.to_string(),
                index.to_string(),
            ),
            (
                "the number of shards",
                metadata.shards.to_string(),
                entry.shards.len().to_string(),
            ),
            (
                "the number of images",
                shard.len().to_string(),
                listed_as(|shard| shard.images.to_string()),
            ),
            (
                "the file's length",
                shard.bytes().len().to_string(),
                listed_as(|shard| shard.bytes.to_string()),
            ),
            (
                "the header's SHA-256",
                shard.digest().to_string(),
                listed_as(|shard| shard.digest.to_string()),
            ),
        ] {
            if got != expected {
                return Err(Error::Foreign {
                    what,
                    got,
                    expected,
                });
            }
        }
        Ok(())
    }
}
