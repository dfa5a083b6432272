// nibble's own threads. Work is cut into pieces by shape alone, never by the number of threads, so that
// results are the same bits for any number of them.
#pragma once

#include <cstdint>
#include <functional>

namespace nibble {

/// The number of threads that parallel_for may use; the default is what the process may run on.
int num_threads();

/// Sets the number of threads (at least 1). Waits for a running parallel_for; InternalError inside a task.
void set_num_threads(int n);

/// Calls task(i) once for each i in [0, n), on several threads in no set order, and returns when all are
/// done. Tasks must write to places of their own. The first exception (of the lowest i) is rethrown, and
/// tasks that have not begun by then are left out. A call made inside one of several tasks runs serially.
/// OpenMP regions entered by a task use one thread. Calls from several threads at once take turns; a task
/// must not wait for another thread that calls parallel_for.
void parallel_for(int64_t n, const std::function<void(int64_t)>& task);

/// The same over [0, n) cut into ranges of `grain` (the last may be shorter): task(begin, end).
void parallel_ranges(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& task);

}  // namespace nibble
