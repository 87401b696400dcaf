//! Packs labelled images into memory-mapped tensor shards, and loads random batches from them.
//!
//! The programs are thin: `tinyres` parses arguments and prints, `tinyres-torch` trains. This
//! library prints only through [`ui`], which is theirs, as is [`cli`].

mod background;
pub mod cli;
mod cmd;
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
