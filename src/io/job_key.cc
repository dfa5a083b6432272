#include "io/job_key.h"

namespace nibble::io {

std::string JobKey::difference(const JobKey& other) const {
  for (size_t i = 0; i < parts.size(); ++i)
    if (i >= other.parts.size() || parts[i] != other.parts[i]) return parts[i].first;
  return parts.size() == other.parts.size() ? "" : "other options";
}

Json to_json(const JobKey& key) {
  Json out = Json::array();
  for (const auto& [what, value] : key.parts) out.push_back({what, value});
  return out;
}

JobKey job_key_from_json(const Json& json) {
  JobKey key;
  for (const Json& part : json)
    key.parts.emplace_back(part.at(0).get<std::string>(), part.at(1).get<std::string>());
  return key;
}

}  // namespace nibble::io
