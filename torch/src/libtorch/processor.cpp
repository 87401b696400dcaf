#include "processor.h"

#include <ATen/Version.h>
#include <ATen/cpu/Utils.h>

#include <string>

namespace {

bool has(const std::string &capability) {
  const auto capabilities = at::cpu::get_cpu_capabilities();
  const auto found = capabilities.find(capability);
  return found != capabilities.end() && found->second.toBool();
}

} // namespace

int tinyres::vector_floats() {
  static const int floats = [] {
    const std::string capability = at::get_cpu_capability();
    return capability == "AVX512" ? 16 : capability == "AVX2" ? 8 : 4;
  }();
  return floats;
}

bool tinyres::has_bf16_tiles() {
  static const bool tiles = has("amx_bf16") && at::cpu::init_amx();
  return tiles;
}

bool tinyres::multiplies_bf16() {
  static const bool multiplies = has_bf16_tiles() || has("avx512_bf16");
  return multiplies;
}
