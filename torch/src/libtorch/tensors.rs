//! Lists of named tensors, as a network, an optimizer and a moving average give their state: copying them
//! back, and writing them as a safetensors file. `checkpoint` says which tensors a file has.

use std::collections::HashMap;

use safetensors::serialize;
use safetensors::tensor::{Dtype, TensorView};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// Copies into each tensor of `into` the one of the same name in `state`.
///
/// # Errors
/// [`Error::Weights`] names the first tensor that is missing or has another shape.
pub(crate) fn restore(into: &[(String, Tensor)], state: &[(String, Tensor)]) -> Result<()> {
    for (name, into) in into {
        let Some((_, from)) = state.iter().find(|(other, _)| other == name) else {
            return Err(Error::weights(name, "is missing"));
        };
        if from.size() != into.size() {
            let (got, expected) = (from.size(), into.size());
            let what = format!("has shape {got:?}, expected {expected:?}");
            return Err(Error::weights(name, what));
        }
        into.shallow_clone().f_copy_(from)?;
    }
    Ok(())
}

/// The safetensors file of `state`, whose tensors are `i64` or `f32`. `metadata` should have one entry at
/// most: several would be written in any order.
pub(crate) fn encode(
    state: &[(String, Tensor)],
    metadata: HashMap<String, String>,
) -> Result<Vec<u8>> {
    let mut contents = Vec::new();
    for (name, tensor) in state {
        let dtype = match tensor.kind() {
            Kind::Int64 => Dtype::I64,
            _ => Dtype::F32,
        };
        let shape = tensor.size().into_iter();
        let shape = shape.map(|side| usize::try_from(side).unwrap_or(0));
        contents.push((name.as_str(), dtype, shape.collect(), bytes(tensor)?));
    }
    let views = contents
        .iter()
        .map(|(name, dtype, shape, bytes): &(_, _, Vec<usize>, _)| {
            TensorView::new(*dtype, shape.clone(), bytes).map(|view| (*name, view))
        });
    let views = views.collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(serialize(views, Some(metadata))?)
}

/// The elements of `tensor` in row-major order, little-endian.
pub(crate) fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    const {
        assert!(
            cfg!(target_endian = "little"),
            "libtorch runs on little-endian hosts"
        )
    };
    let host = tensor
        .f_detach()?
        .f_to_device(Device::Cpu)?
        .f_contiguous()?;
    let mut bytes = vec![0; host.numel() * host.kind().elt_size_in_bytes()];
    host.f_copy_data_u8(&mut bytes, host.numel())?;
    Ok(bytes)
}
