// What is written for each tensor of the source.
#pragma once

#include <vector>

#include "records/plan.h"
#include "write/stream.h"

namespace nibble::write {

/// The linears that stay as they are, in the order of the forward pass. Checks that plan and source belong
/// together. A weight that is not finite cannot be rounded: where that is allowed, it stays, and the plan is
/// told. Throws Error.
std::vector<const model::Linear*> kept_linears(const model::Binding& source, records::Plan& plan,
                                               bool allow_nonfinite);

/// An item for every tensor of the source, by the bytes of their names.
std::vector<Item> plan_items(const model::Binding& source, const std::vector<const model::Linear*>& kept,
                             const records::Plan& plan);

/// The end of the shard that begins with item `begin`: as many items as fit into max_bytes, at least one.
/// Items whose length could decide it are made exact by `look`.
size_t shard_end(std::vector<Item>& items, size_t begin, int64_t max_bytes,
                 const std::function<void(Item&)>& look);

}  // namespace nibble::write
