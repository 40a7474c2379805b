#include "options.h"

#include <charconv>
#include <cstring>
#include <string_view>

#include "failure.h"

namespace {

constexpr const char* kUsage =
    "usage: runner --program FILE --inputs FILE --outputs FILE [--threads N] [--pin 0|1] "
    "[--warmup N] [--iterations N] [--load-library FILE.so]... [--needs FEATURE,...] "
    "[--set NAME=VALUE]... [--profile FILE]";

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

std::vector<std::string> listed(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const std::size_t end = text.find(',');
    if (end != 0) words.emplace_back(text.substr(0, end));
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
  }
  return words;
}

std::pair<std::string, std::string> setting(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == text.npos || equals == 0) {
    throw Failure(Status::usage, "--set wants NAME=VALUE, not '" + std::string(text) + "'");
  }
  return {std::string(text.substr(0, equals)), std::string(text.substr(equals + 1))};
}

bool yes_or_no(std::string_view option, std::string_view text) {
  if (text == "0" || text == "1") return text == "1";
  throw Failure(Status::usage,
                std::string(option) + " wants 0 or 1, not '" + std::string(text) + "'");
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
    } else if (name == "--profile") {
      options.profile = value;
    } else if (name == "--load-library") {
      options.libraries.emplace_back(value);
    } else if (name == "--needs") {
      options.needs = listed(value);
    } else if (name == "--set") {
      options.environment.push_back(setting(value));
    } else if (name == "--pin") {
      options.pin = yes_or_no(name, value);
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
  if (options.pin && options.threads == 0) {
    throw Failure(Status::usage, "--pin wants --threads: as many CPUs are kept");
  }
  return options;
}
