#include "run/trace.h"

#include <algorithm>

#include "base/error.h"

namespace nibble::run {

void TraceObserver::output(const std::string& module, ConstMatrix y) {
  Rows& rows = seen_[module];
  NIBBLE_CHECK(rows.values.empty() || rows.cols == y.cols, "module {}", module);
  rows.cols = y.cols;
  for (int64_t r = 0; r < y.rows; ++r) rows.values.insert(rows.values.end(), y.row(r), y.row(r) + y.cols);
}

std::map<std::string, Matrix> TraceObserver::take() {
  std::map<std::string, Matrix> out;
  for (const auto& [name, rows] : seen_) {
    if (rows.cols == 0) continue;
    Matrix m(static_cast<int64_t>(rows.values.size()) / rows.cols, rows.cols);
    std::copy(rows.values.begin(), rows.values.end(), m.data());
    out.emplace(name, std::move(m));
  }
  seen_.clear();
  return out;
}

}  // namespace nibble::run
