#include "base/threads.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"

namespace nibble {
namespace {

thread_local bool inside_task = false;

/// Gives the calling thread's OpenMP regions one thread, and what they had before when it goes.
class SingleOpenMp {
 public:
  SingleOpenMp() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~SingleOpenMp() { omp_set_num_threads(before_); }
  SingleOpenMp(const SingleOpenMp&) = delete;
  SingleOpenMp& operator=(const SingleOpenMp&) = delete;

 private:
  int before_;
};

int cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

/// Waits for a condition without sleeping, but not for long: waking a thread takes longer than most of what
/// lies between two jobs of a forward pass. True once it holds.
template <typename Condition>
bool spin_until(Condition holds) {
  using Clock = std::chrono::steady_clock;
  constexpr auto kLongest = std::chrono::microseconds(50);
  constexpr int kChecks = 32;  // for each look at the clock
  const Clock::time_point start = Clock::now();
  do {
    for (int i = 0; i < kChecks; ++i) {
      if (holds()) return true;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  } while (Clock::now() - start < kLongest);
  return false;
}

/// Workers that sleep between jobs that do not follow each other at once. The calling thread takes part in
/// every job. Where the system grants fewer threads than asked for, the pool is smaller: results do not
/// depend on its size.
class Pool {
 public:
  explicit Pool(int threads) : spins_(threads <= cores()) {
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { serve(); });
    } catch (const std::system_error&) {
    }
  }

  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (auto& w : workers_) w.join();
  }

  void run(int64_t n, const std::function<void(int64_t)>& task) {
    std::unique_lock lock(mutex_);
    task_ = &task;
    n_ = n;
    next_.store(0, std::memory_order_relaxed);
    failed_at_ = std::numeric_limits<int64_t>::max();
    failure_ = nullptr;
    busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    job_.fetch_add(1, std::memory_order_release);
    const bool sleepers = sleeping_ > 0;
    lock.unlock();
    if (sleepers) wake_.notify_all();
    work();
    const auto finished = [this] { return busy_.load(std::memory_order_acquire) == 0; };
    const bool seen = spins_ && spin_until(finished);
    lock.lock();
    if (!seen) done_.wait(lock, finished);
    task_ = nullptr;
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  void serve() {
    omp_set_num_threads(1);
    uint64_t seen = 0;
    const auto called = [&] { return job_.load(std::memory_order_acquire) != seen || stop_; };
    while (true) {
      if (!spins_ || !spin_until(called)) {
        std::unique_lock lock(mutex_);
        ++sleeping_;
        wake_.wait(lock, called);
        --sleeping_;
      }
      if (stop_) return;
      ++seen;
      work();
      if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        std::lock_guard lock(mutex_);  // the caller is asleep by now, or will see that all are done
        done_.notify_one();
      }
    }
  }

  void work() {
    inside_task = true;
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < n_;) {
      try {
        (*task_)(i);
      } catch (...) {
        // Lower i have all been handed out already; higher ones are not needed any more.
        next_.store(n_, std::memory_order_relaxed);
        std::lock_guard lock(mutex_);
        if (i < failed_at_) {
          failed_at_ = i;
          failure_ = std::current_exception();
        }
      }
    }
    inside_task = false;
  }

  const bool spins_;  // a thread that waits takes no core from one that works
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> workers_;
  const std::function<void(int64_t)>* task_ = nullptr;
  int64_t n_ = 0;
  std::atomic<int64_t> next_{0};
  int64_t failed_at_ = 0;
  std::exception_ptr failure_;
  std::atomic<int> busy_ = 0;      // workers that are not done with the job
  std::atomic<uint64_t> job_ = 0;  // its number
  int sleeping_ = 0;
  std::atomic<bool> stop_ = false;
};

std::mutex pool_mutex;
std::unique_ptr<Pool> pool;
std::atomic<int> wanted_threads = 0;  // 0: not asked for yet

}  // namespace

int num_threads() {
  static const int available = cores();
  const int wanted = wanted_threads;
  return wanted == 0 ? available : wanted;
}

void set_num_threads(int n) {
  NIBBLE_CHECK(n >= 1, "set_num_threads({})", n);
  NIBBLE_CHECK(!inside_task, "set_num_threads inside a task");
  std::lock_guard lock(pool_mutex);
  wanted_threads = n;
  pool.reset();
}

void parallel_for(int64_t n, const std::function<void(int64_t)>& task) {
  if (n <= 0) return;
  const int threads = inside_task ? 1 : num_threads();
  const SingleOpenMp single;
  if (threads == 1 || n == 1) {
    for (int64_t i = 0; i < n; ++i) task(i);
    return;
  }
  std::lock_guard lock(pool_mutex);
  if (!pool) pool = std::make_unique<Pool>(threads);
  pool->run(n, task);
}

void parallel_ranges(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& task) {
  NIBBLE_CHECK(grain > 0);
  if (n <= 0) return;
  parallel_for((n - 1) / grain + 1, [&](int64_t i) {
    const int64_t begin = i * grain;
    task(begin, begin + std::min(grain, n - begin));
  });
}

}  // namespace nibble
