#include "write/items.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.h"
#include "write/layouts/bitsandbytes.h"

namespace nibble::write {
namespace {

bool holds_nonfinite(const model::Binding& source, const model::Linear& linear) {
  Tensor buffer;
  const bool found = quant::find_nonfinite(source.weight(linear, buffer)).has_value();
  source.drop(linear);
  return found;
}

}  // namespace

std::vector<const model::Linear*> kept_linears(const model::Binding& source, records::Plan& plan,
                                               bool allow_nonfinite) {
  std::map<std::string, records::Decision*> decisions;
  for (records::Decision& d : plan.decisions) decisions[d.name] = &d;
  std::vector<const model::Linear*> out;
  std::map<std::string, std::pair<bool, std::string>> groups;  // of each: the decision on its first member
  const auto linears = model::linears(source.spec());
  for (const model::Linear* l : linears) {
    const auto it = decisions.find(l->name);
    if (it == decisions.end())
      fail("the plan (made for {}) says nothing about {} of {}; make a plan for this model", plan.model,
           l->name, source.checkpoint().folder().string());
    records::Decision& decision = *it->second;
    const auto [first, fresh] = groups.try_emplace(l->group, decision.keep, l->name);
    if (plan.fuse && first->second.first != decision.keep)
      fail("the plan decides otherwise on {} than on {}, but serving engines fuse them; decide alike on both",
           l->name, first->second.second);
    if (!decision.keep && allow_nonfinite && holds_nonfinite(source, *l)) {
      decision.keep = true;
      decision.reason = "holds NaN or infinity";
    }
    if (decision.keep) out.push_back(l);
  }
  if (plan.decisions.size() != linears.size())
    fail("the plan (made for {}) decides on {} linears, but {} has {}; make a plan for this model",
         plan.model, plan.decisions.size(), source.checkpoint().folder().string(), linears.size());
  return out;
}

std::vector<Item> plan_items(const model::Binding& source, const std::vector<const model::Linear*>& kept,
                             const records::Plan& plan) {
  std::map<std::string, bool> plain;  // of each linear: rounded plainly
  for (const records::Decision& d : plan.decisions) plain[d.name] = d.rounding == "plain";
  std::map<std::string, const model::Linear*> quantized;  // by stored weight
  for (const model::Linear* l : model::linears(source.spec()))
    if (std::find(kept.begin(), kept.end(), l) == kept.end())
      quantized[source.linear(*l).stored + ".weight"] = l;
  std::vector<Item> items;
  for (const auto& [name, info] : source.checkpoint().tensors()) {
    Item& item = items.emplace_back();
    item.source = name;
    const auto it = quantized.find(name);
    if (it == quantized.end()) {
      item.tensors = {{name, info.dtype, info.shape}};
      continue;
    }
    item.linear = it->second->name;
    const std::string& stored = source.linear(*it->second).stored;
    if (plan.format == "int8") {
      item.kind = Item::Kind::plain8;
      item.tensors = bitsandbytes::tensors8(stored, info.shape);
      continue;
    }
    item.kind = plain.at(item.linear) ? Item::Kind::plain4 : Item::Kind::rounded4;
    item.tensors =
        bitsandbytes::tensors4(stored, info.shape, bitsandbytes::likely_state_bytes(info.shape, info.dtype));
    item.exact = false;
  }
  return items;
}

size_t shard_end(std::vector<Item>& items, size_t begin, int64_t max_bytes,
                 const std::function<void(Item&)>& look) {
  int64_t filled = items[begin].bytes(), slack = items[begin].exact ? 0 : bitsandbytes::kStateSlack;
  size_t end = begin + 1;
  for (; end < items.size(); ++end) {
    slack += items[end].exact ? 0 : bitsandbytes::kStateSlack;
    const int64_t more = items[end].bytes();
    if (slack > 0 && filled + more - slack <= max_bytes && filled + more + slack > max_bytes) {
      for (size_t i = begin; i <= end; ++i) look(items[i]);
      return shard_end(items, begin, max_bytes, look);
    }
    if (filled + more > max_bytes) break;
    filled += more;
  }
  return end;
}

}  // namespace nibble::write
