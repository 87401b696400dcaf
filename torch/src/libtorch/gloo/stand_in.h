// The names of gloo that ProcessGroupGloo.hpp mentions. libtorch exports the process group, but does not bring gloo's
// headers. Only names cross: both classes of that header with virtual functions have their key functions in libtorch,
// their gloo members are pointers, and nothing here is ever made. build.rs gives it the names of gloo's headers.

#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace gloo {

class Context {
public:
  void setTimeout(std::chrono::milliseconds timeout);
};

namespace rendezvous {
class Store {
public:
  virtual ~Store() = default;
  virtual void set(const std::string &key, const std::vector<char> &data) = 0;
  virtual std::vector<char> get(const std::string &key) = 0;
  virtual void wait(const std::vector<std::string> &keys) = 0;
  virtual void wait(const std::vector<std::string> &keys, const std::chrono::milliseconds &timeout) = 0;
};
} // namespace rendezvous

namespace transport {
class Device;
class UnboundBuffer {
public:
  virtual ~UnboundBuffer() = default;
};
} // namespace transport

} // namespace gloo
