// What the runner knows of a program's input or output, and its bytes in C order.
#pragma once

#include <executorch/runtime/core/exec_aten/exec_aten.h>
#include <executorch/runtime/core/span.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

struct TensorSpec {
  executorch::aten::ScalarType type;
  std::vector<std::int32_t> sizes;
  std::vector<std::uint8_t> dim_order;  // of the dimensions in memory, outermost first

  std::size_t nbytes() const;
  bool in_c_order() const;
  bool operator==(const TensorSpec&) const = default;
};

// As numpy calls it, or `bfloat16`; null if the runner does not support the type.
const char* dtype_name(executorch::aten::ScalarType type);

// Copy a tensor of `spec` between C order and the order in which the program has it in memory.
void from_c_order(const TensorSpec& spec, const std::byte* from, std::byte* to);
void to_c_order(const TensorSpec& spec, const std::byte* from, std::byte* to);
