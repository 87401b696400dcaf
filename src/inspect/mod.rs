//! What shards hold: reports, single images, and the check of every byte, for `tinyres inspect`. Results are
//! values that display themselves. A set is opened even if parts of it are damaged or missing; what is
//! wrong becomes a list of problems.

mod report;
mod sample;
mod verify;

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use tinyres_format::transport::{Expander, Zstd};
use tinyres_format::{BLOCK_IMAGES, Class, Digest, Manifest, Part, Shape, Shard, Split, shards_in};

use crate::transport;

pub use report::SetReport;
pub use sample::Sample;
pub use verify::{Damage, Verification};

/// Result with this module's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Reason why nothing can be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shard or the manifest is damaged or missing.
    #[error(transparent)]
    Format(#[from] tinyres_format::Error),
    /// The shard or directory has no such split.
    #[error("{}: no {split} split here, only {}", path.display(), present.join(", "))]
    NoSplit {
        /// The shard or directory.
        path: PathBuf,
        /// The split asked for.
        split: Split,
        /// The splits that there are.
        present: Vec<&'static str>,
    },
    /// The split has no such image.
    #[error("{}: no image {image} of {split} here, only {len}, counted from 0", path.display())]
    NoImage {
        /// The shard or directory.
        path: PathBuf,
        /// The split.
        split: Split,
        /// The image asked for.
        image: u64,
        /// Number of images in the split.
        len: u64,
    },
    /// The image lies in a shard that could not be opened.
    #[error("{}: image {image} of {split} is in a shard that cannot be shown: inspect the directory to see why", path.display())]
    NotOpen {
        /// The directory.
        path: PathBuf,
        /// The split.
        split: Split,
        /// The image asked for.
        image: u64,
    },
}

/// A fault that does not keep the rest of the set from being shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetProblem {
    /// A shard or the manifest is damaged or missing.
    #[error(transparent)]
    Format(#[from] tinyres_format::Error),
    /// A listed shard is missing.
    #[error("{}: in dataset.json, but not here: copy it again, or pack again with --force", .0.display())]
    Missing(PathBuf),
    /// A shard is not listed.
    #[error("{}: not in dataset.json: a leftover of another pack; remove it", .0.display())]
    Unlisted(PathBuf),
    /// A shard belongs to another set than the first shard.
    #[error("{}: its {what} is not that of {}: they are of two sets; keep one, or pack again with --force", path.display(), first.display())]
    Mixed {
        /// The shard.
        path: PathBuf,
        /// The first shard.
        first: PathBuf,
        /// The property that differs.
        what: &'static str,
    },
}

impl serde::Serialize for SetProblem {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Bytes of a shard.
#[derive(Debug)]
pub(crate) enum Bytes<B> {
    Raw(B),
    /// A compressed shard. Its pixels are expanded block by block, on request.
    Zstd(Zstd<File>),
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Bytes<B> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Raw(bytes) => bytes.as_ref(),
            Self::Zstd(bytes) => bytes.as_ref(),
        }
    }
}

/// A shard, or all shards of a directory, raw or compressed.
#[derive(Debug)]
pub struct Set<B> {
    path: PathBuf,
    /// True if `path` is a directory, false if it is one shard.
    directory: bool,
    creator: String,
    fingerprint: Digest,
    shape: Shape,
    classes: usize,
    /// Each split and its number of images, including those in shards that could not be opened.
    splits: Vec<(Split, u64)>,
    /// In the order of splits and shards.
    members: Vec<Member<B>>,
    problems: Vec<SetProblem>,
}

/// A shard of a set.
#[derive(Debug)]
pub(crate) struct Member<B> {
    path: PathBuf,
    pub(crate) shard: Shard<Bytes<B>>,
    split: Split,
    /// Number of the shard's first image in the split; 0 if the shard was opened alone.
    start: u64,
    /// True if labels, boxes and names have passed their checks, and so may be shown.
    sound: bool,
}

impl<B: AsRef<[u8]> + Sync + Send> Set<B> {
    /// Opens the shard at `path`, or all shards if `path` is a directory. `open` opens a raw shard;
    /// compressed shards are recognised. Reads no pixels. Faults of a directory or a column become
    /// problems of the report.
    ///
    /// # Errors
    /// The shard cannot be opened, or the directory has neither a manifest nor a shard that opens.
    pub fn open(
        path: &Path,
        open: impl Fn(&Path) -> tinyres_format::Result<Shard<B>>,
    ) -> Result<Self> {
        let either = |path: &Path| match open(path) {
            Err(error) if compressed(&error) => open_transport(path),
            opened => opened.map(|shard| shard.map_inner(Bytes::Raw)),
        };
        let mut set = if path.is_dir() {
            match Manifest::load_any(path) {
                Ok(manifest) => Self::finished(path, &manifest, either)?,
                Err(error) if is_memory(&error) => return Err(error.into()),
                Err(error) => Self::unfinished(path, error, either)?,
            }
        } else {
            let shard = either(path)?;
            let mut set = Self::like(path, &shard);
            set.add(path.to_owned(), shard, 0);
            set
        };
        let unsound = set.members.par_iter_mut().filter_map(|member| {
            let error = member.shard.verify_columns().err()?;
            member.sound = false;
            Some(SetProblem::Format(error.at(&member.path)))
        });
        let unsound: Vec<_> = unsound.collect();
        set.problems.extend(unsound);
        Ok(set)
    }

    /// Opens a directory with a manifest: its shards are those listed.
    fn finished(
        dir: &Path,
        manifest: &Manifest,
        open: impl Fn(&Path) -> tinyres_format::Result<Shard<Bytes<B>>>,
    ) -> Result<Self> {
        let mut set = Self {
            path: dir.to_owned(),
            directory: true,
            creator: manifest.creator.clone(),
            fingerprint: manifest.fingerprint,
            shape: manifest.shape,
            classes: manifest.classes,
            splits: manifest
                .splits
                .iter()
                .map(|entry| (entry.split, entry.images))
                .collect(),
            members: Vec::new(),
            problems: Vec::new(),
        };
        let mut unlisted = shards(dir)?;
        for entry in &manifest.splits {
            let mut start = 0;
            for (index, listed) in entry.shards.iter().enumerate() {
                let path = dir.join(&*manifest.file(listed));
                unlisted.retain(|found| *found != path);
                let checked = open(&path).and_then(|shard| {
                    manifest
                        .check(entry, index, &shard)
                        .map_err(|error| error.at(&path))?;
                    Ok(shard)
                });
                match checked {
                    Ok(shard) => set.add(path, shard, start),
                    Err(error) if is_memory(&error) => return Err(error.into()),
                    Err(_) if !path.exists() => set.problems.push(SetProblem::Missing(path)),
                    Err(error) => set.problems.push(error.into()),
                }
                start += listed.images;
            }
        }
        set.problems
            .extend(unlisted.into_iter().map(SetProblem::Unlisted));
        Ok(set)
    }

    /// Opens a directory without a usable manifest, for the reason `why`: its shards are those found that
    /// fit to the first.
    fn unfinished(
        dir: &Path,
        why: tinyres_format::Error,
        open: impl Fn(&Path) -> tinyres_format::Result<Shard<Bytes<B>>>,
    ) -> Result<Self> {
        let mut problems = Vec::new();
        let mut set: Option<Self> = None;
        for path in shards(dir)? {
            match open(&path) {
                Ok(shard) => {
                    let set = set.get_or_insert_with(|| Self::like(dir, &shard));
                    let start = set.len(shard.metadata().split);
                    set.add(path, shard, start);
                }
                Err(error) if is_memory(&error) => return Err(error.into()),
                Err(error) => problems.push(error.into()),
            }
        }
        let Some(mut set) = set else {
            return Err(why.into());
        };
        set.problems.insert(0, why.into());
        set.problems.extend(problems);
        Ok(set)
    }

    /// An empty set with the properties of `shard`.
    fn like(path: &Path, shard: &Shard<Bytes<B>>) -> Self {
        let metadata = shard.metadata();
        Self {
            path: path.to_owned(),
            directory: path.is_dir(),
            creator: metadata.creator.clone(),
            fingerprint: metadata.fingerprint,
            shape: shard.shape(),
            classes: metadata.classes.len(),
            splits: Vec::new(),
            members: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Adds a shard, if it belongs to the same set as the first one.
    fn add(&mut self, path: PathBuf, shard: Shard<Bytes<B>>, start: u64) {
        let metadata = shard.metadata();
        if let Some(first) = self.members.first() {
            let of_first = first.shard.metadata();
            let differing = [
                ("fingerprint", of_first.fingerprint != metadata.fingerprint),
                ("image shape", first.shard.shape() != shard.shape()),
                ("list of classes", of_first.classes != metadata.classes),
            ];
            if let Some((what, _)) = differing.into_iter().find(|(_, differs)| *differs) {
                let first = first.path.clone();
                self.problems.push(SetProblem::Mixed { path, first, what });
                return;
            }
        }
        let (split, end) = (metadata.split, start + shard.len() as u64);
        match self.splits.iter_mut().find(|(known, _)| *known == split) {
            Some((_, images)) => *images = end.max(*images),
            None => self.splits.push((split, end)),
        }
        self.members.push(Member {
            path,
            shard,
            split,
            start,
            sound: true,
        });
    }

    /// The faults of the set.
    pub(crate) fn problems(&self) -> &[SetProblem] {
        &self.problems
    }

    /// The splits, in the order of the set.
    pub(crate) fn splits(&self) -> impl Iterator<Item = Split> {
        self.splits.iter().map(|(split, _)| *split)
    }

    /// Number of images in the split, including those in shards that could not be opened.
    fn len(&self, split: Split) -> u64 {
        let known = self.splits.iter().find(|(known, _)| *known == split);
        known.map_or(0, |(_, images)| *images)
    }

    /// The shards of `split`, in order.
    pub(crate) fn of(&self, split: Split) -> impl Iterator<Item = &Member<B>> {
        self.members
            .iter()
            .filter(move |member| member.split == split)
    }

    /// The classes, in label order.
    pub(crate) fn class_list(&self) -> &[Class] {
        self.members
            .first()
            .map_or(&[], |member| &member.shard.metadata().classes)
    }
}

impl<B: AsRef<[u8]>> Member<B> {
    /// The file of the shard.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Pixels of a block, after comparing them with their checksum.
    pub(crate) fn block<'a>(
        &'a self,
        block: u64,
        expander: &'a mut Expander,
    ) -> tinyres_format::Result<&'a [u8]> {
        match self.shard.inner() {
            Bytes::Raw(_) => {
                self.shard.verify_block(block)?;
                Ok(self.shard.part(Part::Block(block)))
            }
            Bytes::Zstd(zstd) => zstd.expand_block(&self.shard, block, expander),
        }
    }

    /// Pixels of image `at` of the shard, after comparing its block with the checksum.
    fn image(&self, at: usize) -> tinyres_format::Result<Cow<'_, [u8]>> {
        let block = Shard::<B>::block_of(at);
        match self.shard.inner() {
            Bytes::Raw(_) => {
                self.shard.verify_block(block)?;
                Ok(self.shard.image(at).unwrap_or_default().into())
            }
            Bytes::Zstd(zstd) => {
                let mut expander = Expander::new()?;
                let block = zstd.expand_block(&self.shard, block, &mut expander)?;
                let mut images = block.chunks_exact(self.shard.shape().image_len());
                let image = images.nth(at % BLOCK_IMAGES).unwrap_or_default();
                Ok(image.to_vec().into())
            }
        }
    }
}

/// True if there was too little memory, which says nothing about the shard.
fn is_memory(error: &tinyres_format::Error) -> bool {
    match error {
        tinyres_format::Error::At { source, .. } => is_memory(source),
        tinyres_format::Error::Io(error) => error.kind() == std::io::ErrorKind::OutOfMemory,
        error => matches!(error, tinyres_format::Error::Memory),
    }
}

fn compressed(error: &tinyres_format::Error) -> bool {
    match error {
        tinyres_format::Error::At { source, .. } => compressed(source),
        error => matches!(error, tinyres_format::Error::Compressed),
    }
}

fn open_transport<B: AsRef<[u8]>>(path: &Path) -> tinyres_format::Result<Shard<Bytes<B>>> {
    transport::open(path).map(|shard| shard.map_inner(Bytes::Zstd))
}

fn shards(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(shards_in(dir).map_err(|error| tinyres_format::Error::from(error).at(dir))?)
}
