//! Muon for convolutions (Keller Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon>): the step is
//! the momentum with all singular values made about 1, so that every direction of a filter bank is
//! trained. As in `airbench94_muon.py` of <https://github.com/KellerJordan/cifar10-airbench>, weights are
//! kept at a fixed norm instead of decayed: a network with batch norm computes the same at any norm.

mod stacked;

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::libtorch::device::{self, Precision};
use crate::libtorch::ffi;

/// Coefficients a, b, c of the Newton-Schulz iteration `s -> a s + b s^3 + c s^5` on the singular values. It
/// lifts small values fast, and ends with all of them between about 0.7 and 1.2.
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// Rounds of the iteration.
const ROUNDS: usize = 3;

/// The number format of matrix products on `device`: bfloat16 where the forward passes are, and on a CPU that multiplies it
/// in any case. The iteration needs no more than its 8 bits, and the published code has it in no other format.
pub(super) fn kind_of_products(precision: Precision, device: Device) -> Kind {
    match precision.on(device) {
        Precision::Bf16 => Kind::BFloat16,
        _ if !device.is_cuda() && ffi::multiplies_bf16() => Kind::BFloat16,
        _ => Kind::Float,
    }
}

/// One [`step`] of each of `weights`, with its running mean in `means`; on a GPU all of them at once.
pub(super) fn steps(
    weights: &[Tensor],
    means: &mut [Tensor],
    momentum: f64,
    rate: f64,
    kind: Kind,
) -> Result<()> {
    let Some(first) = weights.first() else {
        return Ok(());
    };
    tch::no_grad(|| match device::stacks_products(first.device()) {
        true => stacked::steps(weights, means, momentum, rate, kind),
        false => {
            let mut pairs = weights.iter().zip(means);
            pairs.try_for_each(|(weight, mean)| step(weight, mean, momentum, rate, kind))
        }
    })
}

/// The sides of the matrix of a convolution's weight, `[K, C, R, S]`: filters, and the weights of one.
pub(super) fn sides(weight: &Tensor) -> [i64; 2] {
    let size = weight.size();
    let (filters, filter) = size.split_at(size.len().min(1));
    [filters.iter().product(), filter.iter().product()]
}

/// The products of numbers that the step of a weight takes, given the sides of its matrix.
pub(super) fn products(sides: [i64; 2]) -> f64 {
    let [rows, columns] = sides.map(|side| side as f64);
    let (small, large) = (rows.min(columns), rows.max(columns));
    // Two with the matrix, and others of the small side alone: see `orthogonal`.
    2.0 * small * small * large + 3.0 * ROUNDS as f64 * small.powi(3)
}

/// Computes on the CPU what takes most of the time of such a step, for the sake of that time.
pub(super) fn try_products(sides: [i64; 2], kind: Kind) -> Result<()> {
    let matrix = Tensor::f_ones(sides, (kind, Device::Cpu))?;
    orthogonal(&matrix, 1.0).map(drop)
}

/// One step on the CPU of a convolution's weight W, `[K, C, R, S]`, channels last, with its gradient g. Matrix products
/// are computed in `kind`.
///
/// ```text
/// mean = momentum * mean + (1 - momentum) * g
/// W    = sqrt(K) * W / |W| - rate * orthogonal(momentum * mean + (1 - momentum) * g)    (Nesterov)
/// ```
///
/// Each pass over the millions of weights costs time, which decides two details. `mean` is a running mean
/// instead of the paper's running sum; they differ by a factor, which `orthogonal` removes. And a filter is
/// a row of the matrix in memory order `[R, S, C]`: the order of the columns makes no difference.
fn step(weight: &Tensor, mean: &mut Tensor, momentum: f64, rate: f64, kind: Kind) -> Result<()> {
    let (ahead, taps) = ffi::muon_ahead(&weight.f_grad()?, mean, momentum, kind)?;
    let step = orthogonal(&ahead, -rate)?.f_contiguous()?;
    ffi::muon_apply(&weight.f_detach()?, &step, &taps)
}

/// `matrix` with all singular values made about `length`.
///
/// ```text
/// X = matrix / |matrix|
/// ROUNDS times:  A = X X^T,  P = a I + b A + c A^2,  X = P X
/// ```
///
/// A and P are at most as large as X, so the rounds work on them alone: the next A is P A P, and the product of
/// all P is applied to the matrix at the end. Only the first product and the last have the full size of X. All but
/// the last are symmetric, since they are polynomials of one symmetric matrix.
fn orthogonal(matrix: &Tensor, length: f64) -> Result<Tensor> {
    let size = matrix.size();
    if size[0] > size[1] {
        return Ok(orthogonal(&matrix.f_tr()?, length)?.f_tr()?);
    }
    let polynomial = |gram: &Tensor| -> Result<Tensor> {
        let [a, b, c] = QUINTIC;
        let mut sum = symmetric(gram, gram)?.f_mul_scalar(c)?;
        let _ = sum.f_add_(&gram.f_mul_scalar(b)?)?;
        let _ = sum.f_diagonal(0, 0, 1)?.f_add_scalar_(a)?;
        Ok(sum)
    };
    let gram = symmetric(matrix, &matrix.f_tr()?)?;
    // |matrix|^2 is the trace of the Gram matrix. The constant avoids a division by 0 where the gradient is 0.
    let squares = gram.f_diagonal(0, 0, 1)?.f_sum(Kind::Float)?;
    let squares = squares.f_add_scalar(1e-14)?;
    let mut gram = gram.f_div(&squares)?;
    let mut round = polynomial(&gram)?;
    let mut all = round.f_mul(&squares.f_rsqrt()?.f_mul_scalar(length)?)?;
    for _ in 1..ROUNDS {
        gram = symmetric(&symmetric(&round, &gram)?, &round)?;
        round = polynomial(&gram)?;
        all = symmetric(&round, &all)?;
    }
    ffi::matmul(&all, matrix, false)
}

/// `a * b`, which is symmetric.
fn symmetric(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ffi::matmul(a, b, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orthogonal_applies_the_quintic_to_each_singular_value() {
        tch::manual_seed(3);
        for (rows, columns) in [(4, 9), (9, 4), (1, 5), (6, 6), (64, 192), (192, 64)] {
            let matrix = Tensor::randn([rows, columns], (Kind::Float, Device::Cpu));
            let (u, s, v) = matrix.to_kind(Kind::Double).svd(true, true);
            let mut values = Vec::<f64>::try_from(&s).unwrap();
            let norm = values.iter().map(|s| s * s).sum::<f64>().sqrt();
            for s in &mut values {
                *s /= norm;
                for _ in 0..ROUNDS {
                    *s = QUINTIC[0] * *s + QUINTIC[1] * s.powi(3) + QUINTIC[2] * s.powi(5);
                }
            }
            let want = u
                .matmul(&Tensor::from_slice(&values).diag(0))
                .matmul(&v.tr());
            for (kind, most) in [(Kind::Float, 1e-5), (Kind::BFloat16, 6e-2)] {
                let got = orthogonal(&matrix.to_kind(kind), 1.0).unwrap();
                let off = (got - &want).norm() / want.norm();
                let off = off.double_value(&[]);
                assert!(off < most, "{rows} x {columns} in {kind:?}: {off:.1e}");
            }
        }
    }

    /// The steps of `tools/witness/optim_golden.py`.
    #[test]
    fn five_steps_by_products_in_f32_match_pytorch() {
        let want: [f32; 24] = include!("../../../tests/golden/muon.rs");
        let filter = (Tensor::arange(24, (Kind::Float, Device::Cpu)) - 10.0) / 12.0;
        let weight = ffi::channels_last(&filter.view([4, 3, 1, 2])).unwrap();
        let weight = weight.set_requires_grad(true);
        let mut mean = weight.detach().zeros_like();
        for s in 0..5 {
            let s = f64::from(s);
            let loss = weight.square().sum(Kind::Float) * ((s + 1.0) / 4.0)
                - weight.sum(Kind::Float) * 0.25;
            loss.backward();
            let rate = 0.6 * 0.1 / (s + 1.0);
            tch::no_grad(|| step(&weight, &mut mean, 0.6, rate, Kind::Float)).unwrap();
            ffi::clear_grad(&weight).unwrap();
        }
        let got = Vec::<f32>::try_from(weight.detach().reshape([-1])).unwrap();
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 2e-6, "{got}, expected {want}");
        }
    }

    #[test]
    fn taps_without_a_gradient_are_left_out_of_the_products_alone() {
        tch::manual_seed(5);
        for (outputs, inputs, moving) in [(6, 4, vec![4]), (4, 6, vec![0, 4, 5]), (3, 2, vec![])] {
            let dims = [outputs, 3, 3, inputs];
            let random = || Tensor::randn(dims, (Kind::Float, Device::Cpu));
            let mask = Tensor::zeros([1, 9, 1], (Kind::Float, Device::Cpu));
            for &tap in &moving {
                let _ = mask.get(0).get(tap).fill_(1.0);
            }
            let mask = mask.view([1, 3, 3, 1]);
            let (grad, mean, start) = (random() * &mask, random() * &mask, random());

            let ahead = &grad * 0.4 + (&grad * 0.4 + &mean * 0.6) * 0.6;
            let whole = ahead.view([outputs, 9 * inputs]);
            let want = &start * f64::from(u8::try_from(outputs).unwrap()).sqrt() / start.norm()
                + orthogonal(&whole, -0.5).unwrap().view(dims);

            let channels_first = |t: &Tensor| t.permute([0, 3, 1, 2]);
            let weight = channels_first(&start).set_requires_grad(true);
            let pull = channels_first(&grad);
            (&weight * &pull).sum(Kind::Float).backward();
            let mut mean = channels_first(&mean);
            let (_, taps) = tch::no_grad(|| {
                ffi::muon_ahead(&weight.grad(), &mut mean.copy(), 0.6, Kind::Float).unwrap()
            });
            assert_eq!(Vec::<i64>::try_from(taps).unwrap(), moving);
            tch::no_grad(|| step(&weight, &mut mean, 0.6, 0.5, Kind::Float)).unwrap();

            let got = weight.detach().permute([0, 2, 3, 1]);
            let off = (got - &want).abs().max().double_value(&[]);
            assert!(
                off < 1e-5,
                "{outputs} x {inputs}, taps {moving:?}: {off:.1e}"
            );
        }
    }
}
