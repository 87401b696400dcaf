// Parts that several processes which train together need of libtorch's c10d: the store where they meet, groups of processes,
// the sum of gradients while they are computed, and copies of weights that one rank computes. ffi/ranks.rs repeats the
// declarations, and is the only caller.

#define USE_C10D_GLOO 1

#include "guarded.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Logging.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

using Works = std::vector<c10::intrusive_ptr<c10d::Work>>;

// Floats that are sent at a time: 1 MiB. Many of them are on their way at once.
constexpr int64_t PIECE = 1 << 18;
// Floats of a cache line: where the gradient of each parameter begins.
constexpr int64_t ALIGNED = 16;
// The first tag of messages with weights. Those of pieces of gradients are below.
constexpr int WEIGHTS = 1 << 28;

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

// The rank that alone needs a sum; all do.
constexpr int32_t ALL = -1;

// A gradient in the list that all ranks have in the same order.
struct Slot {
  at::Tensor param;
  // Which rank needs the sum, or `ALL`.
  int32_t owner;
  // The place of the sum, in floats.
  int64_t start, len;
  // Those of the groups of this rank, as far as they are there.
  std::vector<at::Tensor> own;
  size_t missing;
};

// Gradients that are sent together, in floats.
struct Piece {
  int64_t first, end;
  // The first rank that needs their sum.
  int32_t least;
};

// Gives each slot its place, and cuts the whole into pieces. The gradients that one rank needs come first: those that all
// need are mostly small, and between them would be in many pieces.
std::vector<Piece> lay_out(std::vector<Slot> &slots) {
  std::vector<Piece> pieces;
  int64_t total = 0;
  int32_t before = ALL;
  for (const bool for_all : {false, true})
    for (Slot &slot : slots) {
      if ((slot.owner == ALL) != for_all)
        continue;
      slot.start = total;
      if (pieces.empty() || slot.owner != before)
        pieces.push_back({total, total, std::max(slot.owner, 0)});
      before = slot.owner;
      total += (slot.len + ALIGNED - 1) / ALIGNED * ALIGNED;
      while (total - pieces.back().first > PIECE) {
        const int64_t end = pieces.back().end = pieces.back().first + PIECE;
        pieces.push_back({end, end, pieces.back().least});
      }
      pieces.back().end = total;
    }
  return pieces;
}

// Adds to `wire` the part of the own gradients that lies in `first..end`. The first rank begins with its first one.
void add_own(float *wire, const std::vector<Slot> &slots, int64_t first, int64_t end, bool begins) {
  for (const Slot &slot : slots) {
    const int64_t from = std::max(first, slot.start), to = std::min(end, slot.start + slot.len);
    for (size_t group = 0; from < to && group < slot.own.size(); group++) {
      const float *grad = slot.own[group].const_data_ptr<float>() + (from - slot.start);
      float *sum = wire + from;
      if (begins && group == 0)
        std::copy(grad, grad + (to - from), sum);
      else
        for (int64_t at = 0; at < to - from; at++)
          sum[at] += grad[at];
    }
  }
}

// A sum of gradients over the groups of all ranks, under way while the gradients are computed: a thread sends each piece
// as soon as all that it needs is there.
struct Exchange {
  Group *group;
  std::vector<Slot> slots;
  std::vector<Piece> pieces;
  std::mutex mutex;
  // Says that one of the following has changed.
  std::condition_variable changed;
  // The first of the sums that are not there yet, in floats.
  int64_t done = 0;
  // Says that the gradients will not come.
  bool given_up = false;
  // Says that the thread is at its end; with what it has thrown, if it has.
  bool ended = false;
  std::string error;
  std::thread thread;

  void put(size_t slot, size_t at, at::Tensor grad) {
    Slot &to = slots[slot];
    TORCH_CHECK(grad.defined() && grad.device().is_cpu() && grad.scalar_type() == at::kFloat &&
                    same_layout(grad, to.param),
                "a gradient of a parameter of shape ", to.param.sizes(), " differs in its layout");
    const std::lock_guard lock(mutex);
    TORCH_CHECK(!to.own[at].defined(), "a second gradient of a parameter of shape ", to.param.sizes());
    to.own[at] = std::move(grad);
    if (--to.missing == 0)
      changed.notify_all();
  }

  // Waits for the own gradients of the parameters that begin before `end`.
  void await(int64_t end) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] {
      return given_up || std::all_of(slots.begin(), slots.end(), [&](const Slot &slot) {
               return slot.start >= end || slot.missing == 0;
             });
    });
    TORCH_CHECK(!given_up, "a gradient is missing");
  }

  // Takes note that the sums before `end` are there.
  void note_done(int64_t end) {
    const std::lock_guard lock(mutex);
    done = end;
    changed.notify_all();
  }

  // Waits for the sum of a parameter, and makes it its gradient.
  void arrive(const Slot &slot) {
    TORCH_CHECK(slot.owner == ALL || slot.owner == group->rank, "a sum that rank ", slot.owner, " alone has");
    {
      std::unique_lock lock(mutex);
      const int64_t end = slot.start + slot.len;
      changed.wait(lock, [&] { return ended || done >= end; });
      TORCH_CHECK(done >= end, error);
    }
    slot.param.mutable_grad() = group->wire.as_strided(slot.param.sizes(), slot.param.strides(), slot.start);
  }

  void run();
};

// The sums go from rank to rank in pieces. Each rank adds its own to what comes from the one before; what the last one has
// is the result, and goes back the same way at the same time, as far as a rank needs it. So a rank sends and receives each
// gradient at most twice, as in a ring.
void Exchange::run() {
  const at::Tensor &all = group->wire;
  float *const wire = all.mutable_data_ptr<float>();
  const int64_t count = static_cast<int64_t>(pieces.size());
  const int rank = group->rank, last = group->size - 1;
  auto part = [&](int64_t piece) {
    const auto [first, end, _] = pieces[piece];
    return std::vector<at::Tensor>{all.narrow(0, first, end - first)};
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
  for (int64_t piece = 0; rank > 0 && piece < count; piece++)
    up->push_back(receive(piece, rank - 1, false));
  // A rank passes a result on when it has sent as many later sums as lie on the way to the last rank and back, so that
  // it waits for neither direction.
  const int64_t lag = 2 * (last - rank);
  for (int64_t piece = 0; piece < count + lag; piece++) {
    if (piece < count) {
      const auto [first, end, least] = pieces[piece];
      await(end);
      if (rank > 0)
        (*up)[piece]->wait();
      add_own(wire, slots, first, end, rank == 0);
      if (rank < last) {
        send(piece, rank + 1, false);
        // Into the memory that is being sent: the result comes after all of it has arrived.
        down->push_back(least <= rank ? receive(piece, rank + 1, true) : nullptr);
      }
    }
    const int64_t passed = piece - lag;
    if (passed >= 0 && passed < count) {
      const auto [_, end, least] = pieces[passed];
      if (rank < last && least <= rank)
        (*down)[passed]->wait();
      if (rank > 0 && least < rank)
        send(passed, rank - 1, true);
      note_done(end);
    }
  }
  for (const auto &work : *sent)
    work->wait();
  delete up;
  delete down;
  delete sent;
}

// Takes the gradient of a parameter for an exchange as soon as it is computed.
struct Taker : torch::autograd::PostAccumulateGradHook {
  Exchange *to;
  size_t slot, group;

  Taker(Exchange *to, size_t slot, size_t group) : to(to), slot(slot), group(group) {}

  void operator()(const at::Tensor &leaf) override { to->put(slot, group, std::move(leaf.mutable_grad())); }
};

// Weights that one rank computes and the others receive.
struct Copies {
  Group *group;
  std::vector<at::Tensor> weights;
  std::mutex mutex;
  Works works;
};

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

// Begins to make the gradient of each of `params` the sum over the groups of all ranks, in the order of the ranks and of
// the groups of each: the additions are those of one process with all groups, and so are the bits. This rank has
// `groups` of them. Of each sum, `owners` has the rank that needs it, or `ALL`. All ranks give the same parameters and
// owners in the same order, those first whose gradients come first.
char *tinyres_exchange_begin(Group *group, at::Tensor *const *params, const int32_t *owners, size_t count, size_t groups,
                             Exchange **out) noexcept {
  return guarded([&] {
    auto exchange = std::make_unique<Exchange>();
    exchange->group = group;
    for (size_t i = 0; i < count; i++)
      exchange->slots.push_back({*params[i], owners[i], 0, params[i]->numel(), std::vector<at::Tensor>(groups), groups});
    exchange->pieces = lay_out(exchange->slots);
    const int64_t total = exchange->pieces.empty() ? 0 : exchange->pieces.back().end;
    if (!group->wire.defined() || group->wire.numel() != total)
      group->wire = at::zeros({total}, at::kFloat);
    auto *const running = exchange.get();
    running->thread = std::thread([running] {
      char *const error = guarded([&] { running->run(); });
      const std::lock_guard lock(running->mutex);
      running->error = error ? error : "";
      running->ended = true;
      running->changed.notify_all();
    });
    *out = exchange.release();
  });
}

// Takes the gradients that the next backward pass computes for `leaves`, which are views of the parameters in their order,
// as those of the group at `at`.
char *tinyres_exchange_listen(Exchange *exchange, at::Tensor *const *leaves, size_t count, size_t at) noexcept {
  return guarded([&] {
    TORCH_CHECK(count == exchange->slots.size(), "gradients of ", count, " parameters, expected ",
                exchange->slots.size());
    for (size_t slot = 0; slot < count; slot++)
      torch::autograd::impl::set_post_acc_grad_hooks(*leaves[slot], std::make_unique<Taker>(exchange, slot, at));
  });
}

// Ends that, and says which gradient did not come.
char *tinyres_exchange_heard(Exchange *exchange, at::Tensor *const *leaves, size_t count, size_t at) noexcept {
  return guarded([&] {
    for (size_t slot = 0; slot < count; slot++)
      torch::autograd::impl::set_post_acc_grad_hooks(*leaves[slot], nullptr);
    const std::lock_guard lock(exchange->mutex);
    for (const Slot &slot : exchange->slots)
      TORCH_CHECK(slot.own[at].defined(), "a parameter of shape ", slot.param.sizes(), " has no gradient");
  });
}

// Waits for the sum of the parameter at `slot`, and makes it its gradient. It lies in memory that the next exchange
// overwrites.
char *tinyres_exchange_arrive(Exchange *exchange, size_t slot) noexcept {
  return guarded([&] { exchange->arrive(exchange->slots.at(slot)); });
}

// Waits until this rank has passed on all sums. Frees the exchange, unless it fails: then libtorch may still write to what
// it holds, and the process ends.
char *tinyres_exchange_finish(Exchange *exchange) noexcept {
  return guarded([&] {
    exchange->thread.join();
    TORCH_CHECK(exchange->error.empty(), exchange->error);
    delete exchange;
  });
}

// Gives an exchange up whose gradients will not come. It is never freed, as its thread may wait for other ranks.
void tinyres_exchange_give_up(Exchange *exchange) noexcept {
  {
    const std::lock_guard lock(exchange->mutex);
    exchange->given_up = true;
  }
  exchange->changed.notify_all();
  exchange->thread.detach();
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
        copies->works.push_back(group->gloo->recv(to, owners[i], WEIGHTS + static_cast<int>(i)));
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
        copies->works.push_back(group->gloo->send(from, rank, WEIGHTS + static_cast<int>(at)));
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
