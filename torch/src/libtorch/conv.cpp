// Convolution on the CPU: one autograd function that picks the way of each of its three passes by
// shape. oneDNN is at the machine's limit for large maps and far from it for the smallest ones, most
// of whose kernel taps fall on padding, and for weight gradients in bfloat16. Every choice depends on
// shapes and dtype alone, so that a run can be repeated to the bit.
//
// All maps are channels last: [N, H, W, C] in memory, and weights [K, R, S, C].

#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "conv.h"
#include "parallel.h"

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Shape {
  int64_t n, h, w, c;  // of the input
  int64_t k, r, s;     // of the weight
  int64_t stride, pad; // the same in both directions
  int64_t oh, ow;      // of the output

  Shape(const Tensor &x, const Tensor &weight, int64_t stride, int64_t pad)
      : n(x.size(0)), h(x.size(2)), w(x.size(3)), c(x.size(1)), k(weight.size(0)),
        r(weight.size(2)), s(weight.size(3)), stride(stride), pad(pad),
        oh((h + 2 * pad - r) / stride + 1), ow((w + 2 * pad - s) / stride + 1) {}

  int64_t places() const { return oh * ow; }
};

// Taps of a row or column that fall inside the input, for output `at`.
std::pair<int64_t, int64_t> inside(int64_t at, int64_t taps, int64_t side, const Shape &shape) {
  const int64_t first = at * shape.stride - shape.pad;
  return {std::max<int64_t>(0, -first), std::min(taps, side - first)};
}

// Runs of taps, of one kernel row each, that lie side by side in input and weight: an output place is
// the sum of one product over each of its runs, without a tap on padding.
template <class Body> void each_run(const Shape &a, Body body) {
  for (int64_t y = 0; y < a.oh; y++) {
    const auto [top, bottom] = inside(y, a.r, a.h, a);
    for (int64_t x = 0; x < a.ow; x++) {
      const auto [left, right] = inside(x, a.s, a.w, a);
      for (int64_t r = top; r < bottom; r++) {
        const int64_t row = y * a.stride - a.pad + r, column = x * a.stride - a.pad + left;
        const int64_t width = (right - left) * a.c;
        body((y * a.ow + x) * a.k, (row * a.w + column) * a.c, (r * a.s + left) * a.c, width,
             /*first=*/r == top);
      }
    }
  }
}

// A channels-last tensor as a matrix: one row for each image, or for each output channel.
Tensor rows(const Tensor &t) {
  const int64_t width = t.size(1) * t.size(2) * t.size(3);
  return t.as_strided({t.size(0), width}, {width, 1});
}

Tensor map(int64_t n, int64_t c, int64_t h, int64_t w, const at::TensorOptions &options) {
  return at::empty({n, c, h, w}, options.memory_format(at::MemoryFormat::ChannelsLast));
}

Tensor forward_by_runs(const Tensor &x, const Tensor &weight, const Shape &a) {
  Tensor out = map(a.n, a.k, a.oh, a.ow, x.options());
  const Tensor from = rows(x), taps = rows(weight), to = rows(out);
  each_run(a, [&](int64_t place, int64_t input, int64_t tap, int64_t width, bool first) {
    Tensor part = to.narrow(1, place, a.k);
    at::addmm_out(part, part, from.narrow(1, input, width), taps.narrow(1, tap, width).t(),
                  /*beta=*/first ? 0 : 1);
  });
  return out;
}

Tensor input_gradient_by_runs(const Tensor &grad, const Tensor &weight, const Shape &a) {
  Tensor out = map(a.n, a.c, a.h, a.w, grad.options()).zero_();
  const Tensor from = rows(grad), taps = rows(weight), to = rows(out);
  each_run(a, [&](int64_t place, int64_t input, int64_t tap, int64_t width, bool) {
    Tensor part = to.narrow(1, input, width);
    at::addmm_out(part, part, from.narrow(1, place, a.k), taps.narrow(1, tap, width));
  });
  return out;
}

Tensor weight_gradient_by_runs(const Tensor &grad, const Tensor &x, const Shape &a) {
  Tensor out = map(a.k, a.c, a.r, a.s, x.options()).zero_();
  const Tensor from = rows(grad), input = rows(x), to = rows(out);
  each_run(a, [&](int64_t place, int64_t at, int64_t tap, int64_t width, bool) {
    Tensor part = to.narrow(1, tap, width);
    at::addmm_out(part, part, from.narrow(1, place, a.k).t(), input.narrow(1, at, width));
  });
  return out;
}

// The inputs that each output place sees, [N * OH * OW, R * S * C], with zeros for padding.
Tensor columns(const Tensor &x, const Shape &a) {
  Tensor out = at::empty({a.n * a.places(), a.r * a.s * a.c}, x.options());
  const size_t item = x.element_size();
  const auto *from = static_cast<const char *>(x.const_data_ptr());
  auto *const to = static_cast<char *>(out.mutable_data_ptr());
  tinyres::in_parallel(a.n, [&](int64_t image) {
    for (int64_t y = 0; y < a.oh; y++) {
      char *at = to + item * (image * a.oh + y) * a.ow * a.r * a.s * a.c;
      for (int64_t column = 0; column < a.ow; column++) {
        const auto [left, right] = inside(column, a.s, a.w, a);
        for (int64_t r = 0; r < a.r; r++, at += item * a.s * a.c) {
          const int64_t row = y * a.stride - a.pad + r;
          if (row < 0 || row >= a.h) {
            std::memset(at, 0, item * a.s * a.c);
            continue;
          }
          const int64_t first = column * a.stride - a.pad + left;
          std::memset(at, 0, item * left * a.c);
          std::memcpy(at + item * left * a.c, from + item * ((image * a.h + row) * a.w + first) * a.c,
                      item * (right - left) * a.c);
          std::memset(at + item * right * a.c, 0, item * (a.s - right) * a.c);
        }
      }
    }
  });
  return out;
}

Tensor weight_gradient_by_columns(const Tensor &grad, const Tensor &x, const Shape &a) {
  const Tensor from = grad.as_strided({a.n * a.places(), a.k}, {a.k, 1});
  return at::mm(from.t(), columns(x, a))
      .as_strided({a.k, a.c, a.r, a.s}, {a.r * a.s * a.c, 1, a.s * a.c, a.c});
}

Tensor libtorch_gradient(const Tensor &grad, const Tensor &x, const Tensor &weight, const Shape &a,
                         bool of_weight) {
  auto gradients = at::convolution_backward(
      grad, x, weight, /*bias_sizes=*/std::nullopt, {a.stride, a.stride}, {a.pad, a.pad},
      /*dilation=*/{1, 1}, /*transposed=*/false, /*output_padding=*/{0, 0}, /*groups=*/1,
      std::array<bool, 3>{!of_weight, of_weight, false});
  return of_weight ? std::get<1>(gradients) : std::get<0>(gradients);
}

// Where products over runs beat oneDNN, measured with AVX-512 and AMX at 32 and 64 pixels. A sum of
// many runs would lose too much in bfloat16, where each is rounded.
bool few_places(const Shape &a, at::ScalarType dtype) {
  return a.places() <= (dtype == at::kFloat ? 16 : 4);
}

bool columns_pay(const Shape &a, at::ScalarType dtype) {
  return dtype != at::kFloat && (a.places() <= 16 || (a.stride > 1 && a.places() <= 64));
}

struct Convolution : torch::autograd::Function<Convolution> {
  static Tensor forward(AutogradContext *context, const Tensor &x, const Tensor &weight,
                        int64_t stride, int64_t pad) {
    const Tensor taps = weight.to(x.scalar_type());
    context->save_for_backward({x, taps});
    context->saved_data["stride"] = stride;
    context->saved_data["pad"] = pad;
    const Shape a(x, taps, stride, pad);
    return few_places(a, x.scalar_type())
               ? forward_by_runs(x, taps, a)
               : at::convolution(x, taps, {}, {stride, stride}, {pad, pad}, {1, 1}, false, {0, 0}, 1);
  }

  static variable_list backward(AutogradContext *context, const variable_list &outputs) {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &taps = saved[1];
    const Tensor grad = outputs[0].contiguous(at::MemoryFormat::ChannelsLast);
    const Shape a(x, taps, context->saved_data["stride"].toInt(), context->saved_data["pad"].toInt());
    const bool few = few_places(a, x.scalar_type());
    Tensor of_x, of_weight;
    if (context->needs_input_grad(0))
      of_x = few ? input_gradient_by_runs(grad, taps, a)
                 : libtorch_gradient(grad, x, taps, a, /*of_weight=*/false);
    if (context->needs_input_grad(1)) {
      if (few)
        of_weight = weight_gradient_by_runs(grad, x, a);
      else if (columns_pay(a, x.scalar_type()))
        of_weight = weight_gradient_by_columns(grad, x, a);
      else
        of_weight = libtorch_gradient(grad, x, taps, a, /*of_weight=*/true);
      of_weight = of_weight.to(at::kFloat);
    }
    return {of_x, of_weight, Tensor(), Tensor()};
  }
};

} // namespace

at::Tensor tinyres::conv2d(const at::Tensor &x, const at::Tensor &weight, int64_t stride,
                           int64_t pad) {
  TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && x.size(1) == weight.size(1),
              "a convolution of ", x.sizes(), " with ", weight.sizes());
  TORCH_CHECK(weight.is_contiguous(at::MemoryFormat::ChannelsLast), "weights are not channels last");
  return Convolution::apply(x.contiguous(at::MemoryFormat::ChannelsLast), weight, stride, pad);
}
