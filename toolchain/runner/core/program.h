// A loaded program: inputs in, run, outputs out. Each runtime has its own kind.
#pragma once

#include <cstddef>
#include <vector>

#include "tensors.h"

class Program {
 public:
  Program() = default;
  virtual ~Program() = default;
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  virtual const std::vector<TensorSpec>& inputs() const = 0;
  virtual const std::vector<TensorSpec>& outputs() const = 0;  // shapes of the last run

  virtual unsigned threads() const = 0;  // that it works with

  // sample: the inputs in C order, one after the other. Needed before each run, since a program
  // may use the memory of its inputs for other things.
  virtual void set_inputs(const std::byte* sample) = 0;

  // The inference and nothing else: the adapter allocates nothing itself and reads no file.
  // Throws Failure(Status::inference).
  virtual void execute() = 0;

  // Append the outputs of the last run in C order; takes note of their shapes.
  virtual void append_outputs(std::vector<std::byte>& to) = 0;
};
