//! Two networks on the same images: which images one gets right and the other wrong.

use crate::Predictions;

/// Images by whether each of two networks is right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Both are right.
    pub both: u32,
    /// Only the first is.
    pub only_first: u32,
    /// Only the second is.
    pub only_second: u32,
    /// Neither is.
    pub neither: u32,
    /// Probability of a difference at least as large if both were equally good: McNemar's test, exact and two-sided.
    pub p_value: f64,
}

impl Agreement {
    /// Compares predictions for the same images: `None` if they are of other shards.
    #[must_use]
    pub fn of(first: &Predictions, second: &Predictions) -> Option<Self> {
        if first.origin.shards != second.origin.shards || first.len() != second.len() {
            return None;
        }
        let mut counts = [0_u32; 4];
        for row in 0..first.len() {
            let at = 2 * usize::from(!first.is_right(row)) + usize::from(!second.is_right(row));
            counts[at] += 1;
        }
        let [both, only_first, only_second, neither] = counts;
        Some(Self {
            both,
            only_first,
            only_second,
            neither,
            p_value: mcnemar(only_first, only_second),
        })
    }
}

/// The exact two-sided p-value of McNemar's test for counts `b` and `c` of the images on which the two differ: twice
/// the probability of at most the smaller count among `b + c` tosses of a coin.
fn mcnemar(b: u32, c: u32) -> f64 {
    let (all, fewer) = (f64::from(b) + f64::from(c), b.min(c));
    // Logarithm of binomial(all, k) / 2^all, relative to that of k = fewer, which is the largest.
    let (mut term, mut log_last) = (0.0_f64, -all * std::f64::consts::LN_2);
    let mut logs = vec![log_last];
    for k in 1..=fewer {
        log_last += ((all - f64::from(k) + 1.0) / f64::from(k)).ln();
        logs.push(log_last);
    }
    for log in logs {
        term += (log - log_last).exp();
    }
    (2.0 * term * log_last.exp()).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mcnemar_agrees_with_scipy() {
        // scipy.stats.binomtest(b, b + c).pvalue
        for (b, c, expected) in [
            (0, 0, 1.0),
            (3, 3, 1.0),
            (1, 9, 0.021_484_375),
            (421, 380, 0.157_515_492_163_293_72),
            (1200, 900, 6.337_277_315_775_641e-11),
        ] {
            let p_value = mcnemar(b, c);
            assert!(
                (p_value / expected - 1.0).abs() < 1e-9,
                "{b} {c}: {p_value}"
            );
        }
    }
}
