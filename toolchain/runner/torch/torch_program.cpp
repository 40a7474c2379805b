#include "torch_program.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <cstring>
#include <optional>
#include <stdexcept>

#include "failure.h"
#include "files.h"
#include "inputs.h"
#include "package.h"
#include "scratch.h"

namespace {

constexpr std::string_view kFolder = "data/aotinductor/model/";
constexpr bool kSingleThreaded = true;  // one inference at a time: no locks, no pool of runners
constexpr std::size_t kRunners = 1;

struct Type {
  at::ScalarType theirs;
  Dtype ours;
};

constexpr Type kTypes[] = {
    {at::kFloat, Dtype::float32},     {at::kDouble, Dtype::float64},
    {at::kHalf, Dtype::float16},      {at::kBFloat16, Dtype::bfloat16},
    {at::kLong, Dtype::int64},        {at::kInt, Dtype::int32},
    {at::kShort, Dtype::int16},       {at::kChar, Dtype::int8},
    {at::kUInt64, Dtype::uint64},     {at::kUInt32, Dtype::uint32},
    {at::kUInt16, Dtype::uint16},     {at::kByte, Dtype::uint8},
    {at::kBool, Dtype::boolean},
};

at::ScalarType theirs(Dtype type) {
  for (const auto& known : kTypes) {
    if (known.ours == type) return known.theirs;
  }
  return at::ScalarType::Undefined;
}

std::optional<Dtype> ours(at::ScalarType type) {
  for (const auto& known : kTypes) {
    if (known.theirs == type) return known.ours;
  }
  return std::nullopt;
}

// What an exception of the library says, without the stack that it adds.
std::string said(const std::exception& error) {
  const auto* known = dynamic_cast<const c10::Error*>(&error);
  return one_line(known == nullptr ? error.what() : known->what_without_backtrace());
}

// Sources are in a package too; nothing here compiles them.
bool wanted(const std::string& name) { return !name.ends_with(".cpp") && !name.ends_with(".h"); }

void unpack(const std::string& path, Scratch& scratch) {
  const MappedFile file(path, Status::load);
  bool found = false;
  for (const auto& member : members_of(path, file.data(), file.size())) {
    const std::size_t at = member.name.find(kFolder);
    if (at == std::string::npos || !wanted(member.name)) continue;
    const std::string name = member.name.substr(at + kFolder.size());
    if (name.empty() || name.find('/') != std::string::npos) continue;
    scratch.write(std::string(kFolder) + name, member.data, member.size);
    found = true;
  }
  if (!found) throw Failure(Status::load, path + ": cannot be loaded: it holds no program");
}

}  // namespace

TorchProgram::TorchProgram(const std::string& path, const std::string& folder) : path_(path) {
  Scratch scratch(folder);
  unpack(path, scratch);
  try {
    loader_ = std::make_unique<torch::inductor::AOTIModelPackageLoader>(
        scratch.path(), "model", kSingleThreaded, kRunners);
    make_inputs();
  } catch (const std::exception& error) {
    throw Failure(Status::load, path + ": cannot be loaded: " + said(error));
  }
}

void TorchProgram::make_inputs() {
  const auto metadata = loader_->get_metadata();
  const auto text = metadata.find(kInputsKey);
  if (text == metadata.end()) {
    throw std::invalid_argument(std::string("it does not tell its inputs (") + kInputsKey + ")");
  }
  inputs_ = parse_inputs(text->second);
  for (const auto& spec : inputs_) {
    input_tensors_.push_back(at::empty(spec.sizes, at::TensorOptions().dtype(theirs(spec.type))));
  }
}

unsigned TorchProgram::threads() const { return static_cast<unsigned>(at::get_num_threads()); }

void TorchProgram::set_inputs(const std::byte* sample) {
  output_tensors_.clear();
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const std::size_t bytes = inputs_[i].nbytes();
    std::memcpy(input_tensors_[i].mutable_data_ptr(), sample, bytes);
    sample += bytes;
  }
}

void TorchProgram::execute() {
  try {
    output_tensors_ = loader_->run(input_tensors_);
  } catch (const std::exception& error) {
    throw Failure(Status::inference, path_ + ": inference failed: " + said(error));
  }
}

void TorchProgram::append_outputs(std::vector<std::byte>& to) {
  outputs_.clear();
  for (const auto& output : output_tensors_) {
    const at::Tensor tensor = output.contiguous();
    const auto type = ours(tensor.scalar_type());
    if (!type) {
      throw Failure(Status::load, path_ + ": output " + std::to_string(outputs_.size()) +
                                      " is of a type that is not supported (" +
                                      c10::toString(tensor.scalar_type()) + ")");
    }
    outputs_.push_back({*type, tensor.sizes().vec()});
    const auto* data = static_cast<const std::byte*>(tensor.const_data_ptr());
    to.insert(to.end(), data, data + outputs_.back().nbytes());
  }
}
