#include "package.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "failure.h"

// The format: PKWARE's APPNOTE.TXT, 4.3 (records), 4.5.3 (sizes beyond 4 GiB).

namespace {

constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) * 0xEDB88320U);
    table[i] = value;
  }
  return table;
}

std::uint32_t crc32(const std::byte* data, std::size_t size) {
  static constexpr auto kTable = crc_table();
  std::uint32_t value = ~0U;
  for (std::size_t i = 0; i < size; ++i) {
    value = (value >> 8) ^ kTable[(value ^ std::to_integer<std::uint32_t>(data[i])) & 0xFF];
  }
  return ~value;
}

class Archive {
 public:
  Archive(const std::string& path, const std::byte* data, std::size_t size)
      : path_(path), data_(data), size_(size) {}

  std::vector<Member> members() const {
    const std::uint64_t end = end_record();
    std::uint64_t count = number<std::uint16_t>(end + 10);
    std::uint64_t at = number<std::uint32_t>(end + 16);
    if (end >= 20 && number<std::uint32_t>(end - 20) == 0x07064b50) {
      const auto wide = number<std::uint64_t>(end - 12);
      if (number<std::uint32_t>(wide) != 0x06064b50) refuse();
      count = number<std::uint64_t>(wide + 32);
      at = number<std::uint64_t>(wide + 48);
    }
    std::vector<Member> found;
    for (std::uint64_t i = 0; i < count; ++i) at = take(at, found);
    return found;
  }

 private:
  [[noreturn]] void refuse(const std::string& why = "it is no archive, or cut short") const {
    throw Failure(Status::load, path_ + ": cannot be loaded: " + why);
  }

  const std::byte* bytes(std::uint64_t at, std::uint64_t count) const {
    if (at > size_ || count > size_ - at) refuse();
    return data_ + at;
  }

  template <typename Number>
  Number number(std::uint64_t at) const {
    Number value;
    std::memcpy(&value, bytes(at, sizeof value), sizeof value);
    return value;
  }

  // The last record of an archive; only a comment may follow it.
  std::uint64_t end_record() const {
    constexpr std::uint64_t kSize = 22, kLongestComment = 65535;
    if (size_ < kSize) refuse();
    for (std::uint64_t at = size_ - kSize; at + kSize + kLongestComment >= size_; --at) {
      if (number<std::uint32_t>(at) == 0x06054b50 &&
          at + kSize + number<std::uint16_t>(at + 20) == size_) {
        return at;
      }
      if (at == 0) break;
    }
    refuse();
  }

  // Append the member whose central record is at `at`; returns the place of the next record.
  std::uint64_t take(std::uint64_t at, std::vector<Member>& found) const {
    if (number<std::uint32_t>(at) != 0x02014b50) refuse();
    const auto method = number<std::uint16_t>(at + 10);
    const auto checksum = number<std::uint32_t>(at + 16);
    const auto name_size = number<std::uint16_t>(at + 28);
    const auto extra_size = number<std::uint16_t>(at + 30);
    const std::uint64_t extra = at + 46 + name_size;
    std::uint64_t wide = wide_numbers(extra, extra + extra_size);
    // Those that are all ones stand in the extra field, in this order.
    const auto read = [&](std::uint64_t place) -> std::uint64_t {
      const auto narrow = number<std::uint32_t>(place);
      if (narrow != ~0U) return narrow;
      if (wide == 0) refuse();
      wide += 8;
      return number<std::uint64_t>(wide - 8);
    };
    const std::uint64_t size = read(at + 24), packed = read(at + 20), local = read(at + 42);
    const std::string name(reinterpret_cast<const char*>(bytes(at + 46, name_size)), name_size);
    if (method != 0 || size != packed) refuse("'" + name + "' in it is compressed");
    if (number<std::uint32_t>(local) != 0x04034b50) refuse();
    const std::uint64_t start =
        local + 30 + number<std::uint16_t>(local + 26) + number<std::uint16_t>(local + 28);
    const std::byte* data = bytes(start, size);
    if (crc32(data, size) != checksum) refuse("'" + name + "' in it is damaged");
    found.push_back({name, data, size});
    return extra + extra_size + number<std::uint16_t>(at + 32);
  }

  // Where the 64-bit numbers start in a record's extra fields; 0: it has none.
  std::uint64_t wide_numbers(std::uint64_t at, std::uint64_t end) const {
    while (at + 4 <= end) {
      if (number<std::uint16_t>(at) == 1) return at + 4;
      at += std::uint64_t{4} + number<std::uint16_t>(at + 2);
    }
    return 0;
  }

  const std::string& path_;
  const std::byte* data_;
  std::size_t size_;
};

}  // namespace

std::vector<Member> members_of(const std::string& path, const std::byte* data, std::size_t size) {
  return Archive(path, data, size).members();
}
