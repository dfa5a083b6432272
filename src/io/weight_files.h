// Which files of a checkpoint folder hold weights, and what its index says about them.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace nibble::io {

inline constexpr const char* kIndexFile = "model.safetensors.index.json";
inline constexpr const char* kSingleFile = "model.safetensors";

/// The names of the entries of a folder that are no folders themselves, sorted; broken links are among them.
/// Throws Error when the folder cannot be read.
std::vector<std::string> file_names(const std::filesystem::path& folder);

/// True for the weights of any framework and their indexes: *.safetensors, *.bin, *.gguf, *.index.json, ...
bool is_weight_file(const std::string& name);

/// The "weight_map" of an index: tensor -> file. Every file is a *.safetensors of the index's own folder; a
/// tensor that is named twice, an empty map and paths that lead elsewhere are refused. Throws Error.
std::map<std::string, std::string> read_index(const std::filesystem::path& path);

/// How many files "model-00002-of-00005.safetensors" says that there are; 0 for other names.
int shard_count(const std::string& name);

}  // namespace nibble::io
