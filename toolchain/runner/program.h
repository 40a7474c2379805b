// A loaded program: inputs in, run, outputs out.
#pragma once

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/core/event_tracer.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "tensors.h"

class Program {
 public:
  // Maps the file, verifies its structure and loads `forward`; throws Failure(Status::load).
  // tracer: records each run, null for none.
  explicit Program(const std::string& path,
                   std::unique_ptr<executorch::runtime::EventTracer> tracer = nullptr);

  const std::vector<TensorSpec>& inputs() const { return inputs_; }
  const std::vector<TensorSpec>& outputs() const { return outputs_; }  // shapes of the last run
  std::size_t sample_bytes() const;                                    // of all inputs together

  // sample: the inputs in C order, one after the other. Needed before each run, since a program
  // may use the memory of its inputs for other things.
  void set_inputs(const std::byte* sample);

  // The inference and nothing else: allocates nothing itself and reads no file.
  executorch::runtime::Error execute() { return method_->execute(); }

  // Throws Failure(Status::inference) for what `execute` returned, if that is an error.
  void check(executorch::runtime::Error error) const;

  // Append the outputs of the last run in C order; takes note of their shapes.
  void append_outputs(std::vector<std::byte>& to);

 private:
  [[noreturn]] void refuse(const std::string& why) const;
  void require(executorch::runtime::Error error, const char* what) const;
  void describe(const executorch::runtime::MethodMeta& meta);
  void make_buffers(const executorch::runtime::MethodMeta& meta);

  std::string path_;
  executorch::extension::Module module_;
  executorch::runtime::Method* method_ = nullptr;
  std::vector<TensorSpec> inputs_, outputs_;
  std::vector<std::byte> memory_;  // of the inputs, and of outputs that the program has no room for
  std::vector<std::byte*> input_data_;
  std::vector<executorch::extension::TensorPtr> input_tensors_;
};
