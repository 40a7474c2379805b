// What the runner knows of a program's input or output. Its bytes in files are in C order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

enum class Dtype : std::uint8_t {
  float32, float64, float16, bfloat16,
  int64, int32, int16, int8,
  uint64, uint32, uint16, uint8,
  boolean,
};

// As numpy calls it, or `bfloat16`.
const char* name_of(Dtype type);
std::optional<Dtype> dtype_named(std::string_view name);

struct TensorSpec {
  Dtype type;
  std::vector<std::int64_t> sizes;

  std::size_t element_bytes() const;
  std::size_t nbytes() const;
  bool operator==(const TensorSpec&) const = default;
};

// Of all of them together.
std::size_t nbytes(const std::vector<TensorSpec>& specs);
