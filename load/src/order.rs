//! The order of an epoch, and its cut into batches. Which image comes when follows from (seed, epoch)
//! alone, never from the number of threads or ranks. Nothing here touches pixels.

use std::num::NonZeroUsize;
use std::ops::Range;

use tinyres_format::{Draws, Stream};

/// All numbers below `len` once each, shuffled as `(seed, epoch)` decide by the rule in section 7 of the
/// format's `SPEC.md`: a Fisher-Yates shuffle from the front. Takes 10 to 25
/// nanoseconds an image.
#[must_use]
pub fn shuffled(len: u32, seed: u64, epoch: u64) -> Vec<u32> {
    let draws = Draws::new(seed, Stream::Order, epoch);
    let mut order: Vec<u32> = (0..len).collect();
    for place in 0..order.len() {
        let ahead = draws.below(place as u64, (order.len() - place) as u64);
        order.swap(
            place,
            place + usize::try_from(ahead).expect("below a usize"),
        );
    }
    order
}

/// One process of those that train together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Its number, from 0.
    pub index: usize,
    /// How many processes there are.
    pub count: NonZeroUsize,
}

impl Rank {
    /// The only process.
    pub const ONLY: Self = Self {
        index: 0,
        count: NonZeroUsize::MIN,
    };

    /// The part of a global batch of `len` images that belongs to this rank. The parts of all ranks
    /// join to the whole, and their sizes differ by at most one.
    fn slice(self, len: usize) -> Range<usize> {
        let bound = |rank: usize| {
            let (each, rest) = (len / self.count, len % self.count);
            each * rank + rest.min(rank)
        };
        bound(self.index)..bound(self.index + 1)
    }
}

/// The order of an epoch, cut into batches. A position in an epoch is the number of a batch.
#[derive(Clone, Debug)]
pub struct Batches {
    order: Vec<u32>,
    batch: NonZeroUsize,
    drop_last: bool,
    rank: Rank,
}

impl Batches {
    /// Cuts `order` into global batches of `batch` images, each of which `rank` sees its slice of. With
    /// `drop_last`, every rank leaves out a last batch that is smaller.
    #[must_use]
    pub fn new(order: Vec<u32>, batch: NonZeroUsize, drop_last: bool, rank: Rank) -> Self {
        Self {
            order,
            batch,
            drop_last,
            rank,
        }
    }

    /// Number of batches.
    #[must_use]
    pub fn len(&self) -> usize {
        if self.drop_last {
            self.order.len() / self.batch
        } else {
            self.order.len().div_ceil(self.batch.get())
        }
    }

    /// True if there is no batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Largest number of images that this rank gets in one batch.
    #[must_use]
    pub fn max_len(&self) -> usize {
        self.get(0).map_or(0, <[u32]>::len)
    }

    /// This rank's images of global batch `index`; `None` past the last.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u32]> {
        if index >= self.len() {
            return None;
        }
        let start = index * self.batch.get();
        let end = self.order.len().min(start + self.batch.get());
        let own = self.rank.slice(end - start);
        Some(&self.order[start + own.start..start + own.end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nonzero(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).expect("not zero")
    }

    /// The rule of SPEC.md, written without the types of this module.
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
        for i in 0..u64::from(len) {
            let u = mix(key.wrapping_add((i + 1).wrapping_mul(golden)));
            let j = u128::from(i) + ((u128::from(u) * u128::from(u64::from(len) - i)) >> 64);
            order.swap(
                usize::try_from(i).expect("small"),
                usize::try_from(j).expect("small"),
            );
        }
        order
    }

    /// Values that a few lines of Python give, written from SPEC.md alone. They must never change: runs resume by them.
    #[test]
    fn orders_equal_those_of_the_specification() {
        assert_eq!(shuffled(12, 0, 0), [1, 0, 8, 9, 6, 10, 7, 3, 4, 2, 11, 5]);
        assert_eq!(shuffled(12, 1, 2), [6, 4, 10, 8, 9, 2, 0, 1, 3, 7, 11, 5]);
        let long = shuffled(100_000, 7, 3);
        assert_eq!(long[..6], [46_923, 50_325, 2184, 66_329, 89_408, 23_092]);
        assert_eq!(long[99_997..], [84_733, 76_420, 70_913]);
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

        /// From whatever position a run resumes.
        #[test]
        fn ranks_join_to_the_global_batch(
            len in 0u32..500, batch in 1usize..70, count in 1usize..9, drop_last: bool, seed: u64,
            first in 0usize..10,
        ) {
            let of = |rank| Batches::new(shuffled(len, seed, 0), nonzero(batch), drop_last, rank);
            let all = of(Rank::ONLY);
            let ranks: Vec<Batches> =
                (0..count).map(|index| of(Rank { index, count: nonzero(count) })).collect();
            let order = naive(len, seed, 0);
            for at in first..all.len() {
                let own: Vec<&[u32]> = ranks.iter().filter_map(|rank| rank.get(at)).collect();
                prop_assert_eq!(own.len(), count);
                prop_assert!(own.iter().zip(&ranks).all(|(own, rank)| own.len() <= rank.max_len()));
                let joined = own.concat();
                prop_assert_eq!(&joined[..], &order[at * batch..order.len().min((at + 1) * batch)]);
                prop_assert_eq!(Some(&joined[..]), all.get(at));
                prop_assert!(joined.len() == batch || (at + 1 == all.len() && !drop_last));
            }
            for batches in ranks.iter().chain([&all]) {
                prop_assert_eq!(batches.len(), all.len());
                prop_assert!(batches.get(all.len()).is_none());
            }
            let served: usize = (0..all.len()).filter_map(|at| all.get(at)).map(|batch| batch.len()).sum();
            prop_assert_eq!(served, if drop_last { order.len() / batch * batch } else { order.len() });
        }
    }

    /// Spearman's correlation of two orders of the numbers below `a.len()`.
    fn correlation(a: &[u32], b: impl IntoIterator<Item = f64>) -> f64 {
        let b: Vec<f64> = b.into_iter().collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let a: Vec<f64> = a.iter().copied().map(f64::from).collect();
        let (mean_a, mean_b) = (mean(&a), mean(&b));
        let (mut product, mut square_a, mut square_b) = (0.0, 0.0, 0.0);
        for (a, b) in a.iter().zip(&b) {
            let (a, b) = (a - mean_a, b - mean_b);
            (product, square_a, square_b) = (product + a * b, square_a + a * a, square_b + b * b);
        }
        product / (square_a * square_b).sqrt()
    }

    /// Correlations of 50,000 are within 4 standard deviations, which are 1 / sqrt(n), of 0: between
    /// epochs, between seeds, between an image and its place, and between its class and its place
    /// where, as in a packed set, each class is a run of images.
    #[test]
    fn orders_do_not_resemble_each_other_nor_the_file() {
        const N: u32 = 50_000;
        let bound = 4.0 / f64::from(N).sqrt();
        let runs = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (u64::MAX, 0)];
        let orders = runs.map(|(seed, epoch)| shuffled(N, seed, epoch));
        for (at, a) in orders.iter().enumerate() {
            let places = correlation(a, (0..N).map(f64::from));
            let class = correlation(
                &(0..N).collect::<Vec<_>>(),
                a.iter().map(|image| f64::from(image / 250)),
            );
            assert!(
                places.abs() < bound && class.abs() < bound,
                "{places} {class}"
            );
            for b in &orders[at + 1..] {
                let orders = correlation(a, b.iter().copied().map(f64::from));
                assert!(orders.abs() < bound, "{orders}");
            }
        }
    }

    /// All 24 orders of four images come equally often: chi-square of 23 degrees of freedom stays
    /// below 49.7, which it would pass once in a thousand times.
    #[test]
    fn all_orders_are_equally_likely() {
        let mut times = std::collections::BTreeMap::new();
        for seed in 0..24_000 {
            *times.entry(shuffled(4, seed, 0)).or_insert(0.0) += 1.0;
        }
        assert_eq!(times.len(), 24);
        let square: f64 = times
            .values()
            .map(|times: &f64| (times - 1000.0).powi(2) / 1000.0)
            .sum();
        assert!(square < 49.7, "{square}");
    }
}
