// Builds TorchScript modules from named tensors and the source of a forward pass. Apart from shim.cpp because
// the headers of the JIT take longer to compile than the rest of the shim. guarded.h has the error convention.
// ffi/script.rs is the only caller.

#include "guarded.h"

#include <ATen/ops/from_blob.h>
#include <torch/csrc/jit/api/module.h>

#include <memory>
#include <sstream>
#include <string>

using torch::jit::Module;

namespace {

// A module with the attribute `training`, which train() and eval() set. Modules made in Python have it.
Module make(const char *name, std::shared_ptr<torch::jit::CompilationUnit> unit) {
  Module module(c10::QualifiedName("__torch__.tinyres", name), std::move(unit),
                /*shouldMangle=*/true);
  module.register_attribute("training", c10::BoolType::get(), false);
  return module;
}

// The submodule `name` of `module`, created if it does not exist.
Module child(Module module, const std::string &name) {
  if (!module.hasattr(name))
    module.register_module(name, make("Part", module._ivalue()->compilation_unit()));
  return module.attr(name).toModule();
}

} // namespace

extern "C" {

char *tinyres_script_new(const char *name, Module **out) noexcept {
  return guarded([&] {
    *out = new Module(make(name, std::make_shared<torch::jit::CompilationUnit>()));
  });
}

void tinyres_script_free(Module *module) noexcept { delete module; }

// Registers a tensor under a path such as layer1.0.conv1.weight, creating the submodules on the way.
char *tinyres_script_tensor(Module *root, const char *path, const at::Tensor *tensor,
                            bool parameter) noexcept {
  return guarded([&] {
    Module module = *root;
    std::string rest = path;
    for (size_t dot; (dot = rest.find('.')) != std::string::npos; rest.erase(0, dot + 1))
      module = child(module, rest.substr(0, dot));
    const at::Tensor value = tensor->detach();
    if (parameter)
      module.register_parameter(rest, value.set_requires_grad(true), /*is_buffer=*/false);
    else
      module.register_buffer(rest, value);
  });
}

char *tinyres_script_int(Module *module, const char *name, int64_t value) noexcept {
  return guarded([&] { module->register_attribute(name, c10::IntType::get(), value); });
}

char *tinyres_script_strings(Module *module, const char *name, const char *const *texts,
                             size_t count) noexcept {
  return guarded([&] {
    c10::List<std::string> list;
    list.reserve(count);
    for (size_t i = 0; i < count; i++)
      list.push_back(texts[i]);
    module->register_attribute(name, c10::ListType::ofStrings(), list);
  });
}

// Compiles the methods in `code`, and returns the module's file as a u8 tensor.
char *tinyres_script_save(Module *module, const char *code, at::Tensor **out) noexcept {
  return guarded([&] {
    module->define(code);
    std::ostringstream file;
    module->save(file);
    std::string bytes = file.str();
    const auto size = static_cast<int64_t>(bytes.size());
    *out = new at::Tensor(at::from_blob(bytes.data(), {size}, at::kByte).clone());
  });
}

} // extern "C"
