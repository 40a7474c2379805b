// What runs programs: the functions that the folder of each runtime defines, and all that the core
// knows of it. They are called in this order, on one thread.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "program.h"

namespace runtime {

// Start with `threads` (0: the runtime's choice). libraries: kernels to load before any program.
// Throws Failure(Status::load), also if a program would have another number of threads.
void start(unsigned threads, const std::vector<std::string>& libraries);

// path: the program. scratch: a folder in which files may be made while it is loaded.
// Throws Failure(Status::load), or Failure(Status::file) for files of the machine's.
std::unique_ptr<Program> load(const std::string& path, const std::string& scratch);

// One inference of `sample` (inputs in C order), observed: what a file of the profile holds.
// A program of its own, since who is observed is slower.
std::string profile(const std::string& path, const std::string& scratch,
                    const std::vector<std::byte>& sample);

// What the runtime last said of an error, for a signal handler: a C string that always exists.
const char* last_message();

}  // namespace runtime
