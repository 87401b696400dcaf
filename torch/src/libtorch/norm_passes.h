// The passes of batch normalisation over rows: each reads a few maps once, channels last, and writes at most one.
// norm.cpp has the formulas. A row is the channels of one pixel. Maps are f32 or bfloat16, and sums f32.

#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#endif

// Compiles a function once per instruction set; the dynamic linker picks the widest that the CPU has. It picks before
// AddressSanitizer is ready, which checks the picking, too: no choice under that.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define FOR_EACH_ISA __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#else
#define FOR_EACH_ISA
#endif

namespace tinyres {

// How backward recovers the ReLU's mask. None: no ReLU, so it is 1. FromInput: scale * x + shift > 0.
// FromOutput: y > 0, needed once a shortcut was added.
enum class Mask { None, FromInput, FromOutput };

// Values of type T, on any processor.
template <class T> struct Portable {
  using Value = T;

  // Adds sum(x - origin) and sum((x - origin)^2) over the rows to `sums` [2, C].
  FOR_EACH_ISA static void add_moments(const T *__restrict x, int64_t rows, int64_t channels,
                                const float *__restrict origin, float *__restrict sums) {
    float *__restrict squares = sums + channels;
    for (; rows > 0; rows--, x += channels)
      for (int64_t c = 0; c < channels; c++) {
        const float centered = static_cast<float>(x[c]) - origin[c];
        sums[c] += centered;
        squares[c] += centered * centered;
      }
  }

  // y = relu(scale * x + shift + shortcut). NaN passes through the ReLU.
  template <bool Shortcut, bool Relu>
  FOR_EACH_ISA static void forward_rows(const T *__restrict x, const T *__restrict shortcut, T *__restrict y,
                                 int64_t rows, int64_t channels, const float *__restrict scale,
                                 const float *__restrict shift) {
    for (; rows > 0; rows--, x += channels, y += channels) {
      for (int64_t c = 0; c < channels; c++) {
        float value = static_cast<float>(x[c]) * scale[c] + shift[c];
        if constexpr (Shortcut)
          value += static_cast<float>(shortcut[c]);
        if constexpr (Relu)
          value = value < 0 ? 0 : value;
        y[c] = static_cast<T>(value);
      }
      if constexpr (Shortcut)
        shortcut += channels;
    }
  }

  // Adds sum(g) and sum(g * (x - mean)) over the rows to `sums` [2, C]. FromOutput also writes g.
  template <Mask mask>
  FOR_EACH_ISA static void add_grad_sums(const T *__restrict dy, const T *__restrict x, const T *__restrict y,
                                  T *__restrict g_out, int64_t rows, int64_t channels,
                                  const float *__restrict mean, const float *__restrict scale,
                                  const float *__restrict shift, float *__restrict sums) {
    float *__restrict products = sums + channels;
    for (; rows > 0; rows--, dy += channels, x += channels) {
      for (int64_t c = 0; c < channels; c++) {
        float g = static_cast<float>(dy[c]);
        const float value = static_cast<float>(x[c]);
        if constexpr (mask == Mask::FromInput)
          g = value * scale[c] + shift[c] > 0 ? g : 0;
        if constexpr (mask == Mask::FromOutput) {
          g = static_cast<float>(y[c]) > 0 ? g : 0;
          g_out[c] = static_cast<T>(g);
        }
        sums[c] += g;
        products[c] += g * (value - mean[c]);
      }
      if constexpr (mask == Mask::FromOutput) {
        y += channels;
        g_out += channels;
      }
    }
  }

  // dx = scale * g - slope * x + level. With FromInput `grad` is dy, otherwise g.
  template <bool FromInput>
  FOR_EACH_ISA static void input_grad_rows(const T *__restrict grad, const T *__restrict x, T *__restrict dx,
                                    int64_t rows, int64_t channels, const float *__restrict scale,
                                    const float *__restrict shift, const float *__restrict slope,
                                    const float *__restrict level) {
    for (; rows > 0; rows--, grad += channels, x += channels, dx += channels)
      for (int64_t c = 0; c < channels; c++) {
        float g = static_cast<float>(grad[c]);
        const float value = static_cast<float>(x[c]);
        if constexpr (FromInput)
          g = value * scale[c] + shift[c] > 0 ? g : 0;
        dx[c] = static_cast<T>(scale[c] * g - slope[c] * value + level[c]);
      }
  }
};

#ifdef AVX512_BF16

// GCC 12 takes the undefined vectors of its own headers for mistakes.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

// bfloat16 on processors that round to it by an instruction (avx512_bf16: AMD from Zen 4 on, Intel's Cooper Lake, and
// from Sapphire Rapids on). The compiler does not vectorise that rounding well: these passes are 2 to 8 times as
// fast as those of Portable. They give the same values, except that numbers below 2^-126 become 0.
struct Avx512Bf16 {
  using Value = c10::BFloat16;

  static bool is_supported() {
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl");
  }

  // The lanes of a vector of 16 that are left, where `left` channels are.
  AVX512_BF16 static __mmask16 lanes(int64_t left) { return left >= 16 ? 0xffff : (1u << left) - 1; }

  AVX512_BF16 static __m512 load(const c10::BFloat16 *from, __mmask16 lanes) {
    const __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
  }

  AVX512_BF16 static __m512 load(const float *from, __mmask16 lanes) {
    return _mm512_maskz_loadu_ps(lanes, from);
  }

  AVX512_BF16 static void store(c10::BFloat16 *to, __mmask16 lanes, __m512 value) {
    _mm256_mask_storeu_epi16(to, lanes, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
  }

  AVX512_BF16 static void store(float *to, __mmask16 lanes, __m512 value) {
    _mm512_mask_storeu_ps(to, lanes, value);
  }

  // `value` where `test` > 0, and 0 elsewhere.
  AVX512_BF16 static __m512 where_positive(__m512 test, __m512 value) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(test, _mm512_setzero_ps(), _CMP_GT_OQ), value);
  }

  AVX512_BF16 static __m512 affine(__m512 scale, __m512 x, __m512 shift) {
    // Not fused, as in Portable: the values are the same.
    return _mm512_add_ps(_mm512_mul_ps(x, scale), shift);
  }

  AVX512_BF16 static void add_moments(const c10::BFloat16 *x, int64_t rows, int64_t channels, const float *origin,
                                      float *sums) {
    for (int64_t c = 0; c < channels; c += 16) {
      const __mmask16 m = lanes(channels - c);
      const __m512 from = load(origin + c, m);
      __m512 sum = load(sums + c, m), squares = load(sums + channels + c, m);
      for (int64_t at = c; at < rows * channels; at += channels) {
        const __m512 centered = _mm512_sub_ps(load(x + at, m), from);
        sum = _mm512_add_ps(sum, centered);
        squares = _mm512_add_ps(squares, _mm512_mul_ps(centered, centered));
      }
      store(sums + c, m, sum);
      store(sums + channels + c, m, squares);
    }
  }

  template <bool Shortcut, bool Relu>
  AVX512_BF16 static void forward_rows(const c10::BFloat16 *x, const c10::BFloat16 *shortcut, c10::BFloat16 *y,
                                int64_t rows, int64_t channels, const float *scale, const float *shift) {
    for (int64_t row = 0; row < rows * channels; row += channels)
      for (int64_t c = 0; c < channels; c += 16) {
        const __mmask16 m = lanes(channels - c);
        const int64_t at = row + c;
        __m512 value = affine(load(scale + c, m), load(x + at, m), load(shift + c, m));
        if constexpr (Shortcut)
          value = _mm512_add_ps(value, load(shortcut + at, m));
        if constexpr (Relu)
          value = _mm512_max_ps(_mm512_setzero_ps(), value); // a NaN in the second argument stays
        store(y + at, m, value);
      }
  }

  template <Mask mask>
  AVX512_BF16 static void add_grad_sums(const c10::BFloat16 *dy, const c10::BFloat16 *x, const c10::BFloat16 *y,
                                 c10::BFloat16 *g_out, int64_t rows, int64_t channels, const float *mean,
                                 const float *scale, const float *shift, float *sums) {
    for (int64_t c = 0; c < channels; c += 16) {
      const __mmask16 m = lanes(channels - c);
      const __m512 center = load(mean + c, m), factor = load(scale + c, m), offset = load(shift + c, m);
      __m512 sum = load(sums + c, m), products = load(sums + channels + c, m);
      for (int64_t at = c; at < rows * channels; at += channels) {
        __m512 g = load(dy + at, m);
        const __m512 value = load(x + at, m);
        if constexpr (mask == Mask::FromInput)
          g = where_positive(affine(factor, value, offset), g);
        if constexpr (mask == Mask::FromOutput) {
          g = where_positive(load(y + at, m), g);
          store(g_out + at, m, g);
        }
        sum = _mm512_add_ps(sum, g);
        products = _mm512_add_ps(products, _mm512_mul_ps(g, _mm512_sub_ps(value, center)));
      }
      store(sums + c, m, sum);
      store(sums + channels + c, m, products);
    }
  }

  template <bool FromInput>
  AVX512_BF16 static void input_grad_rows(const c10::BFloat16 *grad, const c10::BFloat16 *x, c10::BFloat16 *dx,
                                   int64_t rows, int64_t channels, const float *scale, const float *shift,
                                   const float *slope, const float *level) {
    for (int64_t row = 0; row < rows * channels; row += channels)
      for (int64_t c = 0; c < channels; c += 16) {
        const __mmask16 m = lanes(channels - c);
        const int64_t at = row + c;
        __m512 g = load(grad + at, m);
        const __m512 value = load(x + at, m), factor = load(scale + c, m);
        if constexpr (FromInput)
          g = where_positive(affine(factor, value, load(shift + c, m)), g);
        const __m512 along = _mm512_mul_ps(load(slope + c, m), value);
        store(dx + at, m, _mm512_add_ps(_mm512_sub_ps(_mm512_mul_ps(factor, g), along), load(level + c, m)));
      }
  }
};

#pragma GCC diagnostic pop

#endif

} // namespace tinyres
