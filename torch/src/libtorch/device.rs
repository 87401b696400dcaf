//! What a device needs done differently: all that this crate does for CUDA and not for the CPU is
//! here, in the pinned memory of `ffi`, and in the match on placements in `feed`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, VariantNames};
use tch::{Cuda, Device, Kind, Tensor};
use tinyres::text::counted;

use crate::libtorch::ffi;
use crate::{Error, Result};

/// Where to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// On the first GPU if there is one, and else on the CPU. Of several processes on a host, each has a GPU of its own.
    #[default]
    Auto,
    /// On the CPU.
    Cpu,
    /// On the GPU of this number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |text: &str| text.parse().ok().map(Self::Cuda);
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(number),
        }
        .ok_or_else(|| format!("no device {text:?}: expected auto, cpu, cuda or cuda:N"))
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Cpu => f.pad("cpu"),
            Self::Cuda(index) => f.pad(&format!("cuda:{index}")),
        }
    }
}

/// Where the pixels are kept. Batches are the same for each.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Display,
    EnumString,
    VariantNames,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Placement {
    /// The best of the others for the device.
    #[default]
    Auto,
    /// In the files, mapped: batches are gathered from the page cache.
    Mapped,
    /// As `Mapped`, through page-locked memory that the GPU reads by itself.
    Pinned,
    /// All of them in the device's memory.
    Resident,
}

/// What a forward pass computes in. Weights, statistics, the loss and the optimizer are `f32`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Display,
    EnumString,
    VariantNames,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Precision {
    /// `Bf16` where the device multiplies it faster than `f32`: on CUDA, and on a CPU with AMX or avx512_bf16.
    #[default]
    Auto,
    /// In `f32` throughout. The products of the optimizer `muon` are an exception on a CPU that multiplies bfloat16.
    F32,
    /// Maps and convolutions in bfloat16.
    Bf16,
}

impl Precision {
    /// What `auto` stands for on `device`.
    #[must_use]
    pub fn on(self, device: Device) -> Self {
        match self {
            Self::Auto if device.is_cuda() || ffi::multiplies_bf16() => Self::Bf16,
            Self::Auto => Self::F32,
            chosen => chosen,
        }
    }
}

/// How CUDA stands on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CudaState {
    /// So many devices can be used.
    Ready(usize),
    /// None can, for this reason.
    Not(String),
}

/// Loads CUDA if it is there, and says how it stands. The first call decides for the process.
#[must_use]
pub fn cuda() -> CudaState {
    if let Err(why) = ffi::load_cuda() {
        return CudaState::Not(format!(
            "libtorch's CUDA part does not load ({why}); `tools/setup --cuda` gets it, then build again"
        ));
    }
    if Cuda::is_available() {
        return CudaState::Ready(usize::try_from(Cuda::device_count()).unwrap_or(0));
    }
    CudaState::Not(match ffi::can_load(c"libcuda.so.1") {
        Ok(()) => "the NVIDIA driver is here, but shows no device that libtorch can use".to_owned(),
        Err(why) => format!("the NVIDIA driver is not here: {why}"),
    })
}

/// The device of `choice`, ready for use.
///
/// # Errors
/// [`Error::NoCuda`] where a GPU was asked for by name and cannot be used.
pub fn open(choice: DeviceChoice) -> Result<Device> {
    let wanted = match choice {
        DeviceChoice::Cpu => return Ok(Device::Cpu),
        DeviceChoice::Auto => 0,
        DeviceChoice::Cuda(index) => index,
    };
    let why = match cuda() {
        CudaState::Ready(count) if wanted < count => {
            ffi::measure_cudnn()?;
            ffi::allow_tf32(true)?;
            return Ok(Device::Cuda(wanted));
        }
        CudaState::Ready(count) => format!("there are only {count} devices"),
        CudaState::Not(why) => why,
    };
    match choice {
        DeviceChoice::Cuda(_) => Err(Error::NoCuda {
            device: choice.to_string(),
            why,
        }),
        _ => Ok(Device::Cpu),
    }
}

/// Runs `forward` on `images` as `precision` says: by autocast on CUDA, and on the CPU by the kind of
/// the images, which all that follows keeps.
pub(crate) fn mixed<T>(
    precision: Precision,
    images: &Tensor,
    forward: impl FnOnce(&Tensor) -> Result<T>,
) -> Result<T> {
    match (precision.on(images.device()), images.device()) {
        (Precision::Bf16, Device::Cuda(_)) => ffi::autocast_bf16(|| forward(images)),
        (Precision::Bf16, _) => forward(&images.f_to_kind(Kind::BFloat16)?),
        _ => forward(images),
    }
}

/// Steps from one read of the losses to the next. A read waits for a GPU, and costs a CPU nothing.
pub(crate) fn sync_interval(device: Device) -> usize {
    match device {
        Device::Cuda(_) => 50,
        _ => 1,
    }
}

/// A copy of `host` on `device` that does not wait for the work queued there. Unlike
/// `Tensor::to_device`, which drains the stream.
pub(crate) fn upload(host: &Tensor, device: Device) -> Result<Tensor> {
    match device {
        // libtorch's pinned allocator keeps the memory until the copy has been made.
        Device::Cuda(_) => Ok(ffi::pin(host)?.f_internal_to_copy((host.kind(), device), true)?),
        _ => Ok(host.shallow_clone()),
    }
}

/// What `auto` stands for on `device` with `bytes` of pixels, and whether the others are possible.
///
/// # Errors
/// [`Error::Value`] for a placement that the device does not have.
pub(crate) fn place(placement: Placement, device: Device, bytes: usize) -> Result<Placement> {
    match (placement, device) {
        (Placement::Auto, Device::Cuda(index)) => {
            // Weights, gradients and maps need the rest.
            let room = ffi::free_memory(index).unwrap_or(0) / 2;
            Ok(if bytes <= room {
                Placement::Resident
            } else {
                Placement::Pinned
            })
        }
        (Placement::Auto, _) => Ok(Placement::Mapped),
        (Placement::Pinned, Device::Cpu) => Err(Error::Value {
            key: "placement",
            got: placement.to_string(),
            expected: "auto, mapped or resident on the CPU".to_owned(),
        }),
        (Placement::Mapped, Device::Cuda(_)) => Err(Error::Value {
            key: "placement",
            got: placement.to_string(),
            expected: "auto, pinned or resident on a GPU".to_owned(),
        }),
        _ => Ok(placement),
    }
}

/// True if products of small matrices are to be made of stacks of them: a GPU takes as long to start one as to compute
/// it.
pub(crate) fn stacks_products(device: Device) -> bool {
    device.is_cuda()
}

/// Threads that gather batches. On a CPU they take their time from the network's.
pub(crate) fn gather_threads(device: Device) -> usize {
    match device {
        Device::Cuda(_) => 4,
        _ => 1,
    }
}

/// A device as people call it: `the CPU, 2 threads` or `cuda:0`.
pub(crate) fn describe(device: Device) -> String {
    match device {
        Device::Cuda(index) => DeviceChoice::Cuda(index).to_string(),
        _ => format!("the CPU, {}", counted(crate::threads(), "thread")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_written_as_they_are_read() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_cpu_maps_and_cannot_pin() {
        assert_eq!(
            place(Placement::Auto, Device::Cpu, 1).unwrap(),
            Placement::Mapped
        );
        assert!(place(Placement::Pinned, Device::Cpu, 1).is_err());
        assert!(place(Placement::Resident, Device::Cpu, 1).is_ok());
    }
}
