//! Writes a whole set of shards: images of up to three splits, then `dataset.json`.
//!
//! It takes decoded pixels. It decodes, resizes and shuffles nothing, and it works on one thread;
//! `tinyres pack` does those things with [`Writer`] itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use crate::publish::{self, Lock};
use crate::shard::{check_box, check_label};
use crate::{
    Class, Columns, Digest, Error, MANIFEST, Manifest, Metadata, Result, Shape, Split, SplitEntry,
    Writer, shards_in,
};

/// The properties that all shards of a set share.
#[derive(Clone, Debug)]
pub struct SetOptions {
    /// Shape of every image.
    pub shape: Shape,
    /// The classes, in label order.
    pub classes: Vec<Class>,
    /// Name and version of the program that writes the set.
    pub creator: String,
    /// Identifies the content of the set. Readers compare it only with that of other shards and sets.
    pub fingerprint: Digest,
    /// Images in each shard; the last shard of a split may have fewer.
    pub shard_images: NonZeroU32,
}

/// Writes a set of shards to a directory.
///
/// Hand over the images with [`image`](Self::image), in the order that each split shall have, then
/// call [`finish`](Self::finish). Nothing has its final name before that, and `dataset.json` is
/// written last, so readers see a whole set or none. A writer that is dropped, or whose `finish`
/// fails, removes what it wrote; a process that is killed leaves at most files that readers ignore
/// or refuse.
///
/// Until `finish`, each shard takes one open file, and the labels, boxes and names stay in memory.
#[derive(Debug)]
pub struct SetWriter {
    dir: PathBuf,
    options: SetOptions,
    splits: BTreeMap<Split, Vec<OpenShard>>,
    /// True if the directory was created for this set and holds no finished one yet.
    remove_dir: bool,
    /// The directory, locked against other set writers until this is dropped, if its file system has locks.
    _lock: File,
}

/// A shard that may still get images, or that waits until its split is complete.
#[derive(Debug)]
struct OpenShard {
    writer: Writer,
    columns: Columns,
}

impl SetWriter {
    /// Begins a set in `dir`, which is created if it is missing.
    ///
    /// # Errors
    /// A shape that the format does not allow, a directory that holds `dataset.json` or shards, another
    /// process that writes a set there, or an error of the operating system.
    pub fn create(dir: &Path, options: SetOptions) -> Result<Self> {
        options.shape.check()?;
        let at = |error: Error| error.at(dir);
        let io = |error: std::io::Error| Error::from(error).at(dir);
        let remove_dir = !dir.exists();
        fs::create_dir_all(dir).map_err(io)?;
        let lock = File::open(dir).map_err(io)?;
        match publish::lock(&lock).map_err(io)? {
            Lock::Held | Lock::Unsupported => {}
            Lock::Busy => return Err(at(Error::Busy)),
        }
        if dir.join(MANIFEST).exists() || !shards_in(dir).map_err(io)?.is_empty() {
            return Err(at(Error::Occupied));
        }
        Ok(Self {
            dir: dir.to_owned(),
            options,
            splits: BTreeMap::new(),
            remove_dir,
            _lock: lock,
        })
    }

    /// Adds an image to `split`: its `pixels`, `u8 [channels, height, width]`, its `label`, a class or
    /// -1 for none, its box in inclusive pixels (x0, y0, x1, y1), or four times -1 for none, and its
    /// `name` in the source.
    ///
    /// # Errors
    /// Pixels of another length, a label or a box that the format does not allow, or an error of the
    /// operating system. The image is not part of the set then.
    pub fn image(
        &mut self,
        split: Split,
        pixels: &[u8],
        label: i64,
        bbox: [i32; 4],
        name: &str,
    ) -> Result<()> {
        let shape = self.options.shape;
        let classes = self.options.classes.len();
        if pixels.len() != shape.image_len() {
            return Err(Error::Mismatch {
                what: "bytes of an image",
                got: pixels.len() as u64,
                expected: shape.image_len() as u64,
            });
        }
        let limit = u64::from(self.options.shard_images.get());
        let last = self.splits.get(&split).and_then(|shards| shards.last());
        let room = last.filter(|shard| shard.writer.images() < limit);
        let in_shard = room.map_or(0, |shard| shard.columns.labels.len());
        check_label(in_shard, label, classes)?;
        check_box(in_shard, bbox, shape)?;
        if room.is_none() {
            self.begin_shard(split)?;
        }
        let shards = self.splits.get_mut(&split);
        let shard = shards.and_then(|shards| shards.last_mut());
        let shard = shard.expect("a shard has begun above");
        shard.writer.append(pixels)?;
        shard.columns.labels.push(label);
        shard.columns.boxes.push(bbox);
        shard.columns.names.push(name.to_owned());
        Ok(())
    }

    /// Begins the next shard of `split`, even if the current one has room.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn begin_shard(&mut self, split: Split) -> Result<()> {
        let shards = self.splits.entry(split).or_default();
        let path = self.dir.join(split.shard_name(shards.len()));
        shards.push(OpenShard {
            writer: Writer::create(&path, self.options.shape)?,
            columns: Columns::default(),
        });
        Ok(())
    }

    /// Completes every shard, publishes them, and writes `dataset.json`.
    ///
    /// # Errors
    /// Metadata or names that are too large, or an error of the operating system. The directory holds
    /// nothing of the set then.
    pub fn finish(mut self) -> Result<Manifest> {
        let splits = std::mem::take(&mut self.splits);
        let finished = self.publish(splits);
        if finished.is_ok() {
            self.remove_dir = false;
        } else {
            // All shards here are of this set: there were none before, and the lock kept others out.
            let _ = fs::remove_file(self.dir.join(MANIFEST));
            for shard in shards_in(&self.dir).unwrap_or_default() {
                let _ = fs::remove_file(shard);
            }
        }
        finished
    }

    fn publish(&self, splits: BTreeMap<Split, Vec<OpenShard>>) -> Result<Manifest> {
        // Every shard is sealed before the first one appears.
        let mut sealed = Vec::new();
        for (split, shards) in splits {
            let count = number(shards.len())?;
            let seal = |(index, shard): (usize, OpenShard)| {
                let metadata = self.metadata(split, number(index)?, count);
                shard.writer.seal(&shard.columns, &metadata)
            };
            let shards = shards.into_iter().enumerate().map(seal);
            sealed.push((split, shards.collect::<Result<Vec<_>>>()?));
        }
        let mut entries = Vec::new();
        for (split, shards) in sealed {
            let shards = shards.into_iter().map(|shard| shard.publish());
            let shards = shards.collect::<Result<Vec<_>>>()?;
            entries.push(SplitEntry {
                split,
                images: shards.iter().map(|shard| shard.images).sum(),
                shards,
            });
        }
        let options = &self.options;
        let manifest = Manifest::new(
            options.creator.clone(),
            options.fingerprint,
            options.shape,
            options.classes.len(),
            entries,
        );
        manifest.save(&self.dir)?;
        if self.remove_dir {
            let sync = publish::sync_parent(&self.dir);
            sync.map_err(|error| Error::from(error).at(&self.dir))?;
        }
        Ok(manifest)
    }

    fn metadata(&self, split: Split, shard: u32, shards: u32) -> Metadata {
        Metadata {
            creator: self.options.creator.clone(),
            fingerprint: self.options.fingerprint,
            split,
            shard,
            shards,
            grey: 0,
            refused: Vec::new(),
            warned: Vec::new(),
            classes: self.options.classes.clone(),
        }
    }
}

impl Drop for SetWriter {
    fn drop(&mut self) {
        // Each unpublished shard removes its own temporary file.
        self.splits.clear();
        if self.remove_dir {
            // Fails if somebody else put a file there, which is then theirs to keep.
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

fn number(shards: usize) -> Result<u32> {
    u32::try_from(shards).map_err(|_| Error::Mismatch {
        what: "shards of a split",
        got: shards as u64,
        expected: u32::MAX.into(),
    })
}
