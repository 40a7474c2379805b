// Files that are read a sample at a time, and files that are written whole or not at all.
#pragma once

#include <cstddef>
#include <string>

#include "failure.h"

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

// All of a file, in memory that is written to only here, not in the file.
class MappedFile {
 public:
  // Throws Failure with `status` if it cannot be read, or is empty.
  MappedFile(const std::string& path, Status status);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::byte* data_;
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
