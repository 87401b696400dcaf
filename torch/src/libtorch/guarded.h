// The error convention of the shim: a function that can fail returns null, or a message that the caller
// gives to tinyres_free. No exception leaves the shim: each of its functions is noexcept.

#pragma once

#include <c10/util/Exception.h>

#include <cstring>
#include <exception>

// Stands in for a message that there is no memory to copy. tinyres_free does not free it.
inline char no_memory[] = "out of memory, also for the reason";

// A copy of `text` for the caller.
static char *message(const char *text) noexcept {
  char *copy = strdup(text);
  return copy ? copy : no_memory;
}

// Runs `body`. Returns null, or the message of what it threw.
template <class Body> static char *guarded(Body body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &e) {
    return message(e.what_without_backtrace());
  } catch (const std::exception &e) {
    return message(e.what());
  } catch (...) {
    return message("it threw something that is not a std::exception");
  }
}
