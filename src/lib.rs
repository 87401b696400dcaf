//! Packs labelled images into memory-mapped tensor shards, and loads random batches from them.
//!
//! The binaries are thin: `tinyres` parses arguments and prints, `tinyres-torch` trains. This
//! library prints nothing but through [`ui`], which is theirs.

mod background;
pub mod event;
mod faults;
pub mod inspect;
pub mod pack;
pub mod picture;
pub mod sample;
mod scratch;
pub mod source;
pub mod text;
pub mod transport;
pub mod ui;
