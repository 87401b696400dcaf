//! The pace of a transfer. A server that sends a byte now and then keeps every single wait short, and yet never ends: so
//! the time is bounded in which the next bytes of some number must come.

use std::time::Duration;

/// Bytes that count as getting further.
pub const STEP: u64 = 64 << 10;

/// The pace of one body.
#[derive(Debug)]
pub struct Pace {
    limit: Duration,
    bytes: u64,
    waited: Duration,
}

/// Too few bytes came.
#[derive(Debug, thiserror::Error)]
#[error("only {bytes} bytes came in {waited:.0?}")]
pub struct Slow {
    bytes: u64,
    waited: Duration,
}

impl Pace {
    /// The pace of a body of which [`STEP`] bytes, or the rest, must come in each `limit` of waiting.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            bytes: 0,
            waited: Duration::ZERO,
        }
    }

    /// Counts `bytes` that came after a wait of `waited`.
    ///
    /// # Errors
    /// [`Slow`]: the limit has passed.
    pub fn came(&mut self, bytes: usize, waited: Duration) -> Result<(), Slow> {
        self.bytes += bytes as u64;
        self.waited += waited;
        if self.bytes >= STEP {
            (self.bytes, self.waited) = (0, Duration::ZERO);
        }
        match self.waited > self.limit {
            true => Err(Slow {
                bytes: self.bytes,
                waited: self.waited,
            }),
            false => Ok(()),
        }
    }
}
