// Groups of NCCL, for sums on GPUs. libtorch_cuda is loaded at run time, where it is there, and the header of
// ProcessGroupNCCL needs those of CUDA. So its constructors are found by their names in the library, and all else is called
// through c10d::Backend, which it is.

#include "ranks.h"

#include <dlfcn.h>

#include <cstring>
#include <memory>

namespace {

using Options = c10::intrusive_ptr<c10d::Backend::Options>;
using Store = c10::intrusive_ptr<c10d::Store>;

// Bytes of an object of which libtorch alone knows the size: more than the 256 of the options and the 1,152 of a group.
constexpr size_t ROOM = 1 << 16;

// ProcessGroupNCCL::Options(bool is_high_priority_stream)
constexpr char OPTIONS[] = "_ZN4c10d16ProcessGroupNCCL7OptionsC1Eb";
// ProcessGroupNCCL(intrusive_ptr<Store>, int rank, int size, intrusive_ptr<Options>)
constexpr char GROUP[] =
    "_ZN4c10d16ProcessGroupNCCLC1EN3c1013intrusive_ptrINS_5StoreENS1_6detail34intrusive_target_default_null_typeIS3_EEEEiiNS2"
    "_INS0_7OptionsENS5_IS8_EEEE";

// The function `symbol` of libtorch_cuda.
void *find(const char *symbol) {
  void *const found = dlsym(RTLD_DEFAULT, symbol);
  TORCH_CHECK(found, "this libtorch has no NCCL: ", symbol, " is not in it");
  return found;
}

// Makes an object by the constructor `symbol`. Its own virtual destructor frees it.
template <class Base, class... Args> c10::intrusive_ptr<Base> make(const char *symbol, Args... args) {
  using Constructor = void(void *, Args...);
  auto *const constructor = reinterpret_cast<Constructor *>(find(symbol));
  std::unique_ptr<void, void (*)(void *)> room(::operator new(ROOM), [](void *room) { ::operator delete(room); });
  std::memset(room.get(), 0, ROOM);
  constructor(room.get(), std::move(args)...);
  // The base of options and groups is their first one, and lies at their beginning.
  return c10::intrusive_ptr<Base>::unsafe_steal_from_new(static_cast<Base *>(room.release()));
}

} // namespace

namespace tinyres {

void find_nccl() {
  find(OPTIONS);
  find(GROUP);
}

c10::intrusive_ptr<c10d::Backend> open_nccl(Store store, int8_t device, int rank, int size,
                                            std::chrono::milliseconds timeout) {
  auto options = make<c10d::Backend::Options>(OPTIONS, false);
  options->timeout = timeout;
  auto group = make<c10d::Backend, Store, int, int, Options>(GROUP, std::move(store), rank, size, std::move(options));
  group->setBoundDeviceId(at::Device(at::kCUDA, device));
  return group;
}

} // namespace tinyres
