// The command line.
#pragma once

#include <string>
#include <vector>

struct Options {
  std::string program;
  std::string inputs;
  std::string outputs;
  std::string etdump;                  // empty: no ETDump
  std::vector<std::string> libraries;  // kernels, loaded before the program
  unsigned threads = 0;                // 0: what the runtime chooses
  unsigned warmup = 0;
  unsigned iterations = 0;
};

// Throws Failure(Status::usage).
Options parse(int argc, char** argv);
