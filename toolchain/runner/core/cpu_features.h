// The features of this CPU that a compiled program may need, named as in /proc/cpuinfo.
#pragma once

#include <string>
#include <vector>

// Throws Failure(Status::load) that lists what of `needs` the CPU, or the kernel for it, lacks, and
// Failure(Status::usage) for a name that is not known. Runs on any CPU.
void require_features(const std::vector<std::string>& needs);
