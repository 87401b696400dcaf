//! Lists of named tensors, as a network, an optimizer and a moving average give their state: copying them
//! back, and writing them as a safetensors file. `checkpoint` says which tensors a file has.

use std::collections::HashMap;
use std::sync::Arc;

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
pub(crate) struct HostCopy(Vec<HostTensor>);

#[derive(Debug)]
struct HostTensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// The elements as they stand in the file.
    bytes: Arc<Vec<u8>>,
}

impl HostCopy {
    pub(crate) fn new(state: &[(String, Tensor)]) -> Result<Self> {
        let copy = |(name, tensor): &(String, Tensor)| {
            let sides = tensor.size().into_iter();
            Ok(HostTensor {
                name: name.clone(),
                dtype: match tensor.kind() {
                    Kind::Int64 => Dtype::I64,
                    _ => Dtype::F32,
                },
                shape: sides
                    .map(|side| usize::try_from(side).unwrap_or(0))
                    .collect(),
                bytes: Arc::new(bytes(tensor)?),
            })
        };
        Ok(Self::of(state.iter().map(copy).collect::<Result<_>>()?))
    }

    fn of(mut tensors: Vec<HostTensor>) -> Self {
        // The order of `safetensors::serialize`: large elements first, so that all are aligned.
        tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then(a.name.cmp(&b.name)));
        Self(tensors)
    }

    /// The tensors to which `rename` gives a name, under that name. They stay in the same memory.
    pub(crate) fn select<'a>(&'a self, rename: impl Fn(&'a str) -> Option<&'a str>) -> Self {
        let selected = self.0.iter().filter_map(|tensor| {
            Some(HostTensor {
                name: rename(&tensor.name)?.to_owned(),
                dtype: tensor.dtype,
                shape: tensor.shape.clone(),
                bytes: Arc::clone(&tensor.bytes),
            })
        });
        Self::of(selected.collect())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|tensor| tensor.name.as_str())
    }

    /// The elements of each tensor: in this order, the file after its header.
    pub(crate) fn data(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|tensor| tensor.bytes.as_slice())
    }

    /// The header of the safetensors file. `metadata` should have one entry at most: several would be written in any
    /// order.
    pub(crate) fn header(&self, metadata: HashMap<String, String>) -> Result<Vec<u8>> {
        let mut end = 0;
        let tensors = self.0.iter().map(|tensor| {
            let start = end;
            end += tensor.bytes.len();
            let info = TensorInfo {
                dtype: tensor.dtype,
                shape: tensor.shape.clone(),
                data_offsets: (start, end),
            };
            (tensor.name.clone(), info)
        });
        let header = Metadata::new(Some(metadata), tensors.collect())?;
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
    copy.data().for_each(|data| file.extend(data));
    Ok(file)
}

/// The elements of `tensor` in row-major order, little-endian.
pub(crate) fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
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
    let mut bytes = vec![0; host.numel() * host.kind().elt_size_in_bytes()];
    host.f_copy_data_u8(&mut bytes, host.numel())?;
    Ok(bytes)
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
