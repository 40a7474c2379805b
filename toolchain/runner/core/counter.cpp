#include "counter.h"

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace {

std::string explain(int error) {
  switch (error) {
    case EACCES:
    case EPERM:
      return "not permitted (see /proc/sys/kernel/perf_event_paranoid, or the container's seccomp "
             "profile)";
    case ENOENT:
    case ENODEV:
    case EOPNOTSUPP:
      return "this machine has no hardware counter for instructions (a virtual one?)";
    case ENOSYS:
      return "this kernel has no perf_event_open";
    default:
      return std::string("perf_event_open: ") + std::strerror(error);
  }
}

}  // namespace

InstructionCounter::InstructionCounter() {
  perf_event_attr wanted{};
  wanted.size = sizeof wanted;
  wanted.type = PERF_TYPE_HARDWARE;
  wanted.config = PERF_COUNT_HW_INSTRUCTIONS;
  wanted.exclude_kernel = 1;
  wanted.exclude_hv = 1;
  wanted.inherit = 1;
  wanted.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING;
  constexpr int kThisProcess = 0, kAnyCpu = -1, kNoGroup = -1;
  descriptor_ = static_cast<int>(syscall(SYS_perf_event_open, &wanted, kThisProcess, kAnyCpu,
                                         kNoGroup, PERF_FLAG_FD_CLOEXEC));
  if (descriptor_ < 0) {
    give_up(explain(errno));
    return;
  }
  const std::uint64_t before = read();
  if (unavailable_.empty() && read() <= before) {
    give_up("the hardware counter stands still (a virtual machine without one?)");
  }
}

InstructionCounter::~InstructionCounter() {
  if (descriptor_ >= 0) close(descriptor_);
}

std::uint64_t InstructionCounter::read() {
  if (descriptor_ < 0) return 0;
  struct {
    std::uint64_t count, enabled, running;
  } now{};
  if (::read(descriptor_, &now, sizeof now) != sizeof now) {
    give_up("the hardware counter cannot be read");
    return 0;
  }
  if (now.running != now.enabled) {
    give_up("the hardware counter was shared with another user of it, so counts would be guesses");
    return 0;
  }
  return now.count;
}

void InstructionCounter::give_up(const std::string& reason) {
  unavailable_ = reason;
  if (descriptor_ >= 0) close(descriptor_);
  descriptor_ = -1;
}
