// Files that are read a sample at a time, and files that are written whole or not at all.
#pragma once

#include <cstddef>
#include <string>

class InputFile {
 public:
  explicit InputFile(const std::string& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  std::size_t size() const { return size_; }
  void read(void* to, std::size_t count, std::size_t offset) const;

 private:
  std::string path_;
  int descriptor_;
  std::size_t size_ = 0;
};

// Removed again unless `keep` was reached.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(const void* from, std::size_t count);
  void keep();

 private:
  std::string path_;
  int descriptor_;
  bool kept_ = false;
};

// Write all of it to a descriptor; throws Failure(Status::file) that names `what`.
void write_all(int descriptor, const std::string& what, const void* from, std::size_t count);
