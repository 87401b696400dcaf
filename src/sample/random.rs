//! A sequential reader of the counter-based generator.

use tinyres_format::Draws;

/// A sequence of random numbers: the draws 0, 1, 2, ... of a stream.
pub(super) struct Random {
    draws: Draws,
    /// Index of the next draw.
    next: u64,
}

impl Random {
    pub(super) fn new(draws: Draws) -> Self {
        Self { draws, next: 0 }
    }

    /// 64 random bits.
    pub(super) fn bits(&mut self) -> u64 {
        let bits = self.draws.draw(self.next);
        self.next += 1;
        bits
    }

    /// A uniform number from `low` inclusive to `high` exclusive, in steps of `(high - low) / 2^24`.
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.bits() >> 40) as f32 / (1_u32 << 24) as f32;
        low + (high - low) * unit
    }
}
