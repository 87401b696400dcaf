// Functions of libtorch that tch does not bind, and our kernels, behind a C interface. Compiled against the
// headers of the libtorch that tch links. guarded.h has the error convention. ffi.rs repeats the
// declarations, and is the only caller.

#include "guarded.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_sgd.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <malloc.h>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "conv.h"
#include "matmul.h"
#include "muon.h"
#include "norm.h"
#include "parallel.h"
#include "processor.h"

namespace {

std::vector<at::Tensor> to_vector(at::Tensor *const *tensors, size_t count) {
  std::vector<at::Tensor> list;
  list.reserve(count);
  for (size_t i = 0; i < count; i++)
    list.push_back(*tensors[i]);
  return list;
}

// The gradients of `params`, with the same strides as the parameters: the fused kernels read both as flat
// memory. Autograd already keeps the layout, except for strides of dimensions of size 1, so nothing is
// copied here.
std::vector<at::Tensor> gradients(const std::vector<at::Tensor> &params) {
  std::vector<at::Tensor> grads;
  grads.reserve(params.size());
  for (const auto &param : params) {
    at::Tensor grad = param.grad();
    TORCH_CHECK(grad.defined(), "a parameter of shape ", param.sizes(), " has no gradient");
    TORCH_CHECK(param.is_non_overlapping_and_dense(), "a parameter is not dense");
    if (grad.strides() != param.strides())
      grad = grad.contiguous(param.suggest_memory_format())
                 .as_strided(param.sizes(), param.strides());
    grads.push_back(std::move(grad));
  }
  return grads;
}

// The directory of the libtorch_cpu.so that this process has loaded.
std::string library_dir() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<void *>(&at::get_num_threads), &info) || !info.dli_fname)
    return "";
  std::string file = info.dli_fname;
  const auto slash = file.rfind('/');
  return slash == std::string::npos ? "." : file.substr(0, slash);
}

// Loads a library, or throws the dynamic linker's message.
void *load(const char *name, int flags) {
  if (void *handle = dlopen(name, flags))
    return handle;
  const char *why = dlerror();
  throw std::runtime_error(why ? why : "dlopen failed without a reason");
}

} // namespace

extern "C" {

void tinyres_free(char *text) noexcept {
  if (text != no_memory)
    free(text);
}

const char *tinyres_version() noexcept { return TORCH_VERSION; }

char *tinyres_cpu_capability(char **out) noexcept {
  return guarded([&] { *out = message(at::get_cpu_capability().c_str()); });
}

char *tinyres_multiplies_bf16(bool *out) noexcept {
  return guarded([&] { *out = tinyres::multiplies_bf16(); });
}

char *tinyres_library_dir(char **out) noexcept {
  return guarded([&] { *out = message(library_dir().c_str()); });
}

// Keeps freed memory for the next step instead of returning it to the system, and asks for huge pages.
// Activations have the same sizes at every step, and the kernel zeroes returned pages before it gives
// them out again. All threads share one arena: what one has freed another can use, and the others' arenas hold at
// most 64 MB in one piece. libtorch reads the variable when it first allocates.
void tinyres_tune_allocator() noexcept {
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
  setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0);
  // What c10d tells of its connections, errors say as well; ranks.cpp puts this into force.
  setenv("TORCH_CPP_LOG_LEVEL", "FATAL", /*overwrite=*/0);
}

char *tinyres_start_threads() noexcept {
  return guarded([] { tinyres::in_parallel(at::get_num_threads(), [](int64_t) {}); });
}

// Runs the static initialisers that register the CUDA kernels. The linker drops libtorch_cuda from
// programs that name none of its symbols, so it is loaded by hand, with its symbols global as if it
// had been linked.
char *tinyres_load_cuda() noexcept {
  return guarded([&] { load((library_dir() + "/libtorch_cuda.so").c_str(), RTLD_NOW | RTLD_GLOBAL); });
}

// Returns null if the dynamic linker finds the library, or its error message.
char *tinyres_can_load(const char *name) noexcept {
  return guarded([&] { dlclose(load(name, RTLD_LAZY | RTLD_LOCAL)); });
}

// Writes the bytes of free memory of a CUDA device to `out`.
char *tinyres_free_memory(int8_t device, size_t *out) noexcept {
  return guarded([&] {
    *out = c10::getDeviceAllocator(c10::DeviceType::CUDA)->getMemoryInfo(device).first;
  });
}

char *tinyres_allow_tf32(bool allow) noexcept {
  return guarded([&] {
    at::globalContext().setAllowTF32CuDNN(allow);
    at::globalContext().setAllowTF32CuBLAS(allow);
  });
}

// All kernels that cuDNN proposes: libtorch's own limit is the first ten.
char *tinyres_measure_cudnn() noexcept {
  return guarded([] {
    at::globalContext().setBenchmarkCuDNN(true);
    at::globalContext().setBenchmarkLimitCuDNN(0);
  });
}

// Begins or ends autocast to bfloat16 on this thread. Uses the functions that take a device: those that tch
// binds print a deprecation warning at every call.
char *tinyres_autocast_bf16(bool begin) noexcept {
  return guarded([&] {
    at::autocast::set_autocast_dtype(at::kCUDA, at::kBFloat16);
    at::autocast::set_autocast_enabled(at::kCUDA, begin);
    if (begin)
      at::autocast::increment_nesting();
    else if (at::autocast::decrement_nesting() == 0)
      at::autocast::clear_cache();
  });
}

char *tinyres_channels_last(const at::Tensor *in, at::Tensor **out) noexcept {
  return guarded([&] { *out = new at::Tensor(in->contiguous(at::MemoryFormat::ChannelsLast)); });
}

char *tinyres_conv2d(const at::Tensor *x, const at::Tensor *weight, int64_t stride, int64_t pad,
                     at::Tensor **out) noexcept {
  return guarded([&] { *out = new at::Tensor(tinyres::conv2d(*x, *weight, stride, pad)); });
}

char *tinyres_matmul(const at::Tensor *a, const at::Tensor *b, bool symmetric, at::Tensor **out) noexcept {
  return guarded([&] { *out = new at::Tensor(tinyres::matmul(*a, *b, symmetric)); });
}

// Writes the matrix and its taps to `out` [2].
char *tinyres_muon_ahead(const at::Tensor *grad, const at::Tensor *mean, double momentum, bool bf16,
                         at::Tensor **out) noexcept {
  return guarded([&] {
    auto [ahead, taps] = tinyres::muon_ahead(*grad, *mean, momentum, bf16 ? at::kBFloat16 : at::kFloat);
    auto first = std::make_unique<at::Tensor>(std::move(ahead));
    out[1] = new at::Tensor(std::move(taps));
    out[0] = first.release();
  });
}

char *tinyres_muon_apply(const at::Tensor *weight, const at::Tensor *step, const at::Tensor *taps) noexcept {
  return guarded([&] { tinyres::muon_apply(*weight, *step, *taps); });
}

// `norm` has four tensors: weight, bias, running mean, running variance. `shortcut` may be null.
char *tinyres_batch_norm(const at::Tensor *x, const at::Tensor *const *norm, const at::Tensor *shortcut,
                         bool relu, double momentum, double eps, at::Tensor **out) noexcept {
  return guarded([&] {
    const auto addend = shortcut ? std::optional(*shortcut) : std::nullopt;
    *out = new at::Tensor(tinyres::batch_norm(*x, *norm[0], *norm[1], *norm[2], *norm[3], addend, relu,
                                              momentum, eps));
  });
}

// Copies to page-locked memory. tch's pin_memory passes a device, about which libtorch warns.
char *tinyres_pin(const at::Tensor *in, at::Tensor **out) noexcept {
  return guarded([&] { *out = new at::Tensor(in->pin_memory()); });
}

// Drops the gradient, so that the next backward pass stores its result instead of adding to it.
char *tinyres_clear_grad(at::Tensor *tensor) noexcept {
  return guarded([&] { tensor->mutable_grad().reset(); });
}

// Adds all gradients to the first one, in their order, and makes it the gradient of `param`. Autograd gives gradients the
// layout of their parameter, so they are read as flat memory: a few pages of each at a time, which stay in the
// cache.
char *tinyres_sum_gradients(at::Tensor *param, at::Tensor *const *grads, size_t count) noexcept {
  return guarded([&] {
    const at::Tensor &sum = *grads[0];
    for (size_t i = 0; i < count; i++)
      TORCH_CHECK(grads[i]->device().is_cpu() && grads[i]->scalar_type() == at::kFloat &&
                      grads[i]->sizes() == param->sizes() && grads[i]->strides() == sum.strides() &&
                      grads[i]->is_non_overlapping_and_dense(),
                  "gradients of a parameter of shape ", param->sizes(), " differ in their layout");
    constexpr int64_t BLOCK = 4096;
    float *const to = sum.mutable_data_ptr<float>();
    const int64_t size = sum.numel(), blocks = (size + BLOCK - 1) / BLOCK, parts = at::get_num_threads();
    tinyres::in_parallel(parts, [&](int64_t part) {
      for (int64_t block = blocks * part / parts; block < blocks * (part + 1) / parts; block++) {
        const int64_t first = block * BLOCK, end = std::min(size, first + BLOCK);
        for (size_t i = 1; i < count; i++) {
          const float *from = grads[i]->const_data_ptr<float>();
          for (int64_t at = first; at < end; at++)
            to[at] += from[at];
        }
      }
    });
    param->mutable_grad() = sum;
  });
}

size_t tinyres_storage_users(const at::Tensor *tensor) noexcept { return tensor->storage().use_count(); }

char *tinyres_sgd(at::Tensor *const *params, at::Tensor *const *momenta, size_t count, double lr,
                  double momentum, double weight_decay, bool nesterov) noexcept {
  return guarded([&] {
    const auto weights = to_vector(params, count);
    // Without momentum the kernel takes an empty list.
    const size_t buffers = momentum == 0.0 ? 0 : count;
    at::_fused_sgd_(weights, gradients(weights), to_vector(momenta, buffers), weight_decay, momentum, lr,
                    /*dampening=*/0.0, nesterov, /*maximize=*/false, /*is_first_step=*/false);
  });
}

char *tinyres_adam(at::Tensor *const *params, at::Tensor *const *means,
                   at::Tensor *const *squares, const at::Tensor *step, size_t count, double lr,
                   double beta1, double beta2, double eps, double weight_decay) noexcept {
  return guarded([&] {
    const auto weights = to_vector(params, count);
    const std::vector<at::Tensor> steps(count, *step);
    at::_fused_adam_(weights, gradients(weights), to_vector(means, count), to_vector(squares, count),
                     /*max_exp_avg_sqs=*/{}, steps, lr, beta1, beta2, weight_decay, eps,
                     /*amsgrad=*/false, /*maximize=*/false);
  });
}

// Records an event in the device's current stream, after all work queued so far.
char *tinyres_event_record(int8_t device, c10::Event **out) noexcept {
  return guarded([&] {
    const c10::impl::VirtualGuardImpl cuda(c10::DeviceType::CUDA);
    auto event = std::make_unique<c10::Event>(c10::DeviceType::CUDA);
    event->record(cuda.getStream(c10::Device(c10::DeviceType::CUDA, device)));
    *out = event.release();
  });
}

char *tinyres_event_query(const c10::Event *event, bool *out) noexcept {
  return guarded([&] { *out = event->query(); });
}

char *tinyres_event_wait(const c10::Event *event) noexcept {
  return guarded([&] { event->synchronize(); });
}

void tinyres_event_free(c10::Event *event) noexcept { delete event; }

} // extern "C"
