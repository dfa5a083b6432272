// Records the output of every module of a forward pass: the tool of whoever ports a family.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "run/block.h"

namespace nibble::run {

/// Keeps every output by its module's published name; outputs of one module are joined, rows after rows.
class TraceObserver : public Observer {
 public:
  void output(const std::string& module, ConstMatrix y) override;

  /// (rows, features) of every module seen, by name.
  std::map<std::string, Matrix> take();

 private:
  struct Rows {
    int64_t cols = 0;
    std::vector<float> values;
  };
  std::map<std::string, Rows> seen_;
};

}  // namespace nibble::run
