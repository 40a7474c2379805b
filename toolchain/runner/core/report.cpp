#include "report.h"

#include "json.h"

namespace {

constexpr int kSchema = 2;

void describe(Json& json, const char* key, const std::vector<TensorSpec>& specs) {
  json.key(key).open('[');
  for (const auto& spec : specs) {
    json.open('{').key("dtype").value(name_of(spec.type)).key("shape").list(spec.sizes);
    json.close('}');
  }
  json.close(']');
}

void describe(Json& json, const char* key, const Costs& costs, bool counted) {
  json.key(key).open('{').key("wall_ns").list(costs.wall_ns).key("instructions");
  counted ? json.list(costs.instructions) : json.null();
  json.close('}');
}

}  // namespace

std::string report(const Options& options, const Facts& facts, const Program& program,
                   const Measurement& measured, const InstructionCounter& counter) {
  const bool counted = counter.unavailable().empty();
  Json json;
  json.open('{').key("schema").value(kSchema).key("program").value(options.program);
  json.key("libraries").open('[');
  for (const auto& library : options.libraries) json.value(library);
  json.close(']');
  json.key("threads").value(program.threads());
  json.key("cpus");
  facts.cpus ? json.list(*facts.cpus) : json.null();
  json.key("load_ns").value(facts.load_ns);
  json.key("peak_rss_bytes").value(facts.peak_rss_bytes);
  json.key("instructions_unavailable");
  counted ? json.null() : json.value(counter.unavailable());
  describe(json, "inputs", program.inputs());
  describe(json, "outputs", program.outputs());
  describe(json, "samples", measured.samples, counted);
  describe(json, "iterations", measured.iterations, counted);
  json.key("guards");
  if (measured.guards) {
    measured.guards->describe(json);
  } else {
    json.null();
  }
  return json.close('}').text() + "\n";
}
