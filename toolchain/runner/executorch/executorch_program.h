// A program of ExecuTorch: a `.pte` file.
#pragma once

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/core/event_tracer.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "layout.h"
#include "program.h"
#include "threads.h"

class ExecutorchProgram final : public Program {
 public:
  // Maps the file, verifies its structure and loads `forward`; throws Failure(Status::load).
  // tracer: records each run, null for none.
  explicit ExecutorchProgram(const std::string& path,
                             std::unique_ptr<executorch::runtime::EventTracer> tracer = nullptr);

  const std::vector<TensorSpec>& inputs() const override { return inputs_; }
  const std::vector<TensorSpec>& outputs() const override { return outputs_; }
  unsigned threads() const override { return threads_in_use(); }
  void set_inputs(const std::byte* sample) override;
  void execute() override {
    const auto error = method_->execute();
    if (error != executorch::runtime::Error::Ok) fail(error);
  }
  void append_outputs(std::vector<std::byte>& to) override;

 private:
  [[noreturn]] void fail(executorch::runtime::Error error) const;
  [[noreturn]] void refuse(const std::string& why) const;
  void require(executorch::runtime::Error error, const char* what) const;
  void describe(const executorch::runtime::MethodMeta& meta);
  void make_buffers(const executorch::runtime::MethodMeta& meta);

  std::string path_;
  executorch::extension::Module module_;
  executorch::runtime::Method* method_ = nullptr;
  std::vector<TensorSpec> inputs_, outputs_;
  std::vector<DimOrder> input_orders_;
  std::vector<executorch::aten::ScalarType> input_types_;
  std::vector<std::byte> memory_;  // of the inputs, and of outputs that the program has no room for
  std::vector<std::byte*> input_data_;
  std::vector<executorch::extension::TensorPtr> input_tensors_;
};
