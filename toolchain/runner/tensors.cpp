#include "tensors.h"

#include <executorch/runtime/core/exec_aten/util/scalar_type_util.h>

#include <cstring>

namespace {

// Calls `copy(offset in C order, offset in memory)` for each element, both in bytes.
template <typename Copy>
void for_each_element(const TensorSpec& spec, const Copy& copy) {
  const std::size_t dims = spec.sizes.size();
  const std::size_t element = executorch::runtime::elementSize(spec.type);
  const std::size_t count = spec.nbytes() / element;
  std::vector<std::size_t> strides(dims), index(dims, 0);
  std::size_t stride = element;
  for (std::size_t k = dims; k-- > 0;) {
    strides[spec.dim_order[k]] = stride;
    stride *= static_cast<std::size_t>(spec.sizes[spec.dim_order[k]]);
  }
  std::size_t at = 0;
  for (std::size_t i = 0; i < count; ++i) {
    copy(i * element, at, element);
    for (std::size_t d = dims; d-- > 0;) {
      at += strides[d];
      if (++index[d] < static_cast<std::size_t>(spec.sizes[d])) break;
      at -= strides[d] * index[d];
      index[d] = 0;
    }
  }
}

}  // namespace

std::size_t TensorSpec::nbytes() const {
  std::size_t bytes = executorch::runtime::elementSize(type);
  for (const auto size : sizes) bytes *= static_cast<std::size_t>(size);
  return bytes;
}

bool TensorSpec::in_c_order() const {
  for (std::size_t d = 0; d < dim_order.size(); ++d) {
    if (dim_order[d] != d) return false;
  }
  return true;
}

const char* dtype_name(executorch::aten::ScalarType type) {
  using executorch::aten::ScalarType;
  switch (type) {
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::Half: return "float16";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Long: return "int64";
    case ScalarType::Int: return "int32";
    case ScalarType::Short: return "int16";
    case ScalarType::Char: return "int8";
    case ScalarType::Byte: return "uint8";
    case ScalarType::UInt16: return "uint16";
    case ScalarType::UInt32: return "uint32";
    case ScalarType::UInt64: return "uint64";
    case ScalarType::Bool: return "bool";
    default: return nullptr;
  }
}

void from_c_order(const TensorSpec& spec, const std::byte* from, std::byte* to) {
  if (spec.in_c_order()) {
    std::memcpy(to, from, spec.nbytes());
    return;
  }
  for_each_element(spec, [&](std::size_t c, std::size_t memory, std::size_t bytes) {
    std::memcpy(to + memory, from + c, bytes);
  });
}

void to_c_order(const TensorSpec& spec, const std::byte* from, std::byte* to) {
  if (spec.in_c_order()) {
    std::memcpy(to, from, spec.nbytes());
    return;
  }
  for_each_element(spec, [&](std::size_t c, std::size_t memory, std::size_t bytes) {
    std::memcpy(to + c, from + memory, bytes);
  });
}
