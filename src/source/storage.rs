//! The place where the images of a source are kept, and how one is read: files of a tree, rows of tables, or shards.

use std::io;

use super::feed::{Fed, FedBuffer};
#[cfg(feature = "parquet")]
use super::parquet::{Parquet, Rows};
use super::raw::Raw;
use super::tree::{ReadBuffer, Tree};
use super::webdataset::{ShardBuffer, Shards};
use super::{Error, Image, Item, Stamp};

/// An open source of one kind.
#[derive(Debug)]
pub(super) enum Storage {
    Tree(Tree),
    #[cfg(feature = "parquet")]
    Parquet(Parquet),
    Raw(Raw),
    Shards(Shards),
    Fed(Fed),
}

/// State of one thread that reads items, one after the other.
#[derive(Debug, Default)]
pub(super) struct ReadState {
    pub(super) buffer: ReadBuffer,
    #[cfg(feature = "parquet")]
    rows: Rows,
    /// Values of the last row of raw pixels.
    row: Vec<u8>,
    shards: ShardBuffer,
    fed: FedBuffer,
    /// Stamp of the file that the last row came from.
    stamp: Option<Stamp>,
}

impl Storage {
    pub fn read<'a>(&'a self, item: &Item, state: &'a mut ReadState) -> Result<Image<'a>, Error> {
        let read = match self {
            Self::Tree(tree) => {
                (tree.read_entry(&item.name, item.entry, &mut state.buffer)).map(Image::Encoded)
            }
            #[cfg(feature = "parquet")]
            Self::Parquet(parquet) => {
                state.stamp = Some(parquet.stamp(item.entry));
                (parquet.read(item.entry, &mut state.rows)).map(Image::Encoded)
            }
            Self::Raw(raw) => {
                state.stamp = Some(raw.stamp(item.entry));
                raw.read(item.entry, &mut state.row).map(Image::Raw)
            }
            Self::Shards(shards) => {
                state.stamp = Some(shards.stamp(item.entry));
                (shards.read(item.entry, &mut state.shards)).map(Image::Encoded)
            }
            Self::Fed(fed) => fed.read(item.entry, &mut state.fed),
        };
        read.map_err(|reason| Error::Read {
            file: self.display_item(item),
            reason,
        })
    }

    /// Width and height of an image that is kept as raw pixels, which are known without reading it.
    pub fn raw_size(&self, item: &Item) -> Option<[u32; 2]> {
        match self {
            Self::Raw(raw) => Some(raw.size(item.entry)),
            Self::Fed(fed) => fed.raw_size(item.entry),
            _ => None,
        }
    }

    /// Prepares to read `items`. Reads those that are adjacent in an archive at once.
    pub fn load(&self, items: &[&Item], state: &mut ReadState) {
        match self {
            Self::Tree(tree) => tree.load(items.iter().map(|item| item.entry), &mut state.buffer),
            #[cfg(feature = "parquet")]
            Self::Parquet(_) => {}
            Self::Raw(_) => {}
            Self::Shards(shards) => {
                shards.load(items.iter().map(|item| item.entry), &mut state.shards);
            }
            Self::Fed(fed) => fed.load(items.iter().map(|item| item.entry), &mut state.fed),
        }
    }

    /// Stamp of the file that held the item read last, from before it was read.
    pub fn stamp_of_read(&self, state: &ReadState) -> Option<Stamp> {
        match self {
            Self::Tree(tree) => tree.stamp_of_read(&state.buffer),
            #[cfg(feature = "parquet")]
            Self::Parquet(_) => state.stamp,
            Self::Raw(_) | Self::Shards(_) => state.stamp,
            Self::Fed(_) => state.fed.stamp,
        }
    }

    /// Stamp of the file that holds `item`; `None` if it is in no file.
    pub fn stamp(&self, item: &Item) -> io::Result<Option<Stamp>> {
        match self {
            Self::Tree(tree) => tree.stamp(&item.name).map(Some),
            #[cfg(feature = "parquet")]
            Self::Parquet(parquet) => Ok(Some(parquet.stamp(item.entry))),
            Self::Raw(raw) => Ok(Some(raw.stamp(item.entry))),
            Self::Shards(shards) => Ok(Some(shards.stamp(item.entry))),
            Self::Fed(fed) => fed.stamp(item.entry),
        }
    }

    /// The path of the source as messages show it.
    pub fn display(&self) -> String {
        match self {
            Self::Tree(tree) => tree.display_path(""),
            #[cfg(feature = "parquet")]
            Self::Parquet(parquet) => parquet.path.display().to_string(),
            Self::Raw(raw) => raw.path.display().to_string(),
            Self::Shards(shards) => shards.path.display().to_string(),
            Self::Fed(_) => "the images handed over".to_owned(),
        }
    }

    fn display_item(&self, item: &Item) -> String {
        match self {
            Self::Tree(tree) => tree.display_path(&item.name),
            #[cfg(feature = "parquet")]
            Self::Parquet(parquet) => parquet.display_row(item.entry),
            Self::Raw(raw) => raw.display_row(item.entry),
            Self::Shards(shards) => shards.display(item),
            Self::Fed(fed) => match fed.path(item.entry) {
                Some(path) => path.display().to_string(),
                None => item.name.clone(),
            },
        }
    }
}
