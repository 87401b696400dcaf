//! SGD and Adam by libtorch's fused kernels, with their state where a checkpoint reaches it.

use tch::{Device, Kind, Tensor};

use crate::config::{Algorithm, Config};
use crate::model::{Named, Role};
use crate::{Error, Result, ffi};

/// PyTorch's values.
const ADAM: ffi::Adam = ffi::Adam {
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.0,
};

/// What the names of the optimizer's tensors begin with in a checkpoint, where the network's own
/// names stand as they are.
pub(crate) const PREFIX: &str = "optimizer/";

/// Turns gradients into steps.
#[derive(Debug)]
pub struct Optimizer {
    rule: Rule,
    /// Never empty.
    groups: Vec<Group>,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    Sgd { momentum: f64, nesterov: bool },
    Adam,
}

/// Parameters that are trained alike.
#[derive(Debug)]
struct Group {
    /// What the learning rate is multiplied by.
    lr_factor: f64,
    weight_decay: f64,
    names: Vec<String>,
    params: Vec<Tensor>,
    /// The momentum for SGD; the running mean of gradients for Adam.
    first: Vec<Tensor>,
    /// Nothing for SGD; the running mean of squares for Adam.
    second: Vec<Tensor>,
    /// Steps taken, as the kernel of Adam wants it.
    steps: Tensor,
}

impl Optimizer {
    /// For all that is trained among `named`, those in `new` at a rate of their own. Nothing is in
    /// motion yet.
    ///
    /// # Errors
    /// Where libtorch has no memory for the state.
    pub fn new(config: &Config, named: &[Named], new: &[String]) -> Result<Self> {
        let rule = match config.optimizer {
            Algorithm::Sgd => Rule::Sgd {
                momentum: config.momentum,
                nesterov: config.nesterov,
            },
            Algorithm::Adam => Rule::Adam,
        };
        let group = |role: Role, weight_decay: f64, fresh: bool| -> Result<Group> {
            let is_member =
                |named: &&Named| named.role == role && new.contains(&named.name) == fresh;
            let members = || named.iter().filter(is_member);
            let zeros = || -> Result<Vec<Tensor>> {
                // Of the parameters' own layout: the kernels walk both as flat memory.
                let zeros = |named: &Named| named.tensor.f_detach()?.f_zeros_like();
                Ok(members()
                    .map(zeros)
                    .collect::<std::result::Result<_, _>>()?)
            };
            let device = members()
                .next()
                .map_or(Device::Cpu, |named| named.tensor.device());
            Ok(Group {
                lr_factor: if fresh { config.new_lr_factor } else { 1.0 },
                weight_decay,
                names: members().map(|named| named.name.clone()).collect(),
                params: members()
                    .map(|named| named.tensor.shallow_clone())
                    .collect(),
                first: zeros()?,
                second: match rule {
                    Rule::Sgd { .. } => Vec::new(),
                    Rule::Adam => zeros()?,
                },
                steps: Tensor::f_zeros([0_i64; 0], (Kind::Float, device))?,
            })
        };
        let mut groups = Vec::new();
        for fresh in [false, true] {
            groups.push(group(Role::Weight, config.weight_decay, fresh)?);
            groups.push(group(Role::Plain, 0.0, fresh)?);
        }
        groups.retain(|group| !group.params.is_empty());
        Ok(Self { rule, groups })
    }

    /// Takes one step at `rate` along the gradients, and drops them.
    ///
    /// # Errors
    /// A parameter without a gradient.
    pub fn step(&mut self, rate: f64) -> Result<()> {
        for group in &mut self.groups {
            let rate = rate * group.lr_factor;
            match self.rule {
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
            }
            group.params.iter().try_for_each(ffi::clear_grad)?;
        }
        Ok(())
    }

    /// All that the next step depends on beside the parameters, by name.
    #[must_use]
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        let (first, second) = match self.rule {
            Rule::Sgd { .. } => ("momentum", ""),
            Rule::Adam => ("mean", "square"),
        };
        for group in &self.groups {
            for (part, tensors) in [(first, &group.first), (second, &group.second)] {
                for (name, tensor) in group.names.iter().zip(tensors) {
                    state.push((format!("{PREFIX}{part}/{name}"), tensor.shallow_clone()));
                }
            }
        }
        if let Rule::Adam = self.rule {
            // The groups step together, so one count is enough.
            state.push((
                format!("{PREFIX}steps"),
                self.groups[0].steps.shallow_clone(),
            ));
        }
        state
    }

    /// Takes over a [`state`](Self::state).
    ///
    /// # Errors
    /// [`Error::Weights`] names the first tensor that is missing or of another shape.
    pub fn load(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        for (name, mut into) in self.state() {
            let Some((_, from)) = state.iter().find(|(other, _)| *other == name) else {
                return Err(Error::weights(&name, "is missing"));
            };
            if from.size() != into.size() {
                return Err(Error::weights(&name, "is of another shape"));
            }
            into.f_copy_(from)?;
        }
        if let Some((first, rest)) = self.groups.split_first_mut() {
            for group in rest {
                group.steps.f_copy_(&first.steps)?;
            }
        }
        Ok(())
    }
}
