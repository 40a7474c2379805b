#include "crash.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>

#include "runtime.h"

namespace {

std::atomic<const char*> current = "starting";
std::atomic<Status> status = Status::load;
std::atomic<void (*)()> tidy_up = nullptr;
alignas(16) char stack[65536];  // of the handler: the crash may be an exhausted stack

void say(const char* text) {
  [[maybe_unused]] const ssize_t ignored = write(STDERR_FILENO, text, std::strlen(text));
}

const char* name(int number) {
  switch (number) {
    case SIGSEGV: return "SIGSEGV";
    case SIGBUS: return "SIGBUS";
    case SIGILL: return "SIGILL";
    case SIGFPE: return "SIGFPE";
    default: return "SIGABRT";
  }
}

// Only calls that are safe in a signal handler.
void crashed(int number) {
  say("runner: the runtime crashed (");
  say(name(number));
  say(") while ");
  say(current);
  say(number == SIGILL ? ": this CPU lacks an instruction that it uses"
                       : ": the program is corrupt, or does not suit this runtime");
  if (*runtime::last_message() != '\0') {
    say("; its last error: ");
    say(runtime::last_message());
  }
  say("\n");
  if (const auto tidy = tidy_up.exchange(nullptr)) tidy();
  _exit(static_cast<int>(status.load()));
}

}  // namespace

void watch_crashes() {
  stack_t handler_stack{};
  handler_stack.ss_sp = stack;
  handler_stack.ss_size = sizeof stack;
  sigaltstack(&handler_stack, nullptr);
  struct sigaction action {};
  action.sa_handler = crashed;
  action.sa_flags = SA_ONSTACK;
  for (const int number : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) {
    sigaction(number, &action, nullptr);
  }
}

void now(Status if_it_crashes, const char* doing) {
  status = if_it_crashes;
  current = doing;
}

void on_crash(void (*tidy)()) { tidy_up = tidy; }
