//! The safe interface of `shim.cpp`: everything that this crate needs of libtorch and `tch` does not bind. All
//! `unsafe` of the library is here and in `script`.
//!
//! Most safety arguments below rest on two facts. A `&Tensor` refers to a live `at::Tensor`, and `as_ptr` gives
//! its address, valid as long as the reference. Every function of the shim catches C++ exceptions and is
//! `noexcept`, so nothing unwinds into Rust.

mod optim;
mod ranks;
mod script;

use std::ffi::{CStr, c_char};
use std::path::PathBuf;
use std::ptr;

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use crate::{Error, Result};

pub(crate) use optim::{Adam, adam, muon_ahead, muon_apply, sgd, sum_gradients};
pub(crate) use ranks::{Copies, Exchange, Group, Order, Store, find_nccl};
pub(crate) use script::Script;

/// `c10::Event`, an opaque type.
#[repr(C)]
struct Event {
    _opaque: [u8; 0],
}

// SAFETY: each signature is the one that `shim.cpp` defines, with `size_t` as `usize`.
unsafe extern "C" {
    fn tinyres_free(text: *mut c_char);
    fn tinyres_version() -> *const c_char;
    fn tinyres_cpu_capability(out: *mut *mut c_char) -> *mut c_char;
    fn tinyres_multiplies_bf16(out: *mut bool) -> *mut c_char;
    fn tinyres_library_dir(out: *mut *mut c_char) -> *mut c_char;
    fn tinyres_tune_allocator();
    fn tinyres_start_threads() -> *mut c_char;
    fn tinyres_load_cuda() -> *mut c_char;
    fn tinyres_can_load(name: *const c_char) -> *mut c_char;
    fn tinyres_free_memory(device: i8, out: *mut usize) -> *mut c_char;
    fn tinyres_allow_tf32(allow: bool) -> *mut c_char;
    fn tinyres_measure_cudnn() -> *mut c_char;
    fn tinyres_autocast_bf16(begin: bool) -> *mut c_char;
    fn tinyres_channels_last(input: *const C_tensor, out: *mut *mut C_tensor) -> *mut c_char;
    fn tinyres_conv2d(
        x: *const C_tensor,
        weight: *const C_tensor,
        stride: i64,
        pad: i64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn tinyres_matmul(
        a: *const C_tensor,
        b: *const C_tensor,
        symmetric: bool,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn tinyres_batch_norm(
        x: *const C_tensor,
        norm: *const *const C_tensor,
        shortcut: *const C_tensor,
        relu: bool,
        momentum: f64,
        eps: f64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn tinyres_pin(input: *const C_tensor, out: *mut *mut C_tensor) -> *mut c_char;
    fn tinyres_clear_grad(tensor: *const C_tensor) -> *mut c_char;
    fn tinyres_storage_users(tensor: *const C_tensor) -> usize;
    fn tinyres_event_record(device: i8, out: *mut *mut Event) -> *mut c_char;
    fn tinyres_event_query(event: *const Event, out: *mut bool) -> *mut c_char;
    fn tinyres_event_wait(event: *const Event) -> *mut c_char;
    fn tinyres_event_free(event: *mut Event);
}

/// Takes ownership of a string that the shim allocated; `None` for null.
fn take(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the shim returned a string of `message`, which ends in a zero and which nobody else frees.
    let owned = unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned();
    // SAFETY: `text` came from `message`, and nothing points into it any more.
    unsafe { tinyres_free(text) };
    Some(owned)
}

/// The string that `call` writes to its argument; empty if it fails, for what only informs.
fn text(call: impl FnOnce(*mut *mut c_char) -> *mut c_char) -> String {
    let mut out = ptr::null_mut();
    match check(call(&raw mut out)) {
        Ok(()) => take(out).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

fn check(message: *mut c_char) -> Result<()> {
    take(message).map_or(Ok(()), |message| Err(Error::torch(&message)))
}

/// The version of the libtorch whose headers this was compiled against.
pub(crate) fn version() -> String {
    // SAFETY: a string literal of the shim, which lives as long as the program.
    unsafe { CStr::from_ptr(tinyres_version()) }
        .to_string_lossy()
        .into_owned()
}

/// The instruction set that libtorch's kernels use: `AVX2`, `AVX512` or `DEFAULT`.
pub(crate) fn cpu_capability() -> String {
    // SAFETY: the shim writes a string that we then own, or nothing.
    text(|out| unsafe { tinyres_cpu_capability(out) })
}

/// Tells if the CPU multiplies bfloat16 matrices by instructions of its own: AMX, where the system permits it to
/// this process, or avx512_bf16.
pub(crate) fn multiplies_bf16() -> bool {
    let mut multiplies = false;
    // SAFETY: the shim writes one value to `multiplies`. It asks the system for permission to use AMX.
    check(unsafe { tinyres_multiplies_bf16(&raw mut multiplies) }).is_ok() && multiplies
}

/// The directory of the `libtorch_cpu.so` that this process has loaded.
pub(crate) fn library_dir() -> PathBuf {
    // SAFETY: as in `cpu_capability`.
    PathBuf::from(text(|out| unsafe { tinyres_library_dir(out) }))
}

/// Tunes the allocator for a program that mostly trains or evaluates: the process keeps freed memory, and uses
/// huge pages. A step takes about 5% less time.
///
/// # Safety
/// Call this first in `main`: it sets an environment variable, so no other thread may read or set the
/// environment at the same time. libtorch reads the variable when it first allocates.
pub unsafe fn tune_allocator() {
    // SAFETY: `mallopt` may be called at any time; the caller ensures that no other thread uses the
    // environment.
    unsafe { tinyres_tune_allocator() }
}

/// Starts the threads that libtorch computes with, which it would else do when it first needs them.
pub(crate) fn start_threads() -> Result<()> {
    // SAFETY: takes nothing.
    check(unsafe { tinyres_start_threads() })
}

/// Loads `libtorch_cuda.so` from the directory of `libtorch_cpu.so`; does nothing if it is loaded. Call this
/// before libtorch is first asked about CUDA, since it remembers the answer.
///
/// # Errors
/// The dynamic linker's message: a CPU-only libtorch has no such file, or a CUDA library is missing.
pub(crate) fn load_cuda() -> std::result::Result<(), String> {
    // SAFETY: runs the static initialisers of a library that belongs to the libtorch in use.
    take(unsafe { tinyres_load_cuda() }).map_or(Ok(()), Err)
}

/// Checks that the dynamic linker finds the library `name`.
///
/// # Errors
/// The dynamic linker's message if it does not.
pub(crate) fn can_load(name: &CStr) -> std::result::Result<(), String> {
    // SAFETY: `name` ends in a zero. Only the initialisers of a system library run.
    take(unsafe { tinyres_can_load(name.as_ptr()) }).map_or(Ok(()), Err)
}

/// Free memory of CUDA device `index`, in bytes.
pub(crate) fn free_memory(index: usize) -> Result<usize> {
    let mut free = 0;
    // SAFETY: the shim writes one number to `free`.
    check(unsafe { tinyres_free_memory(cuda_index(index)?, &raw mut free) })?;
    Ok(free)
}

fn cuda_index(index: usize) -> Result<i8> {
    i8::try_from(index).map_err(|_| Error::Torch(format!("there is no CUDA device {index}")))
}

/// Allows or forbids TensorFloat-32 on CUDA: `f32` products with factors rounded to 11 bits, several times as
/// fast.
pub(crate) fn allow_tf32(allow: bool) -> Result<()> {
    // SAFETY: sets two values of libtorch's context.
    check(unsafe { tinyres_allow_tf32(allow) })
}

/// Lets cuDNN measure its kernels when a shape first occurs, and keep the fastest. Shapes do not change from step to
/// step, so that pays.
pub(crate) fn measure_cudnn() -> Result<()> {
    // SAFETY: sets two values of libtorch's context.
    check(unsafe { tinyres_measure_cudnn() })
}

/// Runs `work` under CUDA autocast to bfloat16. Unlike float16, libtorch's default, it needs no loss scaling.
pub(crate) fn autocast_bf16<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            // SAFETY: sets thread-local values of libtorch. It cannot fail.
            take(unsafe { tinyres_autocast_bf16(false) });
        }
    }
    // SAFETY: as above.
    check(unsafe { tinyres_autocast_bf16(true) })?;
    let _end = End;
    work()
}

/// `tensor`, `[N, C, H, W]`, in channels-last layout. Copies only if the layout differs.
pub(crate) fn channels_last(tensor: &Tensor) -> Result<Tensor> {
    let mut out = ptr::null_mut();
    // SAFETY: `tensor` is live, and the shim writes one pointer to `out`.
    check(unsafe { tinyres_channels_last(tensor.as_ptr(), &raw mut out) })?;
    // SAFETY: without an error `out` is an `at::Tensor` from `new` that we alone own, as `from_ptr` expects.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Convolution on the CPU of `x`, `[N, C, H, W]`, with `weight`, `f32 [K, C, R, S]`, both channels last
/// (`conv.cpp`). Computes in the dtype of `x`, `f32` or bfloat16; the gradient of `weight` is `f32`.
pub(crate) fn conv2d(x: &Tensor, weight: &Tensor, stride: i64, pad: i64) -> Result<Tensor> {
    let mut out = ptr::null_mut();
    let (x, weight) = (x.as_ptr(), weight.as_ptr());
    // SAFETY: both tensors are live, and the shim writes one pointer to `out`.
    check(unsafe { tinyres_conv2d(x, weight, stride, pad, &raw mut out) })?;
    // SAFETY: as in `channels_last`.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// The product of two matrices on the CPU, `[m, k]` and `[k, n]`, both `f32` or both bfloat16 (`matmul.cpp`).
/// `symmetric` says that it is symmetric: then half of it is computed.
pub(crate) fn matmul(a: &Tensor, b: &Tensor, symmetric: bool) -> Result<Tensor> {
    let mut out = ptr::null_mut();
    // SAFETY: both tensors are live, and the shim writes one pointer to `out`.
    check(unsafe { tinyres_matmul(a.as_ptr(), b.as_ptr(), symmetric, &raw mut out) })?;
    // SAFETY: as in `channels_last`.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Batch norm in training on the CPU with a fused shortcut and ReLU: `relu(norm(x) + shortcut)`, channels last
/// (`norm.cpp`). A shortcut requires `relu`.
///
/// `x`, `shortcut` and the result are `[N, C, H, W]`, all `f32` or all bfloat16. `norm` has weight, bias,
/// running mean and running variance, `f32 [C]`; the last two are updated, with weight `momentum` for the
/// batch.
pub(crate) fn batch_norm(
    x: &Tensor,
    norm: [&Tensor; 4],
    shortcut: Option<&Tensor>,
    relu: bool,
    momentum: f64,
    eps: f64,
) -> Result<Tensor> {
    let mut out = ptr::null_mut();
    let norm = norm.map(Tensor::as_ptr);
    let shortcut = shortcut.map_or(ptr::null(), Tensor::as_ptr);
    // SAFETY: all tensors are live. The shim reads four addresses from `norm`, accepts null for `shortcut`,
    // and writes one pointer to `out`.
    check(unsafe {
        tinyres_batch_norm(
            x.as_ptr(),
            norm.as_ptr(),
            shortcut,
            relu,
            momentum,
            eps,
            &raw mut out,
        )
    })?;
    // SAFETY: as in `channels_last`.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// A copy of `tensor` in page-locked memory, which a GPU can read by DMA.
pub(crate) fn pin(tensor: &Tensor) -> Result<Tensor> {
    let mut out = ptr::null_mut();
    // SAFETY: `tensor` is live, and the shim writes one pointer to `out`.
    check(unsafe { tinyres_pin(tensor.as_ptr(), &raw mut out) })?;
    // SAFETY: as in `channels_last`.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Drops the gradient of `tensor`, so that the next backward pass stores its result instead of adding to
/// it.
pub(crate) fn clear_grad(tensor: &Tensor) -> Result<()> {
    // SAFETY: `tensor` is live. Its gradient is reference counted: other handles to it stay valid.
    check(unsafe { tinyres_clear_grad(tensor.as_ptr()) })
}

/// Calls `work` with a `u8` tensor of shape `dims` that borrows `bytes` without a copy.
///
/// # Panics
/// If the length of `bytes` does not match `dims`, or a tensor that shares these bytes outlives the call. Both
/// are bugs of this crate; the second would be a use after free.
pub(crate) fn lend<T>(
    bytes: &[u8],
    dims: &[i64],
    work: impl FnOnce(&Tensor) -> Result<T>,
) -> Result<T> {
    let needed: i64 = dims.iter().product();
    assert_eq!(
        i64::try_from(bytes.len()),
        Ok(needed),
        "bytes for a tensor of shape {dims:?}"
    );
    // SAFETY: `bytes` outlives this function, and the tensor does not: the assertion below ensures that
    // nothing else uses its storage. `work` gets it by shared reference and only reads: libtorch writes
    // only in in-place operations, which take `&mut Tensor`.
    let tensor =
        unsafe { Tensor::f_from_blob(bytes.as_ptr(), dims, &[], Kind::Uint8, Device::Cpu) }?;
    let result = work(&tensor);
    // SAFETY: `tensor` is live; the call only reads.
    let users = unsafe { tinyres_storage_users(tensor.as_ptr()) };
    assert_eq!(users, 1, "a tensor over lent bytes outlives the loan");
    result
}

/// Page-locked host memory, which a GPU can read by DMA.
#[derive(Debug)]
pub(crate) struct Pinned(Tensor);

impl Pinned {
    /// Allocates `len` bytes, all 0.
    pub(crate) fn new(len: usize) -> Result<Self> {
        let len = i64::try_from(len).map_err(|_| Error::Torch(format!("{len} pinned bytes")))?;
        let zeros = Tensor::f_zeros([len], (Kind::Uint8, Device::Cpu))?;
        Ok(Self(pin(&zeros)?))
    }

    /// Starts to copy the first bytes, as a tensor of shape `dims`, to `device`, and returns without waiting.
    /// The copy is queued in the device's stream, so work queued later finds it done. [`InFlight`] gives
    /// the memory back when it may be written again.
    pub(crate) fn upload(self, dims: &[i64], device: Device) -> Result<(Tensor, InFlight)> {
        let Device::Cuda(index) = device else {
            return Err(Error::Torch(format!("pinned memory for {device:?}")));
        };
        let index = cuda_index(index)?;
        let len: i64 = dims.iter().product();
        let host = self.0.f_narrow(0, 0, len)?.f_view(dims)?;
        let image = host.f_internal_to_copy((Kind::Uint8, device), true)?;
        let mut event = ptr::null_mut();
        // SAFETY: the shim writes one pointer to `event`.
        check(unsafe { tinyres_event_record(index, &raw mut event) })?;
        Ok((
            image,
            InFlight {
                memory: self,
                event,
            },
        ))
    }
}

impl AsMut<[u8]> for Pinned {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the tensor is `u8`, contiguous and on the host, and owns `numel` bytes, which `zeros`
        // initialised. No other handle reads them: the only others are made in `upload`, which gives
        // `self` back through `InFlight` after the device has read.
        unsafe { std::slice::from_raw_parts_mut(self.0.data_ptr().cast(), self.0.numel()) }
    }
}

/// Pinned memory that a device may still be reading. `event` follows the copy in the device's stream.
#[derive(Debug)]
pub(crate) struct InFlight {
    memory: Pinned,
    event: *mut Event,
}

impl InFlight {
    /// Tells if the device has read all of it.
    pub(crate) fn landed(&self) -> Result<bool> {
        let mut passed = false;
        // SAFETY: `event` is live until `self` is dropped, and the shim writes one bool.
        check(unsafe { tinyres_event_query(self.event, &raw mut passed) })?;
        Ok(passed)
    }

    /// Waits until the device has read all of it, then gives the memory back.
    pub(crate) fn reclaim(mut self) -> Result<Pinned> {
        self.wait()?;
        // Leaves an empty tensor behind; `drop` frees the event.
        Ok(std::mem::replace(&mut self.memory, Pinned(Tensor::new())))
    }

    fn wait(&self) -> Result<()> {
        // SAFETY: `event` is live until `self` is dropped.
        check(unsafe { tinyres_event_wait(self.event) })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // The memory goes back to libtorch's pinned allocator, which waits for the copy before reusing it.
        // SAFETY: `event` came from `new` in the shim, and is freed only here.
        unsafe { tinyres_event_free(self.event) }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What the safety arguments above rest on: the compiler ends the program before it lets an exception through.
    #[test]
    fn every_function_of_the_shim_is_noexcept() {
        let mut functions = 0;
        for source in [
            include_str!("shim.cpp"),
            include_str!("script.cpp"),
            include_str!("ranks.cpp"),
            include_str!("exchange.cpp"),
        ] {
            let (_, interface) = source.split_once("extern \"C\" {").unwrap();
            for (start, _) in interface.match_indices("tinyres_") {
                let definition = &interface[start..];
                let (Some(open), Some(body)) = (definition.find('('), definition.find('{')) else {
                    continue;
                };
                let head = &definition[..body];
                // Others are words of a comment.
                if !head[..open.min(body)].contains([' ', ':', '\n']) {
                    assert!(head.trim_end().ends_with("noexcept"), "{head}");
                    functions += 1;
                }
            }
        }
        assert!(functions > 45, "{functions}");
    }

    #[test]
    fn lent_bytes_are_read_in_place() {
        let bytes = [1_u8, 2, 3, 4, 5, 6];
        let sum = lend(&bytes, &[2, 3], |tensor| {
            assert_eq!(tensor.data_ptr().cast_const().cast(), bytes.as_ptr());
            Ok(tensor.f_sum(Kind::Int64)?.f_int64_value(&[])?)
        });
        assert_eq!(sum.unwrap(), 21);
    }

    #[test]
    #[should_panic(expected = "outlives the loan")]
    fn a_view_cannot_outlive_its_loan() {
        let _view = lend(&[0; 6], &[2, 3], |tensor| Ok(tensor.f_transpose(0, 1)?));
    }

    /// Output, gradient of the input and gradient of the weight, as `f64`; `pull` is the output's gradient.
    fn passes(x: &Tensor, weight: &Tensor, pull: &Tensor, conv: Convolve<'_>) -> [Tensor; 3] {
        let [x, weight] = [x, weight].map(|leaf| leaf.copy().set_requires_grad(true));
        let out = conv(&x, &weight);
        (out.to_kind(Kind::Double) * pull)
            .sum(Kind::Double)
            .backward();
        [out, x.grad(), weight.grad()].map(|t| t.detach().to_kind(Kind::Double))
    }

    type Convolve<'a> = &'a dyn Fn(&Tensor, &Tensor) -> Tensor;

    #[test]
    fn convolution_matches_libtorch_in_f64() {
        let _guard = tch::no_grad_guard();
        tch::manual_seed(1);
        // Height, width, input and output channels, kernel, stride: the shapes of ResNet18 at 32 to 128
        // pixels with fewer channels, and some with odd sides. Those of 64 channels and more are for Winograd's
        // method, with each of its tiles.
        for (h, w, c, k, size, stride) in [
            (2, 2, 64, 128, 3, 1),
            (3, 3, 128, 64, 3, 1),
            (4, 4, 64, 64, 3, 1),
            (5, 9, 64, 64, 3, 1),
            (6, 3, 64, 64, 3, 1),
            (7, 2, 64, 64, 3, 1),
            (13, 8, 64, 192, 3, 1),
            (3, 1, 64, 64, 3, 1),
            (1, 1, 8, 8, 3, 1),
            (2, 2, 8, 8, 3, 1),
            (2, 2, 8, 16, 3, 2),
            (2, 2, 8, 16, 1, 2),
            (3, 2, 5, 7, 3, 1),
            (3, 3, 8, 8, 3, 2),
            (4, 4, 8, 8, 3, 1),
            (4, 4, 8, 16, 3, 2),
            (8, 8, 8, 16, 3, 2),
            (8, 8, 8, 16, 1, 2),
            (16, 16, 8, 16, 3, 2),
            (6, 9, 4, 6, 3, 1),
            (16, 16, 3, 8, 7, 2),
            (4, 5, 3, 8, 7, 2),
            (5, 3, 4, 4, 5, 1),
        ] {
            let pad = size / 2;
            let on = (Kind::Float, Device::Cpu);
            let x = channels_last(&Tensor::randn([6, c, h, w], on)).unwrap();
            let weight = channels_last(&Tensor::randn([k, c, size, size], on)).unwrap();
            for (kind, most) in [
                (Kind::Float, if c < 64 { 1e-6 } else { 1e-5 }),
                (Kind::BFloat16, 1e-2),
            ] {
                // Rounded once, so that both get the same numbers.
                let weight = weight.to_kind(kind).to_kind(Kind::Float);
                let x = x.to_kind(kind);
                let plain = |x: &Tensor, weight: &Tensor| {
                    let weight = weight.to_kind(Kind::Double);
                    let x = x.to_kind(Kind::Double);
                    x.conv2d(&weight, None::<&Tensor>, [stride; 2], [pad; 2], [1, 1], 1)
                };
                let ours = |x: &Tensor, weight: &Tensor| conv2d(x, weight, stride, pad).unwrap();
                let pull = plain(&x, &weight).randn_like();
                let pull = pull.to_kind(kind).to_kind(Kind::Double);
                let (want, got) = tch::with_grad(|| {
                    (
                        passes(&x, &weight, &pull, &plain),
                        passes(&x, &weight, &pull, &ours),
                    )
                });
                for (pass, (want, got)) in ["output", "input", "weight"]
                    .iter()
                    .zip(want.iter().zip(&got))
                {
                    let off = (want - got).norm().double_value(&[]) / want.norm().double_value(&[]);
                    assert!(
                        off < most,
                        "{pass} of {h}x{w}, {c} to {k}, {size}x{size} by {stride} in {kind:?}: {off:.1e}"
                    );
                }
            }
        }
    }

    #[test]
    fn matrix_products_match_libtorch_in_f64() {
        tch::manual_seed(2);
        let on = (Kind::Float, Device::Cpu);
        for (m, k, n) in [(64, 64, 64), (192, 320, 128), (128, 64, 256), (5, 7, 9)] {
            for (kind, most) in [(Kind::Float, 2e-6), (Kind::BFloat16, 5e-3)] {
                let a = Tensor::randn([m, k], on).to_kind(kind);
                let plain = Tensor::randn([k, n], on).to_kind(kind);
                let turned = Tensor::randn([n, k], on).to_kind(kind).tr();
                for (b, symmetric) in [(&plain, false), (&turned, false), (&a.tr(), true)] {
                    for left in [&a, &a.tr().contiguous().tr()] {
                        let got = matmul(left, b, symmetric).unwrap();
                        assert_eq!(got.kind(), kind);
                        let want = a.to_kind(Kind::Double).mm(&b.to_kind(Kind::Double));
                        let off = (&want - got.to_kind(Kind::Double)).norm() / want.norm();
                        let off = off.double_value(&[]);
                        assert!(
                            off < most,
                            "{m}x{k}x{n} in {kind:?}, symmetric {symmetric}: {off:.1e}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn kernels_match_libtorch_with_narrower_vectors() {
        for vectors in ["avx2", "default"] {
            let run = Command::new(std::env::current_exe().unwrap())
                .arg("libtorch_in_f64")
                .env("ATEN_CPU_CAPABILITY", vectors)
                .output()
                .unwrap();
            let out = String::from_utf8_lossy(&run.stdout);
            assert!(run.status.success(), "{vectors}: {out}");
            assert!(
                out.contains("convolution_matches_libtorch_in_f64 ... ok"),
                "{out}"
            );
        }
    }

    #[test]
    fn library_dir_holds_libtorch() {
        assert!(library_dir().join("libtorch_cpu.so").exists());
        assert_eq!(version(), "2.13.0");
    }
}
