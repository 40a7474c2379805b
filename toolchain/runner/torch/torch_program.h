// A program that AOTInductor compiled: a `.pt2` package.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <memory>
#include <string>
#include <vector>

#include "program.h"

class TorchProgram final : public Program {
 public:
  // Unpacks the package into a folder in `scratch` and loads it from there; nothing stays behind.
  // Throws Failure(Status::load), or Failure(Status::file) if there is no room.
  TorchProgram(const std::string& path, const std::string& scratch);

  const std::vector<TensorSpec>& inputs() const override { return inputs_; }
  const std::vector<TensorSpec>& outputs() const override { return outputs_; }  // empty until a run
  unsigned threads() const override;
  void set_inputs(const std::byte* sample) override;
  void execute() override;
  void append_outputs(std::vector<std::byte>& to) override;

 private:
  void make_inputs();

  std::string path_;
  std::unique_ptr<torch::inductor::AOTIModelPackageLoader> loader_;
  std::vector<TensorSpec> inputs_, outputs_;
  std::vector<at::Tensor> input_tensors_, output_tensors_;
};
