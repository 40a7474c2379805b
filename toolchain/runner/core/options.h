// The command line.
#pragma once

#include <string>
#include <utility>
#include <vector>

struct Options {
  std::string program;
  std::string inputs;
  std::string outputs;
  std::string profile;                                          // empty: none
  std::vector<std::string> libraries;                           // kernels, loaded before the program
  std::vector<std::string> needs;                               // CPU features
  std::vector<std::pair<std::string, std::string>> environment;  // of the runtime
  unsigned threads = 0;                                         // 0: what the runtime chooses
  unsigned warmup = 0;
  unsigned iterations = 0;
  bool pin = false;
};

// Throws Failure(Status::usage).
Options parse(int argc, char** argv);
