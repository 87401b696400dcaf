//! An exponential moving average of a network's weights and statistics, to score and keep in their
//! place.

use tch::Tensor;

use crate::Result;
use crate::net::{Named, ResNet18};
use crate::run::checkpoint;

/// What the names of the averages begin with in a checkpoint.
const PREFIX: &str = "ema/";

/// The running averages of a network's tensors.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    names: Vec<String>,
    averages: Vec<Tensor>,
}

impl Ema {
    /// Begins with the network as it is. `decay` is the share that an average keeps at a step.
    ///
    /// # Errors
    /// Where libtorch has no memory for the averages.
    pub fn new(decay: f64, named: &[Named]) -> Result<Self> {
        let copy = |named: &Named| Ok(named.tensor.f_detach_copy()?);
        Ok(Self {
            decay,
            names: named.iter().map(|named| named.name.clone()).collect(),
            averages: named.iter().map(copy).collect::<Result<_>>()?,
        })
    }

    /// Takes in the network as it is after `step` steps. At first the average is over what there has
    /// been so far, as in `torch.optim.swa_utils` and TensorFlow's `num_updates`: the decay is at most
    /// `(1 + step) / (10 + step)`.
    ///
    /// # Errors
    /// Only where libtorch fails.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a run has fewer than 2^53 steps"
    )]
    pub fn update(&mut self, named: &[Named], step: u64) -> Result<()> {
        let decay = self.decay.min((1.0 + step as f64) / (10.0 + step as f64));
        tch::no_grad(|| {
            for (average, named) in self.averages.iter_mut().zip(named) {
                let _ = average.f_lerp_(&named.tensor, 1.0 - decay)?;
            }
            Ok(())
        })
    }

    /// Exchanges the averages and the values of the network itself.
    ///
    /// # Errors
    /// Only where libtorch fails.
    pub fn swap(&mut self, network: &ResNet18) -> Result<()> {
        tch::no_grad(|| {
            for (average, named) in self.averages.iter_mut().zip(network.named()) {
                let own = named.tensor.f_detach_copy()?;
                named.tensor.shallow_clone().f_copy_(average)?;
                average.f_copy_(&own)?;
            }
            Ok(())
        })
    }

    /// The averages, by name.
    #[must_use]
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let names = self.names.iter().map(|name| format!("{PREFIX}{name}"));
        names
            .zip(self.averages.iter().map(Tensor::shallow_clone))
            .collect()
    }

    /// Takes over a [`state`](Self::state).
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) names the first tensor that is missing or of another shape.
    pub fn load(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        checkpoint::restore(self.state(), state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Role;

    #[test]
    fn averages_follow_the_formula() {
        let values = [1.0_f64, -2.0, 4.0, 0.5, 8.0];
        let mut tensor = Tensor::from_slice(&[3.0_f32]);
        let named = |tensor: &Tensor| {
            vec![Named {
                name: "bn1.running_mean".to_owned(),
                tensor: tensor.shallow_clone(),
                role: Role::Buffer,
            }]
        };
        let mut ema = Ema::new(0.3, &named(&tensor)).unwrap();
        let mut expected = 3.0;
        for (step, value) in (0_u32..).zip(values) {
            tensor.copy_(&Tensor::from_slice(&[value]));
            ema.update(&named(&tensor), step.into()).unwrap();
            let decay = f64::min(0.3, f64::from(1 + step) / f64::from(10 + step));
            expected = decay * expected + (1.0 - decay) * value;
            let [(name, average)] = &ema.state()[..] else {
                panic!("one tensor");
            };
            assert_eq!(name, "ema/bn1.running_mean");
            assert!(
                (average.double_value(&[0]) - expected).abs() < 1e-6,
                "{step}"
            );
        }
        let mut again = Ema::new(0.3, &named(&tensor)).unwrap();
        again.load(&ema.state()).unwrap();
        assert_eq!(again.state()[0].1, ema.state()[0].1);
        assert!(again.load(&[]).is_err());
    }
}
