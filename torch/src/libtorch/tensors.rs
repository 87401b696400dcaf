//! Lists of named tensors, as a network, an optimizer and a moving average give their state: copying them
//! back, and writing them as a safetensors file. `checkpoint` says which tensors a file has.

use std::collections::HashMap;

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
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

/// Named tensors, `i64` or `f32`, copied to the host's memory in the order of a safetensors file. What later happens
/// to the tensors does not change the copy.
#[derive(Debug)]
pub(crate) struct HostCopy {
    tensors: Vec<(String, TensorInfo)>,
    /// The elements of all tensors, as they stand in the file.
    pub data: Vec<u8>,
}

impl HostCopy {
    pub(crate) fn new(state: &[(String, Tensor)]) -> Result<Self> {
        let dtype = |tensor: &Tensor| match tensor.kind() {
            Kind::Int64 => Dtype::I64,
            _ => Dtype::F32,
        };
        let mut state: Vec<_> = (state.iter())
            .map(|(name, tensor)| (name, dtype(tensor), tensor))
            .collect();
        // The order of `safetensors::serialize`: large elements first, so that all are aligned.
        state.sort_by(|(a, wide, _), (b, other, _)| other.cmp(wide).then(a.cmp(b)));
        let mut copy = Self {
            tensors: Vec::new(),
            data: Vec::new(),
        };
        let sizes = state.iter().map(|(.., tensor)| byte_len(tensor));
        copy.data.reserve_exact(sizes.sum());
        for (name, dtype, tensor) in state {
            let sides = tensor.size().into_iter();
            let start = copy.data.len();
            append(tensor, &mut copy.data)?;
            let info = TensorInfo {
                dtype,
                shape: sides
                    .map(|side| usize::try_from(side).unwrap_or(0))
                    .collect(),
                data_offsets: (start, copy.data.len()),
            };
            copy.tensors.push((name.clone(), info));
        }
        Ok(copy)
    }

    /// The part of the safetensors file before [`data`](Self::data). `metadata` should have one entry at most: several
    /// would be written in any order.
    pub(crate) fn header(&self, metadata: HashMap<String, String>) -> Result<Vec<u8>> {
        let header = Metadata::new(Some(metadata), self.tensors.clone())?;
        let mut text = serde_json::to_string(&header).map_err(SafeTensorError::from)?;
        while !text.len().is_multiple_of(8) {
            text.push(' ');
        }
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.into_bytes());
        Ok(bytes)
    }
}

/// The safetensors file of `state`, whose tensors are `i64` or `f32`, with `metadata` as in [`HostCopy::header`].
pub(crate) fn encode(
    state: &[(String, Tensor)],
    metadata: HashMap<String, String>,
) -> Result<Vec<u8>> {
    let copy = HostCopy::new(state)?;
    let mut file = copy.header(metadata)?;
    file.extend(copy.data);
    Ok(file)
}

/// The elements of `tensor` in row-major order, little-endian.
pub(crate) fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    append(tensor, &mut bytes)?;
    Ok(bytes)
}

fn byte_len(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}

/// Appends the elements of `tensor` to `to`, in row-major order, little-endian.
fn append(tensor: &Tensor, to: &mut Vec<u8>) -> Result<()> {
    const {
        assert!(
            cfg!(target_endian = "little"),
            "libtorch runs on little-endian hosts"
        )
    };
    // On the tensor's device: a GPU puts elements in order faster.
    let host = tensor
        .f_detach()?
        .f_contiguous()?
        .f_to_device(Device::Cpu)?;
    let start = to.len();
    to.resize(start + byte_len(&host), 0);
    host.f_copy_data_u8(&mut to[start..], host.numel())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    #[test]
    fn file_is_that_of_the_safetensors_library() {
        let state = [
            (
                "b",
                Tensor::from_slice(&[1.0_f32, -2.0, 0.5, 4.0])
                    .view([2, 2])
                    .tr(),
            ),
            ("steps", Tensor::from_slice(&[7_i64, -1])),
            ("a", Tensor::from(3.0_f32)),
            ("empty", Tensor::zeros([0, 3], (Kind::Float, Device::Cpu))),
        ]
        .map(|(name, tensor)| (name.to_owned(), tensor));
        let metadata = HashMap::from([("key".to_owned(), "\"quoted\"".to_owned())]);
        let parts = state.each_ref().map(|(name, tensor)| {
            let dtype = if name == "steps" {
                Dtype::I64
            } else {
                Dtype::F32
            };
            let shape: Vec<_> = (tensor.size().iter())
                .map(|&side| usize::try_from(side).unwrap())
                .collect();
            (name, dtype, shape, bytes(tensor).unwrap())
        });
        assert_eq!(
            parts[0].3,
            [1.0_f32, 0.5, -2.0, 4.0].map(f32::to_le_bytes).concat()
        );
        let views = parts.iter().map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let theirs = safetensors::serialize(views, Some(metadata.clone())).unwrap();
        assert_eq!(encode(&state, metadata).unwrap(), theirs);
    }
}
