#include "measure/journal.h"

#include <algorithm>
#include <bit>
#include <system_error>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/sha256.h"
#include "base/text.h"

namespace nibble::measure {
namespace {

constexpr int kVersion = 2;
constexpr double kShare = 20;  // the time between saves is at least so many times that of one
constexpr const char* kStore = "rounded";
constexpr const char* kChecksum = "checksum";  // the tensor that holds the digest of all others

using Clock = std::chrono::steady_clock;

Matrix copy_of(const TensorView& view) {
  if (view.dtype != DType::f32 || view.shape.size() != 2)
    fail("{} {} is no matrix", dtype_name(view.dtype), shape_text(view.shape));
  Matrix out(view.shape[0], view.shape[1]);
  std::copy_n(view.as<float>(), view.count(), out.data());
  return out;
}

Matrix matrix_of(const io::SafetensorsFile& file, const std::string& name) {
  return copy_of(file.tensor(name));
}

/// A digest of tensors by name.
class Checksum {
 public:
  void name(std::string_view name) {
    add(std::as_bytes(std::span(name)));
    add(std::as_bytes(std::span("\n", 1)));
  }
  void add(std::span<const std::byte> bytes) { digest_.update(bytes); }
  std::string hex() { return digest_.hex(); }

 private:
  Sha256 digest_;
};

std::string checksum_of(std::vector<io::PlannedTensor>& tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  Checksum sum;
  for (const io::PlannedTensor& tensor : tensors) {
    sum.name(tensor.name);
    tensor.write([&](std::span<const std::byte> bytes) { sum.add(bytes); });
  }
  return sum.hex();
}

std::string_view text_of(const TensorView& view) {
  return {reinterpret_cast<const char*>(view.data), static_cast<size_t>(view.bytes())};
}

/// A text as a tensor; it must stay until that is written.
io::PlannedTensor planned_text(std::string name, const std::string& text) {
  return io::planned(std::move(name),
                     {DType::u8, {std::ssize(text)}, reinterpret_cast<const std::byte*>(text.data())});
}

/// True where the file holds what was written.
bool is_whole(const io::SafetensorsFile& file) {
  Checksum sum;
  for (const auto& [name, info] : file.tensors()) {
    if (name == kChecksum) continue;
    const TensorView view = file.tensor(name);
    sum.name(name);
    sum.add({view.data, static_cast<size_t>(view.bytes())});
  }
  return text_of(file.tensor(kChecksum)) == sum.hex();
}

/// Puts states into tensors of their own and says in JSON which. What branches share is there once.
class Writer {
 public:
  explicit Writer(std::vector<io::PlannedTensor>& tensors) : tensors_(tensors) {}

  io::Json describe(const States& states) {
    io::Json parts = io::Json::array();
    for (const auto& part : states.parts) {
      const auto [it, fresh] = parts_.try_emplace(part.get());
      if (fresh) it->second = describe(*part);
      parts.push_back(it->second);
    }
    return parts;
  }

 private:
  io::Json describe(const States::Part& part) {
    io::Json json = {{"hidden", add(part.hidden)}, {"kept", io::Json::array()}};
    for (const auto& [index, kept] : part.kept) json["kept"].push_back({index, add(kept)});
    if (part.cross) {
      const auto [it, fresh] = features_.try_emplace(part.cross.get());
      if (fresh) it->second = add(*part.cross);
      json["cross"] = it->second;
    }
    return json;
  }

  std::string add(const Matrix& m) {
    std::string name = fmt::format("state {}", tensors_.size());
    tensors_.push_back(io::planned(name, m.tensor()));
    return name;
  }

  std::vector<io::PlannedTensor>& tensors_;
  std::map<const States::Part*, io::Json> parts_;
  std::map<const Matrix*, std::string> features_;
};

/// Gives back states that a Writer described, sharing what was shared.
class Reader {
 public:
  explicit Reader(const io::SafetensorsFile& file) : file_(file) {}

  States states(const io::Json& parts) {
    States out;
    for (const io::Json& json : parts) {
      auto& part = parts_[json.at("hidden").get<std::string>()];
      if (!part) part = std::make_shared<States::Part>(part_of(json));
      out.parts.push_back(part);
    }
    return out;
  }

 private:
  States::Part part_of(const io::Json& json) {
    States::Part part(matrix_of(file_, json.at("hidden").get<std::string>()));
    for (const io::Json& kept : json.at("kept"))
      part.kept[kept.at(0).get<int64_t>()] = matrix_of(file_, kept.at(1).get<std::string>());
    if (!json.contains("cross")) return part;
    const std::string name = json["cross"].get<std::string>();
    auto& cross = features_[name];
    if (!cross) cross = std::make_shared<const Matrix>(matrix_of(file_, name));
    part.cross = cross;
    return part;
  }

  const io::SafetensorsFile& file_;
  std::map<std::string, std::shared_ptr<States::Part>> parts_;
  std::map<std::string, std::shared_ptr<const Matrix>> features_;
};

std::string label_of(const std::string& walk) {
  return walk.substr(0, walk.find('#'));
}

}  // namespace

Journal::Journal(const std::filesystem::path& target, io::JobKey key, Options options)
    : folder_(target, io::kProgress, io::WorkFolder::Leftovers::keep),
      key_(std::move(key)),
      options_(std::move(options)),
      saved_(Clock::now()) {
  if (!options_.tell) options_.tell = [](const std::string&) {};
  if (std::filesystem::exists(folder_.state_path()))
    if (const std::string why = load(); !why.empty()) {
      folder_.begin_anew(why, options_.tell);
      forget();
    }
  if (!store_) store_ = std::make_unique<RoundedStore>(folder_.path() / kStore, io::Json());
}

void Journal::forget() {
  results_.clear();
  matrices_.clear();
  place_.reset();
  store_.reset();
}

/// Reads what an interrupted run left; in words, why it cannot be used, or "".
std::string Journal::load() {
  const std::string unreadable = "a state that cannot be read";
  try {
    const io::SafetensorsFile file(folder_.state_path());
    const io::Json json = io::parse_json(text_of(file.tensor("journal")), "journal");
    if (json.at("journal") != kVersion) return unreadable;
    if (std::string other = io::job_key_from_json(json.at("key")).difference(key_); !other.empty())
      return other;
    if (!is_whole(file)) return "a damaged state";
    for (const auto& [name, value] : json.at("results").items()) results_[name] = value;
    for (const io::Json& name : json.at("matrices"))
      matrices_[name.get<std::string>()] = matrix_of(file, name.get<std::string>());
    store_ = std::make_unique<RoundedStore>(folder_.path() / kStore, json.at("store"));
    folder_.keep_only({kStore});
    std::string where = fmt::format("after {} finished parts", results_.size() + matrices_.size());
    if (json.contains("place")) {
      const io::Json& place = json["place"];
      place_.emplace(
          Place{place.at("walk").get<std::string>(), place.at("step").get<size_t>(), {}, place.at("more")});
      Reader reader(file);
      for (const io::Json& branch : place.at("states")) place_->states.push_back(reader.states(branch));
      where = fmt::format("{}, after block {} of {}", label_of(place_->walk), place_->step,
                          place.at("steps").get<size_t>());
    }
    options_.tell(
        fmt::format("{}: going on where an interrupted run stopped: {}", folder_.path().string(), where));
    resumed_ = true;
    return "";
  } catch (const Error&) {
    return unreadable;
  } catch (const io::Json::exception&) {
    return unreadable;
  }
}

const io::Json* Journal::find(const std::string& name) const {
  const auto it = results_.find(name);
  return it == results_.end() ? nullptr : &it->second;
}

const Matrix* Journal::find_matrix(const std::string& name) const {
  const auto it = matrices_.find(name);
  return it == matrices_.end() ? nullptr : &it->second;
}

void Journal::keep(const std::string& name, io::Json result) {
  results_[name] = std::move(result);
  new_ = true;
}

void Journal::keep(const std::string& name, const Matrix& result) {
  matrices_[name] = copy_of(result.tensor());
  new_ = true;
}

void Journal::settle() {
  if (new_ && due()) save({}, 0, {});
}

std::optional<Journal::Place> Journal::take(const std::string& walk) {
  if (!place_ || place_->walk != walk) return std::nullopt;
  return std::exchange(place_, std::nullopt);
}

bool Journal::due() const {
  return !failed_ && seconds_since(saved_) >= std::max(options_.seconds, kShare * cost_);
}

void Journal::pass(const std::string& walk, size_t step, size_t steps, std::span<const States* const> states,
                   const std::function<io::Json()>& more) {
  if (step < steps && due()) save({walk, step, {}, more ? more() : io::Json()}, steps, states);
}

void Journal::save() {
  if (!new_ || failed_) return;
  const bool said = std::exchange(said_, true);  // who saves at the end need not hear of it
  save({}, 0, {});
  said_ = said;
}

void Journal::save(const Place& place, size_t steps, std::span<const States* const> states) {
  try {
    try_to_save(place, steps, states);
  } catch (const Error& error) {
    failed_ = true;
    options_.tell(
        fmt::format("{}; the work goes on, but cannot be gone on with after an interruption", error.what()));
  }
}

void Journal::try_to_save(const Place& place, size_t steps, std::span<const States* const> states) {
  const auto start = Clock::now();
  std::vector<io::PlannedTensor> tensors;
  io::Json json = {{"journal", kVersion},
                   {"key", io::to_json(key_)},
                   {"results", io::Json::object()},
                   {"matrices", io::Json::array()},
                   {"store", store_->index()}};
  for (const auto& [name, result] : results_) json["results"][name] = result;
  for (const auto& [name, matrix] : matrices_) {
    json["matrices"].push_back(name);
    tensors.push_back(io::planned(name, matrix.tensor()));
  }
  if (!place.walk.empty()) {
    json["place"] = {{"walk", place.walk}, {"step", place.step}, {"steps", steps}, {"more", place.more}};
    io::Json& branches = json["place"]["states"] = io::Json::array();
    Writer writer(tensors);
    for (const States* branch : states) branches.push_back(writer.describe(*branch));
  }
  const std::string text = io::dump_json(json);
  tensors.push_back(planned_text("journal", text));
  const std::string checksum = checksum_of(tensors);
  tensors.push_back(planned_text(kChecksum, checksum));
  store_->sync();
  io::write_safetensors(folder_.state_path(), std::move(tensors));
  folder_.state_saved();
  new_ = false;
  saved_ = Clock::now();
  cost_ = std::chrono::duration<double>(saved_ - start).count();
  if (std::exchange(said_, true)) return;
  std::error_code ignored;
  const auto size = static_cast<int64_t>(std::filesystem::file_size(folder_.state_path(), ignored));
  options_.tell(fmt::format("{}: keeps how far this is, should it be interrupted ({} so far)",
                            folder_.path().string(), bytes_text(size + store_->bytes())));
}

void Journal::finish() {
  folder_.clear();
}

States walk_through(Walk& walk, const Keeping& keeping, const Onlooker& onlooker) {
  States states;
  size_t step = 0;
  const size_t steps = walk.steps().size();
  auto place = keeping.journal ? keeping.journal->take(keeping.walk) : std::nullopt;
  if (place && place->states.size() == 1 && place->step <= steps) {
    step = place->step;
    walk.go_to(step);
    states = std::move(place->states[0]);
    if (keeping.restore) keeping.restore(place->more);
  } else {
    states = walk.start();
  }
  States* branch = &states;
  for (; step < steps; ++step) {
    if (onlooker.before) onlooker.before(walk.rows_at(step, states));
    walk.advance(step, {&branch, 1}, onlooker.observer);
    if (onlooker.after) onlooker.after(step);
    walk.release(step);
    if (keeping.journal) keeping.journal->pass(keeping.walk, step + 1, steps, {{branch}}, keeping.more);
  }
  give_back_freed_memory();
  return states;
}

Matrix answers_of(Walk& walk, Journal* journal, const std::string& name) {
  if (journal)
    if (const Matrix* known = journal->find_matrix(name)) return copy_of(known->tensor());
  Matrix out = walk.answers(walk_through(walk, {.journal = journal, .walk = name}));
  if (journal) {
    journal->keep(name, out);
    journal->settle();
  }
  return out;
}

io::Json bits_of(std::span<const double> numbers) {
  io::Json out = io::Json::array();
  for (const double number : numbers) out.push_back(std::bit_cast<uint64_t>(number));
  return out;
}

std::vector<double> numbers_of(const io::Json& bits) {
  std::vector<double> out;
  for (const io::Json& number : bits) out.push_back(std::bit_cast<double>(number.get<uint64_t>()));
  return out;
}

}  // namespace nibble::measure
