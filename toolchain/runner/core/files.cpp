#include "files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace {

[[noreturn]] void fail(const std::string& path, const char* what, int error) {
  throw Failure(Status::file, path + ": " + what + ": " + std::strerror(error));
}

}  // namespace

InputFile::InputFile(const std::string& path)
    : path_(path), descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  struct stat facts {};
  if (descriptor_ < 0) fail(path_, "cannot be read", errno);
  const int error = fstat(descriptor_, &facts) < 0 ? errno : S_ISREG(facts.st_mode) ? 0 : EINVAL;
  if (error != 0) {
    close(descriptor_);
    fail(path_, "is not a file that can be read", error);
  }
  size_ = static_cast<std::size_t>(facts.st_size);
}

InputFile::~InputFile() { close(descriptor_); }

void InputFile::read(void* to, std::size_t count, std::size_t offset) const {
  auto* next = static_cast<char*>(to);
  while (count > 0) {
    const ssize_t got = pread(descriptor_, next, count, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(path_, "cannot be read", errno);
    if (got == 0) throw Failure(Status::file, path_ + ": was cut short while it was read");
    next += got;
    offset += static_cast<std::size_t>(got);
    count -= static_cast<std::size_t>(got);
  }
}

MappedFile::MappedFile(const std::string& path, Status status) {
  const auto refuse = [&](const char* why) -> void {
    throw Failure(status, path + ": cannot be loaded: " + why);
  };
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) refuse(std::strerror(errno));
  struct stat facts {};
  void* mapped = MAP_FAILED;
  if (fstat(descriptor, &facts) < 0 || !S_ISREG(facts.st_mode)) {
    errno = EINVAL;
  } else if (facts.st_size == 0) {
    errno = ENODATA;
  } else {
    size_ = static_cast<std::size_t>(facts.st_size);
    mapped = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 0);
  }
  const int error = errno;
  close(descriptor);
  if (mapped == MAP_FAILED) refuse(std::strerror(error));
  data_ = static_cast<std::byte*>(mapped);
}

MappedFile::~MappedFile() { munmap(data_, size_); }

OutputFile::OutputFile(const std::string& path)
    : path_(path),
      descriptor_(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
  if (descriptor_ < 0) fail(path_, "cannot be written", errno);
}

OutputFile::~OutputFile() {
  if (kept_) return;
  struct stat facts {};
  const bool ours = descriptor_ >= 0 ? fstat(descriptor_, &facts) == 0
                                     : stat(path_.c_str(), &facts) == 0;
  if (descriptor_ >= 0) close(descriptor_);
  if (ours && S_ISREG(facts.st_mode)) unlink(path_.c_str());  // never a device such as /dev/full
}

void OutputFile::write(const void* from, std::size_t count) {
  write_all(descriptor_, path_, from, count);
}

void OutputFile::keep() {
  const int closed = close(descriptor_);
  descriptor_ = -1;
  if (closed < 0) fail(path_, "cannot be written", errno);  // some file systems say it only now
  kept_ = true;
}

void write_all(int descriptor, const std::string& what, const void* from, std::size_t count) {
  const auto* next = static_cast<const char*>(from);
  while (count > 0) {
    const ssize_t done = write(descriptor, next, count);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail(what, "cannot be written", errno);
    next += done;
    count -= static_cast<std::size_t>(done);
  }
}
