// Vectors of W floats in the compiler's vector extension, which suit any instruction set, and `with_vectors`, which
// compiles the same code for several sets and runs it for the widest that the processor has.

#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

#include "processor.h"

// Code for several instruction sets is inlined into a function for each of them.
#define INLINED __attribute__((always_inline))
#define ALWAYS_INLINE inline INLINED

namespace tinyres {

// Floats of a vector, and vectors in a row of the sums that the registers hold.
template <int W_, int N_> struct Registers {
  static constexpr int W = W_, N = N_;
};

template <class Work> void for_any_processor(Work work) { work(Registers<4, 2>()); }

#if defined(__x86_64__) && defined(__GNUC__)
template <class Work> __attribute__((target("avx2,fma"))) void for_avx2(Work work) { work(Registers<8, 2>()); }

template <class Work> __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))) void for_avx512(Work work) {
  work(Registers<16, 4>());
}
#endif

// Calls work(registers) of this processor. `work` is INLINED, as is all that it calls.
template <class Work> void with_vectors(Work work) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (vector_floats() == 16)
    return for_avx512(work);
  if (vector_floats() == 8)
    return for_avx2(work);
#endif
  for_any_processor(work);
}

template <int W> struct Vector {
  typedef float Float __attribute__((vector_size(4 * W), aligned(4), may_alias));
  typedef uint32_t Bits __attribute__((vector_size(4 * W)));
  typedef uint16_t Half __attribute__((vector_size(2 * W), aligned(2), may_alias));
};

template <int W> using Float = typename Vector<W>::Float;

template <int W> ALWAYS_INLINE void load(const float *from, Float<W> &to) {
  to = *reinterpret_cast<const Float<W> *>(from);
}

// A bfloat16 is the upper half of a float.
template <int W> ALWAYS_INLINE void load(const c10::BFloat16 *from, Float<W> &to) {
  using Vector = Vector<W>;
  const auto half = *reinterpret_cast<const typename Vector::Half *>(from);
  to = (Float<W>)(__builtin_convertvector(half, typename Vector::Bits) << 16);
}

template <int W> ALWAYS_INLINE void store(float *to, const Float<W> &value) {
  *reinterpret_cast<Float<W> *>(to) = value;
}

// Rounds to nearest, ties to even. NaN stays NaN.
template <int W> ALWAYS_INLINE void store(c10::BFloat16 *to, const Float<W> &value) {
  using Bits = typename Vector<W>::Bits;
  const Bits bits = (Bits)value, nan = (Bits)(value != value);
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Bits stored = (rounded & ~nan) | (nan & 0x7fc0);
  *reinterpret_cast<typename Vector<W>::Half *>(to) = __builtin_convertvector(stored, typename Vector<W>::Half);
}

// Turns a W x W block: afterwards lane j of vector i is what lane i of vector j was. By exchanging ever larger blocks
// beside the diagonal (Eklundh 1972).
template <int W> ALWAYS_INLINE void transpose(Float<W> (&block)[W]) {
#if defined(__clang__)
  for (int i = 0; i < W; i++)
    for (int j = 0; j < i; j++) {
      const float other = block[i][j];
      block[i][j] = block[j][i];
      block[j][i] = other;
    }
#else
  using Lanes = typename Vector<W>::Bits;
#pragma GCC unroll 4
  for (int size = 1; size < W; size *= 2) {
    Lanes upper, lower;
    for (int j = 0; j < W; j++) {
      upper[j] = j & size ? W + j - size : j;
      lower[j] = j & size ? W + j : j + size;
    }
#pragma GCC unroll 16
    for (int i = 0; i < W; i++)
      if (!(i & size)) {
        const Float<W> a = block[i], b = block[i + size];
        block[i] = __builtin_shuffle(a, b, upper);
        block[i + size] = __builtin_shuffle(a, b, lower);
      }
  }
#endif
}

} // namespace tinyres
