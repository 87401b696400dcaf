//! An exponential moving average (EMA) of a network's weights and statistics, which is evaluated and saved
//! in their place. The caller decides when to update it and when to swap it in.

use tch::Tensor;

use crate::Result;
use crate::libtorch::tensors;
use crate::net::{NamedTensor, ResNet18};
use crate::run::checkpoint::AVERAGE;

/// The moving averages of a network's tensors.
#[derive(Debug)]
pub(crate) struct Ema {
    decay: f64,
    names: Vec<String>,
    averages: Vec<Tensor>,
}

impl Ema {
    /// Averages that start at the values of the network.
    ///
    /// # Errors
    /// libtorch is out of memory.
    pub(crate) fn new(decay: f64, named: &[NamedTensor]) -> Result<Self> {
        let copy = |named: &NamedTensor| Ok(named.tensor.f_detach_copy()?);
        Ok(Self {
            decay,
            names: named.iter().map(|named| named.name.clone()).collect(),
            averages: named.iter().map(copy).collect::<Result<_>>()?,
        })
    }

    /// Updates the averages with the network after `step` steps:
    ///
    /// ```text
    /// average = d * average + (1 - d) * value,  d = min(decay, (1 + step) / (10 + step))
    /// ```
    ///
    /// The bound on d, that of TensorFlow's `num_updates`, keeps the initial values from dominating the
    /// average early in a run.
    pub(crate) fn update(&mut self, named: &[NamedTensor], step: u64) -> Result<()> {
        let decay = self.decay.min((1.0 + step as f64) / (10.0 + step as f64));
        tch::no_grad(|| {
            for (average, named) in self.averages.iter_mut().zip(named) {
                let _ = average.f_lerp_(&named.tensor, 1.0 - decay)?;
            }
            Ok(())
        })
    }

    /// Swaps the averages with the values of the network. A second call swaps them back.
    pub(crate) fn swap(&mut self, network: &ResNet18) -> Result<()> {
        tch::no_grad(|| {
            for (average, named) in self.averages.iter_mut().zip(network.named()) {
                let value = named.tensor.f_detach_copy()?;
                named.tensor.shallow_clone().f_copy_(average)?;
                average.f_copy_(&value)?;
            }
            Ok(())
        })
    }

    /// Names and values of the averages.
    #[must_use]
    pub(crate) fn state(&self) -> Vec<(String, Tensor)> {
        let names = self.names.iter().map(|name| format!("{AVERAGE}{name}"));
        names
            .zip(self.averages.iter().map(Tensor::shallow_clone))
            .collect()
    }

    /// Copies the values of a [`state`](Self::state).
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) names the first tensor that is missing or has another shape.
    pub(crate) fn load(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        tensors::restore(&self.state(), state)
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
            vec![NamedTensor {
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
        let mut restored = Ema::new(0.3, &named(&tensor)).unwrap();
        restored.load(&ema.state()).unwrap();
        assert_eq!(restored.state()[0].1, ema.state()[0].1);
        assert!(restored.load(&[]).is_err());
    }
}
