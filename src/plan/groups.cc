#include "plan/groups.h"

#include <map>

namespace nibble::plan {
namespace {

double at_most_largest(double error) {
  return error <= kLargestError ? error : kLargestError;
}

}  // namespace

std::vector<Group> group_linears(const records::Inventory& inventory) {
  std::vector<Group> groups;
  std::map<std::string, size_t> index;
  for (size_t i = 0; i < inventory.linears.size(); ++i) {
    const auto& linear = inventory.linears[i];
    const auto [place, added] = index.try_emplace(linear.group, groups.size());
    if (added) groups.push_back({.name = linear.group, .members = {}});
    Group& group = groups[place->second];
    group.members.push_back(i);
    group.bytes16 += linear.bytes16;
    group.bytes4 += linear.bytes4;
  }
  return groups;
}

SeenError weight_error(const records::LinearErrors& errors) {
  return {at_most_largest(errors.weight), "weight"};
}

SeenError activation_error(const records::LinearErrors& errors) {
  SeenError worst;
  for (const auto modality : records::kModalities) {
    const auto& activation = errors.activation[static_cast<size_t>(modality)];
    const double error = at_most_largest(activation.relative());
    if (activation.rows > 0 && (worst.where.empty() || error > worst.error))
      worst = {error, std::string(records::modality_name(modality))};
  }
  return worst;
}

SeenError expected_error(const records::LinearErrors& errors) {
  const SeenError seen = activation_error(errors);
  return seen.where.empty() ? weight_error(errors) : seen;
}

}  // namespace nibble::plan
