//! The gradients of a step, computed in groups of images: ghost batch norm (Hoffer et al. 2017,
//! <https://arxiv.org/abs/1705.08741>). A batch of B images, of which b have a box, is divided into
//! G = ceil(B / `ghost_batch`) groups. Group g has n of the images and m of the boxes, and
//!
//! ```text
//! loss       = sum over g of  n / B * cross_entropy(g) + m / b * box_loss(g)      the mean loss of the batch
//! gradient   = sum over g of  the gradient of its term                            in the order of g
//! statistics = sum over g of  n / B * statistics(g)                               of each batch normalisation
//! running    = (1 - momentum) * running + momentum * statistics
//! ```
//!
//! Each normalisation of a group takes mean and variance over the images of the group alone. So groups are
//! independent: each is a task for one of the [`Workers`], forward and backward, on a replica of the network. That has the
//! same weights in the same memory, and gradients and statistics of its own. What is computed depends on the groups,
//! and not on who computes it. So several processes can divide the groups among them: each computes those of its own, and
//! what they add up to is the same to the bit.
//!
//! On GPUs, one for each process, each process has one group, and NCCL chooses the order of the sum.

use std::cmp::Reverse;
use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::objective::{Objective, Part};
use crate::Result;
use crate::input::{Batch, Examples, Pipeline};
use crate::libtorch::ffi::{self, Exchange};
use crate::libtorch::{PerWorker, Workers, equal_parts};
use crate::net::{BOX_HEAD, NamedTensor, ResNet18, Role, boxes};
use crate::ranks::{Ranks, Sums};

/// Groups of a batch, and the networks that compute them.
pub(super) struct Groups {
    /// Those that this rank computes, of all groups.
    own: Range<i64>,
    /// The images of each of them, as places in what the rank gathers of a batch.
    ranges: Vec<Range<i64>>,
    /// The number of all groups, and of the images of a batch.
    all: [i64; 2],
    /// `None` if there is one group: that is computed by the network itself.
    replicas: Option<PerWorker<ResNet18>>,
}

/// The number of groups that a batch of `batch` images has on `device`: on a CPU groups of at most `size` images, where 0 puts
/// all in one; on GPUs one for each of `ranks` processes. A group has at least two images, as one value has no variance.
pub(super) fn count(batch: u32, size: u32, device: Device, ranks: usize) -> u32 {
    let wanted = match (device, size) {
        (Device::Cpu, 0) => 1,
        (Device::Cpu, size) => batch.div_ceil(size),
        _ => u32::try_from(ranks).unwrap_or(u32::MAX),
    };
    wanted.min(batch / 2).max(1)
}

/// Findings of a rank about each of its groups, still on the device.
#[derive(Default)]
pub(super) struct Own {
    losses: Vec<Tensor>,
    margins: Vec<Tensor>,
    /// Each times the part of the batch that its group has. None if the network itself has computed the only group.
    statistics: Vec<Tensor>,
}

/// Findings of a step about its batch, still on the device.
pub(super) struct Found {
    /// The mean loss, a scalar.
    pub loss: Tensor,
    /// The margin of each image, `f32 [B]`, if [`Objective::margins`] gives some.
    pub margins: Option<Tensor>,
}

/// The part of a step that a group contributes.
struct Share {
    loss: Tensor,
    margins: Option<Tensor>,
    /// Those of the parameters that are trained, in the order of [`trained`]. None if they went to other ranks at once.
    grads: Vec<Tensor>,
    statistics: Tensor,
}

impl Groups {
    /// Divides batches of `batch` images into `count` groups, for `workers` to train `model`. The numbers of images of
    /// two groups differ by at most one. Of a batch, this one of `ranks` has gathered the images `gathered`.
    pub(super) fn new(
        batch: i64,
        count: i64,
        gathered: &Range<i64>,
        ranks: &Ranks,
        model: &ResNet18,
        workers: &Workers,
    ) -> Result<Self> {
        let replicas = || PerWorker::new(workers, || model.replica());
        let own = ranks.part(count);
        let ranges = own_groups(batch, count, ranks);
        let in_gathered =
            |range: Range<i64>| range.start - gathered.start..range.end - gathered.start;
        Ok(Self {
            own,
            ranges: ranges.map(in_gathered).collect(),
            all: [count, batch],
            replicas: (count > 1).then(replicas).transpose()?,
        })
    }

    /// The number of images of a batch that this rank computes.
    pub(super) fn images(&self) -> i64 {
        self.ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }

    /// The examples of each group of `batch`. Whole groups are made by one of `workers`, unless the batch is mixed.
    pub(super) fn examples(
        &self,
        batch: &Batch<'_>,
        pipeline: &Pipeline,
        workers: &Workers,
    ) -> Result<Vec<Examples>> {
        if self.replicas.is_none() {
            return Ok(vec![pipeline.apply(batch)?]);
        }
        if pipeline.mixes(batch.number) {
            let all = pipeline.apply(batch)?;
            return self.ranges.iter().map(|range| all.part(range)).collect();
        }
        let parts = self.ranges.iter().map(|range| pipeline.part(batch, range));
        workers.each(parts.collect::<Result<_>>()?, |_, part| part.apply())
    }

    /// Computes the gradients of `model` for a batch, of which each group has its `examples`. `owner` returns the rank that
    /// alone needs the gradient of a parameter, if not all do. Returns their sums over the ranks, which may be under way.
    pub(super) fn backward<'a>(
        &self,
        model: &ResNet18,
        objective: &Objective,
        examples: Vec<Examples>,
        workers: &Workers,
        ranks: &'a Ranks,
        owner: impl Fn(&Tensor) -> Option<usize>,
    ) -> Result<(Sums<'a>, Own)> {
        let Some(replicas) = &self.replicas else {
            let outputs = model.outputs(&examples[0].images, true)?;
            let loss = objective.loss(&outputs, &examples[0], Part::WHOLE)?;
            loss.f_backward()?;
            let own = Own {
                losses: vec![loss.f_detach()?],
                margins: (objective.margins(&outputs, &examples[0])?)
                    .into_iter()
                    .collect(),
                statistics: Vec::new(),
            };
            return Ok((Sums::default(), own));
        };
        let parts = self.parts(&examples, ranks)?;
        let weights: Vec<_> = parts.iter().map(|part| part.of_images).collect();
        let has_boxes = examples.iter().any(|group| group.boxes.is_some());
        let params = tensors(trained(model, has_boxes));
        let sums = ranks.sums(&params, owner, examples.len())?;
        let tasks = examples.into_iter().zip(parts).zip(0..).collect();
        let mut shares = workers.each(tasks, |worker, ((examples, part), at)| {
            let to = sums.exchange().map(|exchange| (exchange, at));
            share(&replicas.of(worker), objective, &examples, part, to)
        })?;
        if sums.exchange().is_none() {
            sum_gradients(params, &mut shares, workers)?;
        }
        let mut own = Own::default();
        for (share, weight) in shares.into_iter().zip(weights) {
            own.losses.push(share.loss);
            own.margins.extend(share.margins);
            own.statistics.push(share.statistics.f_mul_scalar(weight)?);
        }
        Ok((sums, own))
    }

    /// The weights of each group of this rank, from its `examples`.
    fn parts(&self, examples: &[Examples], ranks: &Ranks) -> Result<Vec<Part>> {
        let counts = examples.iter().map(|group| {
            let boxes = group.boxes.as_ref().map_or(Ok(0), boxes::count)?;
            Ok((group.labels.size()[0] as f64, boxes as f64))
        });
        let counts = counts.collect::<Result<Vec<_>>>()?;
        let [_, images] = self.all;
        let mut boxes = counts.iter().map(|count| count.1).sum();
        if examples.iter().any(|group| group.boxes.is_some()) {
            boxes = ranks.total(boxes)?;
        }
        let part = |&(own_images, own_boxes): &(f64, f64)| Part {
            of_images: own_images / images as f64,
            of_boxes: own_boxes / f64::max(boxes, 1.0),
        };
        Ok(counts.iter().map(part).collect())
    }

    /// Adds up what the ranks have found out about their `own` groups, and updates the running statistics of `model`. The
    /// ranks wait for each other here: after the step, so that one that was slower at the gradients may be faster at the step.
    pub(super) fn found(&self, model: &ResNet18, ranks: &Ranks, own: &Own) -> Result<Found> {
        if !own.statistics.is_empty() {
            let statistics = self.total(ranks, &own.statistics)?;
            tch::no_grad(|| model.update_statistics(&statistics))?;
        }
        Ok(Found {
            loss: self.total(ranks, &own.losses)?,
            margins: match own.margins.is_empty() {
                true => None,
                false => Some(self.of_batch(ranks, Tensor::f_cat(&own.margins, 0)?)?),
            },
        })
    }

    /// The values of all images of the batch, `[B]`, of which `own` are those of this rank.
    fn of_batch(&self, ranks: &Ranks, own: Tensor) -> Result<Tensor> {
        let [groups, batch] = self.all;
        match ranks.count() {
            1 => Ok(own),
            _ => spread(ranks, &own, own_images(batch, groups, ranks).start, batch),
        }
    }

    /// The sum over the groups of all ranks, of which this one has `parts`, added in one order whoever has them.
    fn total(&self, ranks: &Ranks, parts: &[Tensor]) -> Result<Tensor> {
        if let ([all], 1) = (parts, ranks.count()) {
            return Ok(all.shallow_clone());
        }
        let mut rows = Tensor::f_stack(parts, 0)?;
        if ranks.count() > 1 {
            let [groups, _] = self.all;
            rows = spread(ranks, &rows, self.own.start, groups)?;
        }
        Ok(rows.f_sum_dim_intlist(0, false, None::<Kind>)?)
    }
}

/// The `all` rows of a tensor, of which each rank has some: this one `own`, from `start` on.
fn spread(ranks: &Ranks, own: &Tensor, start: i64, all: i64) -> Result<Tensor> {
    let mut sides = own.size();
    let count = std::mem::replace(&mut sides[0], all);
    let mut rows = Tensor::f_zeros(sides, (own.kind(), own.device()))?;
    rows.f_narrow(0, start, count)?.f_copy_(own)?;
    // Each row is 0 on all ranks but one.
    ranks.sum(&mut rows)?;
    Ok(rows)
}

/// The images of each group that this one of `ranks` computes, as places in a batch.
fn own_groups(batch: i64, count: i64, ranks: &Ranks) -> impl Iterator<Item = Range<i64>> {
    let own = ranks.part(count);
    let all = equal_parts(batch, count).into_iter().zip(0..);
    all.filter(move |(_, group)| own.contains(group))
        .map(|(images, _)| images)
}

/// The images of all groups that this one of `ranks` computes, as places in a batch.
pub(super) fn own_images(batch: i64, count: i64, ranks: &Ranks) -> Range<i64> {
    let mut groups = own_groups(batch, count, ranks);
    let first = groups.next().unwrap_or(0..0);
    let end = groups.last().map_or(first.end, |last| last.end);
    first.start..end
}

/// The parameters of `model` that are trained, those first whose gradients come first: the last ones. The box head has none
/// where no image has a box to learn.
fn trained(model: &ResNet18, has_boxes: bool) -> impl Iterator<Item = &NamedTensor> {
    let is_trained = move |named: &&NamedTensor| {
        named.role != Role::Buffer
            && named.tensor.requires_grad()
            && (has_boxes || !named.name.starts_with(BOX_HEAD))
    };
    model.named().iter().rev().filter(is_trained)
}

fn tensors<'a>(named: impl Iterator<Item = &'a NamedTensor>) -> Vec<Tensor> {
    named.map(|named| named.tensor.shallow_clone()).collect()
}

/// Makes the gradient of each of `params` the sum of those of `shares`, which are freed one after the other.
fn sum_gradients(params: Vec<Tensor>, shares: &mut [Share], workers: &Workers) -> Result<()> {
    let mut grads: Vec<_> = shares
        .iter_mut()
        .map(|share| std::mem::take(&mut share.grads).into_iter())
        .collect();
    let mut tasks: Vec<_> = params
        .into_iter()
        .map(|param| {
            (
                param,
                grads
                    .iter_mut()
                    .filter_map(Iterator::next)
                    .collect::<Vec<_>>(),
            )
        })
        .collect();
    tasks.sort_by_key(|(param, _)| Reverse(param.numel()));
    workers.each(tasks, |_, (param, mut grads)| {
        ffi::sum_gradients(&param, &mut grads)
    })?;
    Ok(())
}

/// The share of the group with `examples`, computed by `replica`. Its gradients go `to` an exchange as those of a group with
/// this number, each as soon as it is there.
fn share(
    replica: &ResNet18,
    objective: &Objective,
    examples: &Examples,
    part: Part,
    to: Option<(&Exchange<'_>, usize)>,
) -> Result<Share> {
    let outputs = replica.outputs(&examples.images, true)?;
    let loss = objective.loss(&outputs, examples, part)?;
    let leaves = tensors(trained(replica, examples.boxes.is_some()));
    let backward = || Ok(loss.f_backward()?);
    let grads = match to {
        Some((exchange, at)) => {
            exchange.during(&leaves, at, backward)?;
            Vec::new()
        }
        None => {
            backward()?;
            leaves.iter().map(take_gradient).collect::<Result<_>>()?
        }
    };
    Ok(Share {
        loss: loss.f_detach()?,
        margins: objective.margins(&outputs, examples)?,
        grads,
        statistics: replica.statistics()?,
    })
}

fn take_gradient(of: &Tensor) -> Result<Tensor> {
    let grad = of.f_grad()?;
    ffi::clear_grad(of)?;
    Ok(grad)
}

#[cfg(test)]
mod tests {
    use tch::Reduction;

    use super::*;
    use crate::config::Config;
    use crate::input::MixedWith;
    use crate::libtorch::set_threads;
    use crate::net::{Layer, Spec, Stem};

    const BATCH: i64 = 11;
    const SPEC: Spec = Spec {
        stem: Stem::Imagenet,
        classes: 5,
        boxes: true,
    };

    /// A batch of which some images have boxes.
    fn examples(mixed: bool) -> Examples {
        tch::manual_seed(3);
        let images = Tensor::randn([BATCH, 3, 32, 32], (Kind::Float, Device::Cpu));
        let labels = Tensor::randint(5, [BATCH], (Kind::Int64, Device::Cpu));
        let edge = Tensor::rand([BATCH, 2], (Kind::Float, Device::Cpu)) * 0.5;
        let boxes = Tensor::cat(&[&edge, &(&edge + 0.3)], 1);
        let _ = boxes.narrow(0, 2, 4).zero_();
        Examples {
            images: ffi::channels_last(&images).unwrap(),
            mixed: mixed.then(|| MixedWith {
                labels: labels.roll([1], [0]),
                lambda: 0.3,
            }),
            labels,
            boxes: (!mixed).then_some(boxes),
        }
    }

    fn objective() -> Objective {
        let flags = toml::from_str("label_smoothing = 0.1").unwrap();
        Objective::new(&Config::layered(None, flags, false).unwrap())
    }

    fn network() -> ResNet18 {
        ResNet18::new(SPEC, 1, Device::Cpu).unwrap()
    }

    /// Another network with the weights of `model`. Drawn again they would differ: all tests share a generator.
    fn copy(model: &ResNet18) -> ResNet18 {
        let mut copy = ResNet18::new(model.spec(), 1, Device::Cpu).unwrap();
        copy.load(&model.state().unwrap()).unwrap();
        copy
    }

    /// Loss, gradients by name, and running statistics after a step in `count` groups.
    fn step(
        model: &ResNet18,
        count: i64,
        examples: &Examples,
        workers: &Workers,
    ) -> (f64, Vec<(String, Tensor)>) {
        let alone = Ranks::alone();
        let groups = Groups::new(BATCH, count, &(0..BATCH), &alone, model, workers).unwrap();
        let own = groups.ranges.iter().map(|range| examples.part(range));
        let own = own.collect::<Result<_>>().unwrap();
        let computed = groups.backward(model, &objective(), own, workers, &alone, |_| None);
        let (_, own) = computed.unwrap();
        let Found { loss, .. } = groups.found(model, &alone, &own).unwrap();
        let named = model.named().iter().map(|named| {
            let tensor = match named.role {
                Role::Buffer => named.tensor.copy(),
                _ => named.tensor.grad(),
            };
            (named.name.clone(), tensor)
        });
        (loss.double_value(&[]), named.collect())
    }

    /// Distances in memory between neighbours, in each direction that has some.
    fn order(tensor: &Tensor) -> Vec<i64> {
        let sides = tensor.size().into_iter().zip(tensor.stride());
        sides
            .filter(|(side, _)| *side > 1)
            .map(|(_, stride)| stride)
            .collect()
    }

    /// |a - b| / |b|.
    fn off(a: &Tensor, b: &Tensor) -> f64 {
        let difference = (a.to_kind(Kind::Double) - b).norm().double_value(&[]);
        difference / b.norm().double_value(&[]).max(1e-9)
    }

    /// The same by one network for each group and by sums over the images of all. Batch norm over three values magnifies
    /// rounding.
    #[test]
    fn groups_add_up_to_the_mean_loss_of_the_batch() {
        for mixed in [false, true] {
            set_threads(2);
            let (examples, origin) = (examples(mixed), network());
            let (loss, found) = step(&copy(&origin), 3, &examples, &Workers::new(2));
            let mut want = 0.0;
            set_threads(1);
            let twins: Vec<_> = [0..3, 3..7, 7..11]
                .map(|range| (copy(&origin), range))
                .into();
            for (twin, range) in &twins {
                let own = examples.part(range).unwrap();
                let outputs = twin.outputs(&own.images, true).unwrap();
                let entropy = |labels: &Tensor| {
                    let none = None::<&Tensor>;
                    (outputs.logits).cross_entropy_loss(labels, none, Reduction::Sum, -100, 0.1)
                };
                let mut loss = entropy(&own.labels) / BATCH as f64;
                if let Some(MixedWith { labels, lambda }) = &own.mixed {
                    loss = loss * *lambda + entropy(labels) * ((1.0 - lambda) / BATCH as f64);
                }
                if let (Some(predicted), Some(truth)) = (&outputs.boxes, &own.boxes) {
                    let rows = (0..own.labels.size()[0]).filter(|&at| {
                        let edges = truth.get(at);
                        edges.double_value(&[2]) > edges.double_value(&[0])
                    });
                    for at in rows {
                        let row = |t: &Tensor| t.narrow(0, at, 1);
                        let weights = boxes::Weights {
                            smooth_l1: 1.0,
                            giou: 2.0,
                        };
                        let one = boxes::loss(&row(predicted), &row(truth), weights).unwrap();
                        loss += one / 7.0;
                    }
                }
                loss.backward();
                want += loss.double_value(&[]);
            }
            assert!((loss - want).abs() < 1e-3, "{loss}, expected {want}");
            for (at, (name, found)) in found.iter().enumerate() {
                let each = twins.iter().map(|(twin, range)| {
                    let named = &twin.named()[at];
                    match named.role {
                        Role::Buffer => &named.tensor * ((range.end - range.start) as f64 / 11.0),
                        _ => named.tensor.grad(),
                    }
                });
                // Boxes are not learnt from mixed batches.
                let Some(want) = each.filter(Tensor::defined).reduce(|sum, one| sum + one) else {
                    assert!(!found.defined(), "{name}");
                    continue;
                };
                let off = off(found, &want);
                assert!(off < 1e-2, "{name}: {off:.1e}");
                assert_eq!(order(found), order(&origin.named()[at].tensor), "{name}");
            }
        }
    }

    #[test]
    fn groups_change_nothing_where_statistics_are_frozen() {
        set_threads(2);
        let frozen = [
            Layer::Stem,
            Layer::Layer1,
            Layer::Layer2,
            Layer::Layer3,
            Layer::Layer4,
        ];
        let examples = examples(true);
        let spec = Spec {
            boxes: false,
            ..SPEC
        };
        let origin = ResNet18::new(spec, 1, Device::Cpu).unwrap();
        let [whole, parts] = [1, 4].map(|count| {
            let mut model = copy(&origin);
            model.freeze(&frozen).unwrap();
            step(&model, count, &examples, &Workers::new(2))
        });
        assert!((whole.0 - parts.0).abs() < 1e-4);
        for ((name, whole), (_, parts)) in whole.1.iter().zip(&parts.1) {
            assert!(off(parts, whole) < 1e-4, "{name}");
        }
    }

    #[test]
    fn any_number_of_workers_computes_the_same_bits() {
        let (examples, origin) = (examples(false), network());
        let steps = [1, 2, 3].map(|threads| {
            set_threads(threads);
            let workers = Workers::new(3);
            assert_eq!(workers.count(), threads);
            step(&copy(&origin), 3, &examples, &workers)
        });
        for other in &steps[1..] {
            assert_eq!(other.0.to_bits(), steps[0].0.to_bits());
            for ((name, got), (_, want)) in other.1.iter().zip(&steps[0].1) {
                assert_eq!(got, want, "{name}");
            }
        }
    }

    #[test]
    fn a_batch_that_fits_into_one_group_is_computed_as_a_whole() {
        assert_eq!(count(64, 64, Device::Cpu, 1), 1);
        assert_eq!(count(256, 0, Device::Cpu, 1), 1);
        assert_eq!(count(256, 64, Device::Cuda(0), 1), 1);
        assert_eq!(count(256, 64, Device::Cuda(0), 4), 4);
        assert_eq!(count(6, 64, Device::Cuda(0), 4), 3);
        let examples = examples(false);
        let model = network();
        let twin = copy(&model);
        let (loss, found) = step(&model, 1, &examples, &Workers::calling_thread());
        let outputs = twin.outputs(&examples.images, true).unwrap();
        let want = (objective().loss(&outputs, &examples, Part::WHOLE)).unwrap();
        want.backward();
        assert_eq!(loss.to_bits(), want.double_value(&[]).to_bits());
        for ((name, got), named) in found.iter().zip(twin.named()) {
            match named.role {
                Role::Buffer => assert_eq!(*got, named.tensor, "{name}"),
                _ => assert_eq!(*got, named.tensor.grad(), "{name}"),
            }
        }
    }

    #[test]
    fn no_group_is_larger_than_asked_for_or_of_one_image() {
        for (batch, size, groups) in [
            (256, 64, 4),
            (257, 64, 5),
            (100, 64, 2),
            (3, 2, 1),
            (2, 1, 1),
            (1, 1, 1),
        ] {
            assert_eq!(
                count(batch, size, Device::Cpu, 3),
                groups,
                "{batch} by {size}"
            );
        }
    }
}
