//! The file format of tinyres: sets of small labelled images in memory-mapped shards.
//!
//! A **set** is a directory. Each split of it (train, val, test) is a list of **shards**, and
//! `dataset.json`, the [`Manifest`], lists them all. A shard is one file: the pixels of its images as
//! one tensor, `u8 [count, 3, height, width]`, then a column each of labels, boxes and names. A reader
//! maps it and uses it in place. [`spec`] is the byte table, for readers in other languages.
//!
//! Write a set with [`SetWriter`], then open a shard of it:
//!
//! ```
//! use std::num::NonZeroU32;
//! use tinyres_format::{Class, Digest, Manifest, SetOptions, SetWriter, Shape, Shard, Split};
//!
//! let temporary = tempfile::tempdir()?;
//! let dir = temporary.path().join("cats");
//! let mut set = SetWriter::create(&dir, SetOptions {
//!     shape: Shape::rgb(2), // [3, 2, 2]
//!     classes: vec![Class { id: "n02124075".into(), name: "Egyptian cat".into() }],
//!     creator: "an example".into(),
//!     fingerprint: Digest::of(b"identifies the set"),
//!     shard_images: NonZeroU32::new(8192).unwrap(),
//! })?;
//! set.image(Split::Train, &[7; 12], 0, [0, 0, 1, 1], "cat.jpg")?;
//! set.finish()?; // writes dataset.json: from now on the directory holds a set
//!
//! let manifest = Manifest::load(&dir)?;
//! let train = manifest.split(Split::Train).expect("it was written above");
//! let file = dir.join(&train.shards[0].file);
//! let shard = Shard::new(std::fs::read(file)?)?; // or `map`, which is unsafe and copies nothing
//! shard.verify()?;
//! assert_eq!(shard.image(0), Some(&[7; 12][..]));
//! assert_eq!(shard.labels()[0].get(), 0);
//! assert_eq!(shard.name(0).transpose()?, Some("cat.jpg"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How much is checked
//!
//! Opening a shard costs microseconds, so that sets of thousands of shards open at once. A
//! [`RawShard`] has only its header page checked. That is enough to compare the shard with the
//! manifest by its digest, and to keep every read in bounds; the caller checks each column and each
//! block of pixels before it uses them. A [`Shard`] also has its metadata checked. It dereferences to
//! its `RawShard`, and [`Shard::verify`] checks the rest, which reads the whole file.
//!
//! # What this crate does not do
//!
//! It decodes no images, starts no threads and prints nothing. The crate `tinyres-load` reads batches
//! in the order that [`Draws`] gives. The cargo feature `transport`, on by default, adds the
//! compressed form of shards, and needs a C compiler for zstd.

mod draws;
mod error;
mod header;
mod le;
mod manifest;
mod map;
mod metadata;
mod outline;
mod part;
pub mod publish;
mod set_writer;
mod shard;
#[cfg(feature = "transport")]
pub mod transport;
mod writer;

#[doc = include_str!("../SPEC.md")]
pub mod spec {}

pub use draws::{Draws, Stream};
pub use error::{Error, Result};
pub use header::{BLOCK_IMAGES, Header, MAGIC, PAGE, Section, Shape, VERSION};
pub use le::{Le32, Le64, LeI32, LeI64};
pub use manifest::{Form, MANIFEST, Manifest, ShardEntry, SplitEntry, TRANSPORT_SUFFIX, shards_in};
pub use map::{Map, MapGuard, MapHook, Piece, Region, set_map_hook};
pub use metadata::{Class, Digest, Metadata, Refused, Split, Warned};
pub use outline::Outline;
pub use part::Part;
pub use set_writer::{SetOptions, SetWriter};
pub use shard::{RawShard, Shard, map, map_raw};
#[cfg(feature = "transport")]
pub use transport::ZstdShard;
pub use writer::{Columns, Sealed, Writer, WrittenImages};
