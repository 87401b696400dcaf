//! The functions of `shim.cpp` that optimizers use: sums of gradients, and the steps of SGD, Adam and Muon.

use std::ffi::c_char;
use std::ptr;

use tch::{Kind, Tensor};
use torch_sys::C_tensor;

use super::check;
use crate::Result;

// SAFETY: each signature is the one that `shim.cpp` defines, with `size_t` as `usize`.
unsafe extern "C" {
    fn tinyres_muon_ahead(
        grad: *const C_tensor,
        mean: *const C_tensor,
        momentum: f64,
        bf16: bool,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn tinyres_muon_apply(
        weight: *const C_tensor,
        step: *const C_tensor,
        taps: *const C_tensor,
    ) -> *mut c_char;
    fn tinyres_sum_gradients(
        param: *const C_tensor,
        grads: *const *const C_tensor,
        count: usize,
    ) -> *mut c_char;
    fn tinyres_sgd(
        params: *const *const C_tensor,
        momenta: *const *const C_tensor,
        count: usize,
        lr: f64,
        momentum: f64,
        weight_decay: f64,
        nesterov: bool,
    ) -> *mut c_char;
    fn tinyres_adam(
        params: *const *const C_tensor,
        means: *const *const C_tensor,
        squares: *const *const C_tensor,
        step: *const C_tensor,
        count: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        eps: f64,
        weight_decay: f64,
    ) -> *mut c_char;
}

/// Addresses of the tensors, valid as long as the borrow.
fn addresses(tensors: &[Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(Tensor::as_ptr).collect()
}

/// One step of `torch.optim.SGD` on `params`, with their gradients and the momentum buffers `momenta`.
pub(crate) fn sgd(
    params: &[Tensor],
    momenta: &[Tensor],
    lr: f64,
    momentum: f64,
    weight_decay: f64,
    nesterov: bool,
) -> Result<()> {
    assert_eq!(params.len(), momenta.len(), "a momentum for each parameter");
    let (params, momenta) = (addresses(params), addresses(momenta));
    // SAFETY: both lists hold `count` addresses of live tensors. libtorch checks devices and dtypes. The shim
    // checks that each gradient exists and gives it its parameter's layout. `Optimizer` makes the momenta
    // with `zeros_like`, so they have that layout too.
    check(unsafe {
        tinyres_sgd(
            params.as_ptr(),
            momenta.as_ptr(),
            params.len(),
            lr,
            momentum,
            weight_decay,
            nesterov,
        )
    })
}

/// Adam's constants.
#[derive(Clone, Copy)]
pub(crate) struct Adam {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
}

/// One step of `torch.optim.Adam` on `params`, with their gradients, the running `means` of gradients and
/// `squares` of gradients. `step`, `f32 []`, is the number of steps including this one.
pub(crate) fn adam(
    params: &[Tensor],
    means: &[Tensor],
    squares: &[Tensor],
    step: &Tensor,
    lr: f64,
    constants: Adam,
) -> Result<()> {
    assert!(
        params.len() == means.len() && params.len() == squares.len(),
        "a mean and a square for each parameter"
    );
    let (params, means, squares) = (addresses(params), addresses(means), addresses(squares));
    // SAFETY: as in `sgd`, for three lists; `step` is live too.
    check(unsafe {
        tinyres_adam(
            params.as_ptr(),
            means.as_ptr(),
            squares.as_ptr(),
            step.as_ptr(),
            params.len(),
            lr,
            constants.beta1,
            constants.beta2,
            constants.eps,
            constants.weight_decay,
        )
    })
}

/// Moves Muon's running mean towards a gradient on the CPU (`muon.cpp`), both `f32 [K, C, R, S]`, channels last:
///
/// ```text
/// mean  = momentum * mean + (1 - momentum) * grad
/// ahead = momentum * mean + (1 - momentum) * grad
/// ```
///
/// Returns `ahead`, `[K, taps * C]` in `kind`, `f32` or bfloat16, and the indices `[taps]` of its taps among the
/// `R * S`. The others are 0 everywhere.
pub(crate) fn muon_ahead(
    grad: &Tensor,
    mean: &mut Tensor,
    momentum: f64,
    kind: Kind,
) -> Result<(Tensor, Tensor)> {
    let mut out = [ptr::null_mut(); 2];
    let (grad, mean, bf16) = (grad.as_ptr(), mean.as_ptr(), kind == Kind::BFloat16);
    // SAFETY: both tensors are live, and the shim checks their layouts. It writes to `mean`, which is borrowed mutably,
    // and two pointers to `out`.
    check(unsafe { tinyres_muon_ahead(grad, mean, momentum, bf16, out.as_mut_ptr()) })?;
    // SAFETY: without an error both are `at::Tensor`s from `new` that we alone own, as `from_ptr` expects.
    let [ahead, taps] = out.map(|tensor| unsafe { Tensor::from_ptr(tensor) });
    Ok((ahead, taps))
}

/// `weight = sqrt(K) * weight / |weight| + step` on the CPU, for a weight `f32 [K, C, R, S]`, channels last, and the
/// step `[K, taps * C]` of its taps `taps`.
pub(crate) fn muon_apply(weight: &Tensor, step: &Tensor, taps: &Tensor) -> Result<()> {
    // SAFETY: all tensors are live, and the shim checks their layouts. It writes to the weight as libtorch's in-place
    // operations do: a tensor is a handle.
    check(unsafe { tinyres_muon_apply(weight.as_ptr(), step.as_ptr(), taps.as_ptr()) })
}

/// Makes the sum of `grads`, of which there is at least one, the gradient of `param`, `f32`. Adds them in their order, in
/// one pass over memory, to the first.
pub(crate) fn sum_gradients(param: &Tensor, grads: &mut [Tensor]) -> Result<()> {
    assert!(!grads.is_empty(), "gradients to add up");
    let addresses = addresses(grads);
    // SAFETY: `param` is live, and the list holds `len` addresses of live tensors. The shim checks that all are `f32`
    // on the CPU and of one layout. It writes to the first, which is borrowed mutably.
    check(unsafe { tinyres_sum_gradients(param.as_ptr(), addresses.as_ptr(), grads.len()) })
}
