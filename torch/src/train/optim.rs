//! The optimizers: SGD and Adam by libtorch's fused kernels, and Muon (`muon`). Parameters with the same rule,
//! rate and decay form a group. The state has names, so that a checkpoint can hold it.
//!
//! The learning rate comes from outside at each step: see `schedule`.

mod deal;
mod muon;

use deal::Deal;
use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::config::{Algorithm, Config};
use crate::libtorch::ffi::Copies;
use crate::libtorch::{Workers, ffi, tensors};
use crate::net::{FIRST_WEIGHT, NamedTensor, Role};
use crate::ranks::{Ranks, Sums};

/// The defaults of `torch.optim.Adam`. The weight decay is the group's.
const ADAM: ffi::Adam = ffi::Adam {
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.0,
};

/// Prefix of the names of the optimizer's tensors in a checkpoint.
const PREFIX: &str = "optimizer/";

/// An optimizer and its state.
#[derive(Debug)]
pub struct Optimizer {
    /// Upper bound of the norm of all gradients together; 0 for none.
    clip: f64,
    /// Never empty.
    groups: Vec<Group>,
}

/// How a gradient becomes a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Sgd { momentum: f64, nesterov: bool },
    Adam,
    Muon { momentum: f64, kind: Kind },
}

impl Rule {
    /// Names in a checkpoint of [`Group::first`] and [`Group::second`].
    fn state(self) -> (&'static str, &'static str) {
        match self {
            Self::Sgd { .. } => ("momentum", ""),
            Self::Muon { .. } => ("mean", ""),
            Self::Adam => ("mean", "square"),
        }
    }
}

/// Parameters that are trained in the same way.
#[derive(Debug)]
struct Group {
    rule: Rule,
    /// Factor of the learning rate.
    lr_factor: f64,
    weight_decay: f64,
    names: Vec<String>,
    params: Vec<Tensor>,
    /// SGD: the momentum buffers. Adam and Muon: the running means of the gradients.
    first: Vec<Tensor>,
    /// Adam: the running means of the squared gradients. SGD and Muon: empty.
    second: Vec<Tensor>,
    /// Steps taken, `f32 []`, the form that Adam's kernel takes.
    steps: Tensor,
    /// The rank that takes the steps of each parameter and has its state; `None` if all ranks do.
    owners: Vec<Option<usize>>,
}

impl Group {
    fn new(
        rule: Rule,
        lr_factor: f64,
        weight_decay: f64,
        members: &[&NamedTensor],
        device: Device,
    ) -> Result<Self> {
        let zeros = || -> Result<Vec<Tensor>> {
            // zeros_like keeps the layout: the fused kernels read parameter and state as flat memory.
            let zeros = |named: &&NamedTensor| Ok(named.tensor.f_detach()?.f_zeros_like()?);
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
            owners: vec![None; members.len()],
        })
    }

    /// Takes a step with the learning rate `rate`. Each of several workers trains whole parameters, the largest first.
    fn step(&mut self, rate: f64, workers: &Workers) -> Result<()> {
        self.count_step()?;
        if workers.count() == 1 {
            // The fused kernels take a list of tensors: on a GPU it is one launch.
            let all = Members {
                params: clones(&self.params),
                first: clones(&self.first),
                second: clones(&self.second),
                steps: self.steps.shallow_clone(),
            };
            return all.step(self.rule, rate, self.weight_decay);
        }
        let mut members: Vec<_> = self.members().collect();
        members.sort_by_key(|member| std::cmp::Reverse(member.params[0].numel()));
        let (rule, weight_decay) = (self.rule, self.weight_decay);
        workers.each(members, |_, member| member.step(rule, rate, weight_decay))?;
        Ok(())
    }

    fn count_step(&mut self) -> Result<()> {
        if self.rule == Rule::Adam {
            let _ = self.steps.f_add_scalar_(1)?;
        }
        Ok(())
    }

    /// Each parameter by itself.
    fn members(&self) -> impl Iterator<Item = Members> {
        let one = |tensors: &[Tensor], at: usize| clones(tensors.get(at..=at).unwrap_or_default());
        (0..self.params.len()).map(move |at| Members {
            params: one(&self.params, at),
            first: one(&self.first, at),
            second: one(&self.second, at),
            steps: self.steps.shallow_clone(),
        })
    }
}

/// The step of one parameter.
struct Task {
    /// The place of its gradient among those that come.
    slot: Option<usize>,
    member: Members,
    rule: Rule,
    rate: f64,
    weight_decay: f64,
    /// If this rank takes it for all: the place of the weights among those that are copied.
    copy: Option<usize>,
}

impl Task {
    fn run(self, copies: Option<&Copies<'_>>) -> Result<()> {
        self.member.step(self.rule, self.rate, self.weight_decay)?;
        match (copies, self.copy) {
            (Some(copies), Some(at)) => copies.send(at),
            _ => Ok(()),
        }
    }
}

/// Some parameters of a [`Group`], by handles for a worker.
struct Members {
    params: Vec<Tensor>,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
    steps: Tensor,
}

impl Members {
    fn step(mut self, rule: Rule, rate: f64, weight_decay: f64) -> Result<()> {
        match rule {
            Rule::Sgd { momentum, nesterov } => ffi::sgd(
                &self.params,
                &self.first,
                rate,
                momentum,
                weight_decay,
                nesterov,
            ),
            Rule::Adam => {
                let how = ffi::Adam {
                    weight_decay,
                    ..ADAM
                };
                ffi::adam(
                    &self.params,
                    &self.first,
                    &self.second,
                    &self.steps,
                    rate,
                    how,
                )
            }
            Rule::Muon { momentum, kind } => {
                muon::steps(&self.params, &mut self.first, momentum, rate, kind)
            }
        }
    }
}

fn clones(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::shallow_clone).collect()
}

impl Optimizer {
    /// An optimizer, with all state 0, for the parameters among `named`. Those whose names are in `new`
    /// get the learning rate times `config.new_lr_factor`.
    ///
    /// # Errors
    /// libtorch is out of memory.
    pub fn new(config: &Config, named: &[NamedTensor], new: &[String]) -> Result<Self> {
        let device = named.first().map_or(Device::Cpu, |n| n.tensor.device());
        let rule = match config.optimizer {
            Algorithm::Sgd(sgd) | Algorithm::Muon { sgd, .. } => Rule::Sgd {
                momentum: sgd.momentum,
                nesterov: sgd.nesterov,
            },
            Algorithm::Adam => Rule::Adam,
        };
        let muon = match config.optimizer {
            Algorithm::Muon {
                lr_factor,
                momentum,
                ..
            } => {
                let kind = muon::kind_of_products(config.precision, device);
                Some((Rule::Muon { momentum, kind }, lr_factor))
            }
            Algorithm::Sgd(_) | Algorithm::Adam => None,
        };
        // Muon trains the convolutions, except the first: each of its filters has only 3 channels.
        let is_for_muon = |named: &NamedTensor| {
            let is_conv = named.tensor.dim() == 4 && named.name != FIRST_WEIGHT;
            muon.is_some() && is_conv
        };
        let mut groups = Vec::new();
        for fresh in [false, true] {
            let lr_factor = if fresh { config.new_lr_factor } else { 1.0 };
            let muon =
                muon.map(|(rule, factor)| (Role::Weight, true, rule, lr_factor * factor, 0.0));
            let others = [
                (Role::Weight, false, rule, lr_factor, config.weight_decay),
                (Role::NoDecay, false, rule, lr_factor, 0.0),
            ];
            for (role, for_muon, rule, lr_factor, weight_decay) in others.into_iter().chain(muon) {
                let is_member = |named: &&NamedTensor| {
                    named.role == role
                        && is_for_muon(named) == for_muon
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

    /// Takes one step with the learning rate `rate`, and clears the gradients.
    ///
    /// # Errors
    /// A parameter has no gradient.
    pub fn step(&mut self, rate: f64, workers: &Workers) -> Result<()> {
        self.step_over(&Ranks::alone(), Sums::default(), rate, workers)
    }

    /// The same of `ranks`, which have equal parameters and state, with the gradients `sums`.
    ///
    /// # Errors
    /// Those of [`step`](Self::step), and [`Error::Ranks`](crate::Error::Ranks) if a rank fails.
    pub(crate) fn step_over(
        &mut self,
        ranks: &Ranks,
        sums: Sums<'_>,
        rate: f64,
        workers: &Workers,
    ) -> Result<()> {
        let sums = match self.clip > 0.0 {
            true => {
                let params = self.groups.iter().flat_map(|group| &group.params);
                let waits = params.map(|param| sums.wait_for(sums.slot(param)));
                ranks.explain(waits.collect::<Result<()>>())?;
                // Scaling changes the memory that they are sent from.
                ranks.finish_sums(sums, 1)?;
                self.clip_gradients(workers)?;
                Sums::default()
            }
            false => sums,
        };
        if ranks.count() == 1 {
            for group in &mut self.groups {
                group.step(rate * group.lr_factor, workers)?;
            }
        } else {
            self.step_as_they_come(ranks, &sums, rate, workers)?;
        }
        ranks.finish_sums(sums, workers.count())?;
        let mut params = self.groups.iter().flat_map(|group| &group.params);
        params.try_for_each(ffi::clear_grad)
    }

    /// Deals Muon's steps among `ranks`, which have equal state, if that costs less than that each takes all. From then on a
    /// rank has the state of those alone that it takes, until [`gather`](Self::gather).
    pub(crate) fn deal(&mut self, ranks: &Ranks, workers: &Workers) -> Result<()> {
        for group in &mut self.groups {
            let Rule::Muon { kind, .. } = group.rule else {
                continue;
            };
            let mut costly: Vec<_> = group.params.iter().zip(&mut group.owners).collect();
            costly.sort_by_key(|(param, _)| std::cmp::Reverse(param.numel()));
            let weights: Vec<_> = costly.iter().map(|(param, _)| *param).collect();
            // A GPU takes all sooner than it would get one.
            if weights.iter().any(|weight| weight.device().is_cuda()) {
                continue;
            }
            let deal = Deal::among(&weights, ranks.count());
            let numbers: usize = weights.iter().map(|weight| weight.numel()).sum();
            // The weights; but a gradient goes to one rank alone, half the way as a mean, unless all need the common norm.
            let sent = if self.clip > 0.0 {
                numbers
            } else {
                numbers / 2
            };
            if deal.pays(ranks, workers, kind, sent)? {
                let owners = deal.owners;
                for ((_, to), owner) in costly.into_iter().zip(owners) {
                    *to = Some(owner);
                }
            }
        }
        Ok(())
    }

    /// The rank that alone needs the gradient of `param`; `None` if all do.
    pub(crate) fn owner(&self, param: &Tensor) -> Option<usize> {
        // The common norm is that of all gradients.
        if self.clip > 0.0 {
            return None;
        }
        let owners = self
            .groups
            .iter()
            .flat_map(|g| g.params.iter().zip(&g.owners));
        let mut owners = owners.filter(|(one, _)| one.data_ptr() == param.data_ptr());
        owners.next().and_then(|(_, owner)| *owner)
    }

    /// Gives all `ranks` the whole state.
    pub(crate) fn gather(&self, ranks: &Ranks) -> Result<()> {
        for group in &self.groups {
            for (state, owner) in group.first.iter().zip(&group.owners) {
                if let Some(owner) = *owner {
                    ranks.copy_from(owner, &mut state.shallow_clone())?;
                }
            }
        }
        Ok(())
    }

    /// Takes the step of each parameter as soon as its gradient is there: this rank's, while the others send theirs.
    fn step_as_they_come(
        &mut self,
        ranks: &Ranks,
        sums: &Sums<'_>,
        rate: f64,
        workers: &Workers,
    ) -> Result<()> {
        let (mut tasks, mut weights, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for group in &mut self.groups {
            group.count_step()?;
            for (member, &owner) in group.members().zip(&group.owners) {
                let param = &member.params[0];
                let copy = owner.map(|_| weights.len());
                if let Some(owner) = owner {
                    weights.push(param.f_detach()?);
                    owners.push(owner);
                }
                if owner.is_none_or(|owner| owner == ranks.rank()) {
                    tasks.push(Task {
                        slot: sums.slot(param),
                        member,
                        rule: group.rule,
                        rate: rate * group.lr_factor,
                        weight_decay: group.weight_decay,
                        copy,
                    });
                }
            }
        }
        tasks.sort_by_key(|task| task.slot);
        let copies = ranks.copies(&weights, &owners)?;
        let done = workers.each(tasks, |_, task| {
            sums.wait_for(task.slot)?;
            task.run(copies.as_ref())
        });
        ranks.explain(done)?;
        match copies {
            Some(copies) => ranks.finish_copies(copies),
            None => Ok(()),
        }
    }

    /// Scales all gradients by `min(1, clip / (norm + 1e-6))`, as PyTorch's `clip_grad_norm_` does, but
    /// without waiting for a GPU.
    fn clip_gradients(&self, workers: &Workers) -> Result<()> {
        let params = self.groups.iter().flat_map(|group| &group.params);
        let grads = params.map(|param| Ok(param.f_grad()?));
        let grads = grads.collect::<Result<Vec<_>>>()?;
        let norms = workers.each(clones(&grads), |_, grad| Ok(grad.f_norm()?))?;
        let norm = Tensor::f_stack(&norms, 0)?.f_norm()?;
        let scale = norm.f_add_scalar(1e-6)?.f_reciprocal()?;
        let scale = scale.f_mul_scalar(self.clip)?.f_clamp_max(1.0)?;
        for mut grad in grads {
            let _ = grad.f_mul_(&scale)?;
        }
        Ok(())
    }

    /// Names and tensors of everything that the next step depends on, except the parameters.
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
        // All groups have taken the same number of steps.
        if let Some(Group { steps, .. }) = self.groups.first().filter(|g| g.rule == Rule::Adam) {
            state.push((format!("{PREFIX}steps"), steps.shallow_clone()));
        }
        state
    }

    /// Copies the values of a [`state`](Self::state).
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) names the first tensor that is missing or has another shape.
    pub fn load(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        tensors::restore(&self.state(), state)?;
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
        for (clip, scale) in [(0.0, 1.0), (1.0, 0.2), (2.5, 0.5), (9.0, 1.0)] {
            let text = format!(
                "optimizer = 'sgd'\nmomentum = 0.0\nnesterov = false\nweight_decay = 0.0\nclip_grad = {clip:?}"
            );
            let config = Config::layered(None, toml::from_str(&text).unwrap(), false).unwrap();
            // Two groups: the norm is that of both together.
            let named =
                [("a", Role::Weight), ("b", Role::NoDecay)].map(|(name, role)| NamedTensor {
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
            optimizer.step(1.0, &Workers::calling_thread()).unwrap();
            for (named, grad) in named.iter().zip(grads) {
                let got = Vec::<f32>::try_from(named.tensor.detach()).unwrap();
                for (got, grad) in got.into_iter().zip(grad) {
                    assert!((got + scale * grad).abs() < 1e-5, "clip {clip}: {got}");
                }
            }
        }
    }
}
