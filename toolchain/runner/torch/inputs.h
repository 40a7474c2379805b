// The inputs of a package. AOTInductor keeps their number and no more, so what lowers a program
// writes them into the package's metadata, as `slipway_inputs`:
//
//   float32:1x3x224x224 int64:1x32 bool:      the last one is a scalar
#pragma once

#include <string>
#include <vector>

#include "tensors.h"

constexpr const char* kInputsKey = "slipway_inputs";

// Throws std::invalid_argument with the word that is not understood.
std::vector<TensorSpec> parse_inputs(const std::string& text);
