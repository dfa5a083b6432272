#include "measure/lockstep.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/text.h"

namespace nibble::measure {

/// An assignment on its way.
struct Lockstep::Branch {
  const Assignment* assignment = nullptr;
  States states = {};
};

Lockstep::Lockstep(Walk& walk, std::span<const records::Group> groups, const records::Inventory& inventory,
                   const RoundedStore* store, int64_t memory, Journal* journal, std::string label)
    : walk_(walk),
      groups_(groups.size()),
      store_(store),
      memory_(memory),
      journal_(journal),
      label_(std::move(label)) {
  for (size_t g = 0; g < groups.size(); ++g)
    for (const size_t member : groups[g].members) group_of_[inventory.linears[member].name] = g;
  for (const Step& step : walk.steps()) {
    std::set<size_t> seen;
    for (const model::Linear* l : step.linears) seen.insert(group_of_.at(l->name));
    step_groups_.emplace_back(seen.begin(), seen.end());
  }
  // The widest states that a branch has: of the tower's rows, or of the text's.
  const model::Spec& spec = walk.runner().spec();
  int64_t tower = 0, text = 0;
  for (const data::Item& item : walk.items()) {
    text += std::ssize(item.prompt.ids) + std::ssize(item.answer);
    for (const run::Picture& p : item.prompt.pictures) tower += run::tower_rows(p, *spec.vision);
  }
  const int64_t kept = spec.vision ? 1 + std::ssize(spec.vision->stack.kept) : 1;
  state_bytes_ = 4 * std::max(text * spec.text.stack.hidden,
                              spec.vision ? tower * kept * spec.vision->stack.hidden : int64_t{0});
}

int64_t Lockstep::passes(size_t hypotheses) const {
  const int64_t at_once = std::max<int64_t>(1, memory_ / std::max<int64_t>(1, state_bytes_) - 1);
  return (static_cast<int64_t>(hypotheses) + at_once - 1) / at_once;
}

std::string in_order_name(const std::string& linear) {
  return linear + ", in order";
}

void set_weight(run::Weights& weights, const model::Linear& linear, Stored stored,
                const RoundedStore* store) {
  if (stored == Stored::as_source) return weights.replace(linear.name, {});
  quant::Packed4 packed;
  if (stored == Stored::plain) {
    Tensor buffer;
    packed = quant::encode4(weights.binding().weight(linear, buffer), quant::Format::nf4, true);
  } else {
    packed = store->get(stored == Stored::rounded ? linear.name : in_order_name(linear.name));
  }
  weights.replace(linear.name, kernels::Weight::pack(quant::decode4(packed).view(), weights.compute()));
}

void Lockstep::set_weights(size_t step, const Assignment& assignment) {
  for (const model::Linear* l : walk_.steps()[step].linears)
    set_weight(walk_.runner().weights(), *l, assignment[group_of_.at(l->name)], store_);
}

void Lockstep::advance(size_t step, std::vector<Branch>& branches) {
  std::map<std::vector<Stored>, std::vector<States*>> alike;
  std::map<std::vector<Stored>, const Assignment*> assignment_of;
  for (Branch& branch : branches) {
    std::vector<Stored> here;
    for (const size_t g : step_groups_[step]) here.push_back((*branch.assignment)[g]);
    alike[here].push_back(&branch.states);
    assignment_of[here] = branch.assignment;
  }
  for (const auto& [here, states] : alike) {
    set_weights(step, *assignment_of[here]);
    walk_.advance(step, states, nullptr);
  }
  for (const model::Linear* l : walk_.steps()[step].linears) walk_.runner().weights().replace(l->name, {});
  walk_.release(step);
}

/// What a journal calls the run of an assignment on these inputs.
std::string Lockstep::name_of(const Assignment& assignment) const {
  std::string text;
  for (const Stored s : assignment) text += static_cast<char>('0' + static_cast<int>(s));
  return label_ + "#" + text;
}

/// The hypotheses that the journal does not know.
void Lockstep::run_pass(const Assignment& base, std::span<const Assignment> hypotheses,
                        std::span<std::vector<double>> out) {
  if (!journal_) return run_branches(base, hypotheses, out);
  std::vector<Assignment> open;
  for (size_t i = 0; i < hypotheses.size(); ++i) {
    const io::Json* known = journal_->find(name_of(hypotheses[i]));
    if (known)
      out[i] = numbers_of(*known);
    else
      open.push_back(hypotheses[i]);
  }
  if (open.empty()) return;
  std::vector<std::vector<double>> found(open.size());
  run_branches(base, open, found);
  size_t next = 0;
  for (size_t i = 0; i < hypotheses.size(); ++i)
    if (out[i].empty()) out[i] = std::move(found[next++]);
  for (size_t i = 0; i < hypotheses.size(); ++i) journal_->keep(name_of(hypotheses[i]), bits_of(out[i]));
  journal_->settle();
}

/// Brings the branches to where the journal says that this pass was interrupted, or to the first step, which
/// it returns.
size_t Lockstep::begin(const std::string& name, std::vector<Branch>& branches) {
  auto place = journal_ ? journal_->take(name) : std::nullopt;
  if (!place || place->states.size() != branches.size()) {
    const States start = walk_.start();
    for (Branch& branch : branches) branch.states = start;
    return 0;
  }
  walk_.go_to(place->step);
  for (size_t i = 0; i < branches.size(); ++i) branches[i].states = std::move(place->states[i]);
  return place->step;
}

void Lockstep::run_branches(const Assignment& base, std::span<const Assignment> hypotheses,
                            std::span<std::vector<double>> out) {
  const bool plain_base =
      std::all_of(base.begin(), base.end(), [](Stored s) { return s == Stored::as_source; });
  if (!plain_base) reference();
  std::vector<Branch> branches = {{&base}};
  std::string name = name_of(base);
  for (const Assignment& hypothesis : hypotheses) {
    branches.push_back({&hypothesis});
    name += name_of(hypothesis);
  }
  name = fmt::format("{}#{}", label_, sha256(name));
  std::vector<const States*> states;
  for (const Branch& branch : branches) states.push_back(&branch.states);
  Progress progress("run", std::ssize(walk_.steps()), "blocks");
  size_t step = begin(name, branches);
  progress.advance(static_cast<int64_t>(step));
  for (; step < walk_.steps().size(); ++step) {
    advance(step, branches);
    progress.advance();
    if (journal_) journal_->pass(name, step + 1, walk_.steps().size(), states);
  }
  if (plain_base && !reference_) reference_ = walk_.answers(branches[0].states);
  auto found = walk_.divergence(reference(), std::span(states).subspan(1));
  std::move(found.begin(), found.end(), out.begin());
}

const Matrix& Lockstep::reference() {
  if (!reference_) reference_ = answers_of(walk_, journal_, label_ + ", 16 bit");
  return *reference_;
}

std::vector<std::vector<double>> Lockstep::run(const Assignment& base,
                                               std::span<const Assignment> hypotheses) {
  NIBBLE_CHECK(base.size() == groups_);
  for (const Assignment& h : hypotheses) NIBBLE_CHECK(h.size() == groups_);
  std::vector<std::vector<double>> out(hypotheses.size());
  if (hypotheses.empty()) return out;
  const auto count = static_cast<size_t>(passes(hypotheses.size()));
  const size_t each = (hypotheses.size() + count - 1) / count;
  for (size_t begin = 0; begin < hypotheses.size(); begin += each) {
    const size_t n = std::min(each, hypotheses.size() - begin);
    run_pass(base, hypotheses.subspan(begin, n), std::span(out).subspan(begin, n));
  }
  give_back_freed_memory();
  return out;
}

}  // namespace nibble::measure
