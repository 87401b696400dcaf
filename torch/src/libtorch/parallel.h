#pragma once

#include <cstdint>
#include <functional>

namespace tinyres {

// Calls `work` with each number from 0 to `parts` - 1, on libtorch's threads.
void in_parallel(int64_t parts, const std::function<void(int64_t)> &work);

} // namespace tinyres
