//! Decoders of compressed bytes, and what their errors mean. flate2 and zstd panic if they get no memory for a decoder, and
//! a lack of memory must not be taken for damage.

use std::hint::black_box;
use std::io;

use crate::caught::caught;

/// Bytes that a decoder takes at most when it is created: the 32 KiB of zlib's window, and its tables.
const DECODER: usize = 1 << 16;

/// The decoder that `create` makes.
///
/// # Errors
/// There is no memory for it.
pub(super) fn decoder<D>(create: impl FnOnce() -> D) -> io::Result<D> {
    // Tried before, since a panic may itself need memory.
    black_box(Vec::<u8>::new()).try_reserve_exact(black_box(DECODER))?;
    caught(create).map_err(|_| io::ErrorKind::OutOfMemory.into())
}

/// Sorts `error`, met when a decoder was read: `Ok` if the compressed bytes are damaged, and `Err` if it is of the system,
/// of the file or of memory.
pub(super) fn damage(error: io::Error) -> Result<io::Error, io::Error> {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Ok(error)
        }
        // zstd has no other kind.
        io::ErrorKind::Other if error.to_string().contains("not enough memory") => {
            Err(io::ErrorKind::OutOfMemory.into())
        }
        io::ErrorKind::Other => Ok(error),
        _ => Err(error),
    }
}
