// Convolution on the CPU as one autograd function. With weights [K, C, R, S] and the same stride and padding
// in both directions:
//
//   y[n, k, i, j]       = sum over c, r, s of x[n, c, h, w] * weight[k, c, r, s]
//   dx[n, c, h, w]      = sum over k, and i, r, j, s that give h and w, of dy[n, k, i, j] * weight[k, c, r, s]
//   dweight[k, c, r, s] = sum over n, i, j of dy[n, k, i, j] * x[n, c, h, w]
//
//   where h = i * stride - pad + r and w = j * stride - pad + s, and x is 0 outside the input.
//
// Each of the three is computed in one of these ways:
//
//   winograd  3x3 kernels at stride 1 in a fourth to a half of the products, computed in f32 (winograd.h).
//   libtorch  oneDNN's kernels: at the machine's limit for the products of the definition.
//   spans     Small matrix products without padding. For an output pixel (i, j) and a kernel row r the taps
//             inside the input are contiguous in x and in weight, and so are their channels: a span. Faster for
//             the smallest maps, where most taps fall on padding.
//   im2col    dweight = dy^T * im2col(x), one product. Faster in bfloat16, where oneDNN's is slow.
//
// The choice depends on shapes, dtype and processor alone, so a run can be repeated to the bit.
//
// All tensors are channels last: maps are [N, H, W, C] in memory, and weights [K, R, S, C].

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
#include "processor.h"
#include "winograd.h"

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Dims {
  int64_t n, h, w, c;  // of the input
  int64_t k, r, s;     // of the weight
  int64_t stride, pad; // the same in both directions
  int64_t oh, ow;      // of the output

  Dims(const Tensor &x, const Tensor &weight, int64_t stride, int64_t pad)
      : n(x.size(0)), h(x.size(2)), w(x.size(3)), c(x.size(1)), k(weight.size(0)),
        r(weight.size(2)), s(weight.size(3)), stride(stride), pad(pad),
        oh((h + 2 * pad - r) / stride + 1), ow((w + 2 * pad - s) / stride + 1) {}

  int64_t output_pixels() const { return oh * ow; }
};

// The range of taps that fall inside the input, in one direction: for output index `out`, of `taps` taps, on
// an input of `size` pixels.
std::pair<int64_t, int64_t> taps_inside(int64_t out, int64_t taps, int64_t size, const Dims &d) {
  const int64_t first = out * d.stride - d.pad;
  return {std::max<int64_t>(0, -first), std::min(taps, size - first)};
}

// Calls body(output, input, tap, width, first) for each span: offsets into a row of the output, the input and
// the weight, each as rows() below has them, and the number of values. `first` marks the first span of an
// output pixel, which is the sum over its spans.
template <class Body> void for_each_span(const Dims &d, Body body) {
  for (int64_t i = 0; i < d.oh; i++) {
    const auto [top, bottom] = taps_inside(i, d.r, d.h, d);
    for (int64_t j = 0; j < d.ow; j++) {
      const auto [left, right] = taps_inside(j, d.s, d.w, d);
      for (int64_t r = top; r < bottom; r++) {
        const int64_t h = i * d.stride - d.pad + r, w = j * d.stride - d.pad + left;
        const int64_t width = (right - left) * d.c;
        body((i * d.ow + j) * d.k, (h * d.w + w) * d.c, (r * d.s + left) * d.c, width,
             /*first=*/r == top);
      }
    }
  }
}

// A channels-last tensor as a matrix with one row for each image, or for each output channel of a weight.
Tensor rows(const Tensor &t) {
  const int64_t width = t.size(1) * t.size(2) * t.size(3);
  return t.as_strided({t.size(0), width}, {width, 1});
}

Tensor empty_map(int64_t n, int64_t c, int64_t h, int64_t w, const at::TensorOptions &options) {
  return at::empty({n, c, h, w}, options.memory_format(at::MemoryFormat::ChannelsLast));
}

Tensor forward_by_spans(const Tensor &x, const Tensor &weight, const Dims &d) {
  Tensor y = empty_map(d.n, d.k, d.oh, d.ow, x.options());
  const Tensor x_rows = rows(x), weight_rows = rows(weight), y_rows = rows(y);
  for_each_span(d, [&](int64_t output, int64_t input, int64_t tap, int64_t width, bool first) {
    Tensor part = y_rows.narrow(1, output, d.k);
    at::addmm_out(part, part, x_rows.narrow(1, input, width), weight_rows.narrow(1, tap, width).t(),
                  /*beta=*/first ? 0 : 1);
  });
  return y;
}

Tensor input_grad_by_spans(const Tensor &dy, const Tensor &weight, const Dims &d) {
  Tensor dx = empty_map(d.n, d.c, d.h, d.w, dy.options()).zero_();
  const Tensor dy_rows = rows(dy), weight_rows = rows(weight), dx_rows = rows(dx);
  for_each_span(d, [&](int64_t output, int64_t input, int64_t tap, int64_t width, bool) {
    Tensor part = dx_rows.narrow(1, input, width);
    at::addmm_out(part, part, dy_rows.narrow(1, output, d.k), weight_rows.narrow(1, tap, width));
  });
  return dx;
}

Tensor weight_grad_by_spans(const Tensor &dy, const Tensor &x, const Dims &d) {
  Tensor dweight = empty_map(d.k, d.c, d.r, d.s, x.options()).zero_();
  const Tensor dy_rows = rows(dy), x_rows = rows(x), dweight_rows = rows(dweight);
  for_each_span(d, [&](int64_t output, int64_t input, int64_t tap, int64_t width, bool) {
    Tensor part = dweight_rows.narrow(1, tap, width);
    at::addmm_out(part, part, dy_rows.narrow(1, output, d.k).t(), x_rows.narrow(1, input, width));
  });
  return dweight;
}

// The inputs of each output pixel, [N * OH * OW, R * S * C], with zeros for padding.
Tensor im2col(const Tensor &x, const Dims &d) {
  Tensor columns = at::empty({d.n * d.output_pixels(), d.r * d.s * d.c}, x.options());
  const size_t item = x.element_size();
  const auto *from = static_cast<const char *>(x.const_data_ptr());
  auto *const to = static_cast<char *>(columns.mutable_data_ptr());
  tinyres::in_parallel(d.n, [&](int64_t image) {
    for (int64_t i = 0; i < d.oh; i++) {
      char *at = to + item * (image * d.oh + i) * d.ow * d.r * d.s * d.c;
      for (int64_t j = 0; j < d.ow; j++) {
        const auto [left, right] = taps_inside(j, d.s, d.w, d);
        for (int64_t r = 0; r < d.r; r++, at += item * d.s * d.c) {
          const int64_t h = i * d.stride - d.pad + r;
          if (h < 0 || h >= d.h) {
            std::memset(at, 0, item * d.s * d.c);
            continue;
          }
          const int64_t w = j * d.stride - d.pad + left;
          std::memset(at, 0, item * left * d.c);
          std::memcpy(at + item * left * d.c, from + item * ((image * d.h + h) * d.w + w) * d.c,
                      item * (right - left) * d.c);
          std::memset(at + item * right * d.c, 0, item * (d.s - right) * d.c);
        }
      }
    }
  });
  return columns;
}

Tensor weight_grad_by_im2col(const Tensor &dy, const Tensor &x, const Dims &d) {
  const Tensor dy_rows = dy.as_strided({d.n * d.output_pixels(), d.k}, {d.k, 1});
  return at::mm(dy_rows.t(), im2col(x, d))
      .as_strided({d.k, d.c, d.r, d.s}, {d.r * d.s * d.c, 1, d.s * d.c, d.c});
}

enum class Grad { Input, Weight };

Tensor grad_by_libtorch(const Tensor &dy, const Tensor &x, const Tensor &weight, const Dims &d,
                        Grad which) {
  auto grads = at::convolution_backward(
      dy, x, weight, /*bias_sizes=*/std::nullopt, {d.stride, d.stride}, {d.pad, d.pad},
      /*dilation=*/{1, 1}, /*transposed=*/false, /*output_padding=*/{0, 0}, /*groups=*/1,
      std::array<bool, 3>{which == Grad::Input, which == Grad::Weight, false});
  return which == Grad::Weight ? std::get<1>(grads) : std::get<0>(grads);
}

// The taps of one image that fall inside the input, over all output pixels.
int64_t taps_inside(const Dims &d) {
  int64_t taps = 0;
  for_each_span(d, [&](int64_t, int64_t, int64_t, int64_t width, bool) { taps += width / d.c; });
  return taps;
}

// True where Winograd's method beats the others: wherever it has fewer products than the taps inside the input, unless
// bfloat16 products are many times as fast as those in f32, in which it computes.
bool use_winograd(const Dims &d, at::ScalarType dtype) {
  return d.r == 3 && d.s == 3 && d.stride == 1 && d.pad == 1 && tinyres::winograd::takes_channels(d.c) &&
         tinyres::winograd::takes_channels(d.k) && !(dtype == at::kBFloat16 && tinyres::has_bf16_tiles()) &&
         tinyres::winograd::products(d.h, d.w) < taps_inside(d);
}

// True where spans beat oneDNN, measured with AVX-512 and AMX at 32 and 64 pixels. In bfloat16 each partial
// sum is rounded, and dweight is a sum of one for each output pixel: more than a few would lose too much.
bool use_spans(const Dims &d, at::ScalarType dtype) {
  return d.output_pixels() <= (dtype == at::kFloat ? 16 : 4);
}

// True where im2col beats oneDNN's dweight, by the same measurements.
bool use_im2col(const Dims &d, at::ScalarType dtype) {
  return dtype != at::kFloat &&
         (d.output_pixels() <= 16 || (d.stride > 1 && d.output_pixels() <= 64));
}

// The taps of a square kernel that meet a pixel of a square input at some output: the rows, and columns, from `first`
// on. The others only ever meet padding; at 32 pixels they are most of the network's weights.
struct Taps {
  int64_t first, count;

  explicit Taps(const Dims &d) : first(0), count(d.r) {
    if (d.r != d.s || d.h != d.w)
      return;
    first = std::max<int64_t>(0, d.pad - (d.oh - 1) * d.stride);
    count = std::min(d.r, d.h + d.pad) - first;
  }

  Tensor of(const Tensor &weight) const {
    return count == weight.size(2) ? weight : weight.narrow(2, first, count).narrow(3, first, count);
  }
};

struct Convolution : torch::autograd::Function<Convolution> {
  static Tensor forward(AutogradContext *context, const Tensor &x, const Tensor &weight_f32,
                        int64_t stride, int64_t pad) {
    const Taps taps(Dims(x, weight_f32, stride, pad));
    pad -= taps.first;
    const Tensor used = taps.of(weight_f32).contiguous(at::MemoryFormat::ChannelsLast);
    const Dims d(x, used, stride, pad);
    const bool winograd = use_winograd(d, x.scalar_type());
    const Tensor weight = winograd ? used : used.to(x.scalar_type());
    context->save_for_backward({x, weight});
    context->saved_data["stride"] = stride;
    context->saved_data["pad"] = pad;
    context->saved_data["first_tap"] = taps.first;
    context->saved_data["weight"] = weight_f32.sizes();
    if (winograd)
      return tinyres::winograd::forward(x, weight);
    return use_spans(d, x.scalar_type())
               ? forward_by_spans(x, weight, d)
               : at::convolution(x, weight, {}, {stride, stride}, {pad, pad}, {1, 1}, false, {0, 0}, 1);
  }

  static variable_list backward(AutogradContext *context, const variable_list &outputs) {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1];
    const Tensor dy = outputs[0].contiguous(at::MemoryFormat::ChannelsLast);
    const Dims d(x, weight, context->saved_data["stride"].toInt(), context->saved_data["pad"].toInt());
    Tensor dx, dweight;
    const bool winograd = use_winograd(d, x.scalar_type()), spans = use_spans(d, x.scalar_type());
    if (context->needs_input_grad(0))
      dx = winograd ? tinyres::winograd::input_grad(dy, weight)
           : spans  ? input_grad_by_spans(dy, weight, d)
                    : grad_by_libtorch(dy, x, weight, d, Grad::Input);
    if (context->needs_input_grad(1)) {
      dweight = winograd                          ? tinyres::winograd::weight_grad(dy, x)
                : spans                           ? weight_grad_by_spans(dy, x, d)
                : use_im2col(d, x.scalar_type()) ? weight_grad_by_im2col(dy, x, d)
                                                  : grad_by_libtorch(dy, x, weight, d, Grad::Weight);
      const auto whole = context->saved_data["weight"].toIntVector();
      if (weight.sizes() == whole) {
        dweight = dweight.to(at::kFloat);
      } else {
        const int64_t first = context->saved_data["first_tap"].toInt();
        const Tensor used = dweight;
        dweight = empty_map(whole[0], whole[1], whole[2], whole[3], x.options().dtype(at::kFloat)).zero_();
        dweight.narrow(2, first, d.r).narrow(3, first, d.s).copy_(used);
      }
    }
    return {dx, dweight, Tensor(), Tensor()};
  }
};

} // namespace

at::Tensor tinyres::conv2d(const at::Tensor &x, const at::Tensor &weight, int64_t stride,
                           int64_t pad) {
  TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && x.size(1) == weight.size(1),
              "convolution: input ", x.sizes(), " and weight ", weight.sizes(),
              ", expected [N, C, H, W] and [K, C, R, S]");
  TORCH_CHECK(weight.is_contiguous(at::MemoryFormat::ChannelsLast),
              "convolution: the weight is not channels last");
  return Convolution::apply(x.contiguous(at::MemoryFormat::ChannelsLast), weight, stride, pad);
}
