//! Packs labelled images into memory-mapped tensor shards, and shows what shards hold. The crate
//! `tinyres-load` reads batches from them, `tinyres-torch` trains.
//!
//! ```no_run
//! use std::path::Path;
//! use tinyres::source::Source;
//!
//! // A directory, a zip or a tar, in the layout of Tiny ImageNet or with a folder for each class.
//! let source = Source::open(Path::new("tiny-imagenet-200.zip"))?;
//! for (split, images) in &source.splits {
//!     println!("{split}: {} images of {} classes", images.len(), source.classes.len());
//! }
//! # Ok::<(), tinyres::source::Error>(())
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`source`] | finds the images of a directory or archive, with labels, boxes and names |
//! | [`pack`] | decodes the images of a source and writes them as a set of shards, [`pack::pack`] |
//! | [`inspect`] | reports on shards, shows single images, checks every byte |
//! | [`transport`] | turns compressed shards back into raw ones |
//! | [`unpack`] | turns shards into PNG files and CSV |
//! | [`cache`] | keeps the raw shards of sources and compressed sets that training is given |
//! | [`runs`] | lists and compares the runs of `tinyres train` |
//! | [`sample`] | makes a synthetic set |
//! | [`pickle`] | reads Python pickles as data, for sources and for weights |
//! | [`npy`] | reads the headers of NumPy's arrays, for sources and for results |
//! | [`picture`] | draws images, boxes and captions |
//! | [`background`], [`caught`] | run a job while its caller goes on, and calls that may panic |
//! | [`event`], [`ui`], [`cli`], [`threads`] | what work reports, the terminal, and the command line and threads of the programs |
//!
//! The library prints only through [`ui`] and [`cli`], which belong to the programs.

mod atomic_dir;
pub mod background;
pub mod cache;
pub mod caught;
pub mod cli;
mod cmd;
pub mod event;
mod faults;
pub mod inspect;
pub mod npy;
mod open_files;
pub mod pack;
pub mod pickle;
pub mod picture;
#[cfg(feature = "remote")]
pub mod remote;
pub mod runs;
pub mod sample;
pub mod scratch;
mod siblings;
pub mod source;
pub mod text;
pub mod threads;
pub mod transport;
pub mod ui;
pub mod unpack;
