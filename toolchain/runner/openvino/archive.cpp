#include "archive.h"

#include <cstdint>
#include <cstring>

#include "failure.h"

// The format: POSIX.1-2017, pax, "ustar Interchange Format".

namespace {

constexpr std::size_t kBlock = 512;
constexpr std::size_t kNameSize = 100, kSizeAt = 124, kSizeSize = 12, kSumAt = 148, kSumSize = 8;
constexpr std::size_t kMagicAt = 257;

std::string_view text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// An octal number that ends with a space or a zero byte; -1: it is none.
std::int64_t octal(std::span<const std::byte> field) {
  std::int64_t value = 0;
  bool digits = false;
  for (const char letter : text(field)) {
    if (letter == '\0' || letter == ' ') {
      if (digits) break;
      continue;
    }
    if (letter < '0' || letter > '7') return -1;
    value = value * 8 + (letter - '0');
    digits = true;
  }
  return digits ? value : -1;
}

bool sound(std::span<const std::byte> header) {
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < kBlock; ++i) {
    const bool of_the_sum = i >= kSumAt && i < kSumAt + kSumSize;
    sum += of_the_sum ? ' ' : std::to_integer<std::int64_t>(header[i]);
  }
  return sum == octal(header.subspan(kSumAt, kSumSize)) &&
         text(header.subspan(kMagicAt, 5)) == "ustar";
}

}  // namespace

Ir ir_in(const std::string& path, std::span<std::byte> archive) {
  const auto refuse = [&](const std::string& why) {
    return Failure(Status::load, path + ": cannot be loaded: " + why);
  };
  Ir found{};
  bool ended = false;
  for (std::size_t at = 0; !ended;) {
    if (archive.size() - at < kBlock) throw refuse("it is no archive, or cut short");
    const auto header = archive.subspan(at, kBlock);
    at += kBlock;
    if (header[0] == std::byte{0}) {
      ended = true;
      continue;
    }
    if (!sound(header)) throw refuse("it is no archive, or damaged");
    const std::int64_t bytes = octal(header.subspan(kSizeAt, kSizeSize));
    if (bytes < 0 || static_cast<std::uint64_t>(bytes) > archive.size() - at) {
      throw refuse("it is cut short");
    }
    const auto size = static_cast<std::size_t>(bytes);
    const auto field = text(header.first(kNameSize));
    const std::string name(field.substr(0, field.find('\0')));
    const auto content = archive.subspan(at, size);
    if (name == "model.xml") found.xml = text(content);
    if (name == "model.bin") found.weights = content;
    const std::size_t padded = (size + kBlock - 1) / kBlock * kBlock;
    if (padded > archive.size() - at) throw refuse("it is cut short");
    at += padded;
  }
  if (found.xml.empty()) throw refuse("it holds no model.xml");
  return found;
}
