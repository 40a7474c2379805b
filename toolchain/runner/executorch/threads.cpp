#include "threads.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "failure.h"

// ExecuTorch exports these from libexecutorch_threadpool.so, but its wheels lack the header
// (extension/threadpool/threadpool.h). The functions are not virtual and the object is the
// library's own, so that the class needs no members here.
namespace executorch::extension::threadpool {
class ThreadPool final {
 public:
  std::size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(std::uint32_t count);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

void use_threads(unsigned wanted) {
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool == nullptr) return;
  if (wanted != 0 && pool->get_thread_count() != wanted) pool->_unsafe_reset_threadpool(wanted);
  const unsigned got = threads_in_use();
  if (wanted != 0 && got != wanted) {
    throw Failure(Status::load, "the runtime gives " + std::to_string(got) + " threads, not the " +
                                    std::to_string(wanted) + " of --threads");
  }
}

unsigned threads_in_use() {
  const auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool == nullptr) return 1;  // the runtime does not know this CPU: it works without a pool
  return static_cast<unsigned>(pool->get_thread_count());
}
