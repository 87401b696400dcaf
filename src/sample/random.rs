//! Random numbers that follow from a key and nothing else.

/// Added for each number, as in SplitMix64.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64 (Steele, Lea and Flood, 2014), begun at a hash of its key: number `n` of the stream
/// is `mix(state + (n + 1) * GAMMA)`. Written out here because a crate's generator may change its
/// values, and a sample set's bytes may not.
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// The stream of a key: its words are mixed in one after the other.
    pub(super) fn new(key: [u64; 4]) -> Self {
        let state = key.into_iter().fold(0, |state, word| {
            mix(u64::wrapping_add(state, word).wrapping_add(GAMMA))
        });
        Self { state }
    }

    /// The next 64 random bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// A number from `low` inclusive to `high` exclusive, in steps of 2^-24 of their distance.
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.bits() >> 40) as f32 / (1_u32 << 24) as f32;
        low + (high - low) * unit
    }
}

/// SplitMix64's finaliser.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first values of the reference implementation (`splitmix64.c`) from state 0.
    #[test]
    fn agrees_with_the_reference() {
        let mut random = Random { state: 0 };
        assert_eq!(random.bits(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.bits(), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(random.bits(), 0x06c4_5d18_8009_454f);
    }

    #[test]
    fn every_word_of_the_key_counts() {
        let first = |key| Random::new(key).bits();
        let keys = [
            [0, 0, 0, 0],
            [1, 0, 0, 0],
            [0, 1, 0, 0],
            [0, 0, 1, 0],
            [0, 0, 0, 1],
        ];
        for (i, &a) in keys.iter().enumerate() {
            for &b in &keys[..i] {
                assert_ne!(first(a), first(b), "{a:?} {b:?}");
            }
        }
    }
}
