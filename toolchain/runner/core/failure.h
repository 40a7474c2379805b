// How the runner ends when it cannot do its work. The exit statuses are part of its interface.
#pragma once

#include <stdexcept>
#include <string>

enum class Status : int {
  ok = 0,
  usage = 2,      // bad command line
  load = 3,       // the program cannot be loaded: corrupt, kernels missing, CPU features missing
  inference = 4,  // the program was loaded but does not run
  file = 5,       // a file cannot be read or written
};

class Failure : public std::runtime_error {
 public:
  Failure(Status status, const std::string& message)
      : std::runtime_error(message), status_(status) {}

  Status status() const { return status_; }

 private:
  Status status_;
};

// What a library says in several lines, as one of bounded length.
std::string one_line(const std::string& text);
