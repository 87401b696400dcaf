// Parts that several processes which train together need of libtorch's c10d: the store where they meet, groups of processes,
// and copies of weights that one rank computes. ffi/ranks.rs repeats the declarations, and is the only caller.

#define USE_C10D_GLOO 1

#include "guarded.h"
#include "ranks.h"

#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <mutex>
#include <string>
#include <vector>

namespace {

using tinyres::flat;
using tinyres::Group;

// The first tag of messages with weights. Those of pieces of gradients are below.
constexpr int WEIGHTS = 1 << 28;

struct Store {
  c10::intrusive_ptr<c10d::Store> store;
};

std::vector<uint8_t> bytes(const uint8_t *data, size_t len) { return {data, data + len}; }

// Weights that one rank computes and the others receive.
struct Copies {
  Group *group;
  std::vector<at::Tensor> weights;
  std::mutex mutex;
  std::vector<c10::intrusive_ptr<c10d::Work>> works;
};

} // namespace

namespace tinyres {

at::Tensor flat(const at::Tensor &tensor) {
  TORCH_CHECK(tensor.is_non_overlapping_and_dense(), "a tensor is not dense");
  return tensor.detach().as_strided({tensor.numel()}, {1});
}

} // namespace tinyres

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

// Makes the group of `size` ranks under `name` in the store, for tensors on the CPU. Connections are made from `address`,
// one of this host's, or by gloo's own choice if it is empty.
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

// The same for tensors on the CUDA device `device`. Its first sum connects.
char *tinyres_group_open_cuda(const Store *store, const char *name, int8_t device, int32_t rank, int32_t size,
                              uint64_t timeout_ms, Group **out) noexcept {
  return guarded([&] {
    auto under = c10::make_intrusive<c10d::PrefixStore>(name, store->store);
    const auto timeout = std::chrono::milliseconds(timeout_ms);
    *out = new Group{tinyres::open_nccl(std::move(under), device, rank, size, timeout), rank, size, {}};
  });
}

// Returns null if this can make such groups, as far as libtorch goes, or the reason why not.
char *tinyres_find_nccl() noexcept { return guarded(tinyres::find_nccl); }

// Makes `tensor` the sum over the ranks, the same bits on each.
char *tinyres_group_sum(Group *group, at::Tensor *tensor) noexcept {
  return guarded([&] {
    std::vector<at::Tensor> tensors{flat(*tensor)};
    group->backend->allreduce(tensors)->wait();
  });
}

// Makes `tensor` that of rank `from`.
char *tinyres_group_copy(Group *group, at::Tensor *tensor, int32_t from) noexcept {
  return guarded([&] {
    std::vector<at::Tensor> tensors{flat(*tensor)};
    c10d::BroadcastOptions options;
    options.rootRank = from;
    group->backend->broadcast(tensors, options)->wait();
  });
}

// Begins to receive those of `weights` that other ranks compute: `owners` has the rank for each.
char *tinyres_copies_begin(Group *group, at::Tensor *const *weights, const int32_t *owners, size_t count,
                           Copies **out) noexcept {
  return guarded([&] {
    // After an error it must not be destroyed: that waits for what is under way.
    auto *const copies = new Copies{group, {}, {}, {}};
    for (size_t i = 0; i < count; i++) {
      copies->weights.push_back(flat(*weights[i]));
      std::vector<at::Tensor> to{copies->weights[i]};
      if (owners[i] != group->rank)
        copies->works.push_back(group->backend->recv(to, owners[i], WEIGHTS + static_cast<int>(i)));
    }
    *out = copies;
  });
}

// Sends the weights at `at`, which this rank has computed, to the others.
char *tinyres_copies_send(Copies *copies, size_t at) noexcept {
  return guarded([&] {
    const std::lock_guard lock(copies->mutex);
    Group *const group = copies->group;
    std::vector<at::Tensor> from{copies->weights[at]};
    for (int rank = 0; rank < group->size; rank++)
      if (rank != group->rank)
        copies->works.push_back(group->backend->send(from, rank, WEIGHTS + static_cast<int>(at)));
  });
}

// Waits until all weights are there.
char *tinyres_copies_finish(Copies *copies) noexcept {
  return guarded([&] {
    for (const auto &work : copies->works)
      work->wait();
    delete copies;
  });
}

} // extern "C"
