// User-space instructions of this process, threads included, counted by the CPU.
#pragma once

#include <cstdint>
#include <string>

// Open it before any thread is started: only threads started later are counted.
class InstructionCounter {
 public:
  InstructionCounter();
  ~InstructionCounter();
  InstructionCounter(const InstructionCounter&) = delete;
  InstructionCounter& operator=(const InstructionCounter&) = delete;

  // Why there is no count; empty when there is one.
  const std::string& unavailable() const { return unavailable_; }

  // The count so far; 0 when unavailable. A failure while measuring makes the counter unavailable,
  // as does a CPU that had to share its counters: an extrapolated count is not a count.
  std::uint64_t read();

 private:
  void give_up(const std::string& reason);

  int descriptor_ = -1;
  std::string unavailable_;
};
