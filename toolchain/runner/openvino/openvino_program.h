// A program of OpenVINO: its intermediate representation, compiled when it is loaded.
#pragma once

#include <openvino/openvino.hpp>

#include <string>
#include <vector>

#include "files.h"
#include "program.h"

class OpenvinoProgram final : public Program {
 public:
  // Throws Failure(Status::load). threads: 0 leaves the runtime's choice.
  OpenvinoProgram(const std::string& path, unsigned threads, bool profiled = false);

  const std::vector<TensorSpec>& inputs() const override { return inputs_; }
  const std::vector<TensorSpec>& outputs() const override { return outputs_; }
  unsigned threads() const override;
  void set_inputs(const std::byte* sample) override;
  void execute() override;
  void append_outputs(std::vector<std::byte>& to) override;

  std::vector<ov::ProfilingInfo> profile() const { return request_.get_profiling_info(); }

 private:
  void compile(const ov::AnyMap& settings);
  Dtype dtype_of(const std::string& which, const ov::element::Type& type) const;

  std::string path_;
  MappedFile file_;  // holds the weights
  ov::Core core_;
  ov::CompiledModel model_;
  ov::InferRequest request_;
  std::vector<TensorSpec> inputs_, outputs_;
  std::vector<ov::Tensor> input_tensors_;
};
