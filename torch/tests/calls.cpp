// Calls every function of the shim that a machine without a GPU has, with shapes that end inside a vector, a panel or a
// tile, and compares the kernels with libtorch. For `tools/sanitize shim`, which compiles the shim and this with
// sanitizers; the tests in Rust compare more closely.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

using at::Tensor;

extern "C" {
void tinyres_free(char *) noexcept;
const char *tinyres_version() noexcept;
char *tinyres_cpu_capability(char **) noexcept;
char *tinyres_multiplies_bf16(bool *) noexcept;
char *tinyres_library_dir(char **) noexcept;
void tinyres_tune_allocator() noexcept;
char *tinyres_start_threads() noexcept;
char *tinyres_load_cuda() noexcept;
char *tinyres_can_load(const char *) noexcept;
char *tinyres_channels_last(const Tensor *, Tensor **) noexcept;
char *tinyres_conv2d(const Tensor *, const Tensor *, int64_t, int64_t, Tensor **) noexcept;
char *tinyres_matmul(const Tensor *, const Tensor *, bool, Tensor **) noexcept;
char *tinyres_muon_ahead(const Tensor *, const Tensor *, double, bool, Tensor **) noexcept;
char *tinyres_muon_apply(const Tensor *, const Tensor *, const Tensor *) noexcept;
char *tinyres_batch_norm(const Tensor *, const Tensor *const *, const Tensor *, bool, double, double, Tensor **) noexcept;
char *tinyres_clear_grad(Tensor *) noexcept;
size_t tinyres_storage_users(const Tensor *) noexcept;
char *tinyres_sgd(Tensor *const *, Tensor *const *, size_t, double, double, double, bool) noexcept;
char *tinyres_adam(Tensor *const *, Tensor *const *, Tensor *const *, const Tensor *, size_t, double, double, double,
                   double, double) noexcept;
char *tinyres_script_new(const char *, void **) noexcept;
void tinyres_script_free(void *) noexcept;
char *tinyres_script_tensor(void *, const char *, const Tensor *, bool) noexcept;
char *tinyres_script_int(void *, const char *, int64_t) noexcept;
char *tinyres_script_strings(void *, const char *, const char *const *, size_t) noexcept;
char *tinyres_script_save(void *, const char *, Tensor **) noexcept;
}

namespace {

int calls = 0;

void fail(const std::string &what) {
  std::fprintf(stderr, "shim: %s\n", what.c_str());
  std::exit(1);
}

void check(char *error) {
  calls++;
  if (error)
    fail(error);
}

void refused(char *error) {
  calls++;
  if (!error)
    fail("wrong arguments are taken");
  tinyres_free(error);
}

Tensor take(Tensor *out) {
  Tensor tensor = *out;
  delete out;
  return tensor;
}

void near(const std::string &what, const Tensor &got, const Tensor &expected, double tolerance) {
  const Tensor wanted = expected.detach().to(at::kDouble), error = (got.detach().to(at::kDouble) - wanted).abs();
  if (got.numel() == 0)
    return;
  const double largest = error.max().item<double>(), scale = 1 + wanted.abs().max().item<double>();
  if (!(largest <= tolerance * scale))
    fail(what + ": off by " + std::to_string(largest));
}

Tensor map(int64_t n, int64_t c, int64_t h, int64_t w, at::ScalarType type) {
  return at::randn({n, c, h, w}).to(type).contiguous(at::MemoryFormat::ChannelsLast).set_requires_grad(true);
}

double tolerance(at::ScalarType type) { return type == at::kFloat ? 1e-3 : 4e-2; }

void conv2d(int64_t n, int64_t c, int64_t k, int64_t h, int64_t w, int64_t side, int64_t stride, at::ScalarType type) {
  const int64_t pad = side / 2;
  Tensor x = map(n, c, h, w, type), weight = map(k, c, side, side, at::kFloat);
  Tensor *out = nullptr;
  check(tinyres_conv2d(&x, &weight, stride, pad, &out));
  const Tensor y = take(out), dy = at::randn_like(y);
  y.backward(dy);
  const Tensor x_twin = x.detach().to(at::kDouble).set_requires_grad(true);
  const Tensor weight_twin = weight.detach().to(type).to(at::kDouble).set_requires_grad(true);
  const Tensor twin = at::conv2d(x_twin, weight_twin, {}, stride, pad);
  twin.backward(dy.to(at::kDouble));
  const std::string what = "conv " + std::to_string(n) + " " + std::to_string(c) + " " + std::to_string(k) + " " +
                           std::to_string(h) + "x" + std::to_string(w) + " kernel " + std::to_string(side) + " stride " +
                           std::to_string(stride);
  near(what, y, twin, tolerance(type));
  near(what + " dx", x.grad(), x_twin.grad(), tolerance(type));
  near(what + " dweight", weight.grad(), weight_twin.grad(), tolerance(type));
  check(tinyres_clear_grad(&weight));
}

void batch_norm(int64_t n, int64_t c, int64_t side, bool with_shortcut, bool relu, at::ScalarType type) {
  const Tensor x = map(n, c, side, side, type), shortcut = map(n, c, side, side, type);
  const Tensor weight = at::rand({c}).set_requires_grad(true), bias = at::randn({c}).set_requires_grad(true);
  const Tensor mean = at::zeros({c}), var = at::ones({c}), mean_twin = at::zeros({c}), var_twin = at::ones({c});
  const Tensor *norm[] = {&weight, &bias, &mean, &var};
  Tensor *out = nullptr;
  char *error = tinyres_batch_norm(&x, norm, with_shortcut ? &shortcut : nullptr, relu, 0.1, 1e-5, &out);
  if (n * side * side == 1)
    return refused(error);
  check(error);
  const Tensor y = take(out);
  Tensor twin = at::batch_norm(x.detach().to(at::kFloat), weight.detach(), bias.detach(), mean_twin, var_twin, true, 0.1,
                               1e-5, false);
  if (with_shortcut)
    twin = twin + shortcut.detach().to(at::kFloat);
  near("batch norm", y, relu ? twin.relu() : twin, tolerance(type));
  near("running mean", mean, mean_twin, tolerance(type));
  near("running variance", var, var_twin, tolerance(type));
  y.backward(at::randn_like(y));
  if (x.grad().isnan().any().item<bool>())
    fail("batch norm: the gradient is NaN");
}

void matmul(int64_t m, int64_t k, int64_t n, bool turned, at::ScalarType type) {
  const Tensor a = at::randn({m, k}).to(type), b = turned ? at::randn({n, k}).to(type).t() : at::randn({k, n}).to(type);
  Tensor *out = nullptr;
  check(tinyres_matmul(&a, &b, false, &out));
  near("product", take(out), at::mm(a.to(at::kDouble), b.to(at::kDouble)), tolerance(type));
  const Tensor a_turned = a.t();
  check(tinyres_matmul(&a, &a_turned, true, &out));
  near("Gram matrix", take(out), at::mm(a.to(at::kDouble), a_turned.to(at::kDouble)), tolerance(type));
}

// With taps that are 0 from `first` on.
void muon(int64_t k, int64_t c, int64_t side, int64_t first, bool bf16) {
  const auto like = [&](bool taps) {
    Tensor t = map(k, c, side, side, at::kFloat).detach();
    if (taps)
      t.narrow(3, first, side - first).zero_();
    return t;
  };
  const Tensor grad = like(true), mean = like(true), weight = like(false), before = weight.clone();
  Tensor *out[2] = {};
  check(tinyres_muon_ahead(&grad, &mean, 0.6, bf16, out));
  const Tensor ahead = take(out[0]), taps = take(out[1]);
  if (ahead.size(1) != taps.numel() * c)
    fail("muon: the matrix has not the columns of its taps");
  const Tensor step = at::zeros_like(ahead);
  check(tinyres_muon_apply(&weight, &step, &taps));
  near("muon", weight, before * (std::sqrt(double(k)) / before.norm().item<double>()), 1e-3);
}

void optimizers() {
  std::vector<Tensor> params, first, second;
  for (int64_t size : {1, 7, 64, 1000}) {
    params.push_back(at::randn({size}).set_requires_grad(true));
    (params.back() * params.back()).sum().backward();
    first.push_back(at::zeros({size}));
    second.push_back(at::zeros({size}));
  }
  const auto pointers = [](std::vector<Tensor> &list) {
    std::vector<Tensor *> all;
    for (Tensor &tensor : list)
      all.push_back(&tensor);
    return all;
  };
  const auto p = pointers(params), m = pointers(first), v = pointers(second);
  c10::AutoGradMode no_grad(false);
  const Tensor step = at::ones({});
  check(tinyres_sgd(p.data(), m.data(), p.size(), 0.1, 0.9, 1e-4, true));
  check(tinyres_sgd(p.data(), m.data(), p.size(), 0.1, 0, 0, false));
  check(tinyres_adam(p.data(), m.data(), v.data(), &step, p.size(), 0.1, 0.9, 0.999, 1e-8, 0));
  check(tinyres_clear_grad(p[0]));
  refused(tinyres_sgd(p.data(), m.data(), p.size(), 0.1, 0.9, 0, false));
}

void script() {
  void *module = nullptr;
  Tensor *out = nullptr;
  check(tinyres_script_new("Broken", &module));
  refused(tinyres_script_save(module, "def forward(self, x: Tensor) -> Tensor:\n  return self.nothing\n", &out));
  tinyres_script_free(module);
  const Tensor weight = at::randn({2, 3});
  const char *const names[] = {"cat", "dog"};
  check(tinyres_script_new("Net", &module));
  check(tinyres_script_tensor(module, "layer1.0.weight", &weight, true));
  check(tinyres_script_tensor(module, "layer1.0.mean", &weight, false));
  check(tinyres_script_int(module, "side", 64));
  check(tinyres_script_strings(module, "classes", names, 2));
  check(tinyres_script_save(module, "def forward(self, x: Tensor) -> Tensor:\n  return x + self.side\n", &out));
  if (take(out).numel() == 0)
    fail("an empty module");
  tinyres_script_free(module);
}

void others() {
  char *text = nullptr;
  bool multiplies = false;
  tinyres_tune_allocator();
  check(tinyres_cpu_capability(&text));
  std::printf("libtorch %s, %s: ", tinyres_version(), text);
  tinyres_free(text);
  check(tinyres_library_dir(&text));
  tinyres_free(text);
  check(tinyres_multiplies_bf16(&multiplies));
  check(tinyres_can_load("libc.so.6"));
  refused(tinyres_can_load("libnowhere.so"));
  // A libtorch for CUDA has it.
  if (char *error = tinyres_load_cuda())
    tinyres_free(error);
  const Tensor plain = at::randn({2, 3, 4, 4}), flat = at::randn({5});
  Tensor *out = nullptr;
  check(tinyres_channels_last(&plain, &out));
  if (tinyres_storage_users(out) != 1)
    fail("a new tensor has one user");
  take(out);
  refused(tinyres_conv2d(&flat, &plain, 1, 1, &out));
  refused(tinyres_matmul(&plain, &flat, false, &out));
}

} // namespace

int main() {
  at::manual_seed(1);
  for (int threads : {3, 1}) {
    at::set_num_threads(threads);
    check(tinyres_start_threads());
    others();
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      for (const int64_t n : {1, 3})
        for (const int64_t side : {1, 2, 3, 4, 5, 7, 8, 13}) {
          conv2d(n, 3, 64, 2 * side, side, 7, 2, type);
          conv2d(n, 64, 64, side, side, 3, 1, type);
          conv2d(n, 64, 128, side, side + 1, 3, 1, type);
          conv2d(n, 64, 128, side, side, 3, 2, type);
          conv2d(n, 64, 128, side, side, 1, 2, type);
          conv2d(n, 5, 7, side + 2, side, 3, 1, type);
          for (const int64_t c : {1, 15, 16, 17, 64})
            for (const bool shortcut : {false, true})
              for (const bool relu : {false, true})
                if (relu || !shortcut)
                  batch_norm(n, c, side, shortcut, relu, type);
        }
      for (const int64_t m : {1, 63, 64, 192})
        for (const int64_t k : {1, 64, 100, 576})
          for (const bool turned : {false, true})
            matmul(m, k, 128, turned, type);
    }
    for (const bool bf16 : {false, true})
      for (const int64_t c : {1, 17, 64})
        for (const int64_t first : {1, 2, 3})
          muon(64, c, 3, first, bf16);
    optimizers();
    script();
    std::printf("%d calls, %d threads\n", calls, threads);
  }
}
