// What an interrupted run's files are of, so that they are never mixed with another's.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "io/json.h"

namespace nibble::io {

/// What a run writes depends on: two runs with equal keys write the same bytes. Each part has the words that
/// say that it differs ("another plan") and its value.
struct JobKey {
  std::vector<std::pair<std::string, std::string>> parts;

  /// In words, the first thing that differs from another run's key; "" when all are equal.
  std::string difference(const JobKey& other) const;
};

Json to_json(const JobKey& key);
/// Throws Json::exception for what is no key.
JobKey job_key_from_json(const Json& json);

}  // namespace nibble::io
