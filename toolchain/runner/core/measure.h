// Run a program on samples, and take the cost of each inference.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "counter.h"
#include "files.h"
#include "guards.h"
#include "program.h"

// One number per inference.
struct Costs {
  std::vector<std::uint64_t> wall_ns, instructions;

  explicit Costs(std::size_t count) {
    wall_ns.reserve(count);
    instructions.reserve(count);
  }
};

class Measurement {
 public:
  Measurement(Program& program, const InputFile& inputs, InstructionCounter& counter)
      : program_(program), inputs_(inputs), counter_(counter), sample_(nbytes(program.inputs())) {}

  // Each of the first `count` samples once; their outputs go to a file.
  void evaluate(std::size_t count, OutputFile& outputs);

  // The first sample, `warmup` times unmeasured and then `iterations` times, guarded.
  void repeat(unsigned warmup, unsigned iterations);

  Costs samples{0}, iterations{0};
  std::optional<Guards> guards;  // none: nothing was repeated

 private:
  void infer(Costs& costs);

  Program& program_;
  const InputFile& inputs_;
  InstructionCounter& counter_;
  std::vector<std::byte> sample_;
};
