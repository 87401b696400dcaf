//! Muon for convolutions: a step along the momentum with all its singular values made about 1, so that
//! no direction of a filter bank is left behind. Keller Jordan et al. 2024,
//! <https://kellerjordan.github.io/posts/muon>, as `airbench94_muon.py` of
//! <https://github.com/KellerJordan/cifar10-airbench> has it for networks with batch norm: weights are
//! held at a fixed norm, which such a network does not see, in place of weight decay.

use tch::{Kind, Tensor};

use crate::Result;

/// Coefficients of the iteration's quintic polynomial, which lifts small singular values fast and
/// leaves them all between about 0.7 and 1.2.
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// Rounds of the iteration.
const ROUNDS: usize = 3;

/// One step of a convolution's weight `[K, C, R, S]`, channels last, by its gradient, which is used up.
/// Products are of `kind`.
///
/// With the millions of weights there are, each walk through them counts. So the momentum is a running `mean`,
/// which is the sum of the gradients but for a factor that the direction does not see; and a filter is a
/// row of the matrix in the order of memory, as the order of columns makes no difference.
pub(super) fn step(
    weight: &Tensor,
    mean: &mut Tensor,
    share: f64,
    rate: f64,
    kind: Kind,
) -> Result<()> {
    let outputs = weight.size()[0];
    let in_memory = |tensor: &Tensor| tensor.f_permute([0, 2, 3, 1]);
    let mut grad = weight.f_grad()?;
    let _ = mean.f_lerp_(&grad, 1.0 - share)?;
    let ahead = in_memory(&grad.f_lerp_(mean, share)?)?.f_reshape([outputs, -1])?;
    let step = orthogonal(&ahead.f_to_kind(kind)?, -rate)?;

    let weight = in_memory(&weight.f_detach()?)?.f_view([outputs, -1])?;
    let norm = weight.f_norm()?.f_reciprocal()?;
    let norm = norm.f_mul_scalar(real(outputs).sqrt())?;
    let _ = step.f_addcmul_out(&weight, &weight, &norm)?;
    Ok(())
}

/// `matrix` with its singular values made about `length`.
///
/// Each round takes X, the matrix over its norm, to (aI + bA + cA²)X, where A = XXᵀ. That polynomial is
/// multiplied up by itself, since A is the smaller: only the first product and the last are of the matrix's
/// full size.
fn orthogonal(matrix: &Tensor, length: f64) -> Result<Tensor> {
    let size = matrix.size();
    if size[0] > size[1] {
        return Ok(orthogonal(&matrix.f_tr()?, length)?.f_tr()?);
    }
    let polynomial = |gram: &Tensor| -> Result<Tensor> {
        let [a, b, c] = QUINTIC;
        let linear = gram.f_mul_scalar(b)?;
        let sum = linear.f_addmm(&gram.f_mul_scalar(c)?, gram)?;
        let _ = sum.f_diagonal(0, 0, 1)?.f_add_scalar_(a)?;
        Ok(sum)
    };
    let gram = matrix.f_mm(&matrix.f_tr()?)?;
    // The sum of the squares is what stands on its diagonal. Nothing is divided by the norm of no gradient.
    let squares = gram.f_diagonal(0, 0, 1)?.f_sum(Kind::Float)?;
    let squares = squares.f_add_scalar(1e-14)?;
    let mut gram = gram.f_div(&squares)?;
    let mut round = polynomial(&gram)?;
    let mut all = round.f_mul(&squares.f_rsqrt()?.f_mul_scalar(length)?)?;
    for _ in 1..ROUNDS {
        gram = round.f_mm(&gram)?.f_mm(&round)?;
        round = polynomial(&gram)?;
        all = round.f_mm(&all)?;
    }
    Ok(all.f_mm(matrix)?)
}

#[expect(clippy::cast_precision_loss, reason = "channels are below 2^53")]
fn real(channels: i64) -> f64 {
    channels as f64
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn the_iteration_is_that_of_each_singular_value() {
        tch::manual_seed(3);
        for (rows, columns) in [(4, 9), (9, 4), (1, 5), (6, 6)] {
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
}
