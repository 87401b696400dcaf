// The error convention of the shim: a function that can fail returns null, or a message that the caller
// gives to tinyres_free. No exception leaves the shim.

#pragma once

#include <c10/util/Exception.h>

#include <cstring>
#include <exception>

// Runs `body`. Returns null, or the message of what it threw.
template <class Body> static char *guarded(Body body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception &e) {
    return strdup(e.what());
  }
}
