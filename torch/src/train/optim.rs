//! SGD and Adam by libtorch's fused kernels, and Muon, with their state where a checkpoint reaches it.

mod muon;

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::config::{Algorithm, Config};
use crate::libtorch::device::Precision;
use crate::libtorch::ffi;
use crate::net::{Named, Role};
use crate::run::checkpoint;

/// PyTorch's values.
const ADAM: ffi::Adam = ffi::Adam {
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.0,
};

/// The weight that sees the pixels themselves: too few inputs for Muon.
const FIRST: &str = "conv1.weight";

/// What the names of the optimizer's tensors begin with in a checkpoint, where the network's own
/// names stand as they are.
const PREFIX: &str = "optimizer/";

/// Turns gradients into steps.
#[derive(Debug)]
pub struct Optimizer {
    /// The largest norm of all gradients together; 0 for any.
    clip: f64,
    /// Never empty.
    groups: Vec<Group>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Sgd { momentum: f64, nesterov: bool },
    Adam,
    Muon { momentum: f64, kind: Kind },
}

impl Rule {
    /// What a checkpoint calls the state: the first tensor of each parameter, and the second.
    fn state(self) -> (&'static str, &'static str) {
        match self {
            Self::Sgd { .. } => ("momentum", ""),
            Self::Muon { .. } => ("mean", ""),
            Self::Adam => ("mean", "square"),
        }
    }
}

/// Parameters that are trained alike.
#[derive(Debug)]
struct Group {
    rule: Rule,
    /// What the learning rate is multiplied by.
    lr_factor: f64,
    weight_decay: f64,
    names: Vec<String>,
    params: Vec<Tensor>,
    /// The momentum for SGD; the running mean of gradients for Adam and Muon.
    first: Vec<Tensor>,
    /// Nothing for SGD and Muon; the running mean of squares for Adam.
    second: Vec<Tensor>,
    /// Steps taken, as the kernel of Adam wants it.
    steps: Tensor,
}

impl Group {
    fn new(
        rule: Rule,
        lr_factor: f64,
        weight_decay: f64,
        members: &[&Named],
        device: Device,
    ) -> Result<Self> {
        let zeros = || -> Result<Vec<Tensor>> {
            // Of the parameters' own layout: the kernels walk both as flat memory.
            let zeros = |named: &&Named| Ok(named.tensor.f_detach()?.f_zeros_like()?);
            members.iter().map(zeros).collect()
        };
        Ok(Self {
            rule,
            lr_factor,
            weight_decay,
            names: members.iter().map(|named| named.name.clone()).collect(),
            params: (members.iter())
                .map(|named| named.tensor.shallow_clone())
                .collect(),
            first: zeros()?,
            second: match rule {
                Rule::Sgd { .. } | Rule::Muon { .. } => Vec::new(),
                Rule::Adam => zeros()?,
            },
            steps: Tensor::f_zeros([0_i64; 0], (Kind::Float, device))?,
        })
    }
}

impl Optimizer {
    /// For all that is trained among `named`, those in `new` at a rate of their own. Nothing is in
    /// motion yet.
    ///
    /// # Errors
    /// Where libtorch has no memory for the state.
    pub fn new(config: &Config, named: &[Named], new: &[String]) -> Result<Self> {
        let device = named.first().map_or(Device::Cpu, |n| n.tensor.device());
        let rule = match config.optimizer {
            Algorithm::Sgd | Algorithm::Muon => Rule::Sgd {
                momentum: config.momentum,
                nesterov: config.nesterov,
            },
            Algorithm::Adam => Rule::Adam,
        };
        let muon = Rule::Muon {
            momentum: config.muon_momentum,
            kind: match config.precision.on(device) {
                Precision::Bf16 => Kind::BFloat16,
                _ => Kind::Float,
            },
        };
        let is_filter = |named: &Named| {
            config.optimizer == Algorithm::Muon && named.tensor.dim() == 4 && named.name != FIRST
        };
        let mut groups = Vec::new();
        for fresh in [false, true] {
            let lr_factor = if fresh { config.new_lr_factor } else { 1.0 };
            for (role, filters, rule, lr_factor, weight_decay) in [
                (Role::Weight, false, rule, lr_factor, config.weight_decay),
                (Role::Plain, false, rule, lr_factor, 0.0),
                (
                    Role::Weight,
                    true,
                    muon,
                    lr_factor * config.muon_lr_factor,
                    0.0,
                ),
            ] {
                let is_member = |named: &&Named| {
                    named.role == role
                        && is_filter(named) == filters
                        && new.contains(&named.name) == fresh
                };
                let members: Vec<_> = named.iter().filter(is_member).collect();
                if !members.is_empty() {
                    groups.push(Group::new(rule, lr_factor, weight_decay, &members, device)?);
                }
            }
        }
        let clip = config.clip_grad;
        Ok(Self { clip, groups })
    }

    /// Takes one step at `rate` along the gradients, and drops them.
    ///
    /// # Errors
    /// A parameter without a gradient.
    pub fn step(&mut self, rate: f64) -> Result<()> {
        if self.clip > 0.0 {
            self.clip_gradients()?;
        }
        for group in &mut self.groups {
            let rate = rate * group.lr_factor;
            match group.rule {
                Rule::Sgd { momentum, nesterov } => ffi::sgd(
                    &group.params,
                    &group.first,
                    rate,
                    momentum,
                    group.weight_decay,
                    nesterov,
                )?,
                Rule::Adam => {
                    let _ = group.steps.f_add_scalar_(1)?;
                    let how = ffi::Adam {
                        weight_decay: group.weight_decay,
                        ..ADAM
                    };
                    ffi::adam(
                        &group.params,
                        &group.first,
                        &group.second,
                        &group.steps,
                        rate,
                        how,
                    )?;
                }
                Rule::Muon { momentum, kind } => {
                    for (weight, moving) in group.params.iter().zip(&mut group.first) {
                        tch::no_grad(|| muon::step(weight, moving, momentum, rate, kind))?;
                    }
                }
            }
            group.params.iter().try_for_each(ffi::clear_grad)?;
        }
        Ok(())
    }

    /// Scales all gradients alike so that their norm is at most `clip`, as PyTorch's
    /// `clip_grad_norm_` does, without waiting for a GPU.
    fn clip_gradients(&self) -> Result<()> {
        let params = self.groups.iter().flat_map(|group| &group.params);
        let grads = params.map(|param| Ok(param.f_grad()?));
        let grads = grads.collect::<Result<Vec<_>>>()?;
        let norms = grads.iter().map(|grad| Ok(grad.f_norm()?));
        let norm = Tensor::f_stack(&norms.collect::<Result<Vec<_>>>()?, 0)?.f_norm()?;
        let share = norm.f_add_scalar(1e-6)?.f_reciprocal()?;
        let share = share.f_mul_scalar(self.clip)?.f_clamp_max(1.0)?;
        for mut grad in grads {
            let _ = grad.f_mul_(&share)?;
        }
        Ok(())
    }

    /// All that the next step depends on beside the parameters, by name.
    #[must_use]
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        for group in &self.groups {
            let (first, second) = group.rule.state();
            for (part, tensors) in [(first, &group.first), (second, &group.second)] {
                for (name, tensor) in group.names.iter().zip(tensors) {
                    state.push((format!("{PREFIX}{part}/{name}"), tensor.shallow_clone()));
                }
            }
        }
        // The groups step together, so one count is enough.
        if let Some(Group { steps, .. }) = self.groups.first().filter(|g| g.rule == Rule::Adam) {
            state.push((format!("{PREFIX}steps"), steps.shallow_clone()));
        }
        state
    }

    /// Takes over a [`state`](Self::state).
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) names the first tensor that is missing or of another shape.
    pub fn load(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        checkpoint::restore(self.state(), state)?;
        if let Some((first, rest)) = self.groups.split_first_mut() {
            for group in rest {
                group.steps.f_copy_(&first.steps)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_clipped_by_their_common_norm() {
        let grads = [[3.0_f32, 0.0], [0.0, 4.0]];
        for (clip, share) in [(0.0, 1.0), (1.0, 0.2), (2.5, 0.5), (9.0, 1.0)] {
            let text = format!(
                "optimizer = 'sgd'\nmomentum = 0.0\nnesterov = false\nweight_decay = 0.0\nclip_grad = {clip:?}"
            );
            let config = Config::layered(None, toml::from_str(&text).unwrap()).unwrap();
            // In two groups: the norm is that of all of them.
            let named = [("a", Role::Weight), ("b", Role::Plain)].map(|(name, role)| Named {
                name: name.to_owned(),
                tensor: Tensor::zeros([2], (Kind::Float, Device::Cpu)).set_requires_grad(true),
                role,
            });
            let mut optimizer = Optimizer::new(&config, &named, &[]).unwrap();
            for (named, grad) in named.iter().zip(grads) {
                (&named.tensor * Tensor::from_slice(&grad))
                    .sum(Kind::Float)
                    .backward();
            }
            optimizer.step(1.0).unwrap();
            for (named, grad) in named.iter().zip(grads) {
                let got = Vec::<f32>::try_from(named.tensor.detach()).unwrap();
                for (got, grad) in got.into_iter().zip(grad) {
                    assert!((got + share * grad).abs() < 1e-5, "clip {clip}: {got}");
                }
            }
        }
    }
}
