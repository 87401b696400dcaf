//! Several processes that train or evaluate together, as one would: each is a *rank*, with a number. `launch` finds the
//! place of this process in the environment, `meet` brings the ranks together and compares them, `watch` notices when one
//! of them is gone, `pace` when one is slow, and [`Ranks`] is what they compute together, with libtorch's c10d: `sums` are
//! gradients on their way.
//!
//! A process alone is a [`Ranks`], too. Then each function returns what it was given, at once: there is no thread, no
//! socket and no copy.

pub mod launch;
pub mod meet;
mod pace;
mod sums;
mod watch;

use std::cell::RefCell;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor};

use crate::libtorch::equal_parts;
use crate::libtorch::ffi::{Copies, Group, Order, Store};
use crate::{Error, Result};

pub use launch::Launch;
pub use meet::Meeting;
pub(crate) use sums::Sums;
pub use watch::{Fault, OnFault};

use pace::Pace;
use watch::Watch;

/// Why processes cannot train together, or no longer can.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RankError {
    /// The environment does not say how.
    #[error("{0}")]
    Environment(String),
    /// The port of the store is taken.
    #[error(
        "port {port}, where the ranks are to meet, is in use on this host: choose another one with MASTER_PORT (torchrun: --master-port), or end the program that uses it"
    )]
    Port {
        /// The port.
        port: u16,
    },
    /// The store cannot be reached.
    #[error(
        "rank {rank} found no rank 0 at {address} within {}: check MASTER_ADDR and MASTER_PORT, that rank 0 was started, and that this host can reach it ({why})",
        humantime::format_duration(*after)
    )]
    Store {
        /// This rank.
        rank: usize,
        /// Host and port.
        address: String,
        /// Time that it was tried for.
        after: Duration,
        /// The words of libtorch.
        why: String,
    },
    /// Some ranks were not started, or cannot reach the store.
    #[error(
        "{} of {size} did not come to {address} within {}: start them, or give them more time with --rank-timeout",
        listed(ranks),
        humantime::format_duration(*after)
    )]
    Missing {
        /// Their numbers.
        ranks: Vec<usize>,
        /// The number of all ranks.
        size: usize,
        /// Host and port of the store.
        address: String,
        /// Time that was waited.
        after: Duration,
    },
    /// Two processes have the same number.
    #[error("two processes say that they are rank {rank}: give each a RANK of its own")]
    Twice {
        /// The number.
        rank: usize,
    },
    /// A rank differs from rank 0 in what must be equal.
    #[error("{what} is {got}, but {expected} on rank 0: {remedy}")]
    Differs {
        /// The thing that differs.
        what: String,
        /// Its value on the rank.
        got: String,
        /// Its value on rank 0.
        expected: String,
        /// What to do.
        remedy: &'static str,
    },
    /// There are not enough groups of images.
    #[error(
        "{size} ranks have {} of images to train: a rank computes whole groups, into which --ghost-batch {ghost_batch} divides the {batch} of --batch; {} makes enough",
        tinyres::text::counted(*groups, "group"),
        more_groups(*batch, *size)
    )]
    Groups {
        /// The number of ranks.
        size: usize,
        /// The number of groups.
        groups: u32,
        /// Images of a step.
        batch: u32,
        /// Images of a group at most.
        ghost_batch: u32,
    },
    /// There are more processes on this host than GPUs.
    #[error(
        "it is process {} on its host, which has {count} GPUs: start one for each GPU, or add --device cpu",
        local_rank + 1
    )]
    TooFewGpus {
        /// Its number on the host, from 0.
        local_rank: usize,
        /// The GPUs of the host.
        count: usize,
    },
    /// All processes of a host would compute on the same GPU.
    #[error(
        "{local_size} processes on a host cannot share {device}: leave --device out, and each takes a GPU of its own"
    )]
    SharedGpu {
        /// The number of processes on the host.
        local_size: usize,
        /// The device.
        device: String,
    },
    /// NCCL does not connect the GPUs.
    #[error(
        "NCCL does not connect the GPUs ({why}): give each process a GPU of its own by LOCAL_RANK or CUDA_VISIBLE_DEVICES, see what NCCL says with NCCL_DEBUG=INFO, or add --device cpu"
    )]
    Nccl {
        /// The words of libtorch.
        why: String,
    },
    /// A rank has other weights than rank 0.
    #[error(
        "after step {step} its weights are not those of rank 0, though it was given the same: its processor computes otherwise, or its memory fails. Run `tinyres train --resume` without this host"
    )]
    Diverged {
        /// Steps that are done.
        step: u64,
    },
    /// A launcher that may start the run again does not know where it is.
    #[error(
        "torchrun may start this run again: name its directory with --output, so that it then goes on"
    )]
    NoOutput,
    /// A rank has failed.
    #[error("{0}")]
    Fault(Fault),
    /// The ranks have lost each other, and nobody knows why.
    #[error("the ranks have lost each other: {0}")]
    Broken(String),
}

/// The flags that give each of `size` ranks a group of two images at least.
fn more_groups(batch: u32, size: usize) -> String {
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    match batch / size {
        0 | 1 => format!("--batch {} --ghost-batch 2", size.saturating_mul(2)),
        each => format!("--ghost-batch {each}"),
    }
}

/// The ranks of `ranks` for a sentence: `rank 1`, `ranks 1 and 3`, or the first few of them.
fn listed(ranks: &[usize]) -> String {
    const SHOWN: usize = 8;
    match ranks {
        [one] => format!("rank {one}"),
        [first @ .., last] if ranks.len() <= SHOWN => {
            let first: Vec<_> = first.iter().map(ToString::to_string).collect();
            format!("ranks {} and {last}", first.join(", "))
        }
        _ => {
            let shown: Vec<_> = (ranks.iter().take(SHOWN))
                .map(ToString::to_string)
                .collect();
            let more = ranks.len() - shown.len();
            format!("ranks {} and {more} more", shown.join(", "))
        }
    }
}

/// The ranks that train together, as one of them sees them. All call the same functions in the same order.
#[derive(Debug)]
pub struct Ranks(Option<Several>);

#[derive(Debug)]
struct Several {
    rank: usize,
    size: usize,
    /// For what the ranks wait for at once.
    group: Group,
    /// For gradients and weights: others would stand in line behind them.
    bulk: Group,
    /// For all that is on the GPU of this rank, if it has one.
    gpu: Option<Group>,
    watch: Watch,
    pace: RefCell<Pace>,
}

impl Several {
    /// The group for tensors on `device`.
    fn of(&self, device: Device) -> &Group {
        match &self.gpu {
            Some(gpu) if device.is_cuda() => gpu,
            _ => &self.group,
        }
    }
}

impl Ranks {
    /// One process.
    #[must_use]
    pub fn alone() -> Self {
        Self(None)
    }

    /// The number of this one.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |several| several.rank)
    }

    /// The number of all.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(1, |several| several.size)
    }

    /// True if this one writes the run and reports: rank 0.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// The part of `total` things in a row that is this rank's. Those of two ranks differ by at most one.
    pub(crate) fn part(&self, total: i64) -> Range<i64> {
        let all = equal_parts(total, i64::try_from(self.count()).unwrap_or(1));
        all.into_iter().nth(self.rank()).unwrap_or(0..0)
    }

    /// Takes note of the step that this rank has come to, which the others are told if it fails, and of the images that it
    /// has computed of each step.
    pub(crate) fn at_step(&self, step: u64, images: i64) {
        if let Some(several) = &self.0 {
            let pace = several.pace.borrow_mut().step(images.unsigned_abs());
            several.watch.at_step(step, pace);
        }
    }

    /// Sentences on ranks that others wait for, on rank 0, each of them once.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let several = self.0.as_ref();
        several.map_or_else(Vec::new, |several| several.watch.warnings())
    }

    /// Rank 0's value of `own`.
    pub(crate) fn settle(&self, own: f64) -> Result<f64> {
        Ok(self.agree(own, 0.0)?.0)
    }

    /// True if `own` is true on rank 0.
    pub(crate) fn decide(&self, own: bool) -> Result<bool> {
        Ok(self.settle(f64::from(u8::from(own)))? > 0.0)
    }

    /// True if `own` is true on any rank.
    pub(crate) fn any(&self, own: bool) -> Result<bool> {
        Ok(self.total(f64::from(u8::from(own)))? > 0.0)
    }

    /// The sum of `own` over the ranks.
    pub(crate) fn total(&self, own: f64) -> Result<f64> {
        Ok(self.agree(0.0, own)?.1)
    }

    /// Rank 0's value of `first`, and the sum of `own` over the ranks.
    pub(crate) fn agree(&self, first: f64, own: f64) -> Result<(f64, f64)> {
        let Some(several) = &self.0 else {
            return Ok((first, own));
        };
        let first = if several.rank == 0 { first } else { 0.0 };
        let mut both = Tensor::f_from_slice(&[first, own])?;
        self.sum(&mut both)?;
        Ok((both.f_double_value(&[0])?, both.f_double_value(&[1])?))
    }

    /// Rank 0's value of `own`.
    pub(crate) fn share<T: Serialize + DeserializeOwned>(&self, own: T) -> Result<T> {
        let Some(several) = &self.0 else {
            return Ok(own);
        };
        let defect = |error: serde_json::Error| Error::Torch(format!("between ranks: {error}"));
        let own = serde_json::to_vec(&own).map_err(defect)?;
        let length = self.settle(own.len() as f64)?;
        let mut all = match several.rank {
            0 => Tensor::f_from_slice(&own)?,
            _ => Tensor::f_zeros([crate::num::to_i64(length)], (Kind::Uint8, Device::Cpu))?,
        };
        self.copy(&mut all)?;
        serde_json::from_slice(&Vec::<u8>::try_from(all)?).map_err(defect)
    }

    /// Makes `tensor` the sum over the ranks, the same bits on each.
    pub(crate) fn sum(&self, tensor: &mut Tensor) -> Result<()> {
        self.together(|several| several.of(tensor.device()).sum(tensor))
    }

    /// Makes `tensor` that of rank 0.
    pub(crate) fn copy(&self, tensor: &mut Tensor) -> Result<()> {
        self.copy_from(0, tensor)
    }

    /// Makes `tensor` that of rank `from`.
    pub(crate) fn copy_from(&self, from: usize, tensor: &mut Tensor) -> Result<()> {
        self.together(|several| several.of(tensor.device()).copy(tensor, from))
    }

    /// Begins to add up the gradients of `params` over all groups of all ranks, of which this one computes `groups`: on a CPU
    /// in their order, and on a GPU, where each rank has one, in any. `owner` returns the rank that alone needs the sum of a
    /// parameter, if not all do.
    pub(crate) fn sums(
        &self,
        params: &[Tensor],
        owner: impl Fn(&Tensor) -> Option<usize>,
        groups: usize,
    ) -> Result<Sums<'_>> {
        let Some(several) = &self.0 else {
            return Ok(Sums::default());
        };
        let owners: Vec<_> = params.iter().map(owner).collect();
        let exchange = match &several.gpu {
            Some(gpu) => gpu.exchange(params, &owners, Order::Any),
            None => {
                let order = Order::OfGroups(groups);
                several.bulk.exchange(params, &owners, order)
            }
        };
        Ok(Sums::of(params, self.explain(exchange)?))
    }

    /// Waits until `sums` are done, for which each of `threads` may have waited before.
    pub(crate) fn finish_sums(&self, sums: Sums<'_>, threads: usize) -> Result<()> {
        self.together(|several| {
            let (waited, done) = sums.finish();
            let threads = u32::try_from(threads).unwrap_or(u32::MAX);
            several.pace.borrow_mut().wait(waited / threads.max(1));
            done
        })
    }

    /// Begins to receive those of `weights` that other ranks compute: `owners` has the rank of each. `None` for one process.
    pub(crate) fn copies(
        &self,
        weights: &[Tensor],
        owners: &[usize],
    ) -> Result<Option<Copies<'_>>> {
        let several = self.0.as_ref();
        let copies = several.map(|several| several.bulk.copies(weights, owners));
        self.explain(copies.transpose())
    }

    /// Waits until `copies` are done.
    pub(crate) fn finish_copies(&self, copies: Copies<'_>) -> Result<()> {
        self.together(|_| copies.finish())
    }

    /// The reason of `result`'s error, if it is one of another rank.
    pub(crate) fn explain<T>(&self, result: Result<T>) -> Result<T> {
        match &self.0 {
            Some(several) => result.map_err(|error| several.watch.explain(error)),
            None => result,
        }
    }

    fn together(&self, work: impl FnOnce(&Several) -> Result<()>) -> Result<()> {
        match &self.0 {
            Some(several) => {
                let began = Instant::now();
                let done = work(several);
                several.pace.borrow_mut().wait(began.elapsed());
                done.map_err(|error| several.watch.explain(error))
            }
            None => Ok(()),
        }
    }

    /// Ends the work of the ranks: returns when all have come here. Nothing may be computed together any more.
    ///
    /// # Errors
    /// A rank has failed.
    pub fn finish(&self) -> Result<()> {
        let Some(several) = &self.0 else {
            return Ok(());
        };
        self.total(0.0)?;
        several.watch.end();
        // Rank 0 may serve the store: nobody asks it after this.
        self.total(0.0)?;
        Ok(())
    }
}

/// Checks that two ranks on this host connect and add up, as threads.
///
/// # Errors
/// They do not.
pub(crate) fn check_sum() -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let (here, port) = (Ipv4Addr::LOCALHOST.to_string(), free_port()?);
    let rank = |rank: usize| {
        let store = Store::open(&here, port, rank == 0, PATIENCE, "check")?;
        expect_sum(
            &Group::open(&store, "group", &here, rank, 2, PATIENCE)?,
            2,
            Device::Cpu,
        )
    };
    let panicked = |_| Err(Error::Torch("a rank has panicked".to_owned()));
    thread::scope(|scope| {
        let other = scope.spawn(|| rank(1));
        rank(0).and(other.join().unwrap_or_else(panicked))
    })
}

/// Checks that the `size` ranks of `group` are counted by a sum on `device`, which connects them.
fn expect_sum(group: &Group, size: usize, device: Device) -> Result<()> {
    let mut sum = Tensor::f_ones([1], (Kind::Float, device))?;
    group.sum(&mut sum)?;
    let sum = sum.f_double_value(&[0])?;
    match sum.to_bits() == (size as f64).to_bits() {
        true => Ok(()),
        false => Err(Error::Torch(format!("{size} ranks count {sum}"))),
    }
}

fn free_port() -> Result<u16> {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
    let address = free.map_err(|error| Error::Torch(error.to_string()))?;
    Ok(address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtorch::device::{self, CudaState};
    use crate::libtorch::ffi;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// Runs `work` as each of `size` ranks, by threads, and returns what they return.
    fn as_ranks<T: Send>(size: usize, work: impl Fn(usize, &Group) -> T + Sync) -> Vec<T> {
        const PATIENCE: Duration = Duration::from_secs(60);
        let port = free_port().unwrap();
        let rank = |rank: usize| {
            let store = Store::open("127.0.0.1", port, rank == 0, PATIENCE, "test").unwrap();
            let group = Group::open(&store, "group", "127.0.0.1", rank, size, PATIENCE).unwrap();
            work(rank, &group)
        };
        thread::scope(|scope| {
            let rank = &rank;
            let threads: Vec<_> = (0..size).map(|at| scope.spawn(move || rank(at))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        })
    }

    #[test]
    fn gradients_are_added_in_the_order_of_the_ranks_to_the_bit() {
        // Several pieces, and layouts of filters: the first is larger than a piece.
        let sides: [&[i64]; 3] = [&[130, 67, 8, 8], &[7], &[33, 5, 3, 3]];
        let gradient = |rank: usize, group: usize, param: usize| {
            let numel: i64 = sides[param].iter().product();
            let draws = tinyres_format::Draws::new(3, tinyres_format::Stream::Augment, 0);
            let draws = draws.of((100 * rank + 10 * group + param) as u64);
            let values: Vec<f32> = (0..numel.unsigned_abs())
                .map(|at| crate::num::to_f32(draws.unit(at) - 0.5))
                .collect();
            let tensor = Tensor::from_slice(&values).view(sides[param]);
            match sides[param].len() {
                4 => ffi::channels_last(&tensor).unwrap(),
                _ => tensor,
            }
        };
        let groups = 2;
        let numbers =
            |tensor: &Tensor| Vec::<f32>::try_from(tensor.contiguous().view([-1])).unwrap();
        // All ranks need all sums, or one of them needs some.
        let first = [[None; 3], [Some(1), None, Some(0)], [Some(0), None, None]];
        let cases = first.map(|owners| (2, owners)).into_iter();
        let cases = cases.chain([(5, [None; 3]), (5, [Some(2), Some(4), None])]);
        for (size, owners) in cases {
            let found = as_ranks(size, |rank, group| {
                let params: Vec<_> = (0..sides.len())
                    .map(|p| gradient(0, 0, p).zeros_like())
                    .collect();
                // The second time into memory that has been used.
                for _ in 0..2 {
                    let exchange = group
                        .exchange(&params, &owners, Order::OfGroups(groups))
                        .unwrap();
                    // The second group comes first, and the last parameter of each.
                    for g in (0..groups).rev() {
                        let leaves: Vec<_> = (params.iter())
                            .map(|param| param.detach().set_requires_grad(true))
                            .collect();
                        let terms = leaves.iter().enumerate();
                        let terms = terms.map(|(p, leaf)| leaf * gradient(rank, g, p));
                        let terms: Vec<_> = terms.map(|term| term.sum(Kind::Float)).collect();
                        let loss = Tensor::stack(&terms, 0).sum(Kind::Float);
                        let backward = || Ok(loss.f_backward()?);
                        exchange.during(&leaves, g, backward).unwrap();
                        assert!(leaves.iter().all(|leaf| !leaf.grad().defined()));
                    }
                    for slot in [2, 0, 1] {
                        let has_it = owners[slot].is_none_or(|owner| owner == rank);
                        assert_eq!(exchange.arrive(slot).is_ok(), has_it, "{slot}, {rank}");
                    }
                    exchange.finish().unwrap();
                }
                let grads = params.iter().zip(&owners);
                let grads = grads.map(|(param, owner)| {
                    (owner.is_none_or(|owner| owner == rank)).then(|| numbers(&param.grad()))
                });
                grads.collect::<Vec<_>>()
            });
            for (param, _) in sides.iter().enumerate() {
                let mut want = gradient(0, 0, param);
                for at in 1..size * groups {
                    let _ = want
                        .f_add_(&gradient(at / groups, at % groups, param))
                        .unwrap();
                }
                let want = numbers(&want);
                for (rank, found) in found.iter().enumerate() {
                    let Some(found) = &found[param] else {
                        continue;
                    };
                    let same = found
                        .iter()
                        .zip(&want)
                        .all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "parameter {param} on rank {rank} of {size}");
                }
            }
        }
    }

    #[test]
    fn gradients_are_added_by_libtorch_where_the_order_is_its_own() {
        // The second is larger than a bucket.
        let sides: [&[i64]; 3] = [&[7], &[1500, 1500], &[33, 5, 3, 3]];
        let params = || sides.map(|sides| Tensor::zeros(sides, FLOAT));
        let found = as_ranks(3, |rank, group| {
            let params = params();
            let exchange = group.exchange(&params, &[None; 3], Order::Any).unwrap();
            let leaves = (params.iter()).map(|param| param.detach().set_requires_grad(true));
            let leaves: Vec<_> = leaves.collect();
            // Small whole numbers, of which every order has the same sum. All ranks begin with another parameter.
            let part = |at: usize| {
                let at = (at + rank) % 3;
                (&leaves[at] * i64::try_from(1 + 10 * rank + at).unwrap()).sum(Kind::Float)
            };
            let loss = part(0) + part(1) + part(2);
            let backward = || Ok(loss.f_backward()?);
            exchange.during(&leaves, 0, backward).unwrap();
            for slot in [2, 0, 1] {
                exchange.arrive(slot).unwrap();
            }
            exchange.finish().unwrap();
            params.map(|param| {
                let grad = param.grad();
                let is_like = grad.size() == param.size() && grad.min() == grad.max();
                is_like.then(|| grad.max().double_value(&[]))
            })
        });
        assert_eq!(found, vec![[Some(33.0), Some(36.0), Some(39.0)]; 3]);
    }

    #[test]
    fn a_group_of_gpus_needs_nccl_and_gpus() {
        const PATIENCE: Duration = Duration::from_secs(20);
        let CudaState::Not(_) = device::cuda() else {
            return;
        };
        let loads = ffi::load_cuda().is_ok();
        let reason = match loads {
            // Its own words, which come from the constructor.
            true => "no GPUs found",
            false => "this libtorch has no NCCL",
        };
        assert_eq!(ffi::find_nccl().is_ok(), loads);
        let store = Store::open("127.0.0.1", free_port().unwrap(), true, PATIENCE, "test").unwrap();
        let group = Group::open_cuda(&store, "gpu", 0, 0, 1, PATIENCE);
        let error = group.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn weights_come_from_the_rank_that_computes_them() {
        let owners = [2, 0, 1, 0];
        let found = as_ranks(3, |rank, group| {
            let value = |of: usize| i64::try_from(10 * of + rank).unwrap();
            let weights = (0..owners.len()).map(|at| Tensor::full([5, 3], value(at), FLOAT));
            let weights: Vec<_> = weights.collect();
            let copies = group.copies(&weights, &owners).unwrap();
            for (at, _) in owners
                .iter()
                .enumerate()
                .filter(|(_, owner)| **owner == rank)
            {
                copies.send(at).unwrap();
            }
            copies.finish().unwrap();
            weights
                .iter()
                .map(|all| all.mean(Kind::Float).double_value(&[]))
                .collect::<Vec<_>>()
        });
        assert_eq!(found, vec![[2.0, 10.0, 21.0, 30.0]; 3]);
    }

    #[test]
    fn an_exchange_without_all_gradients_fails_and_ends() {
        as_ranks(2, |_, group| {
            let params = [Tensor::zeros([4], FLOAT), Tensor::zeros([3], FLOAT)];
            let exchange = group
                .exchange(&params, &[None; 2], Order::OfGroups(1))
                .unwrap();
            let leaves = params.map(|param| param.set_requires_grad(true));
            let backward = || Ok(leaves[0].sum(Kind::Float).f_backward()?);
            let error = exchange.during(&leaves, 0, backward).unwrap_err();
            assert!(
                error.to_string().contains("shape [3] has no gradient"),
                "{error}"
            );
        });
    }

    #[test]
    fn two_ranks_add_up() {
        check_sum().unwrap();
    }

    #[test]
    fn as_many_groups_as_ranks_are_made() {
        for (batch, size, flags) in [
            (256, 4, "--ghost-batch 64"),
            (16, 3, "--ghost-batch 5"),
            (6, 3, "--ghost-batch 2"),
            (7, 4, "--batch 8 --ghost-batch 2"),
            (1, 2, "--batch 4 --ghost-batch 2"),
        ] {
            assert_eq!(more_groups(batch, size), flags);
        }
    }

    #[test]
    fn ranks_are_listed_as_people_would() {
        for (ranks, text) in [
            (&[3][..], "rank 3"),
            (&[1, 3], "ranks 1 and 3"),
            (&[1, 2, 5], "ranks 1, 2 and 5"),
            (
                &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
                "ranks 1, 2, 3, 4, 5, 6, 7, 8 and 2 more",
            ),
        ] {
            assert_eq!(listed(ranks), text);
        }
    }
}
