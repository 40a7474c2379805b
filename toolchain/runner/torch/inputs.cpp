#include "inputs.h"

#include <charconv>
#include <sstream>
#include <stdexcept>

namespace {

TensorSpec parse_input(const std::string& word) {
  const std::size_t colon = word.find(':');
  const auto type = dtype_named(word.substr(0, colon));
  if (colon == word.npos || !type) throw std::invalid_argument(word);
  TensorSpec spec{*type, {}};
  const char* const end = word.data() + word.size();
  for (const char* next = word.data() + colon + 1; next != end;) {
    std::int64_t size = 0;
    const auto [after, error] = std::from_chars(next, end, size);
    const bool last = after == end, more = !last && *after == 'x' && after + 1 != end;
    if (error != std::errc{} || size < 1 || !(last || more)) throw std::invalid_argument(word);
    spec.sizes.push_back(size);
    next = last ? end : after + 1;
  }
  return spec;
}

}  // namespace

std::vector<TensorSpec> parse_inputs(const std::string& text) {
  std::vector<TensorSpec> specs;
  std::istringstream words(text);
  for (std::string word; words >> word;) specs.push_back(parse_input(word));
  return specs;
}
