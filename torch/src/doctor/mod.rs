//! Checks of this machine: what libtorch finds, whether a training step agrees with torchvision on each
//! device, and whether each placement of the pixels gives the same batches. Nothing is repaired here.

pub mod parity;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use tch::Device;
use tinyres::text::counted;
use tinyres_load::Dataset;

use crate::Result;
use crate::doctor::parity::{against_torchvision, same_batches};
use crate::libtorch::device::{self, CudaState, Placement, Precision};
use crate::libtorch::ffi;
use crate::ranks::{self, Launch, meet};

/// Largest relative difference from torchvision's `f64` in `f32`.
const MAX_F32: f64 = 1e-4;
/// The same for logits and loss in bfloat16, where torchvision itself differs by up to 0.03.
const MAX_BF16: f64 = 0.1;

/// The findings of `tinyres doctor`.
#[derive(Clone, Debug, Serialize)]
pub struct DoctorReport {
    /// Version of libtorch.
    pub libtorch: String,
    /// Directory that libtorch was loaded from.
    #[serde(serialize_with = "tinyres::text::path")]
    pub directory: PathBuf,
    /// The processor's instruction set that libtorch's kernels use.
    pub instructions: String,
    /// Threads that libtorch computes with.
    pub threads: usize,
    /// Number of GPUs that can be used.
    pub gpus: usize,
    /// The reason why no GPU can be used, if none can.
    pub no_gpu: Option<String>,
    /// The launcher of several processes, in words.
    pub ranks: String,
    /// The checks of each device.
    pub checks: Vec<Check>,
}

/// One check, and its result.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The device.
    pub device: String,
    /// The statement that was checked.
    pub what: String,
    /// True if the statement holds.
    pub ok: bool,
    /// The figure measured, or the error.
    pub found: String,
}

impl DoctorReport {
    /// True if all checks passed.
    pub fn healthy(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

/// Checks the network and the loader on the CPU and on every GPU, with the images of `data`.
pub fn examine(data: &Arc<Dataset>) -> DoctorReport {
    let cuda = device::cuda();
    let gpus = match cuda {
        CudaState::Ready(count) => count,
        CudaState::Not(_) => 0,
    };
    let devices = (0..gpus).map(Device::Cuda);
    DoctorReport {
        checks: std::iter::once(Device::Cpu)
            .chain(devices)
            .flat_map(|device| check(data, device))
            .chain([check_ranks()])
            .chain((gpus > 0).then(check_nccl))
            .collect(),
        ranks: describe_ranks(),
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

fn describe_ranks() -> String {
    match Launch::from_env() {
        Ok(None) => "one process: no launcher says that there are more".to_owned(),
        Ok(Some(launch)) => {
            let Launch {
                launcher,
                rank,
                size,
                host,
                port,
                ..
            } = &launch;
            let from = match &*meet::own_address(&launch) {
                "" => format!("{host} is not known here"),
                address => format!("reached from {address}"),
            };
            format!("rank {rank} of {size} by {launcher}, to meet at {host}:{port}, {from}")
        }
        Err(error) => error.to_string(),
    }
}

/// Checks that libtorch connects processes, with two threads in their place.
fn check_ranks() -> Check {
    let found = ranks::check_sum();
    Check {
        device: "cpu".to_owned(),
        what: "ranks connect and add up (Gloo)".to_owned(),
        ok: found.is_ok(),
        found: found.map_or_else(|error| error.to_string(), |()| "exact".to_owned()),
    }
}

/// Checks that libtorch has NCCL, by which GPUs connect.
fn check_nccl() -> Check {
    let found = ffi::find_nccl();
    Check {
        device: "cuda".to_owned(),
        what: "libtorch can connect GPUs (NCCL)".to_owned(),
        ok: found.is_ok(),
        found: found.map_or_else(|error| error.to_string(), |()| "found".to_owned()),
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
    let parity = |precision, forward_only: bool, max: f64| {
        let differences = against_torchvision(device, precision)?;
        let counts = |what: &str| !forward_only || what == "loss" || what.ends_with("logits");
        let worst = differences
            .into_iter()
            .filter(|difference| counts(&difference.what))
            // Sorts NaN above every number.
            .max_by(|a, b| a.relative.total_cmp(&b.relative));
        let (what, off) = worst.map_or((String::new(), f64::NAN), |worst| {
            (worst.what, worst.relative)
        });
        Ok((off < max, format!("off by at most {off:.1e}, in {what}")))
    };
    let mut checks = vec![outcome(
        "a training step in f32 agrees with torchvision",
        parity(Precision::F32, false, MAX_F32),
    )];
    let mut placements = vec![Placement::Mapped, Placement::Resident];
    if device.is_cuda() {
        placements[0] = Placement::Pinned;
    }
    if Precision::Auto.on(device) == Precision::Bf16 {
        checks.push(outcome(
            "logits in bfloat16 agree with torchvision",
            parity(Precision::Bf16, true, MAX_BF16),
        ));
    }
    for placement in placements {
        let found = match same_batches(data, device, placement) {
            Ok(true) => Ok((true, "identical".to_owned())),
            Ok(false) => Ok((false, "they differ".to_owned())),
            Err(error) => Err(error),
        };
        checks.push(outcome(
            &format!("{placement} batches equal those of single images"),
            found,
        ));
    }
    checks
}

impl fmt::Display for DoctorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "libtorch   {} in {}",
            self.libtorch,
            self.directory.display()
        )?;
        writeln!(
            f,
            "processor  {}, {}",
            self.instructions,
            counted(self.threads, "thread")
        )?;
        match &self.no_gpu {
            None => writeln!(f, "GPUs       {}", self.gpus)?,
            Some(why) => writeln!(f, "GPUs       none: {why}")?,
        }
        writeln!(f, "ranks      {}", self.ranks)?;
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
