//! Random numbers that follow from a seed by the rule in section 7 of `SPEC.md`.
//!
//! A draw is a pure function of its key and its number, so threads can read them in any order. They
//! are not fit for cryptography.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The purpose of draws. Streams of different purposes are independent of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The order of an epoch.
    Order,
    /// The augmentation of images.
    Augment,
    /// The mixing of the images of a batch.
    Mix,
    /// The images of a synthetic set, with the split in place of the epoch.
    Sample,
}

/// An endless sequence of random numbers, readable at any index: SplitMix64 started at the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws(u64);

impl Draws {
    /// Returns the draws of `stream` in `epoch` for `seed`.
    #[must_use]
    pub fn new(seed: u64, stream: Stream, epoch: u64) -> Self {
        let stream = match stream {
            Stream::Order => 0,
            Stream::Augment => 1,
            Stream::Sample => 2,
            Stream::Mix => 3,
        };
        Self([seed, stream, epoch].into_iter().fold(0, absorb))
    }

    /// Returns the draws for one image, by its index in its split, or for one batch, by its number.
    #[must_use]
    pub fn of(self, id: u64) -> Self {
        Self(absorb(self.0, id))
    }

    /// Draw `n`, uniform over all 64-bit numbers.
    #[must_use]
    pub fn draw(self, n: u64) -> u64 {
        mix(self.0.wrapping_add(n.wrapping_add(1).wrapping_mul(GOLDEN)))
    }

    /// Draw `n` as a number below `bound`, uniform up to `bound / 2^64`.
    #[must_use]
    pub fn below(self, n: u64, bound: u64) -> u64 {
        let product = u128::from(self.draw(n)) * u128::from(bound);
        u64::try_from(product >> 64).expect("a product of two u64, shifted by 64, is below 2^64")
    }

    /// Draw `n` as a number from 0 to below 1, uniform over all multiples of 2^-53.
    #[must_use]
    pub fn unit(self, n: u64) -> f64 {
        (self.draw(n) >> 11) as f64 * 0.5_f64.powi(53)
    }
}

fn absorb(key: u64, word: u64) -> u64 {
    mix((key ^ word).wrapping_add(GOLDEN))
}

/// The finaliser of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of SplitMix64 seeded with 1234567, as published with xoshiro's reference code.
    #[test]
    fn draws_are_splitmix64() {
        let draws = Draws(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!([0, 1, 2, 3, 4].map(|n| draws.draw(n)), expected);
    }

    #[test]
    fn unit_is_the_upper_bits_as_a_fraction() {
        let draws = Draws(1_234_567);
        assert_eq!(
            draws.unit(0).to_bits(),
            0.350_079_542_021_408_1_f64.to_bits()
        );
        let all = (0..1000).map(|n| draws.unit(n));
        assert!(all.clone().all(|unit| (0.0..1.0).contains(&unit)));
        assert!((all.sum::<f64>() / 1000.0 - 0.5).abs() < 0.05);
    }

    #[test]
    fn below_stays_below_and_reaches_both_ends() {
        let draws = Draws::new(1, Stream::Augment, 2).of(3);
        let mut seen = [0; 9];
        for n in 0..9_000 {
            seen[usize::try_from(draws.below(n, 9)).expect("below 9")] += 1;
        }
        assert!(
            seen.iter().all(|&times| (850..1150).contains(&times)),
            "{seen:?}"
        );
    }
}
