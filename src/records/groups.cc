#include "records/groups.h"

#include <map>

namespace nibble::records {

std::vector<Group> group_linears(const Inventory& inventory, bool fuse) {
  std::vector<Group> groups;
  std::map<std::string, size_t> index;
  for (size_t i = 0; i < inventory.linears.size(); ++i) {
    const auto& linear = inventory.linears[i];
    const std::string& name = fuse ? linear.group : linear.name;
    const auto [place, added] = index.try_emplace(name, groups.size());
    if (added) groups.push_back({.name = name, .members = {}});
    Group& group = groups[place->second];
    group.members.push_back(i);
    group.bytes16 += linear.bytes16;
    group.bytes4 += linear.bytes4;
  }
  return groups;
}

}  // namespace nibble::records
