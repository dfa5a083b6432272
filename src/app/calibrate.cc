#include "app/calibrate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>
#include <set>

#include "app/commands.h"
#include "app/scratch.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/sha256.h"
#include "base/text.h"
#include "kernels/ops.h"
#include "measure/in_order.h"
#include "plan/choose.h"
#include "plan/plan.h"

namespace nibble::app {
namespace {

using measure::Stored;

/// One of every kHeldOut inputs judges plans and takes no part in making them.
constexpr size_t kHeldOut = 4;
/// With fewer inputs than this, none is held out.
constexpr size_t kFewest = 8;
/// Times that runs are spent where the plan could change, each time by what the last ones showed.
constexpr size_t kContests = 5;

/// Memory for rounding is told from here on.
constexpr int64_t kToldFrom = int64_t{256} << 20;

/// Predictions that rank the groups that were run no better than this are said to be poor.
constexpr double kPoorCorrelation = 0.5;

bool has_pictures(std::span<const data::Sample> samples) {
  return std::any_of(samples.begin(), samples.end(),
                     [](const data::Sample& sample) { return !sample.images.empty(); });
}

/// As many groups as there are, drawn with replacement, each with all its samples; and the first with
/// pictures, where none of some was drawn.
std::vector<data::Sample> resampled(std::span<const data::Sample> samples, int64_t seed) {
  const auto groups = data::groups_of(samples);
  std::mt19937_64 generator(records::kBootstrapSeed + static_cast<uint64_t>(seed));
  std::vector<data::Sample> out;
  for (size_t i = 0; i < groups.size(); ++i)
    for (const size_t member : groups[records::draw(generator, groups.size())])
      out.push_back(samples[member]);
  if (has_pictures(samples) && !has_pictures(out)) {
    const auto first = std::find_if(groups.begin(), groups.end(),
                                    [&](const auto& group) { return !samples[group[0]].images.empty(); });
    for (const size_t member : *first) out.push_back(samples[member]);
  }
  return out;
}

/// Moves every kHeldOut-th group of samples to a set of their own, but not the first that has pictures.
std::vector<data::Sample> take_held_out(std::vector<data::Sample>& samples) {
  const auto groups = data::groups_of(samples);
  std::vector<data::Sample> kept, held;
  if (groups.size() < kFewest) return held;
  std::vector<bool> holds(samples.size());
  bool pictures = false;  // in a group before
  for (size_t g = 0; g < groups.size(); ++g) {
    const bool has = !samples[groups[g][0]].images.empty();
    if (g % kHeldOut == kHeldOut - 1 && (pictures || !has))
      for (const size_t member : groups[g]) holds[member] = true;
    pictures = pictures || has;
  }
  for (size_t i = 0; i < samples.size(); ++i) (holds[i] ? held : kept).push_back(std::move(samples[i]));
  samples = std::move(kept);
  return held;
}

/// nibble's own texts: many languages and kinds, in an order of which any beginning is a fair mix.
std::string guard_file() {
  return (share_folder() / "texts" / "broad.jsonl").string();
}

std::array<double, 2> damping_of(const std::string& text) {
  const auto out = parse_pair("--damping", text);
  if (std::max(out[0], out[1]) > records::kMostDamping)
    fail("--damping {}: is above {:g}", text, records::kMostDamping);
  return out;
}

std::string duration_text(double seconds) {
  if (seconds < 90) return fmt::format("{:.0f} s", std::max(1.0, seconds));
  if (seconds < 5400) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

}  // namespace

Calibration::Calibration(const std::string& name, CalibrationOptions options, const Common& common)
    : options_(std::move(options)), model_(name, common) {
  if (model_.binding.quantized())
    fail("{}: is quantized; measure the 16-bit checkpoint that it was made of", name);
  if (options_.rounding != "plain") (void)damping_of(options_.damping);  // an Error before all else
  options_.data = data_files(options_.data, "calibration", model_.maker);
  inventory_ = model_.binding.inventory(name);
  plan::check_budget(options_.budget, inventory_);
  inventory_.weights = model_.binding.fingerprint();
  groups_ = records::group_linears(inventory_, options_.fuse);
  std::vector<data::Sample> samples = data::read_samples(options_.data), held;
  add_pictures(samples);
  if (options_.resample != 0) samples = resampled(samples, options_.resample);
  if (!options_.verify.empty()) {
    tell_of_unread(options_.verify);
    held = data::read_samples(options_.verify);
  } else if (options_.hold_out) {
    held = take_held_out(samples);
  }
  if (options_.hold_out && held.empty())
    tell(
        fmt::format("with fewer than {} inputs (samples of one picture count as one) none is held out, and "
                    "the plan is not verified; give more, or --verify",
                    kFewest));
  calibration_.items = items_of(samples, options_.data, model_.maker, options_.window);
  if (!held.empty()) held_out_.items = items_of(held, options_.data, model_.maker, options_.window);
  if (options_.rounding != "plain")
    rounding_ = {.kind = options_.rounding,
                 .damping = damping_of(options_.damping),
                 .guard = 0,
                 .mix = options_.mix,
                 .widest = options_.widest ? *options_.widest : fitting_width()};
  if (!options_.target.empty()) open_journal();
  prepare(calibration_, "calibration");
  if (!held.empty()) prepare(held_out_, "held out");
  if (!rounding_.plain()) {
    if (options_.guard) add_guard();
    tell_of_matrices();
    if (!journal_)
      store_ = std::make_unique<measure::RoundedStore>(options_.scratch.empty() ? temporary_folder()
                                                                                : options_.scratch);
  }
}

/// Without pictures nothing is known of what reads them, and four bits can break it unseen.
void Calibration::add_pictures(std::vector<data::Sample>& samples) {
  if (!model_.maker.takes_pictures() || !options_.add_pictures) return;
  if (has_pictures(samples)) return;
  if (!options_.guard)
    return tell(
        "there is no picture among the data: what reads pictures is not measured, and has plain codes in 4 "
        "bits");
  (void)items_of(samples, options_.data, model_.maker, options_.window);  // an Error where nothing is in them
  tell("there is no picture among the data: those that nibble ships are added (--no-guard leaves them out)");
  const auto shipped = shipped_files("calibration", model_.maker);
  const auto pictures = data::read_samples(shipped);
  samples.insert(samples.end(), pictures.begin(), pictures.end());
  options_.data.insert(options_.data.end(), shipped.begin(), shipped.end());
}

/// Bytes of matrices beyond which the widest inputs do without.
int64_t Calibration::matrix_limit() const {
  return options_.memory > 0 ? options_.memory : machine_memory() / 2;
}

bool Calibration::with_pictures() const {
  return std::any_of(calibration_.items.begin(), calibration_.items.end(),
                     [](const data::Item& item) { return !item.prompt.pictures.empty(); });
}

/// A prompt with pictures has rows of text as well.
int64_t Calibration::fitting_width() const {
  return measure::widest_within(model_.binding.spec(), with_pictures(), matrix_limit());
}

void Calibration::tell_of_matrices() const {
  const int64_t all = measure::rounding_bytes(model_.binding.spec(), with_pictures());
  const int64_t bytes = measure::rounding_bytes(model_.binding.spec(), with_pictures(), rounding_.widest);
  std::string line =
      fmt::format("rounding by statistics takes {} of memory for matrices, beside weights and hidden states",
                  bytes_text(bytes));
  if (rounding_.widest > 0)
    line +=
        fmt::format("; inputs wider than {} have sums of squares in place of matrices of {} (--memory {})",
                    rounding_.widest, bytes_text(all),
                    options_.widest ? "of the run that made the plan" : bytes_text(matrix_limit()));
  if (bytes > matrix_limit() && rounding_.widest > 0 && !options_.widest)
    line += "; that is more, but what one weight takes: --rounding plain goes with less";
  if (bytes >= kToldFrom || rounding_.widest > 0) tell(line);
}

/// All that the numbers depend on, however its files are spelled: names stand in the record as this run was
/// given them.
void Calibration::open_journal() {
  Sha256 inputs;
  const auto add = [&](const void* data, size_t size) {
    inputs.update({static_cast<const std::byte*>(data), size});
  };
  const auto add_ids = [&](const std::vector<int64_t>& ids) {
    const size_t n = ids.size();
    add(&n, sizeof n);
    add(ids.data(), n * sizeof(int64_t));
  };
  for (const InputSet* set : {&calibration_, &held_out_}) {
    add_ids({std::ssize(set->items)});
    for (const data::Item& item : set->items) {
      add_ids({item.plain});
      add_ids(item.prompt.ids);
      add_ids(item.answer);
      for (const run::Picture& p : item.prompt.pictures) {
        add_ids({p.grid_t, p.grid_h, p.grid_w, p.tiles, p.aspect_ratio});
        add(p.pixels->data(), static_cast<size_t>(p.pixels->tensor().bytes()));
      }
    }
  }
  const CalibrationOptions& o = options_;
  const bool guarded = o.guard && o.rounding != "plain";
  std::vector<std::string> places;
  for (const std::string& file : o.data) places.push_back(std::filesystem::canonical(file).string());
  const std::string all =
      fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {}",
                  std::filesystem::canonical(io::resolve_model(model_.name)).string(),
                  fmt::join(places, "\n"), o.window, o.rounding, o.damping, o.mix, o.guard, rounding_.widest,
                  o.effort, o.budget, o.fuse, o.allow_nonfinite, o.hold_out, o.resample,
                  static_cast<int>(model_.weights.compute()), guarded ? io::read_file(guard_file()) : "");
  // The same products have other last bits by other instructions.
  const std::string version =
      fmt::format("{} {} {}", build_digest(), quant::instruction_set(), kernels::instruction_set());
  io::JobKey key{{{"another version of nibble, or another processor", version},
                  {"another 16-bit checkpoint, or one that was changed since",
                   model_.binding.checkpoint().identity() + inventory_.weights},
                  {"other inputs, or ones that were changed since", inputs.hex()},
                  {"other options", sha256(all)}}};
  journal_ = std::make_unique<measure::Journal>(
      o.target, std::move(key), measure::Journal::Options{.seconds = o.save_every, .tell = tell});
}

void Calibration::save() {
  if (journal_) journal_->save();
}

void Calibration::finish() {
  if (journal_) journal_->finish();
}

/// Answers that the model gave before an interruption, by the items' numbers; and keeps those that it gives
/// now.
void Calibration::complete_answers(InputSet& set, const std::string& name) {
  if (!journal_) return data::complete_answers(set.items, model_.runner, model_.maker);
  io::Json given = io::Json::array();
  if (const io::Json* known = journal_->find(name)) given = *known;
  std::vector<size_t> open;
  for (size_t i = 0; i < set.items.size(); ++i)
    if (set.items[i].answer.empty()) open.push_back(i);
  for (const io::Json& answer : given) {
    data::Item& item = set.items.at(answer.at(0).get<size_t>());
    item.answer_text = answer.at(1).get<std::string>();
    item.answer = answer.at(2).get<std::vector<int64_t>>();
  }
  data::complete_answers(set.items, model_.runner, model_.maker, data::kAnswerTokens, [&] {
    given = io::Json::array();
    for (const size_t i : open)
      if (const data::Item& item = set.items[i]; !item.answer.empty())
        given.push_back({i, item.answer_text, item.answer});
    journal_->keep(name, given);
    journal_->settle();
  });
}

void Calibration::prepare(InputSet& set, const std::string& name) {
  complete_answers(set, "answers, " + name);
  for (const data::Item& item : set.items)
    set.inputs.push_back(
        {.id = item.id,
         .modality = item.prompt.pictures.empty() ? records::Modality::text : records::Modality::vision,
         .positions = std::ssize(item.answer)});
  set.walk = std::make_unique<measure::Walk>(model_.runner, set.items);
}

/// Codes that are chosen for the data alone harm text of other kinds, and texts are no fair sample of the
/// next text: nibble's own count as well. Beside pictures, whose own tokens should not drown in them, the
/// first window of each, as long as these have no more rows than the data; beside plain texts also the
/// second, and so on, up to four times the rows of these. Where the data are few, some windows in any case.
void Calibration::add_guard() {
  constexpr int64_t kWindow = 256, kTexts = 4;
  constexpr size_t kFew = 16;
  const std::string file = guard_file();
  if (std::any_of(options_.data.begin(), options_.data.end(), [&](const std::string& data) {
        std::error_code ignored;
        return std::filesystem::equivalent(data, file, ignored);
      }))
    return;
  int64_t texts = 0;
  for (const data::Item& item : calibration_.items)
    if (item.prompt.pictures.empty()) texts += data::rows_of(item);
  const std::array<int64_t, 2>& data = calibration_.walk->rows();
  const int64_t pictures = data[0] + data[1] - texts;
  std::vector<std::vector<data::Item>> windows;  // of each text
  size_t longest = 0;
  for (const data::Sample& sample : data::read_samples({&file, 1})) {
    windows.push_back(data::make_items({&sample, 1}, model_.maker, std::min(options_.window, kWindow)));
    longest = std::max(longest, windows.back().size());
  }
  std::vector<data::Item> chosen;
  int64_t rows = 0;
  for (size_t turn = 0; turn < longest; ++turn) {
    const int64_t most = (turn == 0 ? pictures : 0) + kTexts * texts;
    for (std::vector<data::Item>& of_text : windows) {
      if (turn >= of_text.size()) continue;
      rows += data::rows_of(of_text[turn]);
      if (rows > most && chosen.size() >= kFew) break;
      chosen.push_back(std::move(of_text[turn]));
    }
    if (rows > most) break;
  }
  guarded_.items = calibration_.items;
  for (data::Item& text : chosen) guarded_.items.push_back(std::move(text));
  guarded_.walk = std::make_unique<measure::Walk>(model_.runner, guarded_.items);
  rounding_.guard = std::ssize(chosen);
}

void Calibration::make_lockstep(InputSet& set, const std::string& name) {
  if (set.walk)
    set.lockstep = std::make_unique<measure::Lockstep>(*set.walk, groups_, inventory_, codes(),
                                                       options_.memory > 0 ? options_.memory : kHiddenStates,
                                                       journal_.get(), name);
}

records::Measurements Calibration::measure() {
  const measure::Options options{.rounding = rounding_,
                                 .fuse = options_.fuse,
                                 .allow_nonfinite = options_.allow_nonfinite,
                                 .journal = journal_.get()};
  records::Measurements out = measure::measure(statistics(), model_.name, options, codes());
  model_.binding.checkpoint().check_unchanged();
  out.samples = std::ssize(calibration_.items);
  out.inventory.model = model_.name;
  out.data = options_.data;
  out.window = options_.window;
  out.inventory.weights = inventory_.weights;
  inventory_ = out.inventory;
  groups_ = records::group_linears(inventory_, options_.fuse);
  for (const records::Group& group : groups_)
    for (const size_t member : group.members)
      if (out.inventory.linears[member].bytes4 == out.inventory.linears[member].bytes16 &&
          out.errors[member].weight == 0)
        unroundable_.insert(group.name);
  make_lockstep(calibration_, "calibration");
  make_lockstep(held_out_, "held out");
  if (options_.effort != "none") solo_runs(out);
  model_.binding.checkpoint().check_unchanged();
  return out;
}

/// KL of the same model with its inputs rounded to bf16 (or, where it is measured so, not rounded).
std::array<double, 2> Calibration::noise() {
  run::Weights& weights = model_.weights;
  const bool wide = weights.compute() == kernels::Compute::f32;
  run::Weights other(weights.binding(), wide ? kernels::Compute::bf16 : kernels::Compute::f32);
  run::Runner runner(other);
  measure::Walk walk(runner, calibration_.items);
  const Matrix theirs = measure::answers_of(walk, journal_.get(), "noise");
  const auto start = std::chrono::steady_clock::now();
  const Matrix ours = measure::answers_of(*calibration_.walk, journal_.get(), "calibration, 16 bit");
  forward_seconds_ = seconds_since(start);
  const auto kl = calibration_.walk->divergence(ours, theirs);
  const auto intervals = kl_by_modality(calibration_.inputs, kl);
  return {intervals[0].mean, intervals[1].mean};
}

void Calibration::solo_runs(records::Measurements& out) {
  const std::array<double, 2> noise_kl = noise();
  if (!std::isfinite(noise_kl[0] + noise_kl[1])) {
    tell("no solo runs: the 16-bit model's own logits are not finite on these inputs");
    return;
  }
  out.effort = options_.effort;
  out.inputs = calibration_.inputs;
  out.noise = noise_kl;
  // All runs are one of each group with plain codes and, where there are others, one with these. A third of
  // them is half as many as there are groups, and plain codes for another sixth.
  const bool full = options_.effort == "full", plain = options_.rounding == "plain";
  // Each run goes through what comes behind its first group: half of the model in the mean, if that is alone.
  const size_t most = full ? groups_.size() : std::max<size_t>(1, groups_.size() / (plain ? 3 : 2));
  // After an interruption, the time of a whole forward pass is not known.
  const bool timed = !journal_ || !journal_->resumed();
  tell(
      fmt::format("solo runs: {} of {} groups{}", most, groups_.size(),
                  timed ? ", about " + duration_text(forward_seconds_ * static_cast<double>(most) / 2) : ""));
  const auto each_alone = [](const std::vector<std::string>& names) {
    std::vector<std::vector<std::string>> sets;
    for (const std::string& name : names) sets.push_back({name});
    return sets;
  };
  std::vector<std::string> roundings = {options_.rounding};
  if (full) {
    if (!plain) roundings.insert(roundings.begin(), "plain");
    std::vector<std::string> names;
    for (const records::Group& group : groups_) names.push_back(group.name);
    run_sets(out, each_alone(names), roundings);
  } else {
    const auto sets = plan::first_runs(out, most);
    run_sets(out, sets, roundings);
    // Here the budget only tells where runs matter: whether there are codes that keep it is make_plan's to
    // say.
    const int64_t bytes = plan::kl_budget(options_.budget, out)
                              ? plan::parse_budget("10%", out.inventory)
                              : plan::parse_budget(options_.budget, out.inventory, 0);
    size_t left = most - sets.size();
    for (size_t rounds = kContests; rounds > 0 && left > 0; --rounds) {
      const auto names = plan::uncertain_groups(out, bytes, (left + rounds - 1) / rounds);
      if (names.empty()) break;
      run_sets(out, each_alone(names), roundings);
      left -= names.size();
    }
    // Codes that are better in the mean are not so for every group.
    if (!plain) run_sets(out, each_alone(plan::costly_groups(out, bytes, groups_.size() / 6)), {"plain"});
  }
  const auto quality = plan::prediction_quality(out);
  const bool poor = !full && quality.run > 2 && quality.rank_correlation < kPoorCorrelation;
  tell(fmt::format(
      "solo runs: {} of {} groups made{}; predicted from the others they rank with correlation "
      "{:.2f}, largest miss {:.3g} times{}",
      quality.run, quality.groups,
      out.joint.empty() ? "" : fmt::format(", after {} of all groups of a kind", out.joint.size()),
      quality.rank_correlation, quality.largest_miss,
      poor ? ": poor predictions; --effort full runs all groups" : ""));
}

/// Runs each set of groups with codes of each rounding, everything else in 16 bits.
void Calibration::run_sets(records::Measurements& out, std::vector<std::vector<std::string>> sets,
                           const std::vector<std::string>& roundings) {
  const measure::Assignment base(groups_.size(), Stored::as_source);
  std::vector<measure::Assignment> hypotheses;
  for (auto& names : sets) {
    std::erase_if(names, [&](const std::string& name) { return unroundable_.contains(name); });
    if (names.empty()) continue;
    for (const std::string& rounding : roundings) {
      hypotheses.push_back(base);
      for (size_t g = 0; g < groups_.size(); ++g)
        if (std::find(names.begin(), names.end(), groups_[g].name) != names.end())
          hypotheses.back()[g] = rounding == "plain" ? Stored::plain : Stored::rounded;
    }
  }
  auto kl = calibration_.lockstep->run(base, hypotheses);
  auto next = kl.begin();
  for (const auto& names : sets) {
    if (names.empty()) continue;
    for (const std::string& rounding : roundings) {
      if (names.size() == 1)
        out.solo.push_back({names[0], rounding, std::move(*next++)});
      else
        out.joint.push_back({names, rounding, std::move(*next++)});
    }
  }
  const auto place = [&](const records::SoloRun& run) {
    return std::find_if(groups_.begin(), groups_.end(), [&](const auto& g) { return g.name == run.group; });
  };
  std::stable_sort(out.solo.begin(), out.solo.end(), [&](const auto& a, const auto& b) {
    return std::pair(place(a), a.rounding != "plain") < std::pair(place(b), b.rounding != "plain");
  });
}

quant::Packed4 Calibration::rounded(const records::Plan& plan, const std::string& linear) const {
  return codes()->get(plan.rounding.in_order ? measure::in_order_name(linear) : linear);
}

void Calibration::round(const records::Plan& plan) {
  if (plan.rounding.in_order) {
    std::map<std::string, Stored> how;
    for (const records::Decision& d : plan.decisions)
      how[d.name] = d.keep ? Stored::as_source : d.rounding == "plain" ? Stored::plain : Stored::rounded;
    return measure::round_in_order(statistics(), plan.rounding, how, *codes(), journal_.get());
  }
  std::set<std::string> names;
  for (const records::Decision& d : plan.decisions)
    if (!d.keep && d.rounding != "plain") names.insert(d.name);
  if (std::all_of(names.begin(), names.end(), [&](const std::string& name) { return codes()->has(name); }))
    return;
  measure::round_linears(statistics(), plan.rounding, names, *codes(), journal_.get());
}

std::array<records::Interval, 2> kl_by_modality(std::span<const records::MeasuredInput> inputs,
                                                std::span<const double> kl) {
  std::array<records::Interval, 2> out;
  for (const records::Modality modality : records::kModalities) {
    std::vector<double> values, weights;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i].modality != modality) continue;
      values.push_back(kl[i]);
      weights.push_back(static_cast<double>(inputs[i].positions));
    }
    out[static_cast<size_t>(modality)] = records::weighted_mean(values, weights);
  }
  return out;
}

}  // namespace nibble::app
