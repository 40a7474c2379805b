#include "failure.h"

std::string one_line(const std::string& text) {
  constexpr std::size_t kMost = 600;
  std::string line;
  bool space = false;
  for (const char letter : text) {
    if (static_cast<unsigned char>(letter) <= ' ') {
      space = !line.empty();
      continue;
    }
    if (space) line += ' ';
    space = false;
    line += letter;
  }
  if (line.size() > kMost) line = line.substr(0, kMost) + " ...";
  return line;
}
