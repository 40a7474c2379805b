// Runs a program on a file of samples, and measures what an inference costs.
//
//   runner --program program.pte --inputs inputs.bin --outputs outputs.bin [--threads N] [--pin 0|1]
//          [--warmup N] [--iterations N] [--load-library lib/x.so]... [--profile FILE]
//          [--needs avx2,fma] [--set NAME=VALUE]...
//
//   CPU features ── environment ── load ── evaluation pass ── cost pass ─────────── profile ── report
//   are there?      and CPUs               each sample once,  the first sample:     if wanted  JSON on
//                                          outputs to the     warm-up, measured                stdout
//                                          file               iterations in guards
//
// inputs.bin: for each sample its input tensors, one after the other: raw bytes, C order, little
// endian. outputs.bin: the same of the outputs. Exit statuses: failure.h. The program is one of
// the runtime that this was compiled with: runtime.h.

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <string>
#include <vector>

#include "counter.h"
#include "cpu_features.h"
#include "crash.h"
#include "failure.h"
#include "files.h"
#include "measure.h"
#include "options.h"
#include "report.h"
#include "runtime.h"
#include "surroundings.h"

namespace {

std::size_t count_samples(const InputFile& inputs, const std::string& path, std::size_t sample) {
  if (sample == 0) throw Failure(Status::load, "the program takes no input");
  if (inputs.size() == 0 || inputs.size() % sample != 0) {
    throw Failure(Status::file, path + ": " + std::to_string(inputs.size()) +
                                    " bytes are no whole number of samples of " +
                                    std::to_string(sample) + " bytes");
  }
  return inputs.size() / sample;
}

// Not getrusage: its figure starts at that of the process which started this one.
std::uint64_t peak_rss_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  }
  throw Failure(Status::file, "/proc/self/status: holds no VmHWM");
}

// The outputs are written there, so that a folder beside them can be made too.
std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == path.npos ? "." : path.substr(0, slash + 1);
}

void run(const Options& options, Facts& facts) {
  InstructionCounter counter;  // before the first thread
  const std::string scratch = folder_of(options.outputs);
  now(Status::load, "loading the program");
  runtime::start(options.threads, options.libraries);

  const auto start = std::chrono::steady_clock::now();
  const auto program = runtime::load(options.program, scratch);
  const auto elapsed = std::chrono::steady_clock::now() - start;
  facts.load_ns = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count());

  const InputFile inputs(options.inputs);
  const std::size_t sample_bytes = nbytes(program->inputs());
  const std::size_t count = count_samples(inputs, options.inputs, sample_bytes);
  OutputFile outputs(options.outputs);
  now(Status::inference, "running the program");
  Measurement measured(*program, inputs, counter);
  measured.evaluate(count, outputs);
  measured.repeat(options.warmup, options.iterations);
  facts.peak_rss_bytes = peak_rss_bytes();

  if (!options.profile.empty()) {
    std::vector<std::byte> sample(sample_bytes);
    inputs.read(sample.data(), sample.size(), 0);
    const std::string profile = runtime::profile(options.program, scratch, sample);
    OutputFile file(options.profile);
    file.write(profile.data(), profile.size());
    file.keep();
  }
  outputs.keep();
  const std::string text = report(options, facts, *program, measured, counter);
  write_all(STDOUT_FILENO, "the report on stdout", text.data(), text.size());
}

}  // namespace

int main(int argc, char** argv) {
  Status status = Status::ok;
  std::string last;
  watch_crashes();
  try {
    const Options options = parse(argc, argv);
    Facts facts;
    require_features(options.needs);
    if (options.pin) facts.cpus = keep_to_last_cpus(options.threads);
    start_with(options.environment, argv);
    run(options, facts);
  } catch (const Failure& failure) {
    status = failure.status();
    last = failure.what();
  } catch (const std::exception& error) {  // out of memory, for one
    status = Status::inference;
    last = one_line(error.what());
  }
  if (status != Status::ok) std::fprintf(stderr, "runner: %s\n", last.c_str());
  return static_cast<int>(status);
}
