#include "measure.h"

#include <chrono>
#include <string>

#include "failure.h"

// The measured region. Reading the counter comes first and last, so that the clock is not in it.
void Measurement::infer(Costs& costs) {
  using Clock = std::chrono::steady_clock;
  program_.set_inputs(sample_.data());
  const auto start = Clock::now();
  const std::uint64_t before = counter_.read();
  program_.execute();
  const std::uint64_t after = counter_.read();
  const auto elapsed = Clock::now() - start;
  costs.wall_ns.push_back(static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count()));
  costs.instructions.push_back(after - before);
}

void Measurement::evaluate(std::size_t count, OutputFile& outputs) {
  samples = Costs(count);
  std::vector<std::byte> result;
  std::vector<TensorSpec> shapes;
  for (std::size_t i = 0; i < count; ++i) {
    inputs_.read(sample_.data(), sample_.size(), i * sample_.size());
    infer(samples);
    result.clear();
    program_.append_outputs(result);
    if (i == 0) shapes = program_.outputs();
    if (program_.outputs() != shapes) {
      throw Failure(Status::inference, "the shape of the outputs changed from sample 0 to sample " +
                                           std::to_string(i) + "; that is not supported");
    }
    outputs.write(result.data(), result.size());
  }
}

void Measurement::repeat(unsigned warmup, unsigned count) {
  if (warmup + count == 0) return;
  inputs_.read(sample_.data(), sample_.size(), 0);
  Costs unmeasured(warmup);
  iterations = Costs(count);
  if (count > 0) guards.emplace();
  for (unsigned i = 0; i + 1 < warmup; ++i) infer(unmeasured);
  if (guards) guards->start();  // it too leaves cold caches, for the last of the warm-up
  if (warmup > 0) infer(unmeasured);
  for (unsigned i = 0; i < count; ++i) infer(iterations);
  if (guards) guards->finish();
}
