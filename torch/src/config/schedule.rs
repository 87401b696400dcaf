//! The learning rate as a pure function of progress: the fraction of the run that is done, from 0 to 1.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};
use strum::VariantNames;

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, VariantNames, Serialize, Deserialize)]
#[serde(tag = "schedule", rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Decay {
    /// By a factor every few epochs.
    Step {
        /// Epochs between two falls; at least 1.
        step_epochs: u32,
        /// Factor of the rate at each fall.
        step_factor: f64,
    },
    /// To 0 along half a cosine.
    Cosine,
    /// To 0 along a line.
    Linear,
}

/// The learning rate over a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The rate at the end of the warm-up, where the decay begins.
    #[serde(rename = "lr")]
    pub peak: f64,
    /// Fraction of the run in which the rate rises linearly from 0: from 0 to below 1.
    pub warmup: f64,
    /// How the rate falls after the warm-up.
    #[serde(flatten)]
    pub decay: Decay,
}

impl Schedule {
    /// The rate at `progress` through the run, in `epoch`, counted from 0. `progress` above 1 counts as 1.
    pub fn rate(&self, progress: f64, epoch: u32) -> f64 {
        if progress < self.warmup {
            return self.peak * progress / self.warmup;
        }
        // Progress through the decay, from 0 to 1.
        let decayed = ((progress - self.warmup) / (1.0 - self.warmup)).min(1.0);
        let factor = match self.decay {
            Decay::Step {
                step_epochs,
                step_factor,
            } => step_factor.powf(f64::from(epoch / step_epochs)),
            Decay::Cosine => (1.0 + (PI * decayed).cos()) / 2.0,
            Decay::Linear => 1.0 - decayed,
        };
        self.peak * factor
    }
}

/// Progress at step `step` of `steps`, counted from 0: `(step + 1) / (steps + 1)`. It is above 0 at the first
/// step and below 1 at the last, so that no step has a rate of 0.
pub(crate) fn progress(step: u64, steps: u64) -> f64 {
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
        }
    }

    #[track_caller]
    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-12, "{got}, expected {expected}");
    }

    #[test]
    fn linear_rises_to_the_peak_and_falls_to_zero() {
        let s = schedule(Decay::Linear, 0.2);
        for (progress, rate) in [(0.0, 0.0), (0.1, 0.2), (0.2, 0.4), (0.4, 0.3), (0.6, 0.2)] {
            near(s.rate(progress, 0), rate);
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
    fn step_falls_as_in_the_log_of_the_blog() {
        let decay = Decay::Step {
            step_epochs: 2,
            step_factor: 0.1,
        };
        let s = Schedule {
            peak: 0.01,
            ..schedule(decay, 0.0)
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
        near(s.rate(progress(0, 3), 0), 0.2);
        near(s.rate(progress(1, 3), 0), 0.4);
        near(s.rate(progress(2, 3), 0), 0.2);
    }
}
