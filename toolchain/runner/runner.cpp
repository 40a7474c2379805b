// Runs a program on a file of samples, and measures what an inference costs.
//
//   runner --program program.pte --inputs inputs.bin --outputs outputs.bin [--threads N]
//          [--warmup N] [--iterations N] [--load-library lib/x.so]... [--etdump FILE]
//
//   load ── evaluation pass ─────── cost pass ──────────────────── profile ── report
//           each sample once,       the first sample: warm-up,     ETDump     JSON on
//           outputs to the file     then measured iterations       if wanted  stdout
//
// inputs.bin: for each sample its input tensors, one after the other: raw bytes, C order, little
// endian. outputs.bin: the same of the outputs. Exit statuses: failure.h.

#include <dlfcn.h>
#include <executorch/devtools/etdump/etdump_flatcc.h>
#include <executorch/runtime/platform/runtime.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "counter.h"
#include "crash.h"
#include "failure.h"
#include "files.h"
#include "json.h"
#include "options.h"
#include "program.h"
#include "runtime_log.h"
#include "threads.h"

namespace {

constexpr int kSchema = 1;

using Clock = std::chrono::steady_clock;

std::uint64_t since(Clock::time_point start) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
}

// One number per inference.
struct Costs {
  std::vector<std::uint64_t> wall_ns, instructions;

  explicit Costs(std::size_t count) {
    wall_ns.reserve(count);
    instructions.reserve(count);
  }
};

struct Report {
  unsigned threads = 0;
  std::uint64_t load_ns = 0;
  std::uint64_t peak_rss_bytes = 0;
  Costs samples{0}, iterations{0};
};

void load_library(const std::string& path) {
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    throw Failure(Status::load, std::string("a library cannot be loaded: ") + dlerror());
  }
}

std::size_t count_samples(const InputFile& inputs, const std::string& path, std::size_t sample) {
  if (sample == 0) throw Failure(Status::load, "the program takes no input");
  if (inputs.size() == 0 || inputs.size() % sample != 0) {
    throw Failure(Status::file, path + ": " + std::to_string(inputs.size()) +
                                    " bytes are no whole number of samples of " +
                                    std::to_string(sample) + " bytes");
  }
  return inputs.size() / sample;
}

// The measured region. Reading the counter comes first and last, so that the clock is not in it.
void infer(Program& program, InstructionCounter& counter, Costs& costs) {
  const auto start = Clock::now();
  const std::uint64_t before = counter.read();
  const auto error = program.execute();
  const std::uint64_t after = counter.read();
  const std::uint64_t elapsed = since(start);
  program.check(error);
  costs.wall_ns.push_back(elapsed);
  costs.instructions.push_back(after - before);
}

Costs evaluate(Program& program, const InputFile& inputs, std::size_t count, OutputFile& outputs,
               InstructionCounter& counter) {
  Costs costs(count);
  std::vector<std::byte> sample(program.sample_bytes()), result;
  std::vector<TensorSpec> shapes;
  for (std::size_t i = 0; i < count; ++i) {
    inputs.read(sample.data(), sample.size(), i * sample.size());
    program.set_inputs(sample.data());
    infer(program, counter, costs);
    result.clear();
    program.append_outputs(result);
    if (i == 0) shapes = program.outputs();
    if (program.outputs() != shapes) {
      throw Failure(Status::inference, "the shape of the outputs changed from sample 0 to sample " +
                                           std::to_string(i) + "; that is not supported");
    }
    outputs.write(result.data(), result.size());
  }
  return costs;
}

Costs repeat(Program& program, const InputFile& inputs, const Options& options,
             InstructionCounter& counter) {
  std::vector<std::byte> sample(program.sample_bytes());
  inputs.read(sample.data(), sample.size(), 0);
  Costs warmup(options.warmup), costs(options.iterations);
  for (unsigned i = 0; i < options.warmup + options.iterations; ++i) {
    program.set_inputs(sample.data());
    infer(program, counter, i < options.warmup ? warmup : costs);
  }
  return costs;
}

// A pass of its own: a tracer would be measured too.
void profile(const Options& options, const InputFile& inputs) {
  auto owned = std::make_unique<executorch::etdump::ETDumpGen>();
  auto& tracer = *owned;
  Program program(options.program, std::move(owned));
  std::vector<std::byte> sample(program.sample_bytes());
  inputs.read(sample.data(), sample.size(), 0);
  program.set_inputs(sample.data());
  program.check(program.execute());
  const auto dump = tracer.get_etdump_data();
  const std::unique_ptr<void, decltype(&std::free)> memory(dump.buf, &std::free);
  if (dump.buf == nullptr) throw Failure(Status::inference, "the runtime gave no ETDump");
  OutputFile file(options.etdump);
  file.write(dump.buf, dump.size);
  file.keep();
}

// Not getrusage: its figure starts at that of the process which started this one.
std::uint64_t peak_rss_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  }
  throw Failure(Status::file, "/proc/self/status: holds no VmHWM");
}

void describe(Json& json, const char* key, const std::vector<TensorSpec>& specs) {
  json.key(key).open('[');
  for (const auto& spec : specs) {
    json.open('{').key("dtype").value(dtype_name(spec.type)).key("shape").list(spec.sizes);
    json.close('}');
  }
  json.close(']');
}

void describe(Json& json, const char* key, const Costs& costs, bool counted) {
  json.key(key).open('{').key("wall_ns").list(costs.wall_ns).key("instructions");
  counted ? json.list(costs.instructions) : json.null();
  json.close('}');
}

std::string text(const Report& report, const Program& program, const Options& options,
                 const InstructionCounter& counter) {
  const bool counted = counter.unavailable().empty();
  Json json;
  json.open('{').key("schema").value(kSchema).key("program").value(options.program);
  json.key("libraries").open('[');
  for (const auto& library : options.libraries) json.value(library);
  json.close(']');
  json.key("threads").value(report.threads);
  json.key("load_ns").value(report.load_ns);
  json.key("peak_rss_bytes").value(report.peak_rss_bytes);
  json.key("instructions_unavailable");
  counted ? json.null() : json.value(counter.unavailable());
  describe(json, "inputs", program.inputs());
  describe(json, "outputs", program.outputs());
  describe(json, "samples", report.samples, counted);
  describe(json, "iterations", report.iterations, counted);
  return json.close('}').text() + "\n";
}

void run(const Options& options) {
  InstructionCounter counter;  // before the first thread
  Report report;
  now(Status::load, "loading the program");
  executorch::runtime::runtime_init();
  watch_runtime_log();
  report.threads = use_threads(options.threads);
  for (const auto& library : options.libraries) load_library(library);

  const auto start = Clock::now();
  Program program(options.program);
  report.load_ns = since(start);

  const InputFile inputs(options.inputs);
  const std::size_t count = count_samples(inputs, options.inputs, program.sample_bytes());
  OutputFile outputs(options.outputs);
  now(Status::inference, "running the program");
  report.samples = evaluate(program, inputs, count, outputs, counter);
  report.iterations = repeat(program, inputs, options, counter);
  report.peak_rss_bytes = peak_rss_bytes();
  if (!options.etdump.empty()) profile(options, inputs);

  outputs.keep();
  const std::string json = text(report, program, options, counter);
  write_all(STDOUT_FILENO, "the report on stdout", json.data(), json.size());
}

}  // namespace

int main(int argc, char** argv) {
  Status status = Status::ok;
  std::string last;
  watch_crashes();
  try {
    run(parse(argc, argv));
  } catch (const Failure& failure) {
    status = failure.status();
    last = failure.what();
  } catch (const std::exception& error) {  // out of memory, for one
    status = Status::inference;
    last = error.what();
  }
  if (status != Status::ok) std::fprintf(stderr, "runner: %s\n", last.c_str());
  return static_cast<int>(status);
}
