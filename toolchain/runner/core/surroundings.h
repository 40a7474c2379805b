// Where this process runs and what it finds there: its CPUs and its environment.
#pragma once

#include <string>
#include <utility>
#include <vector>

// Keep this process, and the threads that it will start, on the last `count` CPUs that it may use
// (on all of them if they are fewer), and return their numbers in order.
// Throws Failure(Status::load) if the kernel refuses.
std::vector<int> keep_to_last_cpus(unsigned count);

// Let the environment hold `wanted`. Libraries read theirs when they are loaded, before `main`: if
// something changes, this program starts again, as the same process with the same arguments.
void start_with(const std::vector<std::pair<std::string, std::string>>& wanted, char** argv);
