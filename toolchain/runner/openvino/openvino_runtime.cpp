// OpenVINO as the runner knows a runtime: its CPU plugin, one inference at a time.
#include <chrono>
#include <string>

#include "failure.h"
#include "json.h"
#include "openvino_program.h"
#include "runtime.h"

namespace runtime {

namespace {

constexpr int kSchema = 1;
constexpr int kRuns = 10;  // times are means over all of them, and the first one is a cold one
unsigned wanted_threads = 0;

}  // namespace

// Threads are given to each program, so they are only noted here.
void start(unsigned threads, const std::vector<std::string>& libraries) {
  if (!libraries.empty()) {
    throw Failure(Status::load, "a library cannot be loaded: this runtime takes none");
  }
  wanted_threads = threads;
}

std::unique_ptr<Program> load(const std::string& path, const std::string&) {
  return std::make_unique<OpenvinoProgram>(path, wanted_threads);
}

std::string profile(const std::string& path, const std::string&,
                    const std::vector<std::byte>& sample) {
  OpenvinoProgram program(path, wanted_threads, true);
  for (int i = 0; i < kRuns; ++i) {
    program.set_inputs(sample.data());
    program.execute();
  }
  Json json;
  json.open('{').key("schema").value(kSchema).key("operators").open('[');
  for (const auto& node : program.profile()) {
    if (node.status != ov::ProfilingInfo::Status::EXECUTED) continue;
    json.open('{').key("name").value(node.node_name);
    json.key("type").value(node.node_type + " (" + node.exec_type + ")").key("calls").value(1);
    json.key("ns").value(std::chrono::nanoseconds(node.real_time).count()).close('}');
  }
  return json.close(']').close('}').text() + "\n";
}

const char* last_message() { return ""; }

}  // namespace runtime
