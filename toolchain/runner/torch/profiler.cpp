#include "profiler.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <vector>

#include "json.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kSchema = 1;

struct Total {
  std::uint64_t calls = 0, ns = 0;
};

// An operator may call others: each is charged with its own time only, so that sums are true.
struct Call final : at::ObserverContext {
  explicit Call(Call* caller) : outer(caller) {}

  Call* outer;
  std::uint64_t inner_ns = 0;
  Clock::time_point start = Clock::now();
};

std::map<std::string, Total> totals;
Call* current = nullptr;

std::unique_ptr<at::ObserverContext> enter(const at::RecordFunction&) {
  auto call = std::make_unique<Call>(current);
  current = call.get();
  return call;
}

void leave(const at::RecordFunction& function, at::ObserverContext* context) {
  const auto* call = static_cast<Call*>(context);
  const auto ns = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - call->start).count());
  Total& total = totals[function.name()];
  ++total.calls;
  total.ns += ns - std::min(ns, call->inner_ns);
  current = call->outer;
  if (current != nullptr) current->inner_ns += ns;
}

void add(Json& json, const std::string& name, const char* type, const Total& total) {
  json.open('{').key("name").value(name).key("type").value(type);
  json.key("calls").value(total.calls).key("ns").value(total.ns).close('}');
}

}  // namespace

Profiler::Profiler() {
  totals.clear();
  current = nullptr;
  handle_ = at::addThreadLocalCallback(
      at::RecordFunctionCallback(enter, leave)
          .scopes({at::RecordScope::FUNCTION, at::RecordScope::USER_SCOPE}));
}

Profiler::~Profiler() { at::removeCallback(handle_); }

std::string Profiler::text(std::uint64_t whole_ns) const {
  std::uint64_t known = 0;
  Json json;
  json.open('{').key("schema").value(kSchema).key("operators").open('[');
  for (const auto& [name, total] : totals) {
    known += total.ns;
    // `aten::…` and calls of its C interface are libtorch's; the rest is the program's own code.
    const bool library = name.find("::") != name.npos || name.starts_with("aoti_torch_");
    add(json, name, library ? "library" : "compiled", total);
  }
  add(json, "not told of", "rest", {1, whole_ns - std::min(whole_ns, known)});
  return json.close(']').close('}').text() + "\n";
}
