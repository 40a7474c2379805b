#include "options.h"

#include <charconv>
#include <cstring>
#include <string_view>

#include "failure.h"

namespace {

constexpr const char* kUsage =
    "usage: runner --program FILE.pte --inputs FILE --outputs FILE [--threads N] [--warmup N] "
    "[--iterations N] [--load-library FILE.so]... [--etdump FILE]";

unsigned number(std::string_view option, std::string_view text, unsigned least) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < least) {
    throw Failure(Status::usage, std::string(option) + " wants a whole number from " +
                                     std::to_string(least) + " on, not '" + std::string(text) +
                                     "'");
  }
  return value;
}

}  // namespace

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view name = argv[i];
    if (i + 1 == argc) {
      throw Failure(Status::usage, "no value after '" + std::string(name) + "'; " + kUsage);
    }
    const char* value = argv[i + 1];
    if (name == "--program") {
      options.program = value;
    } else if (name == "--inputs") {
      options.inputs = value;
    } else if (name == "--outputs") {
      options.outputs = value;
    } else if (name == "--etdump") {
      options.etdump = value;
    } else if (name == "--load-library") {
      options.libraries.emplace_back(value);
    } else if (name == "--threads") {
      options.threads = number(name, value, 1);
    } else if (name == "--warmup") {
      options.warmup = number(name, value, 0);
    } else if (name == "--iterations") {
      options.iterations = number(name, value, 0);
    } else {
      throw Failure(Status::usage, "unknown option '" + std::string(name) + "'; " + kUsage);
    }
  }
  for (const auto& [name, value] : {std::pair{"--program", &options.program},
                                    std::pair{"--inputs", &options.inputs},
                                    std::pair{"--outputs", &options.outputs}}) {
    if (value->empty()) {
      throw Failure(Status::usage, std::string(name) + " is missing; " + kUsage);
    }
  }
  return options;
}
