#include "runtime_log.h"

#include <executorch/runtime/platform/platform.h>

#include <cstdio>
#include <mutex>
#include <string_view>
#include <vector>

namespace {

constexpr std::size_t kKept = 8;

std::mutex mutex;
std::vector<std::string> errors;
char last[256] = "";

void emit(et_timestamp_t, et_pal_log_level_t level, const char* file, const char*, std::size_t line,
          const char* message, std::size_t) {
  if (level != et_pal_log_level_t::kError && level != et_pal_log_level_t::kFatal) return;
  const std::lock_guard hold(mutex);
  std::fprintf(stderr, "%c %s:%zu %s\n", level, file, line, message);
  std::snprintf(last, sizeof last, "%s", message);
  // "kernel '…' not found." is followed by "Missing operator: …".
  const bool repeated = std::string_view(message).starts_with("kernel '");
  if (!repeated && errors.size() < kKept) errors.emplace_back(message);
}

}  // namespace

void watch_runtime_log() {
  executorch::runtime::register_pal(executorch::runtime::PalImpl::create(emit, __FILE__));
}

std::string explained(const char* error_name) {
  const std::lock_guard hold(mutex);
  std::string text = error_name;
  for (std::size_t i = 0; i < errors.size(); ++i) text += (i == 0 ? ": " : "; ") + errors[i];
  errors.clear();
  return text;
}

const char* last_runtime_message() { return last; }
