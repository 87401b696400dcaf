//! Compares a training step on a device with torchvision's, and the batches of a placement with single
//! images.
//!
//! `tools/witness/resnet18_golden.py` wrote the golden file with torchvision, in `f64`. It has the formulas
//! of `initial` and `unit`, which give weights, images and labels from their index alone, so that the file
//! only holds results.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use safetensors::SafeTensors;
use tch::{Device, Kind, Reduction, Tensor};
use tinyres_format::{Draws, Stream};
use tinyres_load::{Dataset, shuffled};

use crate::config::Normalize;
use crate::input::{Feed, FlipShift, Normalizer, Targets};
use crate::libtorch::device::{Placement, Precision};
use crate::libtorch::ffi;
use crate::net::{ResNet18, Role, Spec, Stem};
use crate::{Error, Result};

const GOLDEN: &[u8] = include_bytes!("../../golden/resnet18.safetensors");
const BATCH: i64 = 2;
/// Number of elements of a gradient that are compared one by one.
const SAMPLES: u64 = 64;

/// The difference between a tensor and torchvision's.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Name of the tensor: `logits`, `loss`, `grad.NAME`.
    pub what: String,
    /// `norm(tensor - torchvision) / norm(torchvision)`.
    pub relative: f64,
}

/// Takes one training step and one evaluation on `device`, and compares the logits, the loss, every
/// gradient and every running statistic with torchvision's.
pub fn against_torchvision(device: Device, precision: Precision) -> Result<Vec<Difference>> {
    // TensorFloat-32, which training on a GPU may use, is less exact than `f32`.
    ffi::allow_tf32(precision != Precision::F32)?;
    let spec = Spec {
        stem: Stem::Imagenet,
        classes: 200,
        boxes: false,
    };
    let mut net = ResNet18::new(spec, 0, device)?.with_precision(precision);
    let mut state = Vec::new();
    for (k, (name, default)) in (0..).zip(net.state()?) {
        let value = initial(k, &name, &default)?.f_to_kind(default.kind())?;
        state.push((name, value));
    }
    net.load(&state)?;
    let labels: Vec<_> = (0..BATCH.unsigned_abs())
        .map(|i| (splitmix64(1001, i) % 200).cast_signed())
        .collect();
    let labels = Tensor::f_from_slice(&labels)?.f_to_device(device)?;
    let images = unit(4085, &[BATCH, 3, 64, 64])?.f_to_kind(Kind::Float)?;
    let images = ffi::channels_last(&images.f_to_device(device)?)?;

    let logits = net.forward(&images, true)?;
    let loss = logits.f_cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0)?;
    loss.f_backward()?;
    let mut got = HashMap::from([("logits".to_owned(), logits), ("loss".to_owned(), loss)]);

    let (mut norms, mut projections) = (Vec::new(), Vec::new());
    for (k, (name, _)) in (0..).zip(&state) {
        let Some(named) = net.named().iter().find(|named| named.name == *name) else {
            continue; // The count of batches, which is not in the golden file.
        };
        if named.role == Role::Buffer {
            got.insert(name.clone(), named.tensor.f_detach_copy()?);
            continue;
        }
        let grad = named
            .tensor
            .f_grad()?
            .f_to_device(Device::Cpu)?
            .f_contiguous()?;
        let mut grad = grad.f_view([-1])?.f_to_kind(Kind::Double)?;
        let count = grad.size1()?;
        norms.push(grad.f_norm()?);
        projections.push(grad.f_dot(&unit(3000 + k, &[count])?)?);
        if named.tensor.dim() > 1 {
            let place = |j| (splitmix64(2000 + k, j) % count.unsigned_abs()).cast_signed();
            let places: Vec<_> = (0..SAMPLES).map(place).collect();
            grad = grad.f_index_select(0, &Tensor::f_from_slice(&places)?)?;
        }
        got.insert(format!("grad.{name}"), grad);
    }
    got.insert("grad.norm".to_owned(), Tensor::f_stack(&norms, 0)?);
    got.insert(
        "grad.projection".to_owned(),
        Tensor::f_stack(&projections, 0)?,
    );
    let logits = tch::no_grad(|| net.forward(&images, false))?;
    got.insert("eval.logits".to_owned(), logits);
    ffi::allow_tf32(true)?;

    golden()?
        .into_iter()
        .map(|(what, want)| {
            let Some(got) = got.get(&what) else {
                return Err(Error::weights(&what, "was not computed"));
            };
            let got = got
                .f_detach()?
                .f_to_device(Device::Cpu)?
                .f_to_kind(Kind::Double)?;
            let off = got.f_sub(&want)?.f_norm()?.f_double_value(&[])?;
            let relative = off / want.f_norm()?.f_double_value(&[])?;
            Ok(Difference { what, relative })
        })
        .collect()
}

/// The tensors of the golden file, in `f64`.
fn golden() -> Result<Vec<(String, Tensor)>> {
    let file = SafeTensors::deserialize(GOLDEN).map_err(|error| Error::Torch(error.to_string()))?;
    let tensor = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let (words, _) = view.data().as_chunks();
        let values: Vec<_> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        let dims: Vec<_> = view
            .shape()
            .iter()
            .map(|&d| d.cast_signed() as i64)
            .collect();
        let values = Tensor::f_from_slice(&values)?.f_view(&dims[..])?;
        Ok((name.to_owned(), values.f_to_kind(Kind::Double)?))
    };
    file.iter().map(tensor).collect()
}

/// A hash of `(key, index)`: one step of SplitMix64 (Steele et al. 2014).
fn splitmix64(key: u64, index: u64) -> u64 {
    let mut z = (key << 32)
        .wrapping_add(index)
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Numbers from -1 to 1, `f64` of shape `dims`, that follow from `key`.
fn unit(key: u64, dims: &[i64]) -> Result<Tensor> {
    let count: i64 = dims.iter().product();
    let at = |i| (splitmix64(key, i) >> 11) as f64 * 0.5_f64.powi(52) - 1.0;
    let values: Vec<f64> = (0..count.unsigned_abs()).map(at).collect();
    Ok(Tensor::f_from_slice(&values)?.f_view(dims)?)
}

/// The initial value of the tensor `name`, number `k` of the network's state: uniform with He's bound for
/// layers, near 1 and 0 for batch normalisation.
fn initial(k: u64, name: &str, default: &Tensor) -> Result<Tensor> {
    let dims = default.size();
    if dims.len() > 1 {
        let fan_in = dims[1..].iter().product::<i64>() as f64;
        Ok(unit(k, &dims)?.f_mul_scalar((6.0 / fan_in).sqrt())?)
    } else if name.ends_with(".weight") {
        Ok(unit(k, &dims)?.f_div_scalar(4.0)?.f_add_scalar(1.0)?)
    } else if name.ends_with(".bias") {
        Ok(unit(k, &dims)?.f_div_scalar(4.0)?)
    } else {
        Ok(default.shallow_clone())
    }
}

/// True if an epoch of `data` from `placement` on `device`, augmented and normalised, agrees with single
/// images that are gathered, augmented and normalised on the CPU. Only the rounding of the normalisation
/// may differ.
pub(crate) fn same_batches(
    data: &Arc<Dataset>,
    device: Device,
    placement: Placement,
) -> Result<bool> {
    const SHIFT: u32 = 4;
    const ROUNDING: f64 = 1e-6;
    let shape = data.shape();
    let sides = (shape.height, shape.width);
    let draws = Draws::new(1, Stream::Augment, 0);
    let moves = |images: &[u32], device| FlipShift::new(true, SHIFT, draws, images, sides, device);
    let here = Normalizer::new(Normalize::Imagenet, Device::Cpu)?;
    let there = Normalizer::new(Normalize::Imagenet, device)?;
    let feed = Feed::new(
        Arc::clone(data),
        Targets::read(data, false)?,
        device,
        placement,
    )?;
    let batch = NonZeroUsize::new(24).unwrap_or(NonZeroUsize::MIN);
    let order = shuffled(data.len(), 1, 0);
    let mut pass = feed.pass(order.clone(), batch, false, 0)?;
    let augment = moves(pass.images(), device)?;
    let mut images = order.iter();
    let mut same = true;
    while let Some(x) = pass.next_batch(|batch| match &augment {
        Some(augment) => there.apply(&augment.apply(batch.pixels, &batch.at)?),
        None => there.apply(batch.pixels),
    }) {
        let x = x?.f_to_device(Device::Cpu)?;
        for row in 0..x.size()[0] {
            let Some(&image) = images.next() else {
                return Ok(false);
            };
            let mut pixels = vec![0; shape.image_len()];
            data.gather(&[image], &mut pixels)?;
            let dims = [
                1,
                shape.channels.into(),
                shape.height.into(),
                shape.width.into(),
            ];
            let one = Tensor::f_from_slice(&pixels)?.f_view(dims)?;
            let want = match moves(&[image], Device::Cpu)? {
                Some(alone) => here.apply(&alone.apply(&one, &(0..1))?)?,
                None => here.apply(&one)?,
            };
            let off = x.f_narrow(0, row, 1)?.f_sub(&want)?.f_abs()?.f_max()?;
            same &= off.f_double_value(&[])? < ROUNDING;
        }
    }
    Ok(same && images.next().is_none())
}
