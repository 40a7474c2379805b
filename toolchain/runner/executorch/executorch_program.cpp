#include "executorch_program.h"

#include <executorch/extension/tensor/tensor_ptr_maker.h>

#include <cstdint>
#include <string>
#include <utility>

#include "failure.h"
#include "runtime_log.h"

using executorch::extension::Module;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::MethodMeta;
using executorch::runtime::Result;
using executorch::runtime::Tag;
using executorch::runtime::TensorInfo;

namespace {

constexpr const char* kMethod = "forward";
constexpr std::size_t kAlignment = 64;  // the same in each run, so that a run costs the same
constexpr std::size_t kMargin = 64;     // kernels read whole vectors, beyond a tensor's end

std::size_t room(std::size_t bytes) {
  return (bytes + kMargin + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

ExecutorchProgram::ExecutorchProgram(const std::string& path,
                                     std::unique_ptr<executorch::runtime::EventTracer> tracer)
    : path_(path), module_(path, Module::LoadMode::Mmap, std::move(tracer)) {
  // Verification looks into the whole structure: a corrupt one must not lead pointers astray.
  require(module_.load(executorch::runtime::Program::Verification::InternalConsistency),
          "cannot be loaded");
  const auto meta = module_.method_meta(kMethod);
  require(meta.error(), "has no method 'forward'");
  describe(*meta);
  require(module_.load_method(kMethod), "cannot be loaded");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  // Module's own `execute` allocates and looks names up: that would be measured too.
  method_ = *module_.method(kMethod);
#pragma GCC diagnostic pop
  make_buffers(*meta);
}

void ExecutorchProgram::describe(const MethodMeta& meta) {
  const auto tensors = [&](const char* what, std::size_t count, auto tag_of, auto info_of,
                           auto take) {
    for (std::size_t i = 0; i < count; ++i) {
      const std::string which = std::string(what) + " " + std::to_string(i);
      const Result<Tag> tag = tag_of(i);
      require(tag.error(), (which + " is not described").c_str());
      if (*tag != Tag::Tensor) refuse(which + " is not a tensor; only tensors are supported");
      const Result<TensorInfo> info = info_of(i);
      require(info.error(), (which + " is not described").c_str());
      const auto type = dtype_of(info->scalar_type());
      if (!type) {
        refuse(which + " is of a type that is not supported (number " +
               std::to_string(static_cast<int>(info->scalar_type())) + ")");
      }
      take(TensorSpec{*type, {info->sizes().begin(), info->sizes().end()}}, *info);
    }
  };
  tensors(
      "input", meta.num_inputs(), [&](auto i) { return meta.input_tag(i); },
      [&](auto i) { return meta.input_tensor_meta(i); },
      [&](TensorSpec spec, const TensorInfo& info) {
        inputs_.push_back(std::move(spec));
        input_orders_.emplace_back(info.dim_order().begin(), info.dim_order().end());
        input_types_.push_back(info.scalar_type());
      });
  tensors(
      "output", meta.num_outputs(), [&](auto i) { return meta.output_tag(i); },
      [&](auto i) { return meta.output_tensor_meta(i); },
      [&](TensorSpec spec, const TensorInfo&) { outputs_.push_back(std::move(spec)); });
}

void ExecutorchProgram::make_buffers(const MethodMeta& meta) {
  std::size_t total = kAlignment;
  for (const auto& spec : inputs_) total += room(spec.nbytes());
  for (const auto& spec : outputs_) total += room(spec.nbytes());
  memory_.resize(total);
  const auto start = reinterpret_cast<std::uintptr_t>(memory_.data());
  std::byte* next = memory_.data() + (kAlignment - start % kAlignment) % kAlignment;
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const auto& sizes = inputs_[i].sizes;
    input_data_.push_back(next);
    input_tensors_.push_back(executorch::extension::make_tensor_ptr(
        {sizes.begin(), sizes.end()}, next, input_orders_[i], {}, input_types_[i]));
    next += room(inputs_[i].nbytes());
  }
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    if (meta.output_tensor_meta(i)->is_memory_planned()) continue;
    if (method_->get_output(i).toTensor().const_data_ptr() != nullptr) continue;  // a constant
    const std::size_t bytes = outputs_[i].nbytes();
    require(method_->set_output_data_ptr(next, bytes, i), "takes no memory for its outputs");
    next += room(bytes);
  }
}

void ExecutorchProgram::set_inputs(const std::byte* sample) {
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    from_c_order(inputs_[i], input_orders_[i], sample, input_data_[i]);
    sample += inputs_[i].nbytes();
    const Error error = method_->set_input(EValue(*input_tensors_[i]), i);
    if (error != Error::Ok) fail(error);
  }
}

void ExecutorchProgram::fail(Error error) const {
  throw Failure(Status::inference,
                path_ + ": inference failed: " + explained(executorch::runtime::to_string(error)));
}

void ExecutorchProgram::append_outputs(std::vector<std::byte>& to) {
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const auto tensor = method_->get_output(i).toTensor();
    outputs_[i].sizes.assign(tensor.sizes().begin(), tensor.sizes().end());
    const DimOrder order(tensor.dim_order().begin(), tensor.dim_order().end());
    const auto* data = static_cast<const std::byte*>(tensor.const_data_ptr());
    const std::size_t bytes = outputs_[i].nbytes(), before = to.size();
    if (bytes == 0) continue;
    if (data == nullptr) {
      throw Failure(Status::inference, path_ + ": output " + std::to_string(i) + " holds no data");
    }
    to.resize(before + bytes);
    to_c_order(outputs_[i], order, data, to.data() + before);
  }
}

void ExecutorchProgram::refuse(const std::string& why) const {
  throw Failure(Status::load, path_ + ": " + why);
}

void ExecutorchProgram::require(Error error, const char* what) const {
  if (error == Error::Ok) return;
  refuse(std::string(what) + ": " + explained(executorch::runtime::to_string(error)));
}
