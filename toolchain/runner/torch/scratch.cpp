#include "scratch.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "crash.h"
#include "failure.h"
#include "files.h"

namespace {

// What to remove, in the order of making. Plain memory of fixed size: a signal handler reads it.
constexpr std::size_t kMost = 64, kLongest = 1024;
char made[kMost][kLongest];
volatile std::size_t made_count = 0;

[[noreturn]] void fail(const std::string& path, int error) {
  throw Failure(Status::file,
                path + ": the program cannot be unpacked there: " + std::strerror(error));
}

void remember(const std::string& path) {
  if (made_count == kMost) fail(path, EMFILE);
  if (path.size() >= kLongest) fail(path, ENAMETOOLONG);
  std::memcpy(made[made_count], path.c_str(), path.size() + 1);
  made_count = made_count + 1;
}

}  // namespace

Scratch::Scratch(const std::string& parent) : path_(parent + "/.unpacked-XXXXXX") {
  if (mkdtemp(path_.data()) == nullptr) fail(parent, errno);
  on_crash(remove);
  remember(path_);
}

Scratch::~Scratch() {
  on_crash(nullptr);
  remove();
}

void Scratch::write(const std::string& name, const std::byte* data, std::size_t size) {
  for (std::size_t slash = name.find('/'); slash != name.npos; slash = name.find('/', slash + 1)) {
    const std::string folder = path_ + "/" + name.substr(0, slash);
    if (mkdir(folder.c_str(), 0700) == 0) {
      remember(folder);
    } else if (errno != EEXIST) {
      fail(folder, errno);
    }
  }
  const std::string file = path_ + "/" + name;
  remember(file);
  OutputFile out(file);
  out.write(data, size);
  out.keep();
}

// Only calls that are safe in a signal handler.
void Scratch::remove() {
  while (made_count > 0) {
    made_count = made_count - 1;
    if (unlink(made[made_count]) != 0) rmdir(made[made_count]);
  }
}
