//! How fast each rank is: the time that it computes for an image, without that which it waits for others. All wait for the
//! slowest one in every step, so people should know which that is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Steps whose median tells the pace: more than evaluations and saves, which take their time on some ranks only.
const STEPS: usize = 15;
/// How much longer than the median of the others a rank takes that is worth a word.
const SLOW: f64 = 1.25;
/// How many looks in a row it must be so.
const LOOKS: u32 = 3;

/// The pace of this rank.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The end of the last step.
    last: Option<Instant>,
    /// Time of this step that was spent on waiting.
    waited: Duration,
    /// Time for an image in each of the last steps.
    steps: VecDeque<Duration>,
}

impl Pace {
    /// Takes note that this rank has waited for others, or for the network.
    pub(super) fn wait(&mut self, time: Duration) {
        self.waited += time;
    }

    /// Takes note of the end of a step of so many images. Returns nanoseconds for an image; 0 if that is not known yet.
    pub(super) fn step(&mut self, images: u64) -> u64 {
        let now = Instant::now();
        let took = self.last.replace(now).map(|last| now - last);
        let waited = std::mem::take(&mut self.waited);
        self.push(took.map(|took| took.saturating_sub(waited)), images)
    }

    fn push(&mut self, took: Option<Duration>, images: u64) -> u64 {
        let images = u32::try_from(images).unwrap_or(u32::MAX);
        self.steps
            .extend(took.and_then(|took| took.checked_div(images)));
        if self.steps.len() < STEPS {
            return 0;
        }
        self.steps.drain(..self.steps.len() - STEPS);
        let mut sorted: Vec<_> = self.steps.iter().collect();
        sorted.sort();
        u64::try_from(sorted[STEPS / 2].as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Looks for a rank that the others wait for.
#[derive(Debug, Default)]
pub(super) struct Slow {
    /// The one of the last look, and how often in a row it was that.
    last: Option<(usize, u32)>,
    /// Those that were named.
    named: Vec<usize>,
}

impl Slow {
    /// The rank to name after a look at the `paces` of all, in nanoseconds for an image, and how many times as long as the
    /// others it takes.
    pub(super) fn look(&mut self, paces: &[u64]) -> Option<(usize, f64)> {
        let found = slowest(paces);
        let again = self
            .last
            .filter(|last| found.is_some_and(|found| found.0 == last.0));
        self.last = found.map(|found| (found.0, again.map_or(1, |last| last.1 + 1)));
        let (rank, looks) = self.last?;
        if looks < LOOKS || self.named.contains(&rank) {
            return None;
        }
        self.named.push(rank);
        found
    }
}

/// The slowest rank, and how many times as long as the median of the others it takes, if that is [`SLOW`].
fn slowest(paces: &[u64]) -> Option<(usize, f64)> {
    if paces.contains(&0) {
        return None;
    }
    let mut sorted: Vec<_> = paces.iter().copied().enumerate().collect();
    sorted.sort_by_key(|&(_, pace)| pace);
    let (slowest, others) = sorted.split_last()?;
    let median = others.get(others.len() / 2)?.1;
    let times = slowest.1 as f64 / median as f64;
    (times >= SLOW).then_some((slowest.0, times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_is_the_median_of_the_last_steps() {
        let mut pace = Pace::default();
        assert_eq!(pace.push(None, 4), 0);
        for step in 1..STEPS as u64 {
            assert_eq!(pace.push(Some(Duration::from_millis(step)), 4), 0);
        }
        // An evaluation.
        let found = pace.push(Some(Duration::from_secs(9)), 4);
        assert_eq!(found, 8_000_000 / 4);
        for _ in 0..STEPS {
            pace.push(Some(Duration::from_millis(2)), 4);
        }
        assert_eq!(pace.push(Some(Duration::from_millis(2)), 4), 500_000);
    }

    #[test]
    fn a_rank_is_named_once_when_it_was_the_slowest_in_three_looks() {
        let mut slow = Slow::default();
        for (paces, named) in [
            ([10, 10, 20, 11], None),
            ([10, 10, 20, 0], None),
            ([10, 10, 20, 11], None),
            ([10, 11, 20, 11], None),
            ([10, 11, 22, 11], Some((2, 2.0))),
            ([10, 11, 22, 11], None),
            ([22, 11, 11, 11], None),
            ([22, 11, 11, 11], None),
            ([33, 11, 11, 12], Some((0, 3.0))),
            ([11, 11, 12, 12], None),
        ] {
            assert_eq!(slow.look(&paces), named, "{paces:?}");
        }
        assert_eq!(slowest(&[10, 20]), Some((1, 2.0)));
        assert_eq!(slowest(&[10]), None);
    }
}
