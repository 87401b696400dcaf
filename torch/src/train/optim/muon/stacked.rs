//! Muon's step for all convolutions of a group at once, in fewer and larger products. A GPU takes microseconds to
//! start a kernel, which is as long as a product of small matrices takes there. The mathematics is that of
//! `orthogonal`, and the state that of `step`.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::{QUINTIC, ROUNDS};
use crate::Result;

/// One step of each of `weights` with its gradient, as by [`step`](super::step). `means` are their running means.
pub(super) fn steps(
    weights: &[Tensor],
    means: &mut [Tensor],
    momentum: f64,
    rate: f64,
    kind: Kind,
) -> Result<()> {
    let mut ahead = Vec::new();
    for (weight, mean) in weights.iter().zip(means) {
        let mut grad = weight.f_grad()?;
        let _ = mean.f_lerp_(&grad, 1.0 - momentum)?;
        ahead.push(as_matrix(&grad.f_lerp_(mean, momentum)?)?);
    }
    for (weight, step) in weights.iter().zip(orthogonal(&ahead, -rate, kind)?) {
        // A view, as weights are channels last.
        let weight = as_matrix(&weight.f_detach()?)?;
        let outputs = weight.size()[0] as f64;
        let norm = weight.f_norm()?.f_reciprocal()?;
        let norm = norm.f_mul_scalar(outputs.sqrt())?;
        let _ = step.f_addcmul_out(&weight, &weight, &norm)?;
    }
    Ok(())
}

/// A convolution's weight or gradient, `[K, C, R, S]`, as a matrix with a row for each filter.
fn as_matrix(tensor: &Tensor) -> Result<Tensor> {
    let in_memory = tensor.f_permute([0, 2, 3, 1])?;
    Ok(in_memory.f_reshape([tensor.size()[0], -1])?)
}

/// [`super::orthogonal`] of each of `matrices`, computed in `kind`. Those of one shape lie in a stack. The rounds,
/// which work on Gram matrices alone, take all stacks whose Gram matrices are of one size together.
fn orthogonal(matrices: &[Tensor], length: f64, kind: Kind) -> Result<Vec<Tensor>> {
    // By the sides of the matrix, the shorter one first; then the matrices' numbers.
    let mut shapes: BTreeMap<(i64, i64), Vec<usize>> = BTreeMap::new();
    for (number, matrix) in matrices.iter().enumerate() {
        let (rows, columns) = matrix.size2()?;
        let shape = (rows.min(columns), rows.max(columns));
        shapes.entry(shape).or_default().push(number);
    }
    let mut steps: Vec<_> = matrices.iter().map(Tensor::shallow_clone).collect();
    let mut shapes = shapes.into_iter().peekable();
    while let Some(first) = shapes.next() {
        let side = first.0.0;
        let mut members = vec![first];
        while let Some(next) = shapes.next_if(|((short, _), _)| *short == side) {
            members.push(next);
        }
        let mut stacks = Vec::new();
        for ((short, long), numbers) in members {
            let count = i64::try_from(numbers.len()).unwrap_or(i64::MAX);
            let options = (kind, matrices[0].device());
            let stack = Tensor::f_empty([count, short, long], options)?;
            for (place, &number) in (0..).zip(&numbers) {
                (stack.f_get(place)?).f_copy_(&lying(&matrices[number])?)?;
            }
            stacks.push((numbers, stack));
        }
        let grams = stacks
            .iter()
            .map(|(_, stack)| Ok(stack.f_bmm(&stack.f_transpose(1, 2)?)?));
        let all = rounds(
            &Tensor::f_cat(&grams.collect::<Result<Vec<_>>>()?, 0)?,
            length,
        )?;
        let mut from = 0;
        for (numbers, stack) in stacks {
            let count = stack.size()[0];
            let made = all.f_narrow(0, from, count)?.f_bmm(&stack)?;
            from += count;
            for (place, number) in (0..).zip(numbers) {
                let step = made.f_get(place)?;
                let stood = matrices[number].size() != step.size();
                steps[number] = if stood { step.f_tr()? } else { step };
            }
        }
    }
    Ok(steps)
}

/// `matrix` with at least as many columns as rows: itself or its transpose.
fn lying(matrix: &Tensor) -> Result<Tensor> {
    let (rows, columns) = matrix.size2()?;
    Ok(match rows > columns {
        true => matrix.f_tr()?,
        false => matrix.shallow_clone(),
    })
}

/// The factors, `[N, S, S]`, that make all singular values of matrices with the Gram matrices `grams` about `length`.
fn rounds(grams: &Tensor, length: f64) -> Result<Tensor> {
    let kind = grams.kind();
    let polynomial = |grams: &Tensor| -> Result<Tensor> {
        let [a, b, c] = QUINTIC;
        let sum = grams.f_baddbmm(grams, grams, b, c)?;
        let _ = sum.f_diagonal(0, 1, 2)?.f_add_scalar_(a)?;
        Ok(sum)
    };
    // |matrix|^2, as in `super::orthogonal`, `f32 [N, 1, 1]`.
    let squares = grams.f_diagonal(0, 1, 2)?;
    let squares = squares.f_sum_dim_intlist(-1, true, Kind::Float)?;
    let squares = squares.f_add_scalar(1e-14)?.f_unsqueeze(-1)?;
    let mut grams = grams.f_div(&squares)?.f_to_kind(kind)?;
    let mut round = polynomial(&grams)?;
    let scale = squares.f_rsqrt()?.f_mul_scalar(length)?;
    let mut all = round.f_mul(&scale)?.f_to_kind(kind)?;
    for _ in 1..ROUNDS {
        grams = round.f_bmm(&grams)?.f_bmm(&round)?;
        round = polynomial(&grams)?;
        all = round.f_bmm(&all)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// Two of one shape, two of which one is the other's transpose, and others.
    const SHAPES: [[i64; 4]; 7] = [
        [8, 8, 3, 3],
        [16, 8, 1, 1],
        [8, 8, 3, 3],
        [8, 16, 1, 1],
        [16, 8, 3, 3],
        [1, 5, 1, 1],
        [16, 16, 3, 3],
    ];

    fn channels_last(dims: [i64; 4]) -> Tensor {
        let [outputs, inputs, rows, columns] = dims;
        let random = Tensor::randn([outputs, rows, columns, inputs], (Kind::Float, Device::Cpu));
        random.permute([0, 3, 1, 2])
    }

    #[test]
    fn steps_are_those_of_each_matrix_by_itself() {
        for (kind, most) in [(Kind::Float, 1e-5), (Kind::BFloat16, 3e-2)] {
            tch::manual_seed(7);
            let start = SHAPES.map(channels_last);
            let pulls = SHAPES.map(channels_last);
            let momenta = SHAPES.map(channels_last);
            let make = || {
                let weights = start
                    .each_ref()
                    .map(|start| start.copy().set_requires_grad(true));
                for (weight, pull) in weights.iter().zip(&pulls) {
                    (weight * pull).sum(Kind::Float).backward();
                }
                (weights, momenta.each_ref().map(Tensor::copy))
            };
            let (plain, mut plain_means) = make();
            let (stacked, mut stacked_means) = make();
            tch::no_grad(|| {
                for (weight, mean) in plain.iter().zip(&mut plain_means) {
                    super::super::step(weight, mean, 0.6, 0.5, kind).unwrap();
                }
                steps(&stacked, &mut stacked_means, 0.6, 0.5, kind).unwrap();
            });
            for (at, dims) in SHAPES.iter().enumerate() {
                let off = |got: &Tensor, want: &Tensor| {
                    let off = (got - want).detach().norm() / want.detach().norm();
                    off.double_value(&[])
                };
                let step = off(&stacked[at], &plain[at]);
                assert!(step < most, "{dims:?} in {kind:?}: {step:.1e}");
                assert!(off(&stacked_means[at], &plain_means[at]) < 1e-6);
            }
        }
    }
}
