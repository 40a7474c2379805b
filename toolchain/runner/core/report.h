// What the runner says on stdout: one line of JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "counter.h"
#include "measure.h"
#include "options.h"
#include "program.h"

struct Facts {
  std::optional<std::vector<int>> cpus;  // that it was kept on
  std::uint64_t load_ns = 0;
  std::uint64_t peak_rss_bytes = 0;
};

std::string report(const Options& options, const Facts& facts, const Program& program,
                   const Measurement& measured, const InstructionCounter& counter);
