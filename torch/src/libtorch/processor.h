#pragma once

namespace tinyres {

// The floats of the widest vectors to compute with: 16, 8 or 4, as libtorch does, so that its variable
// ATEN_CPU_CAPABILITY narrows both.
int vector_floats();

// True if the processor multiplies tiles of bfloat16 (AMX) and the system permits it to this process. Such products are
// about ten times as fast as those in f32.
bool has_bf16_tiles();

// True if the processor multiplies bfloat16 by instructions of its own: tiles, or vectors (avx512_bf16).
bool multiplies_bf16();

} // namespace tinyres
