// Sums of gradients over the groups of all ranks, under way while the gradients are computed. ffi/ranks.rs repeats the
// declarations, and is the only caller.

#include "guarded.h"
#include "ranks.h"

#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

using tinyres::flat;
using tinyres::Group;
using Works = std::vector<c10::intrusive_ptr<c10d::Work>>;

// Floats of a message: 1 MiB. Many of them are on their way at once.
constexpr int64_t PIECE = 1 << 18;
// Floats of a cache line: where the gradient of each parameter begins.
constexpr int64_t ALIGNED = 16;
// Floats from which on a bucket is full: 8 MiB. libtorch adds a bucket up at once.
constexpr int64_t BUCKET = 1 << 21;

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
  // Those of the groups of this rank, as far as they are there.
  std::vector<at::Tensor> own;
  size_t missing;
  // The place of the sum, in floats.
  int64_t start, len;
};

// A sum of gradients over the groups of all ranks. The two below say which additions make it, and when.
struct Exchange {
  Group *const group;
  std::vector<Slot> slots;
  std::mutex mutex;

  Exchange(Group *group, std::vector<Slot> slots) : group(group), slots(std::move(slots)) {}
  virtual ~Exchange() = default;

  // Takes the gradient of a group of this rank.
  void put(size_t slot, size_t at, at::Tensor grad) {
    Slot &to = slots[slot];
    TORCH_CHECK(grad.defined() && grad.device() == to.param.device() && grad.scalar_type() == at::kFloat &&
                    same_layout(grad, to.param),
                "a gradient of a parameter of shape ", to.param.sizes(), " differs in its layout");
    const std::lock_guard lock(mutex);
    TORCH_CHECK(!to.own[at].defined(), "a second gradient of a parameter of shape ", to.param.sizes());
    to.own[at] = std::move(grad);
    if (--to.missing == 0)
      complete();
  }

  // Says, under the lock, that all gradients of this rank are there for one more parameter.
  virtual void complete() = 0;
  // Waits for the sum of a parameter, and makes it its gradient.
  virtual void arrive(Slot &slot) = 0;
  // Waits until this rank has nothing to do any more.
  virtual void finish() = 0;
  // Ends what waits for gradients, which will not come. Nothing else is called after it, and the exchange stays in memory.
  virtual void give_up() = 0;
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

// On the CPU: the sums go from rank to rank in pieces. Each rank adds its own to what comes from the one before; what the last
// one has is the result, and goes back the same way at the same time, as far as a rank needs it. So a rank sends and
// receives each gradient at most twice, as in a ring, and the additions have one order. A thread sends each piece as soon as
// all that it needs is there.
struct Chain : Exchange {
  std::vector<Piece> pieces;
  // Says that one of the following has changed, or a gradient has come.
  std::condition_variable changed;
  // The first of the sums that are not there yet, in floats.
  int64_t done = 0;
  // Says that the gradients will not come.
  bool given_up = false;
  // Says that the thread is at its end; with what it has thrown, if it has.
  bool ended = false;
  std::string error;
  std::thread thread;

  Chain(Group *group, std::vector<Slot> all) : Exchange(group, std::move(all)), pieces(lay_out(slots)) {
    const int64_t total = pieces.empty() ? 0 : pieces.back().end;
    if (!group->wire.defined() || group->wire.numel() != total)
      group->wire = at::zeros({total}, at::kFloat);
    thread = std::thread([this] {
      char *const failed = guarded([&] { run(); });
      const std::lock_guard lock(mutex);
      error = failed ? failed : "";
      ended = true;
      changed.notify_all();
    });
  }

  void complete() override { changed.notify_all(); }

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

  void arrive(Slot &slot) override {
    TORCH_CHECK(slot.owner == ALL || slot.owner == group->rank, "a sum that rank ", slot.owner, " alone has");
    {
      std::unique_lock lock(mutex);
      const int64_t end = slot.start + slot.len;
      changed.wait(lock, [&] { return ended || done >= end; });
      TORCH_CHECK(done >= end, error);
    }
    slot.param.mutable_grad() = group->wire.as_strided(slot.param.sizes(), slot.param.strides(), slot.start);
  }

  void finish() override {
    thread.join();
    TORCH_CHECK(error.empty(), error);
  }

  void give_up() override {
    {
      const std::lock_guard lock(mutex);
      given_up = true;
    }
    changed.notify_all();
    thread.detach();
  }

  void run();
};

void Chain::run() {
  const at::Tensor &all = group->wire;
  float *const wire = all.mutable_data_ptr<float>();
  const int64_t count = static_cast<int64_t>(pieces.size());
  const int rank = group->rank, last = group->size - 1;
  auto part = [&](int64_t piece) {
    const auto [first, end, _] = pieces[piece];
    return std::vector<at::Tensor>{all.narrow(0, first, end - first)};
  };
  auto tag = [&](int64_t piece, bool back) { return static_cast<int>(2 * piece + back); };
  auto &gloo = *group->backend;
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

// On a GPU: libtorch adds up the gradients over the ranks, in an order of its own, where they lie. A bucket of them begins as
// soon as it is full, in the order of the buckets on every rank, and the device does it beside what is still computed.
struct Reduction : Exchange {
  // The first slot of each bucket, and the end.
  std::vector<size_t> bounds{0};
  // Those under way: one for each bucket that is begun.
  Works works;

  Reduction(Group *group, std::vector<Slot> all) : Exchange(group, std::move(all)) {
    int64_t floats = 0;
    for (size_t slot = 0; slot < slots.size(); slot++) {
      floats += slots[slot].len;
      if (floats >= BUCKET || slot + 1 == slots.size()) {
        bounds.push_back(slot + 1);
        floats = 0;
      }
    }
  }

  void complete() override {
    const auto is_there = [](const Slot &slot) { return slot.missing == 0; };
    while (works.size() + 1 < bounds.size()) {
      const auto first = slots.begin() + bounds[works.size()], end = slots.begin() + bounds[works.size() + 1];
      if (!std::all_of(first, end, is_there))
        return;
      std::vector<at::Tensor> grads;
      for (auto slot = first; slot != end; slot++)
        grads.push_back(flat(slot->own[0]));
      works.push_back(group->backend->allreduce_coalesced(grads));
    }
  }

  void arrive(Slot &slot) override {
    const auto after = std::upper_bound(bounds.begin(), bounds.end(), static_cast<size_t>(&slot - slots.data()));
    const std::lock_guard lock(mutex);
    // On a GPU this does not wait: what is computed next does, there.
    works.at(after - bounds.begin() - 1)->wait();
    slot.param.mutable_grad() = slot.own[0];
  }

  void finish() override {
    for (const auto &work : works)
      work->wait();
  }

  void give_up() override {}
};

// Takes the gradient of a parameter for an exchange as soon as it is computed.
struct Taker : torch::autograd::PostAccumulateGradHook {
  Exchange *to;
  size_t slot, group;

  Taker(Exchange *to, size_t slot, size_t group) : to(to), slot(slot), group(group) {}

  void operator()(const at::Tensor &leaf) override { to->put(slot, group, std::move(leaf.mutable_grad())); }
};

} // namespace

extern "C" {

// Begins to make the gradient of each of `params` the sum over the groups of all ranks. This rank has `groups` of them: they
// are added in the order of the ranks and of the groups of each, so the additions are those of one process with all groups,
// and so are the bits. With 0 it has one, and they are added in an order of libtorch's. Of each sum, `owners` has the rank
// that needs it, or `ALL`. All ranks give the same parameters and owners in the same order, those first whose gradients
// come first.
char *tinyres_exchange_begin(Group *group, at::Tensor *const *params, const int32_t *owners, size_t count, size_t groups,
                             Exchange **out) noexcept {
  return guarded([&] {
    const size_t own = std::max<size_t>(groups, 1);
    std::vector<Slot> slots;
    for (size_t i = 0; i < count; i++)
      slots.push_back({*params[i], owners[i], std::vector<at::Tensor>(own), own, 0, params[i]->numel()});
    if (groups > 0)
      *out = new Chain(group, std::move(slots));
    else
      *out = new Reduction(group, std::move(slots));
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
    exchange->finish();
    delete exchange;
  });
}

// Gives an exchange up whose gradients will not come. It is never freed, as other ranks may be waited for.
void tinyres_exchange_give_up(Exchange *exchange) noexcept { exchange->give_up(); }

} // extern "C"
