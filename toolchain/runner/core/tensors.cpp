#include "tensors.h"

#include <array>

namespace {

struct Known {
  const char* name;
  std::size_t bytes;
};

constexpr std::array<Known, 13> kKnown = {{  // in the order of Dtype
    {"float32", 4}, {"float64", 8}, {"float16", 2}, {"bfloat16", 2},
    {"int64", 8}, {"int32", 4}, {"int16", 2}, {"int8", 1},
    {"uint64", 8}, {"uint32", 4}, {"uint16", 2}, {"uint8", 1},
    {"bool", 1},
}};

const Known& known(Dtype type) { return kKnown[static_cast<std::size_t>(type)]; }

}  // namespace

const char* name_of(Dtype type) { return known(type).name; }

std::optional<Dtype> dtype_named(std::string_view name) {
  for (std::size_t i = 0; i < kKnown.size(); ++i) {
    if (name == kKnown[i].name) return static_cast<Dtype>(i);
  }
  return std::nullopt;
}

std::size_t TensorSpec::element_bytes() const { return known(type).bytes; }

std::size_t TensorSpec::nbytes() const {
  std::size_t bytes = element_bytes();
  for (const auto size : sizes) bytes *= static_cast<std::size_t>(size);
  return bytes;
}

std::size_t nbytes(const std::vector<TensorSpec>& specs) {
  std::size_t bytes = 0;
  for (const auto& spec : specs) bytes += spec.nbytes();
  return bytes;
}
