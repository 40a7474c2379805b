// Whether something disturbed a measurement: facts from before and after it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "json.h"

class Guards {
 public:
  Guards();       // before the warm-up: what follows the yardstick finds cold caches
  void start();   // before what is measured
  void finish();  // right after it

  // {"involuntary_switches":…, "run_delay_ns":…, "yardstick_ns":{"before":[…],"after":[…]}}
  void describe(Json& json) const;

 private:
  // Times of the same work: they tell of the clock's frequency, and of time that others took.
  using Yardstick = std::array<std::uint64_t, 5>;
  static Yardstick yardstick();

  Yardstick before_{}, after_{};
  std::int64_t switches_ = 0;             // of all threads, when the CPU was given to another
  std::optional<std::int64_t> delay_ns_;  // all threads' waiting for a CPU; none: not told here
};
