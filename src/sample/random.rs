use tinyres_format::Draws;

/// Draws read one after the other.
pub(super) struct Random {
    draws: Draws,
    /// The next to be read.
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

    /// A number from `low` inclusive to `high` exclusive, in steps of 2^-24 of their distance.
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.bits() >> 40) as f32 / (1_u32 << 24) as f32;
        low + (high - low) * unit
    }
}
