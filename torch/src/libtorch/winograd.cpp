// Winograd's convolution on libtorch's tensors and threads. winograd_passes.h has the method. Which tile and which
// instructions are used follows from the shapes and the processor; how tiles are divided among threads, from their
// number and the number of threads. So a run can be repeated to the bit on the same processor.

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "parallel.h"
#include "winograd.h"
#include "winograd_passes.h"

namespace {

using at::Tensor;
using namespace tinyres::winograd;
using tinyres::in_parallel;
using tinyres::PANEL;
using tinyres::ROWS;
using tinyres::with_vectors;

template <class T> struct Type {
  using type = T;
};

// Calls work(element type) with the type of `x`, float or BFloat16.
template <class Work> void with_type(const Tensor &x, Work work) {
  if (x.scalar_type() == at::kFloat)
    work(Type<float>());
  else
    work(Type<at::BFloat16>());
}

template <class Tile> int64_t products_by(int64_t h, int64_t w) {
  return Map{1, h, w, 1}.tiles<Tile>() * POINTS<Tile>;
}

// Calls work(tile) with the tile that needs fewest products.
template <class Work> auto with_tile(int64_t h, int64_t w, Work work) {
  if (h == 2 && w == 2)
    return work(Map2());
  if (products_by<Tile3>(h, w) < products_by<Tile4>(h, w))
    return work(Tile3());
  return work(Tile4());
}

Map map_of(const Tensor &x) { return {x.size(0), x.size(2), x.size(3), x.size(1)}; }

Tensor empty_map(const Map &map, const at::TensorOptions &options) {
  return at::empty({map.n, map.c, map.h, map.w}, options.memory_format(at::MemoryFormat::ChannelsLast));
}

// Parts into which `size` is divided for the threads, each at least `least`.
int64_t parts_for(int64_t size, int64_t least, int64_t threads) {
  return std::clamp<int64_t>(size / least, 1, threads);
}

// Part `part` of `parts` of the range from 0 to `size`, in multiples of `unit`, of which `size` is one.
std::pair<int64_t, int64_t> part_of(int64_t size, int64_t unit, int64_t part, int64_t parts) {
  const int64_t units = size / unit;
  return {units * part / parts * unit, units * (part + 1) / parts * unit};
}

// The points of the weight, for the convolution of the input, or of its gradient with Grad.
template <class Tile, bool Grad> Tensor kernel_points_of(const Tensor &weight) {
  const int64_t k = weight.size(0), c = weight.size(1), size = Grad ? k : c;
  const Tensor points = at::empty({kernel_planes<Tile>(k, c)}, weight.options().requires_grad(false));
  const float *const from = weight.const_data_ptr<float>();
  float *const to = points.mutable_data_ptr<float>();
  const int64_t parts = parts_for(size, PANEL, at::get_num_threads());
  in_parallel(parts, [&](int64_t part) {
    const auto [first, last] = part_of(size, PANEL, part, parts);
    with_vectors([&, first = first, last = last](auto registers) INLINED {
      if constexpr (Grad)
        input_grad_kernels<registers.W, Tile>(from, k, c, first, last, to);
      else
        forward_kernels<registers.W, Tile>(from, k, c, first, last, to);
    });
  });
  return points;
}

// The convolution of `x` with the weight, or with Grad that of dy with the turned weight.
template <bool Grad> Tensor convolution(const Tensor &x, const Tensor &weight) {
  const Map in = map_of(x), out{in.n, in.h, in.w, weight.size(Grad ? 1 : 0)};
  Tensor y = empty_map(out, x.options());
  if (in.n == 0)
    return y;
  with_tile(in.h, in.w, [&](auto tile) {
    using Tile = decltype(tile);
    const Tensor kernels = kernel_points_of<Tile, Grad>(weight);
    const int64_t tiles = in.tiles<Tile>(), parts = parts_for(tiles, ROWS, at::get_num_threads());
    const int64_t room = tile_planes<Tile>(in.c) + tile_planes<Tile>(out.c);
    const Tensor scratch = at::empty({parts, room}, kernels.options());
    const float *const points = kernels.const_data_ptr<float>();
    float *const rooms = scratch.mutable_data_ptr<float>();
    with_type(x, [&](auto type) {
      using T = typename decltype(type)::type;
      const std::vector<T> zeros(in.c);
      const T *const from = x.const_data_ptr<T>();
      T *const to = y.mutable_data_ptr<T>();
      in_parallel(parts, [&](int64_t part) {
        const auto [first, last] = part_of(tiles, 1, part, parts);
        with_vectors([&, first = first, last = last](auto registers) INLINED {
          convolve<registers.W, registers.N, Tile>(from, in, points, to, out, first, last, zeros.data(),
                                                   rooms + part * room);
        });
      });
    });
  });
  return y;
}

} // namespace

int64_t tinyres::winograd::products(int64_t height, int64_t width) {
  return with_tile(height, width, [&](auto tile) { return products_by<decltype(tile)>(height, width); });
}

bool tinyres::winograd::takes_channels(int64_t channels) { return channels % PANEL == 0; }

Tensor tinyres::winograd::forward(const Tensor &x, const Tensor &weight) { return convolution<false>(x, weight); }

Tensor tinyres::winograd::input_grad(const Tensor &dy, const Tensor &weight) {
  return convolution<true>(dy, weight);
}

Tensor tinyres::winograd::weight_grad(const Tensor &dy, const Tensor &x) {
  const Map in = map_of(x), out = map_of(dy);
  const int64_t k = out.c, c = in.c;
  const auto f32 = x.options().dtype(at::kFloat).requires_grad(false);
  Tensor dweight = empty_map({k, 3, 3, c}, f32);
  if (in.n == 0)
    return dweight.zero_();
  with_tile(in.h, in.w, [&](auto tile) {
    using Tile = decltype(tile);
    // More threads than MOST_SUMS divide the output channels, or adding the sums would take longer than the products.
    constexpr int64_t MOST_SUMS = 4;
    const int64_t threads = at::get_num_threads(), tiles = in.tiles<Tile>();
    const int64_t sums = parts_for(tiles, BLOCK, std::min(threads, MOST_SUMS));
    const int64_t ranges = parts_for(k, 4 * ROWS, threads / sums);
    const int64_t room = tile_planes<Tile>(c) + tile_planes<Tile>(k), size = kernel_planes<Tile>(k, c);
    const Tensor points = at::empty({sums, size}, f32), scratch = at::empty({sums * ranges, room}, f32);
    float *const all_sums = points.mutable_data_ptr<float>(), *const rooms = scratch.mutable_data_ptr<float>();
    with_type(x, [&](auto type) {
      using T = typename decltype(type)::type;
      const std::vector<T> zeros(std::max(k, c));
      const T *const inputs = x.const_data_ptr<T>(), *const grads = dy.const_data_ptr<T>();
      in_parallel(sums * ranges, [&](int64_t part) {
        const auto [first_tile, last_tile] = part_of(tiles, 1, part / ranges, sums);
        const auto [first, last] = part_of(k, ROWS, part % ranges, ranges);
        const Span span{first, last, first_tile, last_tile};
        with_vectors([&](auto registers) INLINED {
          weight_grad_points<registers.W, registers.N, Tile>(inputs, in, grads, out, span,
                                                             all_sums + part / ranges * size, zeros.data(),
                                                             rooms + part * room);
        });
      });
    });
    float *const to = dweight.mutable_data_ptr<float>();
    const int64_t parts = parts_for(k, 1, threads);
    in_parallel(parts, [&](int64_t part) {
      const auto [first, last] = part_of(k, 1, part, parts);
      with_vectors([&, first = first, last = last](auto registers) INLINED {
        weight_grad_from_points<registers.W, Tile>(all_sums, sums, k, c, first, last, to);
      });
    });
  });
  return dweight;
}
