//! The transport form: a shard as frames of zstd, which any tool for `.zst` files expands. Section 9
//! of `SPEC.md` is its byte table.

mod compress;
mod expand;
mod read_at;
mod seek;

pub use compress::{Frame, Level, compress};
pub use expand::{Expander, Zstd, ZstdShard};
pub use read_at::ReadAt;

use zstd::zstd_safe;

use crate::header::Layout;
use crate::{Error, Part, Result};

pub use crate::manifest::TRANSPORT_SUFFIX as SUFFIX;

/// The longest part of a shard that one frame may hold, in bytes. It bounds what a reader allocates.
pub const MAX_FRAME: u64 = 1 << 28;

/// Makes `bytes` so long, with zeros where it grows.
///
/// # Errors
/// [`Error::Memory`]: the length comes from a file.
fn resize(bytes: &mut Vec<u8>, len: usize) -> Result<()> {
    let reserved = bytes.try_reserve_exact(len.saturating_sub(bytes.len()));
    reserved.map_err(|_| Error::Memory)?;
    bytes.resize(len, 0);
    Ok(())
}

/// The error of zstd with this `code` in a frame that holds `part`.
fn zstd_error(part: Part, code: usize) -> Error {
    let reason = zstd_safe::get_error_name(code);
    match reason.contains("not enough memory") {
        true => Error::Memory,
        false => Error::Zstd {
            part,
            reason: reason.to_owned(),
        },
    }
}

/// The parts of a shard that its frames hold, in order.
fn parts(layout: &Layout) -> impl Iterator<Item = Part> {
    let blocks = (0..layout.blocks()).map(Part::Block);
    [Part::Header].into_iter().chain(blocks).chain([Part::Tail])
}
