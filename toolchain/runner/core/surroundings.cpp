#include "surroundings.h"

#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "failure.h"

std::vector<int> keep_to_last_cpus(unsigned count) {
  cpu_set_t allowed, kept;
  CPU_ZERO(&allowed);
  CPU_ZERO(&kept);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
    throw Failure(Status::load, std::string("--pin: the CPUs of this process cannot be read: ") +
                                    std::strerror(errno));
  }
  std::vector<int> cpus;
  for (int cpu = CPU_SETSIZE; cpu-- > 0 && cpus.size() < count;) {
    if (CPU_ISSET(static_cast<unsigned>(cpu), &allowed)) cpus.insert(cpus.begin(), cpu);
  }
  if (cpus.size() < count) {
    throw Failure(Status::usage, "--pin: this process may use " + std::to_string(cpus.size()) +
                                     " CPUs, not the " + std::to_string(count) + " of --threads");
  }
  for (const int cpu : cpus) CPU_SET(static_cast<unsigned>(cpu), &kept);
  if (sched_setaffinity(0, sizeof kept, &kept) != 0) {
    throw Failure(Status::load, std::string("--pin: the kernel refuses: ") + std::strerror(errno));
  }
  return cpus;
}

void start_with(const std::vector<std::pair<std::string, std::string>>& wanted, char** argv) {
  bool changed = false;
  for (const auto& [name, value] : wanted) {
    const char* present = std::getenv(name.c_str());
    if (present != nullptr && std::string_view(present) == value) continue;
    if (setenv(name.c_str(), value.c_str(), 1) != 0) {
      throw Failure(Status::usage, "--set " + name + ": " + std::strerror(errno));
    }
    changed = true;
  }
  if (!changed) return;
  execv("/proc/self/exe", argv);
  throw Failure(Status::load, std::string("--set: this program cannot start again: ") +
                                  std::strerror(errno));
}
