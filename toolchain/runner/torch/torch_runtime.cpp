// libtorch as the runner knows a runtime: without autograd, and with no pool between operators.
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <chrono>

#include "failure.h"
#include "profiler.h"
#include "runtime.h"
#include "torch_program.h"

namespace runtime {

void start(unsigned threads, const std::vector<std::string>& libraries) {
  if (!libraries.empty()) {
    throw Failure(Status::load, "a library cannot be loaded: this runtime takes none");
  }
  [[maybe_unused]] static const auto* const for_all_of_this_thread = new c10::InferenceMode;
  at::set_num_interop_threads(1);
  if (threads != 0) at::set_num_threads(static_cast<int>(threads));
  const auto got = static_cast<unsigned>(at::get_num_threads());
  if (threads != 0 && got != threads) {
    throw Failure(Status::load, "the runtime gives " + std::to_string(got) + " threads, not the " +
                                    std::to_string(threads) + " of --threads");
  }
}

std::unique_ptr<Program> load(const std::string& path, const std::string& scratch) {
  return std::make_unique<TorchProgram>(path, scratch);
}

std::string profile(const std::string& path, const std::string& scratch,
                    const std::vector<std::byte>& sample) {
  TorchProgram program(path, scratch);
  program.set_inputs(sample.data());
  program.execute();  // the first one prepares what the later ones find
  program.set_inputs(sample.data());
  const Profiler profiler;
  const auto start = std::chrono::steady_clock::now();
  program.execute();
  const auto whole = std::chrono::steady_clock::now() - start;
  return profiler.text(static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(whole).count()));
}

const char* last_message() { return ""; }

}  // namespace runtime
