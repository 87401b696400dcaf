// Parts that several processes which train together need of libtorch's c10d: the store where they meet, groups of processes,
// and the sum of gradients. ffi/ranks.rs repeats the declarations, and is the only caller.

#define USE_C10D_GLOO 1

#include "guarded.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <string>
#include <vector>

namespace {

using Works = std::vector<c10::intrusive_ptr<c10d::Work>>;

// Floats that are sent at a time: 1 MiB. Many of them are on their way at once.
constexpr int64_t PIECE = 1 << 18;
// Floats of a cache line: where the gradient of each parameter begins.
constexpr int64_t ALIGNED = 16;

struct Store {
  c10::intrusive_ptr<c10d::Store> store;
};

struct Group {
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
  int rank, size;
  // The gradients of all parameters, one after the other, `f32 [S]`.
  at::Tensor wire;
};

std::vector<uint8_t> bytes(const uint8_t *data, size_t len) { return {data, data + len}; }

// The elements of a dense tensor in memory order: what c10d takes.
at::Tensor flat(const at::Tensor &tensor) {
  TORCH_CHECK(tensor.device().is_cpu() && tensor.is_non_overlapping_and_dense(), "a tensor is not dense");
  return tensor.detach().as_strided({tensor.numel()}, {1});
}

// True if both have the same elements at the same places, which the strides of sides of 1 do not matter for.
bool same_layout(const at::Tensor &a, const at::Tensor &b) {
  if (a.sizes() != b.sizes() || !a.is_non_overlapping_and_dense())
    return false;
  for (int64_t dim = 0; dim < a.dim(); dim++)
    if (a.size(dim) > 1 && a.stride(dim) != b.stride(dim))
      return false;
  return true;
}

// A gradient in the list that all ranks have in the same order.
struct Slot {
  int64_t start, len;
  // Those of the groups of this rank.
  std::vector<const float *> own;
};

// Adds to `wire` the part of the own gradients that lies in `first..end`. The first rank begins with its first one.
void add_own(float *wire, const std::vector<Slot> &slots, int64_t first, int64_t end, bool begins) {
  for (const Slot &slot : slots) {
    const int64_t from = std::max(first, slot.start), to = std::min(end, slot.start + slot.len);
    for (size_t group = 0; from < to && group < slot.own.size(); group++) {
      const float *grad = slot.own[group] + (from - slot.start);
      float *sum = wire + from;
      if (begins && group == 0)
        std::copy(grad, grad + (to - from), sum);
      else
        for (int64_t at = 0; at < to - from; at++)
          sum[at] += grad[at];
    }
  }
}

} // namespace

extern "C" {

// Opens the store at `host` and `port`, which this process serves if `serve`. Its keys begin with `prefix`.
char *tinyres_store_open(const char *host, uint16_t port, bool serve, uint64_t timeout_ms, const char *prefix,
                         Store **out) noexcept {
  return guarded([&] {
    // What c10d would print, its errors say as well. main has set the level that this reads.
    c10::initLogging();
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serve;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
    *out = new Store{c10::make_intrusive<c10d::PrefixStore>(prefix, store)};
  });
}

// Another connection to the same store, for another thread.
char *tinyres_store_clone(const Store *store, Store **out) noexcept {
  return guarded([&] { *out = new Store{store->store->clone()}; });
}

char *tinyres_store_set(const Store *store, const char *key, const uint8_t *data, size_t len) noexcept {
  return guarded([&] { store->store->set(key, bytes(data, len)); });
}

// Sets `key` unless it is set. `first` says if it was not.
char *tinyres_store_claim(const Store *store, const char *key, const uint8_t *data, size_t len, bool *first) noexcept {
  return guarded([&] {
    const auto wanted = bytes(data, len);
    *first = store->store->compareSet(key, {}, wanted) == wanted;
  });
}

char *tinyres_store_check(const Store *store, const char *key, bool *out) noexcept {
  return guarded([&] { *out = store->store->check({std::string(key)}); });
}

// The value of `key`, which is set, for tinyres_bytes_free.
char *tinyres_store_get(const Store *store, const char *key, uint8_t **out, size_t *len) noexcept {
  return guarded([&] {
    const auto value = store->store->get(key);
    *out = new uint8_t[value.size()];
    std::copy(value.begin(), value.end(), *out);
    *len = value.size();
  });
}

void tinyres_bytes_free(uint8_t *data) noexcept { delete[] data; }

// Makes the group of `size` ranks under `name` in the store. Connections are made from `address`, one of this host's,
// or by gloo's own choice if it is empty.
char *tinyres_group_open(const Store *store, const char *name, const char *address, int32_t rank, int32_t size,
                         uint64_t timeout_ms, Group **out) noexcept {
  return guarded([&] {
    using c10d::ProcessGroupGloo;
    const auto timeout = std::chrono::milliseconds(timeout_ms);
    auto options = ProcessGroupGloo::Options::create(timeout);
    if (*address)
      options->devices.push_back(ProcessGroupGloo::createDeviceForHostname(address));
    else
      options = ProcessGroupGloo::Options::create_default(timeout);
    auto under = c10::make_intrusive<c10d::PrefixStore>(name, store->store);
    *out = new Group{c10::make_intrusive<ProcessGroupGloo>(under, rank, size, options), rank, size, {}};
  });
}

// Makes `tensor` the sum over the ranks, the same bits on each.
char *tinyres_group_sum(Group *group, at::Tensor *tensor) noexcept {
  return guarded([&] {
    std::vector<at::Tensor> tensors{flat(*tensor)};
    group->gloo->allreduce(tensors)->wait();
  });
}

// Makes `tensor` that of rank `from`.
char *tinyres_group_copy(Group *group, at::Tensor *tensor, int32_t from) noexcept {
  return guarded([&] {
    std::vector<at::Tensor> tensors{flat(*tensor)};
    c10d::BroadcastOptions options;
    options.rootRank = from;
    group->gloo->broadcast(tensors, options)->wait();
  });
}

// Makes the gradient of each of `params` the sum of `grads` over the groups of all ranks, in the order of the ranks and
// of the groups of each: the additions are those of one process with all groups, and so are the bits. `grads` has
// `groups` gradients for each parameter, of which a missing one is null.
//
// The sums go from rank to rank in pieces. Each rank adds its own to what comes from the one before; what the last
// one has is the result, and goes back the same way at the same time. So a rank sends and receives each gradient twice,
// as in a ring. The gradients lie in `wire`, whose next sum overwrites them.
char *tinyres_group_sum_gradients(Group *group, at::Tensor *const *params, size_t count, at::Tensor *const *grads,
                                  size_t groups) noexcept {
  return guarded([&] {
    std::vector<Slot> slots;
    int64_t total = 0;
    for (size_t i = 0; i < count; i++) {
      Slot slot{total, params[i]->numel(), {}};
      for (size_t g = 0; g < groups; g++) {
        const at::Tensor *grad = grads[i * groups + g];
        TORCH_CHECK(grad && grad->device().is_cpu() && grad->scalar_type() == at::kFloat &&
                        same_layout(*grad, *params[i]),
                    "a gradient of a parameter of shape ", params[i]->sizes(), " is missing or differs in its layout");
        slot.own.push_back(grad->const_data_ptr<float>());
      }
      total += (slot.len + ALIGNED - 1) / ALIGNED * ALIGNED;
      slots.push_back(std::move(slot));
    }
    if (!group->wire.defined() || group->wire.numel() != total)
      group->wire = at::zeros({total}, at::kFloat);
    float *const wire = group->wire.mutable_data_ptr<float>();

    const int rank = group->rank, last = group->size - 1;
    const int64_t pieces = (total + PIECE - 1) / PIECE;
    auto end = [&](int64_t piece) { return std::min(total, (piece + 1) * PIECE); };
    auto part = [&](int64_t piece) {
      const int64_t first = piece * PIECE;
      return std::vector<at::Tensor>{group->wire.narrow(0, first, end(piece) - first)};
    };
    auto tag = [&](int64_t piece, bool back) { return static_cast<int>(2 * piece + back); };
    auto &gloo = *group->gloo;
    // After an error they must not be destroyed: that waits for them. The process then ends.
    auto *up = new Works, *down = new Works, *sent = new Works;
    auto receive = [&](int64_t piece, int from, bool back) {
      auto to = part(piece);
      return gloo.recv(to, from, tag(piece, back));
    };
    auto send = [&](int64_t piece, int to, bool back) {
      auto from = part(piece);
      sent->push_back(gloo.send(from, to, tag(piece, back)));
    };
    for (int64_t piece = 0; rank > 0 && piece < pieces; piece++)
      up->push_back(receive(piece, rank - 1, false));
    // A rank passes a result on when it has sent as many later sums as lie on the way to the last rank and back, so that
    // it waits for neither direction.
    const int64_t lag = 2 * (last - rank);
    for (int64_t piece = 0; piece < pieces + lag; piece++) {
      if (piece < pieces) {
        if (rank > 0)
          (*up)[piece]->wait();
        add_own(wire, slots, piece * PIECE, end(piece), rank == 0);
        if (rank < last) {
          send(piece, rank + 1, false);
          // Into the memory that is being sent: the result comes after all of it has arrived.
          down->push_back(receive(piece, rank + 1, true));
        }
      }
      const int64_t done = piece - lag;
      if (done >= 0 && done < pieces) {
        if (rank < last)
          (*down)[done]->wait();
        if (rank > 0)
          send(done, rank - 1, true);
      }
    }
    for (const auto &work : *sent)
      work->wait();
    delete up;
    delete down;
    delete sent;
    for (size_t i = 0; i < count; i++)
      params[i]->mutable_grad() = group->wire.as_strided(params[i]->sizes(), params[i]->strides(), slots[i].start);
  });
}

} // extern "C"
