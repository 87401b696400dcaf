// Winograd's convolution with 3x3 kernels, as in Lavin and Gray, "Fast algorithms for convolutional neural networks"
// (2015), <https://arxiv.org/abs/1509.09308>. In one dimension, for a tile of outputs y, a patch of inputs d and a
// kernel g, with the matrices B, G and A of a tile size:
//
//   y = A^T [(G g) * (B^T d)]                      element by element in brackets
//
// In two dimensions each transform is applied to the columns, then to the rows. What is in brackets is a point. Over
// all channels a point is a product of matrices: tiles x C times C x K. The gradient of the input is a convolution of
// dy with the kernel turned by 180 degrees and its channels exchanged. The gradient of the weight is the transpose:
//
//   dg = G^T [(A dy) * (B^T d)]                    summed over tiles: K x tiles times tiles x C
//
// Tiles are taken BLOCK at a time, so that their points stay in the second cache.

#pragma once

#include <algorithm>
#include <cstdint>

#include "products.h"
#include "vectors.h"

namespace tinyres::winograd {

// Tiles of 4x4 outputs: 36 products instead of 144. Points 0, 1, -1, 2, -2 and infinity.
struct Tile4 {
  static constexpr int OUT = 4, PATCH = 6, POINTS = 6, LEAD = 1;
  static constexpr float BT[POINTS][PATCH] = {{4, 0, -5, 0, 1, 0},  {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0},
                                              {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}};
  static constexpr float G[POINTS][3] = {{1.f / 4, 0, 0},
                                         {-1.f / 6, -1.f / 6, -1.f / 6},
                                         {-1.f / 6, 1.f / 6, -1.f / 6},
                                         {1.f / 24, 1.f / 12, 1.f / 6},
                                         {1.f / 24, -1.f / 12, 1.f / 6},
                                         {0, 0, 1}};
  static constexpr float AT[OUT][POINTS] = {
      {1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}};
};

// Tiles of 3x3 outputs, for sides of 3, 6 and 9: 25 products instead of 81. Points 0, 1, -1, 2 and infinity.
struct Tile3 {
  static constexpr int OUT = 3, PATCH = 5, POINTS = 5, LEAD = 1;
  static constexpr float BT[POINTS][PATCH] = {
      {2, -1, -2, 1, 0}, {0, -2, -1, 1, 0}, {0, 2, -3, 1, 0}, {0, -1, 0, 1, 0}, {0, 2, -1, -2, 1}};
  static constexpr float G[POINTS][3] = {{1.f / 2, 0, 0},
                                         {-1.f / 2, -1.f / 2, -1.f / 2},
                                         {-1.f / 6, 1.f / 6, -1.f / 6},
                                         {1.f / 6, 1.f / 3, 2.f / 3},
                                         {0, 0, 1}};
  static constexpr float AT[OUT][POINTS] = {{1, 1, 1, 1, 0}, {0, 1, -1, 2, 0}, {0, 1, 1, 4, 1}};
};

// A whole map of 2x2 pixels, where the other inputs are padding: 9 products instead of 16 that are not with 0.
//   y0 = g1 d0 + g2 d1 = g1 (d0 + d1) + (g2 - g1) d1
//   y1 = g0 d0 + g1 d1 = g1 (d0 + d1) + (g0 - g1) d0
struct Map2 {
  static constexpr int OUT = 2, PATCH = 2, POINTS = 3, LEAD = 0;
  static constexpr float BT[POINTS][PATCH] = {{1, 1}, {0, 1}, {1, 0}};
  static constexpr float G[POINTS][3] = {{0, 1, 0}, {0, -1, 1}, {1, -1, 0}};
  static constexpr float AT[OUT][POINTS] = {{1, 1, 0}, {1, 0, 1}};
};

// Tiles that are computed at a time.
constexpr int64_t BLOCK = 32;
// Floats left free after each row and each plane of points. Rows or planes that are a power of two apart would share
// a few sets of the caches.
constexpr int64_t GAP = 16;

// Floats of a row of points: the channels of a tile.
constexpr int64_t row(int64_t channels) { return channels + GAP; }

// Floats of the plane of one point, for BLOCK tiles.
constexpr int64_t tile_plane(int64_t channels) { return BLOCK * row(channels) + GAP; }

// Floats of the plane of one point, for the kernels of k x c channels.
constexpr int64_t kernel_plane(int64_t k, int64_t c) { return k * c + GAP; }

// Points in two dimensions.
template <class Tile> constexpr int64_t POINTS = Tile::POINTS * Tile::POINTS;

// Floats of the points of BLOCK tiles.
template <class Tile> constexpr int64_t tile_planes(int64_t channels) { return POINTS<Tile> * tile_plane(channels); }

// Floats of the points of the kernels.
template <class Tile> constexpr int64_t kernel_planes(int64_t k, int64_t c) {
  return POINTS<Tile> * kernel_plane(k, c);
}

// A channels-last map [n, h, w, c] in memory.
struct Map {
  int64_t n, h, w, c;

  template <class Tile> int64_t tiles_down() const { return (h + Tile::OUT - 1) / Tile::OUT; }
  template <class Tile> int64_t tiles_across() const { return (w + Tile::OUT - 1) / Tile::OUT; }
  template <class Tile> int64_t tiles() const { return n * tiles_down<Tile>() * tiles_across<Tile>(); }
};

// The image, and the first row and column of outputs of a tile.
template <class Tile> struct Place {
  int64_t image, row, column;

  Place(const Map &map, int64_t tile) {
    const int64_t across = map.tiles_across<Tile>(), of_image = map.tiles_down<Tile>() * across;
    image = tile / of_image;
    row = tile % of_image / across * Tile::OUT;
    column = tile % across * Tile::OUT;
  }
};

// to[i * to_step] = sum over j of matrix[i][j] * from[j * from_step], or of matrix[j][i] with Transposed.
template <bool Transposed, int M, int N, class V>
ALWAYS_INLINE void apply(const float (&matrix)[M][N], const V *from, int from_step, V *to, int to_step) {
  constexpr int ROWS = Transposed ? N : M, COLUMNS = Transposed ? M : N;
#pragma GCC unroll 6
  for (int i = 0; i < ROWS; i++) {
    V sum{};
#pragma GCC unroll 6
    for (int j = 0; j < COLUMNS; j++) {
      const float factor = Transposed ? matrix[j][i] : matrix[i][j];
      if (factor == 1)
        sum += from[j * from_step];
      else if (factor == -1)
        sum -= from[j * from_step];
      else if (factor != 0)
        sum += factor * from[j * from_step];
    }
    to[i * to_step] = sum;
  }
}

// matrix * patch * matrix^T for a patch [N][N], by columns and then by rows.
template <bool Transposed, int M, int N, class V>
ALWAYS_INLINE void apply_both(const float (&matrix)[M][N], const V *patch, V *to) {
  constexpr int ROWS = Transposed ? N : M, COLUMNS = Transposed ? M : N;
  V half[ROWS * COLUMNS];
#pragma GCC unroll 6
  for (int j = 0; j < COLUMNS; j++)
    apply<Transposed>(matrix, patch + j, COLUMNS, half + j, COLUMNS);
#pragma GCC unroll 6
  for (int i = 0; i < ROWS; i++)
    apply<Transposed>(matrix, half + i * COLUMNS, 1, to + i * ROWS, 1);
}

// The points of `count` tiles from `first` on, [points][tiles][c]: B^T d B of the inputs' patches, or with Grad
// A dy A^T of the outputs. `zeros` has c values and stands for pixels outside the map.
template <int W, class Tile, bool Grad, class T>
ALWAYS_INLINE void to_points(const T *x, const Map &map, int64_t first, int64_t count, float *points,
                             const T *zeros) {
  constexpr int SIDE = Grad ? Tile::OUT : Tile::PATCH, LEAD = Grad ? 0 : Tile::LEAD;
  const int64_t step = tile_plane(map.c);
  for (int64_t tile = 0; tile < count; tile++) {
    const Place<Tile> at(map, first + tile);
    const T *pixels[SIDE * SIDE];
    for (int i = 0; i < SIDE; i++)
      for (int j = 0; j < SIDE; j++) {
        const int64_t h = at.row - LEAD + i, w = at.column - LEAD + j;
        const bool outside = h < 0 || h >= map.h || w < 0 || w >= map.w;
        pixels[i * SIDE + j] = outside ? zeros : x + ((at.image * map.h + h) * map.w + w) * map.c;
      }
    for (int64_t c = 0; c < map.c; c += W) {
      Float<W> patch[SIDE * SIDE], out[POINTS<Tile>];
#pragma GCC unroll 36
      for (int i = 0; i < SIDE * SIDE; i++)
        load<W>(pixels[i] + c, patch[i]);
      if constexpr (Grad)
        apply_both<true>(Tile::AT, patch, out);
      else
        apply_both<false>(Tile::BT, patch, out);
#pragma GCC unroll 36
      for (int i = 0; i < POINTS<Tile>; i++)
        store<W>(points + i * step + tile * row(map.c) + c, out[i]);
    }
  }
}

// The outputs A^T m A of the points m of `count` tiles from `first` on.
template <int W, class Tile, class T>
ALWAYS_INLINE void from_points(const float *points, const Map &map, int64_t first, int64_t count, T *y) {
  constexpr int OUT = Tile::OUT;
  const int64_t step = tile_plane(map.c);
  for (int64_t tile = 0; tile < count; tile++) {
    const Place<Tile> at(map, first + tile);
    const int64_t rows = std::min<int64_t>(OUT, map.h - at.row);
    const int64_t columns = std::min<int64_t>(OUT, map.w - at.column);
    T *const to = y + ((at.image * map.h + at.row) * map.w + at.column) * map.c;
    for (int64_t c = 0; c < map.c; c += W) {
      Float<W> values[POINTS<Tile>], out[OUT * OUT];
#pragma GCC unroll 36
      for (int i = 0; i < POINTS<Tile>; i++)
        load<W>(points + i * step + tile * row(map.c) + c, values[i]);
      apply_both<false>(Tile::AT, values, out);
      for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
          store<W>(to + (i * map.w + j) * map.c + c, out[i * OUT + j]);
    }
  }
}

// The points G g G^T of W kernels, at `points` + i * step for point i. `Kernels` loads the weights of tap (r, s).
template <int W, class Tile, class Kernels>
ALWAYS_INLINE void kernel_points(Kernels kernels, float *points, int64_t step) {
  Float<W> taps[9], out[POINTS<Tile>];
  for (int r = 0; r < 3; r++)
    for (int s = 0; s < 3; s++)
      kernels(r, s, taps[r * 3 + s]);
  apply_both<false>(Tile::G, taps, out);
#pragma GCC unroll 36
  for (int i = 0; i < POINTS<Tile>; i++)
    store<W>(points + i * step, out[i]);
}

// The points of the weight [K][3][3][C] for the convolution of x, [points][K / PANEL][C][PANEL], of the input
// channels from `first` to `last`, both multiples of W.
template <int W, class Tile>
ALWAYS_INLINE void forward_kernels(const float *weight, int64_t k, int64_t c, int64_t first, int64_t last,
                                   float *points) {
  // Lanes are output channels, which are far apart in memory: blocks of W x W are turned.
  Float<W> turned[9][W];
  for (int64_t out = 0; out < k; out += W)
    for (int64_t in = first; in < last; in += W) {
      for (int64_t tap = 0; tap < 9; tap++) {
        Float<W> block[W];
#pragma GCC unroll 16
        for (int64_t lane = 0; lane < W; lane++)
          load<W>(weight + ((out + lane) * 9 + tap) * c + in, block[lane]);
        transpose<W>(block);
#pragma GCC unroll 16
        for (int64_t i = 0; i < W; i++)
          turned[tap][i] = block[i];
      }
      for (int64_t i = 0; i < W; i++) {
        const auto taps = [&](int r, int s, Float<W> &to) INLINED {
          to = turned[r * 3 + s][i];
        };
        float *const to = points + (out / PANEL * c + in + i) * PANEL + out % PANEL;
        kernel_points<W, Tile>(taps, to, kernel_plane(k, c));
      }
    }
}

// The points of the turned weight for the convolution of dy, [points][C / PANEL][K][PANEL], of the output channels
// from `first` to `last`.
template <int W, class Tile>
ALWAYS_INLINE void input_grad_kernels(const float *weight, int64_t k, int64_t c, int64_t first, int64_t last,
                                      float *points) {
  for (int64_t out = first; out < last; out++)
    for (int64_t in = 0; in < c; in += W) {
      const auto taps = [&](int r, int s, Float<W> &to) INLINED {
        load<W>(weight + (out * 9 + 8 - (r * 3 + s)) * c + in, to);
      };
      float *const to = points + (in / PANEL * k + out) * PANEL + in % PANEL;
      kernel_points<W, Tile>(taps, to, kernel_plane(k, c));
    }
}

// Convolves the tiles from `first` to `last`. `kernels` is what forward_kernels or input_grad_kernels wrote, and
// `scratch` has room for the points of BLOCK tiles of `in` and of `out`.
template <int W, int N, class Tile, class T>
ALWAYS_INLINE void convolve(const T *x, const Map &in, const float *kernels, T *y, const Map &out, int64_t first,
                            int64_t last, const T *zeros, float *scratch) {
  float *const from = scratch, *const to = scratch + tile_planes<Tile>(in.c);
  for (; first < last; first += BLOCK) {
    const int64_t count = std::min(BLOCK, last - first);
    // Up to ROWS - 1 rows more than there are tiles; nothing reads their products.
    const int64_t rows = (count + ROWS - 1) / ROWS * ROWS;
    to_points<W, Tile, false>(x, in, first, count, from, zeros);
    for (int64_t point = 0; point < POINTS<Tile>; point++)
      for (int64_t k = 0; k < out.c; k += PANEL)
        multiply<W, N, false>(from + point * tile_plane(in.c), row(in.c), 1,
                              kernels + point * kernel_plane(out.c, in.c) + k * in.c, PANEL, rows, in.c,
                              to + point * tile_plane(out.c) + k, row(out.c));
    from_points<W, Tile>(to, out, first, count, y);
  }
}

// The output channels of the weight's gradient, and the tiles that it is summed over.
struct Span {
  int64_t first_channel, last_channel, first_tile, last_tile;
};

// The points of the weight's gradient, [points][K][C], for a span, whose channels are multiples of ROWS.
template <int W, int N, class Tile, class T>
ALWAYS_INLINE void weight_grad_points(const T *x, const Map &in, const T *dy, const Map &out, const Span &span,
                                      float *points, const T *zeros, float *scratch) {
  float *const from = scratch, *const grad = scratch + tile_planes<Tile>(in.c);
  const int64_t channels = span.last_channel - span.first_channel;
  for (int64_t first = span.first_tile; first < span.last_tile; first += BLOCK) {
    const int64_t count = std::min(BLOCK, span.last_tile - first);
    to_points<W, Tile, false>(x, in, first, count, from, zeros);
    to_points<W, Tile, true>(dy, out, first, count, grad, zeros);
    for (int64_t point = 0; point < POINTS<Tile>; point++)
      for (int64_t c = 0; c < in.c; c += PANEL) {
        const float *const a = grad + point * tile_plane(out.c) + span.first_channel;
        const float *const b = from + point * tile_plane(in.c) + c;
        float *const sum = points + point * kernel_plane(out.c, in.c) + span.first_channel * in.c + c;
        if (first == span.first_tile)
          multiply<W, N, false>(a, 1, row(out.c), b, row(in.c), channels, count, sum, in.c);
        else
          multiply<W, N, true>(a, 1, row(out.c), b, row(in.c), channels, count, sum, in.c);
      }
  }
}

// The gradient [K][3][3][C] of the output channels from `first` to `last`: G^T m G of the sum m of the points of
// `parts` spans.
template <int W, class Tile>
ALWAYS_INLINE void weight_grad_from_points(const float *points, int64_t parts, int64_t k, int64_t c, int64_t first,
                                           int64_t last, float *dweight) {
  for (int64_t out = first; out < last; out++)
    for (int64_t in = 0; in < c; in += W) {
      Float<W> sums[POINTS<Tile>], taps[9];
      for (int i = 0; i < POINTS<Tile>; i++) {
        const float *const from = points + i * kernel_plane(k, c) + out * c + in;
        load<W>(from, sums[i]);
        for (int64_t part = 1; part < parts; part++) {
          Float<W> more;
          load<W>(from + part * kernel_planes<Tile>(k, c), more);
          sums[i] += more;
        }
      }
      apply_both<true>(Tile::G, sums, taps);
      for (int i = 0; i < 9; i++)
        store<W>(dweight + (out * 9 + i) * c + in, taps[i]);
    }
}

} // namespace tinyres::winograd
