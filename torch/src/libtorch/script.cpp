// TorchScript modules, made from named tensors and the text of a forward pass. A file of its own, since
// the headers of the JIT take longer to compile than the rest of the shim. As in shim.cpp, functions
// return null or a message for tinyres_free, and ffi/script.rs is the only caller.

#include "guarded.h"

#include <ATen/ops/from_blob.h>
#include <torch/csrc/jit/api/module.h>

#include <memory>
#include <sstream>
#include <string>

using torch::jit::Module;

namespace {

// A module with the mark that train() and eval() set, which Python's modules have by themselves.
Module make(const char *name, std::shared_ptr<torch::jit::CompilationUnit> unit) {
  Module module(c10::QualifiedName("__torch__.tinyres", name), std::move(unit),
                /*shouldMangle=*/true);
  module.register_attribute("training", c10::BoolType::get(), false);
  return module;
}

// The submodule of `module` called `name`, which is made if it is not there.
Module child(Module module, const std::string &name) {
  if (!module.hasattr(name))
    module.register_module(name, make("Part", module._ivalue()->compilation_unit()));
  return module.attr(name).toModule();
}

} // namespace

extern "C" {

char *tinyres_script_new(const char *name, Module **out) {
  return guarded([&] {
    *out = new Module(make(name, std::make_shared<torch::jit::CompilationUnit>()));
  });
}

void tinyres_script_free(Module *module) { delete module; }

// Registers a tensor under a path such as layer1.0.conv1.weight, in submodules of these names.
char *tinyres_script_tensor(Module *root, const char *path, const at::Tensor *tensor,
                            bool parameter) {
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

char *tinyres_script_int(Module *module, const char *name, int64_t value) {
  return guarded([&] { module->register_attribute(name, c10::IntType::get(), value); });
}

char *tinyres_script_strings(Module *module, const char *name, const char *const *texts,
                             size_t count) {
  return guarded([&] {
    c10::List<std::string> list;
    list.reserve(count);
    for (size_t i = 0; i < count; i++)
      list.push_back(texts[i]);
    module->register_attribute(name, c10::ListType::ofStrings(), list);
  });
}

// Compiles the methods in `code`, and writes the module to a u8 tensor.
char *tinyres_script_save(Module *module, const char *code, at::Tensor **out) {
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
