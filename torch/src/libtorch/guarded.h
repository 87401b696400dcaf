// What every function of the shim that can fail is wrapped in.

#pragma once

#include <c10/util/Exception.h>

#include <cstring>
#include <exception>

// Runs `body`; null, or what it threw, as a message for tinyres_free.
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
