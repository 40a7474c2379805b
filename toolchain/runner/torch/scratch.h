// A folder of files for the loader, gone as soon as it has read them; after a crash too.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

// One at a time.
class Scratch {
 public:
  // Make a new folder in `parent`; throws Failure(Status::file).
  explicit Scratch(const std::string& parent);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  const std::string& path() const { return path_; }

  // Make folders below it for `name` (such as "data/x/y.so"), and the file; throws
  // Failure(Status::file).
  void write(const std::string& name, const std::byte* data, std::size_t size);

 private:
  static void remove();

  std::string path_;
};
