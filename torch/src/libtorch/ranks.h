#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>

namespace tinyres {

// Ranks that compute together. Each calls the same functions in the same order.
struct Group {
  // Gloo, for tensors on the CPU, or NCCL, for those on a GPU.
  c10::intrusive_ptr<c10d::Backend> backend;
  int rank, size;
  // The gradients of all parameters that an exchange adds up, one after the other, `f32 [S]`.
  at::Tensor wire;
};

// The elements of a dense tensor in memory order: what c10d takes.
at::Tensor flat(const at::Tensor &tensor);

// Throws if libtorch has no NCCL, or has it in another form than this was written for.
void find_nccl();

// NCCL's part of a group of `size` ranks that meet at `store`, on the CUDA device `device`.
c10::intrusive_ptr<c10d::Backend> open_nccl(c10::intrusive_ptr<c10d::Store> store, int8_t device, int rank, int size,
                                            std::chrono::milliseconds timeout);

} // namespace tinyres
