// How far an interrupted run has come: the shards that are complete in its partial folder, and what they were
// made of.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "io/job_key.h"
#include "model/binding.h"
#include "records/plan.h"
#include "write/stream.h"

namespace nibble::write {

/// A shard that is complete.
struct FinishedShard {
  size_t items = 0;  // that it holds
  io::FileStamp stamp;
  Written written;
};

/// What the shards depend on but for codes that are not plain: those are compared by their digests.
io::JobKey job_key(const model::Binding& source, const records::Plan& plan, const std::string& version,
                   int64_t max_shard_bytes, bool allow_nonfinite);

/// What state() of the folder says.
struct JobState {
  io::JobKey key;
  std::vector<FinishedShard> shards;
};

std::string state_text(const JobState& state);
/// Nothing when the text is no state that this version wrote.
std::optional<JobState> parse_state(const std::string& text);

/// The name of shard i until all are complete and their number is known.
std::string unnumbered_shard(size_t i);

/// Takes over an interrupted run's shards as far as they are what its state says; `told` hears in a sentence
/// why they are not, or how many there are. Everything else is removed from the folder. A shard of which
/// another run had given all their final names gets its first name back. `codes_digest` gives the digest of a
/// linear's codes where they are not plain.
std::vector<FinishedShard> take_over(io::OutputFolder& folder, const io::JobKey& key,
                                     const std::vector<Item>& items,
                                     const std::function<std::string(const Item&)>& codes_digest,
                                     const std::function<void(const std::string&)>& told);

}  // namespace nibble::write
