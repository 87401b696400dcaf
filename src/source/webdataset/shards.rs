//! Tars of a set as storage. A thread has one of them open at a time: a set may have more shards than a process
//! may have open files.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;

use crate::source::read_ahead::ReadAhead;
use crate::source::tar::Tar;
use crate::source::{Item, ReadError, Stamp};

/// The tars of a set, in the order of their images.
#[derive(Debug)]
pub(in crate::source) struct Shards {
    pub path: PathBuf,
    pub(super) shards: Vec<Shard>,
}

#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    stamp: Stamp,
    /// The open tar, or its decompressed bytes; `None` for one of many, which is opened when it is read.
    file: Option<File>,
    /// The number of images in all shards before this one.
    pub(super) first: usize,
    /// The place of each image, in bytes.
    images: Vec<Range<u64>>,
}

impl Shard {
    pub fn new(tar: Tar, images: Vec<Range<u64>>, is_one_of_many: bool) -> Self {
        Self {
            path: tar.path.clone(),
            stamp: tar.stamp,
            file: (tar.is_decompressed || !is_one_of_many).then(|| tar.into_file()),
            first: 0,
            images,
        }
    }

    fn open(&self) -> Result<File, ReadError> {
        if let Some(file) = &self.file {
            return file.try_clone().map_err(ReadError::Io);
        }
        let file = File::open(&self.path).map_err(ReadError::Io)?;
        let stamp = Stamp::of(&file.metadata().map_err(ReadError::Io)?);
        match stamp.to_bytes() == self.stamp.to_bytes() {
            true => Ok(file),
            false => Err(ReadError::Row {
                reason: "the tar was changed after it was opened; pack it again".to_owned(),
            }),
        }
    }
}

/// Memory of one thread.
#[derive(Debug, Default)]
pub(in crate::source) struct ShardBuffer {
    /// The shard that was read last.
    open: Option<(usize, File)>,
    read_ahead: ReadAhead,
}

impl ShardBuffer {
    /// The open file of the shard with this index, and what was read ahead of it.
    fn of<'a>(
        &'a mut self,
        index: usize,
        shard: &Shard,
    ) -> Result<(&'a File, &'a mut ReadAhead), ReadError> {
        if self.open.as_ref().is_none_or(|(known, _)| *known != index) {
            *self = Self {
                open: Some((index, shard.open()?)),
                read_ahead: ReadAhead::default(),
            };
        }
        match &self.open {
            Some((_, file)) => Ok((file, &mut self.read_ahead)),
            None => Err(ReadError::Missing),
        }
    }
}

impl Shards {
    /// The encoded image with this number, counted over all shards.
    pub fn read<'a>(
        &self,
        image: usize,
        buffer: &'a mut ShardBuffer,
    ) -> Result<&'a [u8], ReadError> {
        let (index, shard, range) = self.place(image);
        let (file, read_ahead) = buffer.of(index, shard)?;
        read_ahead.get(file, range).map_err(ReadError::Io)
    }

    /// Reads `images` ahead if they are of one shard and that is faster.
    pub fn load(&self, images: impl Iterator<Item = usize>, buffer: &mut ShardBuffer) {
        let places: Vec<_> = images.map(|image| self.place(image)).collect();
        let Some(&(index, shard, _)) = places.first() else {
            return;
        };
        if places.iter().all(|(other, ..)| *other == index)
            && let Ok((file, read_ahead)) = buffer.of(index, shard)
        {
            read_ahead.load_all(file, places.into_iter().map(|(.., range)| range));
        }
    }

    pub fn stamp(&self, image: usize) -> Stamp {
        self.place(image).1.stamp
    }

    /// The path of the image and its shard as messages show it.
    pub fn display(&self, item: &Item) -> String {
        let shard = self.place(item.entry).1.path.display();
        format!("{shard}: {}", item.name)
    }

    fn place(&self, image: usize) -> (usize, &Shard, Range<u64>) {
        let index = self.shards.partition_point(|shard| shard.first <= image) - 1;
        let shard = &self.shards[index];
        (index, shard, shard.images[image - shard.first].clone())
    }
}
