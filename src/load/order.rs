use std::num::NonZeroUsize;
use std::ops::Range;

use super::{Draws, Stream};

/// All numbers below `len` once each, in an order that `(seed, epoch)` alone decides.
///
/// Four bytes an image; the rule is in section 7 of the format's `SPEC.md`.
#[must_use]
pub fn shuffled(len: u32, seed: u64, epoch: u64) -> Vec<u32> {
    let draws = Draws::new(seed, Stream::Order, epoch);
    let mut order: Vec<u32> = (0..len).collect();
    for last in (1..order.len()).rev() {
        let other = draws.below(last as u64, last as u64 + 1);
        order.swap(
            last,
            usize::try_from(other).expect("at most `last`, a usize"),
        );
    }
    order
}

/// A process's place among those that train together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Its place, from 0.
    pub index: usize,
    /// How many there are.
    pub count: NonZeroUsize,
}

impl Rank {
    /// The only process.
    pub const ONLY: Self = Self {
        index: 0,
        count: NonZeroUsize::MIN,
    };

    /// This rank's part of a global batch of `len` images: the ranks' parts join to the whole, and
    /// their sizes differ by one at most.
    fn slice(self, len: usize) -> Range<usize> {
        let bound = |rank: usize| {
            let (share, rest) = (len / self.count, len % self.count);
            share * rank + rest.min(rank)
        };
        bound(self.index)..bound(self.index + 1)
    }
}

/// An epoch's order cut into batches. A position in an epoch is the number of a batch.
#[derive(Clone, Debug)]
pub struct Batches {
    order: Vec<u32>,
    batch: NonZeroUsize,
    drop_last: bool,
    rank: Rank,
}

impl Batches {
    /// Cuts `order` into global batches of `batch` images, of which `rank` sees its slice. A last,
    /// smaller batch is left out by all ranks if `drop_last`.
    #[must_use]
    pub fn new(order: Vec<u32>, batch: NonZeroUsize, drop_last: bool, rank: Rank) -> Self {
        Self {
            order,
            batch,
            drop_last,
            rank,
        }
    }

    /// How many batches there are.
    #[must_use]
    pub fn len(&self) -> usize {
        if self.drop_last {
            self.order.len() / self.batch
        } else {
            self.order.len().div_ceil(self.batch.get())
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The largest number of images that this rank gets in one batch.
    #[must_use]
    pub fn most(&self) -> usize {
        self.get(0).map_or(0, <[u32]>::len)
    }

    /// This rank's images of global batch `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u32]> {
        if index >= self.len() {
            return None;
        }
        let start = index * self.batch.get();
        let end = self.order.len().min(start + self.batch.get());
        self.order[start..end].get(self.rank.slice(end - start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nonzero(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).expect("not zero")
    }

    /// The rule of SPEC.md written once more, without the types of this module.
    fn naive(len: u32, seed: u64, epoch: u64) -> Vec<u32> {
        let mix = |z: u64| {
            let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        };
        let golden = 0x9E37_79B9_7F4A_7C15u64;
        let key = [seed, 0, epoch]
            .iter()
            .fold(0, |k: u64, w| mix((k ^ w).wrapping_add(golden)));
        let mut order: Vec<u32> = (0..len).collect();
        for i in (1..u64::from(len)).rev() {
            let u = mix(key.wrapping_add((i + 1).wrapping_mul(golden)));
            let j = (u128::from(u) * u128::from(i + 1)) >> 64;
            order.swap(
                usize::try_from(i).expect("small"),
                usize::try_from(j).expect("small"),
            );
        }
        order
    }

    proptest! {
        #[test]
        fn an_epoch_takes_each_image_once(len in 0u32..5000, seed: u64, epoch in 0u64..1000) {
            let order = shuffled(len, seed, epoch);
            prop_assert_eq!(&order, &naive(len, seed, epoch));
            let mut sorted = order;
            sorted.sort_unstable();
            prop_assert!(sorted.into_iter().eq(0..len));
        }

        #[test]
        fn ranks_join_to_the_global_batch(
            len in 0u32..500, batch in 1usize..70, count in 1usize..9, drop_last: bool, seed: u64,
        ) {
            let order = shuffled(len, seed, 0);
            let of = |rank| Batches::new(order.clone(), nonzero(batch), drop_last, rank);
            let all = of(Rank::ONLY);
            for at in 0..all.len() {
                let joined: Vec<u32> = (0..count)
                    .flat_map(|index| of(Rank { index, count: nonzero(count) }).get(at).map(<[u32]>::to_vec))
                    .flatten()
                    .collect();
                prop_assert_eq!(Some(&joined[..]), all.get(at));
                prop_assert!(joined.len() == batch || (at + 1 == all.len() && !drop_last));
            }
            prop_assert!(all.get(all.len()).is_none());
            let served: usize = (0..all.len()).filter_map(|at| all.get(at)).map(<[u32]>::len).sum();
            prop_assert_eq!(served, if drop_last { order.len() / batch * batch } else { order.len() });
        }
    }

    /// Spearman's correlation of two orders of 50,000 is within 5 standard deviations (1 / sqrt n) of 0.
    #[test]
    fn epochs_and_seeds_do_not_resemble_each_other() {
        let orders =
            [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(seed, epoch)| shuffled(50_000, seed, epoch));
        let identity: Vec<u32> = (0..50_000).collect();
        let mean = 24_999.5;
        for (at, a) in orders.iter().enumerate() {
            for b in orders[at + 1..].iter().chain([&identity]) {
                let product: f64 = a
                    .iter()
                    .zip(b)
                    .map(|(&a, &b)| (f64::from(a) - mean) * (f64::from(b) - mean))
                    .sum();
                let square: f64 = identity
                    .iter()
                    .map(|&a| (f64::from(a) - mean).powi(2))
                    .sum();
                assert!(
                    (product / square).abs() < 5.0 / 50_000f64.sqrt(),
                    "{}",
                    product / square
                );
            }
        }
    }
}
