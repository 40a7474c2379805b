// Tensors in memory may have their dimensions in another order than C's.
#pragma once

#include <executorch/runtime/core/exec_aten/exec_aten.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "tensors.h"

std::optional<Dtype> dtype_of(executorch::aten::ScalarType type);

using DimOrder = std::vector<std::uint8_t>;  // of the dimensions in memory, outermost first

// Copy a tensor between C order and the order in which the program has it in memory.
void from_c_order(const TensorSpec& spec, const DimOrder& order, const std::byte* from,
                  std::byte* to);
void to_c_order(const TensorSpec& spec, const DimOrder& order, const std::byte* from,
                std::byte* to);
