#include "layout.h"

#include <algorithm>
#include <cstring>

namespace {

bool in_c_order(const DimOrder& order) { return std::is_sorted(order.begin(), order.end()); }

// Calls `copy(offset in C order, offset in memory)` for each element, both in bytes.
template <typename Copy>
void for_each_element(const TensorSpec& spec, const DimOrder& order, const Copy& copy) {
  const std::size_t dims = spec.sizes.size();
  const std::size_t element = spec.element_bytes();
  const std::size_t count = spec.nbytes() / element;
  std::vector<std::size_t> strides(dims), index(dims, 0);
  std::size_t stride = element;
  for (std::size_t k = dims; k-- > 0;) {
    strides[order[k]] = stride;
    stride *= static_cast<std::size_t>(spec.sizes[order[k]]);
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

std::optional<Dtype> dtype_of(executorch::aten::ScalarType type) {
  using executorch::aten::ScalarType;
  switch (type) {
    case ScalarType::Float: return Dtype::float32;
    case ScalarType::Double: return Dtype::float64;
    case ScalarType::Half: return Dtype::float16;
    case ScalarType::BFloat16: return Dtype::bfloat16;
    case ScalarType::Long: return Dtype::int64;
    case ScalarType::Int: return Dtype::int32;
    case ScalarType::Short: return Dtype::int16;
    case ScalarType::Char: return Dtype::int8;
    case ScalarType::Byte: return Dtype::uint8;
    case ScalarType::UInt16: return Dtype::uint16;
    case ScalarType::UInt32: return Dtype::uint32;
    case ScalarType::UInt64: return Dtype::uint64;
    case ScalarType::Bool: return Dtype::boolean;
    default: return std::nullopt;
  }
}

void from_c_order(const TensorSpec& spec, const DimOrder& order, const std::byte* from,
                  std::byte* to) {
  if (in_c_order(order)) {
    std::memcpy(to, from, spec.nbytes());
    return;
  }
  for_each_element(spec, order, [&](std::size_t c, std::size_t memory, std::size_t bytes) {
    std::memcpy(to + memory, from + c, bytes);
  });
}

void to_c_order(const TensorSpec& spec, const DimOrder& order, const std::byte* from,
                std::byte* to) {
  if (in_c_order(order)) {
    std::memcpy(to, from, spec.nbytes());
    return;
  }
  for_each_element(spec, order, [&](std::size_t c, std::size_t memory, std::size_t bytes) {
    std::memcpy(to + c, from + memory, bytes);
  });
}
