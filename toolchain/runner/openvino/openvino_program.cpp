#include "openvino_program.h"

#include <cstring>
#include <utility>

#include "archive.h"
#include "failure.h"

namespace {

const std::pair<ov::element::Type, Dtype> kTypes[] = {
    {ov::element::f32, Dtype::float32},   {ov::element::f64, Dtype::float64},
    {ov::element::f16, Dtype::float16},   {ov::element::bf16, Dtype::bfloat16},
    {ov::element::i64, Dtype::int64},     {ov::element::i32, Dtype::int32},
    {ov::element::i16, Dtype::int16},     {ov::element::i8, Dtype::int8},
    {ov::element::u64, Dtype::uint64},    {ov::element::u32, Dtype::uint32},
    {ov::element::u16, Dtype::uint16},    {ov::element::u8, Dtype::uint8},
    {ov::element::boolean, Dtype::boolean},
};

ov::AnyMap settings(unsigned threads, bool profiled) {
  ov::AnyMap map{
      ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
      ov::num_streams(1),
      ov::hint::inference_precision(ov::element::f32),  // else bf16 where the CPU has it
      ov::hint::enable_cpu_pinning(false),              // where it runs is said by --pin
      ov::enable_profiling(profiled),
  };
  if (threads != 0) map.insert(ov::inference_num_threads(static_cast<int>(threads)));
  return map;
}

}  // namespace

OpenvinoProgram::OpenvinoProgram(const std::string& path, unsigned threads, bool profiled)
    : path_(path), file_(path, Status::load) {
  try {
    compile(settings(threads, profiled));
  } catch (const ov::Exception& error) {
    throw Failure(Status::load, path + ": cannot be loaded: " + one_line(error.what()));
  }
}

void OpenvinoProgram::compile(const ov::AnyMap& map) {
  const Ir ir = ir_in(path_, {file_.data(), file_.size()});
  const ov::Tensor weights =
      ir.weights.empty() ? ov::Tensor()
                         : ov::Tensor(ov::element::u8, {ir.weights.size()}, ir.weights.data());
  const auto read = core_.read_model(std::string(ir.xml), weights);
  std::size_t number = 0;
  for (const auto& port : read->inputs()) {
    const std::string which = "input " + std::to_string(number++);
    if (port.get_partial_shape().is_dynamic()) {
      throw Failure(Status::load, path_ + ": " + which + " has no fixed shape");
    }
    const auto& shape = port.get_shape();
    inputs_.push_back({dtype_of(which, port.get_element_type()), {shape.begin(), shape.end()}});
  }
  model_ = core_.compile_model(read, "CPU", map);
  const auto wanted = map.find(ov::inference_num_threads.name());
  if (wanted != map.end() && threads() != static_cast<unsigned>(wanted->second.as<int>())) {
    throw Failure(Status::load, "the runtime gives " + std::to_string(threads()) +
                                    " threads, not the " + wanted->second.as<std::string>() +
                                    " of --threads");
  }
  request_ = model_.create_infer_request();
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    input_tensors_.push_back(request_.get_input_tensor(i));
  }
}

Dtype OpenvinoProgram::dtype_of(const std::string& which, const ov::element::Type& type) const {
  for (const auto& [theirs, ours] : kTypes) {
    if (theirs == type) return ours;
  }
  throw Failure(Status::load, path_ + ": " + which + " is of a type that is not supported (" +
                                  type.get_type_name() + ")");
}

unsigned OpenvinoProgram::threads() const {
  return static_cast<unsigned>(model_.get_property(ov::inference_num_threads));
}

void OpenvinoProgram::set_inputs(const std::byte* sample) {
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const std::size_t bytes = inputs_[i].nbytes();
    std::memcpy(input_tensors_[i].data(), sample, bytes);
    sample += bytes;
  }
}

void OpenvinoProgram::execute() {
  try {
    request_.infer();
  } catch (const ov::Exception& error) {
    throw Failure(Status::inference, path_ + ": inference failed: " + one_line(error.what()));
  }
}

void OpenvinoProgram::append_outputs(std::vector<std::byte>& to) {
  const std::size_t count = model_.outputs().size();
  outputs_.clear();
  for (std::size_t i = 0; i < count; ++i) {
    const ov::Tensor tensor = request_.get_output_tensor(i);
    const auto& shape = tensor.get_shape();
    outputs_.push_back({dtype_of("output " + std::to_string(i), tensor.get_element_type()),
                        {shape.begin(), shape.end()}});
    const auto* data = static_cast<const std::byte*>(std::as_const(tensor).data());
    to.insert(to.end(), data, data + outputs_.back().nbytes());
  }
}
