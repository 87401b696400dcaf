//! What libtorch finds on this machine, and whether it computes alike everywhere.

pub mod parity;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use tch::Device;
use tinyres_load::Dataset;

use crate::Result;
use crate::doctor::parity::{against_torchvision, same_batches};
use crate::libtorch::device::{self, CudaState, Placement, Precision};
use crate::libtorch::ffi;

/// Largest deviation from torchvision's `f64` that counts as the same in `f32`.
const SINGLE: f64 = 1e-4;
/// The same for logits and loss in bfloat16, of which torchvision's own are off by up to 0.03.
const BFLOAT16: f64 = 0.1;

/// What libtorch found, and what was checked.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of libtorch.
    pub libtorch: String,
    /// Directory that it was loaded from.
    pub directory: PathBuf,
    /// The processor's instruction set that its kernels use.
    pub instructions: String,
    /// Threads that it computes with.
    pub threads: usize,
    /// GPUs that can be used.
    pub gpus: usize,
    /// Why no GPU can be used, where that is so.
    pub no_gpu: Option<String>,
    /// What was checked.
    pub checks: Vec<Check>,
}

/// Something that was checked.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The device that it was checked on.
    pub device: String,
    /// What was checked.
    pub what: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// The figure behind that, or the error.
    pub found: String,
}

impl Report {
    /// Whether all that was checked is as it should be.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

/// Looks at libtorch, and checks the network and the loader on every device, with the images of
/// `data`.
#[must_use]
pub fn examine(data: &Arc<Dataset>) -> Report {
    let cuda = device::cuda();
    let gpus = match cuda {
        CudaState::Ready(count) => count,
        CudaState::Not(_) => 0,
    };
    let devices = (0..gpus).map(Device::Cuda);
    Report {
        checks: std::iter::once(Device::Cpu)
            .chain(devices)
            .flat_map(|device| check(data, device))
            .collect(),
        libtorch: ffi::version(),
        directory: ffi::library_dir(),
        instructions: ffi::cpu_capability(),
        threads: crate::threads(),
        gpus,
        no_gpu: match cuda {
            CudaState::Ready(_) => None,
            CudaState::Not(why) => Some(why),
        },
    }
}

fn check(data: &Arc<Dataset>, device: Device) -> Vec<Check> {
    let name = match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    };
    let outcome = |what: &str, result: Result<(bool, String)>| {
        let (ok, found) = result.unwrap_or_else(|error| (false, error.to_string()));
        Check {
            device: name.clone(),
            what: what.to_owned(),
            ok,
            found,
        }
    };
    let worst = |precision, forward_only: bool, most: f64| {
        let deviations = against_torchvision(device, precision)?;
        let counts = |what: &str| !forward_only || what == "loss" || what.ends_with("logits");
        let worst = deviations
            .into_iter()
            .filter(|deviation| counts(&deviation.what))
            // Not a number is worse than any.
            .max_by(|a, b| a.relative.total_cmp(&b.relative));
        let (what, off) = worst.map_or((String::new(), f64::NAN), |worst| {
            (worst.what, worst.relative)
        });
        Ok((off < most, format!("off by at most {off:.1e}, in {what}")))
    };
    let mut checks = vec![outcome(
        "a training step in f32 is torchvision's",
        worst(Precision::F32, false, SINGLE),
    )];
    let mut placements = vec![Placement::Mapped, Placement::Resident];
    if device.is_cuda() {
        placements[0] = Placement::Pinned;
    }
    if Precision::Auto.on(device) == Precision::Bf16 {
        checks.push(outcome(
            "logits in bfloat16 are torchvision's",
            worst(Precision::Bf16, true, BFLOAT16),
        ));
    }
    for placement in placements {
        let found = match same_batches(data, device, placement) {
            Ok(true) => Ok((true, "identical".to_owned())),
            Ok(false) => Ok((false, "they differ".to_owned())),
            Err(error) => Err(error),
        };
        checks.push(outcome(
            &format!("{placement} batches are those of single images"),
            found,
        ));
    }
    checks
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "libtorch   {} in {}",
            self.libtorch,
            self.directory.display()
        )?;
        writeln!(
            f,
            "processor  {}, {} threads",
            self.instructions, self.threads
        )?;
        match &self.no_gpu {
            None => writeln!(f, "GPUs       {}", self.gpus)?,
            Some(why) => writeln!(f, "GPUs       none: {why}")?,
        }
        for check in &self.checks {
            let mark = if check.ok { "ok  " } else { "FAIL" };
            write!(
                f,
                "\n{mark}  {}: {} ({})",
                check.device, check.what, check.found
            )?;
        }
        Ok(())
    }
}
