//! Which rank takes which of Muon's steps. A step of a large matrix takes a core longer than the other ranks wait for its
//! result, unless the network is slow: so each is taken once if that pays, and the weight is sent to all.

use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};

use super::muon;
use crate::Result;
use crate::libtorch::Workers;
use crate::ranks::Ranks;

/// Numbers with which the network is measured: 4 MB.
const PROBE: i64 = 1 << 20;
/// Times that each is measured, of which the shortest counts: the first one warms up, and other work only adds to one.
const TRIES: usize = 3;

/// The steps of some weights, dealt among ranks.
#[derive(Debug)]
pub(super) struct Deal {
    /// The sides of each weight's matrix.
    sides: Vec<[i64; 2]>,
    /// The number of the rank that takes the step of each weight.
    pub owners: Vec<usize>,
    /// Products of the busiest rank.
    busiest: f64,
}

impl Deal {
    /// Deals the steps of `weights`, given the costliest first, among `count` ranks: each to the one with the least to do so
    /// far.
    pub fn among(weights: &[&Tensor], count: usize) -> Self {
        let sides: Vec<_> = weights.iter().map(|weight| muon::sides(weight)).collect();
        let mut loads = vec![0.0_f64; count];
        let deal = |&sides: &[i64; 2]| {
            let least = (0..count).min_by(|&a, &b| loads[a].total_cmp(&loads[b]));
            let owner = least.unwrap_or(0);
            loads[owner] += muon::products(sides);
            owner
        };
        Self {
            owners: sides.iter().map(deal).collect(),
            busiest: loads.into_iter().fold(0.0, f64::max),
            sides,
        }
    }

    /// The products that a worker need not wait for, of so many in each rank. A worker takes whole steps.
    fn saved(&self, workers: usize) -> f64 {
        let products = self.sides.iter().map(|&sides| muon::products(sides));
        let (all, largest): (f64, _) = (products.clone().sum(), products.fold(0.0, f64::max));
        let longest = |products: f64| (products / workers as f64).max(largest);
        longest(all) - longest(self.busiest)
    }

    /// True if it saves `ranks` more time than they lose by sending `sent` more numbers, as all measure it now: the same on
    /// each rank. Products are in `kind`.
    pub fn pays(&self, ranks: &Ranks, workers: &Workers, kind: Kind, sent: usize) -> Result<bool> {
        // One of middling size stands for all.
        let Some(&sides) = self.sides.get(self.sides.len() / 2) else {
            return Ok(false);
        };
        let step = shortest(|| {
            let tasks = vec![sides; workers.count()];
            let done = workers.each(tasks, |_, sides| muon::try_products(sides, kind));
            done.map(drop)
        })?;
        let saved = self.saved(workers.count()) / muon::products(sides) * step.as_secs_f64();
        let probe = [Tensor::f_zeros([PROBE], (Kind::Float, Device::Cpu))?];
        let copy = shortest(|| {
            ranks.total(0.0)?;
            if let Some(copies) = ranks.copies(&probe, &[0])? {
                if ranks.is_first() {
                    copies.send(0)?;
                }
                ranks.finish_copies(copies)?;
            }
            // One may have sent before the others have received.
            ranks.total(0.0).map(drop)
        })?;
        let lost = sent as f64 / PROBE as f64 * copy.as_secs_f64();
        Ok(ranks.total(saved - lost)? > 0.0)
    }
}

/// The shortest of a few times that `work` takes.
fn shortest(mut work: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        let began = Instant::now();
        work()?;
        best = best.min(began.elapsed());
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    #[test]
    fn steps_are_dealt_to_the_rank_with_the_least_to_do() {
        let weights = [512, 512, 256, 256, 64].map(|side| Tensor::zeros([side, side, 3, 3], FLOAT));
        let weights: Vec<_> = weights.iter().collect();
        let owners = |count| Deal::among(&weights, count).owners;
        assert_eq!(owners(1), [0; 5]);
        assert_eq!(owners(2), [0, 1, 0, 1, 0]);
        assert_eq!(owners(4), [0, 1, 2, 3, 2]);
    }

    #[test]
    fn many_workers_have_nothing_to_deal() {
        let weights = [64; 4].map(|side| Tensor::zeros([side, side, 3, 3], FLOAT));
        let weights: Vec<_> = weights.iter().collect();
        let each = muon::products([64, 9 * 64]);
        let saved = |count, workers| Deal::among(&weights, count).saved(workers) / each;
        assert_eq!([saved(1, 1), saved(2, 1), saved(4, 1)], [0.0, 2.0, 3.0]);
        assert_eq!([saved(2, 2), saved(2, 4)], [1.0, 0.0]);
    }
}
