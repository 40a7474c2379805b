// Times of the operators that libtorch, and the programs that it loads, tell of.
#pragma once

#include <ATen/record_function.h>

#include <cstdint>
#include <string>

class Profiler {
 public:
  // From here on, on this thread; one at a time.
  Profiler();
  ~Profiler();
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  // The profile as JSON. whole_ns: of the inference; what no operator accounts for is listed too.
  std::string text(std::uint64_t whole_ns) const;

 private:
  at::CallbackHandle handle_;
};
