// ExecuTorch as the runner knows a runtime.
#include <dlfcn.h>
#include <executorch/devtools/etdump/etdump_flatcc.h>
#include <executorch/runtime/platform/runtime.h>

#include <cstdlib>

#include "executorch_program.h"
#include "failure.h"
#include "runtime.h"
#include "runtime_log.h"
#include "threads.h"

namespace runtime {

void start(unsigned threads, const std::vector<std::string>& libraries) {
  executorch::runtime::runtime_init();
  watch_runtime_log();
  use_threads(threads);
  for (const auto& library : libraries) {
    if (dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
      throw Failure(Status::load, std::string("a library cannot be loaded: ") + dlerror());
    }
  }
}

std::unique_ptr<Program> load(const std::string& path, const std::string&) {
  return std::make_unique<ExecutorchProgram>(path);
}

// An ETDump.
std::string profile(const std::string& path, const std::string&,
                    const std::vector<std::byte>& sample) {
  auto owned = std::make_unique<executorch::etdump::ETDumpGen>();
  auto& tracer = *owned;
  ExecutorchProgram program(path, std::move(owned));
  program.set_inputs(sample.data());
  program.execute();
  const auto dump = tracer.get_etdump_data();
  const std::unique_ptr<void, decltype(&std::free)> memory(dump.buf, &std::free);
  if (dump.buf == nullptr) throw Failure(Status::inference, "the runtime gave no ETDump");
  return {static_cast<const char*>(dump.buf), dump.size};
}

const char* last_message() { return last_runtime_message(); }

}  // namespace runtime
