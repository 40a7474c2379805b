#include "guards.h"

#include <sys/resource.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <system_error>

namespace {

constexpr std::uint64_t kSteps = 1'500'000;  // some 2 ms: 4 cycles each, at 3 GHz

std::int64_t switches() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_nivcsw;
}

std::optional<std::int64_t> delay_ns() {
  std::int64_t total = 0;
  std::error_code error;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task", error)) {
    std::int64_t on_cpu = 0, waiting = 0;
    if (!(std::ifstream(thread.path() / "schedstat") >> on_cpu >> waiting)) return std::nullopt;
    total += waiting;
  }
  if (error) return std::nullopt;
  return total;
}

}  // namespace

Guards::Yardstick Guards::yardstick() {
  Yardstick times{};
  for (auto& time : times) {
    const auto start = std::chrono::steady_clock::now();
    std::uint64_t value = kSteps;
    for (std::uint64_t i = 0; i < kSteps; ++i) {
      value = value * 6364136223846793005U + 1442695040888963407U;  // each step waits for the last
      asm volatile("" : "+r"(value));
    }
    time = static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                          std::chrono::steady_clock::now() - start)
                                          .count());
  }
  return times;
}

Guards::Guards() : before_(yardstick()) {}

void Guards::start() {
  switches_ = -switches();
  delay_ns_ = delay_ns();
}

void Guards::finish() {
  switches_ += switches();
  const auto delay = delay_ns();
  if (delay && delay_ns_) {
    delay_ns_ = *delay - *delay_ns_;
  } else {
    delay_ns_.reset();
  }
  after_ = yardstick();
}

void Guards::describe(Json& json) const {
  json.open('{').key("involuntary_switches").value(switches_).key("run_delay_ns");
  delay_ns_ ? json.value(*delay_ns_) : json.null();
  json.key("yardstick_ns").open('{').key("before").list(before_).key("after").list(after_);
  json.close('}').close('}');
}
