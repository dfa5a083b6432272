// How far a run over a model has come, so that after an interruption the same command goes on from there.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "io/job_key.h"
#include "measure/rounded_store.h"
#include "measure/walk.h"

namespace nibble::measure {

/// Kept in the folder `target` + ".progress": finished results by name, the place in the walk that is being
/// made, and the rounded linears so far. All but these lie in one file that is replaced as a whole, no more
/// often than asked for and so that saving takes a twentieth of the time at most. Not thread-safe.
class Journal {
 public:
  struct Options {
    double seconds = 20;                                // the least between two saves
    std::function<void(const std::string&)> tell = {};  // hears in a sentence what is gone on with
  };

  /// Takes over what an interrupted run with an equal key left; removes it, and says so, where the key is
  /// another or a checksum shows that a file was damaged. Throws Error where another run works on the same
  /// target.
  Journal(const std::filesystem::path& target, io::JobKey key, Options options);

  /// True where an interrupted run's work is gone on with.
  bool resumed() const { return resumed_; }
  /// A finished result, or null.
  const io::Json* find(const std::string& name) const;
  const Matrix* find_matrix(const std::string& name) const;
  /// Keeps a result.
  void keep(const std::string& name, io::Json result);
  void keep(const std::string& name, const Matrix& result);
  /// Between walks: saves results that came, when that is due, or at once.
  void settle();
  void save();

  /// The place in a walk: before step `step`, with the states of its branches and what its maker adds.
  struct Place {
    std::string walk;
    size_t step = 0;
    std::vector<States> states;
    io::Json more;
  };
  /// Where the walk of this name was interrupted, or nothing. Names are unique for what is walked, and what
  /// stands before "#" in them is for people.
  std::optional<Place> take(const std::string& walk);
  /// Says that a walk of `steps` steps came to `step`; saves when that is due.
  void pass(const std::string& walk, size_t step, size_t steps, std::span<const States* const> states,
            const std::function<io::Json()>& more = {});

  /// The folder goes: the work is done.
  void finish();

  /// For rounded linears; those of the interrupted run are there up to its last save.
  RoundedStore& store() { return *store_; }

 private:
  std::string load();
  void forget();
  bool due() const;
  void save(const Place& place, size_t steps, std::span<const States* const> states);
  void try_to_save(const Place& place, size_t steps, std::span<const States* const> states);

  io::WorkFolder folder_;
  io::JobKey key_;
  Options options_;
  std::map<std::string, io::Json> results_;
  std::map<std::string, Matrix> matrices_;
  std::optional<Place> place_;
  std::unique_ptr<RoundedStore> store_;
  std::chrono::steady_clock::time_point saved_;
  double cost_ = 0;    // seconds that the last save took
  bool new_ = false;   // a result came since
  bool said_ = false;  // where things are kept
  bool resumed_ = false;
  bool failed_ = false;  // saving did: there is no more of it
};

/// How one walk is kept: `more` gives what the caller found so far, `restore` gets it back. Without a journal
/// nothing is.
struct Keeping {
  Journal* journal = nullptr;
  std::string walk = {};
  std::function<io::Json()> more = {};
  std::function<void(const io::Json&)> restore = {};
};

/// Who looks on: the observer during each step; `before` hears how many rows it will change, `after` which it
/// was, when its weights are still there. Any may be empty.
struct Onlooker {
  run::Observer* observer = nullptr;
  std::function<void(int64_t rows)> before = {};
  std::function<void(size_t)> after = {};
};

/// Takes one branch through all steps of a walk, from where the journal says that it was interrupted. Returns
/// the states at the end.
States walk_through(Walk& walk, const Keeping& keeping, const Onlooker& onlooker = {});

/// What Walk::answers() gives of the walk's end. It is a result by this name.
Matrix answers_of(Walk& walk, Journal* journal, const std::string& name);

/// Numbers as JSON that gives the same bits back, whatever they are.
io::Json bits_of(std::span<const double> numbers);
std::vector<double> numbers_of(const io::Json& bits);

}  // namespace nibble::measure
