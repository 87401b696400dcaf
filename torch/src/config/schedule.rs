//! The learning rate as a pure function of how far the run is.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// By a factor every few epochs.
    Step,
    /// To zero along half a cosine.
    Cosine,
    /// To zero along a line.
    Linear,
}

/// The learning rate over a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The rate that the warm-up leads to and the decay begins at.
    pub peak: f64,
    /// Share of the run in which the rate rises from zero, from 0 to below 1.
    pub warmup: f64,
    /// How it falls.
    pub decay: Decay,
    /// Epochs between two falls of [`Decay::Step`]; at least 1.
    pub step_epochs: u32,
    /// What each fall of [`Decay::Step`] multiplies the rate by.
    pub step_factor: f64,
}

impl Schedule {
    /// The rate where `share` of the run, from 0 to 1, lies behind and `epoch`, from 0, is current.
    pub fn rate(&self, share: f64, epoch: u32) -> f64 {
        if share < self.warmup {
            return self.peak * share / self.warmup;
        }
        // Of the decay; past its end the rate stays where it ended.
        let share = ((share - self.warmup) / (1.0 - self.warmup)).min(1.0);
        let left = match self.decay {
            Decay::Step => {
                let falls = f64::from(epoch / self.step_epochs);
                self.step_factor.powf(falls)
            }
            Decay::Cosine => (1.0 + (PI * share).cos()) / 2.0,
            Decay::Linear => 1.0 - share,
        };
        self.peak * left
    }
}

/// The share of a run of `steps` steps that lies behind step `step`, from 0. The run is taken one
/// step longer at each end, so that no step is wasted on a rate of zero.
#[expect(
    clippy::cast_precision_loss,
    reason = "a run has far fewer than 2^53 steps"
)]
pub fn share_of_steps(step: u64, steps: u64) -> f64 {
    (step as f64 + 1.0) / (steps as f64 + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(decay: Decay, warmup: f64) -> Schedule {
        Schedule {
            peak: 0.4,
            warmup,
            decay,
            step_epochs: 2,
            step_factor: 0.1,
        }
    }

    #[track_caller]
    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-12, "{got}, expected {expected}");
    }

    #[test]
    fn linear_rises_to_the_peak_and_falls_to_zero() {
        let s = schedule(Decay::Linear, 0.2);
        for (share, rate) in [(0.0, 0.0), (0.1, 0.2), (0.2, 0.4), (0.4, 0.3), (0.6, 0.2)] {
            near(s.rate(share, 0), rate);
        }
        near(s.rate(1.0, 0), 0.0);
        near(s.rate(1.5, 0), 0.0);
    }

    #[test]
    fn cosine_is_half_way_down_in_the_middle() {
        let s = schedule(Decay::Cosine, 0.0);
        near(s.rate(0.0, 0), 0.4);
        near(s.rate(1.0 / 3.0, 0), 0.3); // cos 60 degrees is 1/2
        near(s.rate(0.5, 0), 0.2);
        near(s.rate(1.0, 0), 0.0);
    }

    #[test]
    fn step_is_the_log_of_the_blog() {
        let s = Schedule {
            peak: 0.01,
            ..schedule(Decay::Step, 0.0)
        };
        for (epoch, rate) in [
            (0, 1e-2),
            (1, 1e-2),
            (2, 1e-3),
            (3, 1e-3),
            (4, 1e-4),
            (19, 1e-11),
        ] {
            near(s.rate(0.5, epoch) / rate, 1.0);
        }
    }

    #[test]
    fn no_step_has_a_rate_of_zero() {
        let s = schedule(Decay::Linear, 0.5);
        // Three steps lie at 1/4, 2/4 and 3/4 of the run.
        near(s.rate(share_of_steps(0, 3), 0), 0.2);
        near(s.rate(share_of_steps(1, 3), 0), 0.4);
        near(s.rate(share_of_steps(2, 3), 0), 0.2);
    }
}
