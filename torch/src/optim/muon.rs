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

/// One step of a convolution's weight `[K, C, R, S]` by its gradient. Products are of `kind`, their sums `f32`.
pub(super) fn step(
    weight: &Tensor,
    momentum: &mut Tensor,
    share: f64,
    rate: f64,
    kind: Kind,
) -> Result<()> {
    let grad = weight.f_grad()?;
    let _ = momentum.f_mul_scalar_(share)?.f_add_(&grad)?;
    let ahead = grad.f_add(&momentum.f_mul_scalar(share)?)?;

    let outputs = weight.size()[0];
    let direction = orthogonal(&ahead.f_reshape([outputs, -1])?, kind)?;
    let step = direction.f_reshape(weight.size())?.f_mul_scalar(-rate)?;
    let mut weight = weight.f_detach()?;
    let norm = weight
        .f_norm()?
        .f_reciprocal()?
        .f_mul_scalar(real(outputs).sqrt())?;
    let _ = weight.f_mul_(&norm)?.f_add_(&step)?;
    Ok(())
}

/// `matrix`, `f32`, with its singular values made about 1.
///
/// Each round takes X to (aI + bA + cA²)X, where A = XXᵀ. That polynomial is multiplied up by itself,
/// since A is the smaller: only the first product and the last are of the matrix's full size.
fn orthogonal(matrix: &Tensor, kind: Kind) -> Result<Tensor> {
    let size = matrix.size();
    if size[0] > size[1] {
        return Ok(orthogonal(&matrix.f_tr()?, kind)?.f_tr()?);
    }
    let product = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
        let product = a.f_to_kind(kind)?.f_mm(&b.f_to_kind(kind)?)?;
        Ok(product.f_to_kind(Kind::Float)?)
    };
    let norm = matrix.f_norm()?.f_add_scalar(1e-7)?;
    let x = matrix.f_div(&norm)?;
    let one = Tensor::f_eye(size[0], (Kind::Float, matrix.device()))?;
    let polynomial = |gram: &Tensor| -> Result<Tensor> {
        let [a, b, c] = QUINTIC;
        let square = product(gram, gram)?.f_mul_scalar(c)?;
        Ok(square
            .f_add(&gram.f_mul_scalar(b)?)?
            .f_add(&one.f_mul_scalar(a)?)?)
    };
    let mut gram = product(&x, &x.f_tr()?)?;
    let mut round = polynomial(&gram)?;
    let mut all = round.shallow_clone();
    for _ in 1..ROUNDS {
        gram = product(&product(&round, &gram)?, &round)?;
        round = polynomial(&gram)?;
        all = product(&round, &all)?;
    }
    product(&all, &x)
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
                let got = orthogonal(&matrix, kind).unwrap();
                let off = (got - &want).norm() / want.norm();
                let off = off.double_value(&[]);
                assert!(off < most, "{rows} x {columns} in {kind:?}: {off:.1e}");
            }
        }
    }
}
