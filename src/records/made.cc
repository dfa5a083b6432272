#include "records/made.h"

#include "base/error.h"
#include "base/sha256.h"
#include "base/text.h"
#include "records/fields.h"

namespace nibble::records {
namespace {

constexpr const char* kDigest = "digest";

std::map<std::string, std::string> digests_field(const io::Fields& fields, const std::string& key) {
  std::map<std::string, std::string> out;
  for (const auto& [name, digest] : fields.object(key).json().items()) {
    if (!digest.is_string())
      fail("{}: {}: the entry of {} is no string", fields.what(), key, printable(name));
    out[name] = digest.get<std::string>();
  }
  return out;
}

/// The digests of files of the checkpoint's own folder.
std::map<std::string, std::string> files_field(const io::Fields& fields) {
  auto out = digests_field(fields, "files");
  for (const auto& [name, digest] : out)
    if (name.empty() || name.starts_with('.') || name.find('/') != std::string::npos)
      fail("{}: files: \"{}\" is no file of this folder", fields.what(), printable(name));
  return out;
}

}  // namespace

io::Json to_json(const Made& made) {
  io::Json json = {{"nibble", made.version},
                   {"command", writable(made.command)},
                   {"tensor_bytes", made.tensor_bytes},
                   {"plan", to_json(made.plan)},
                   {"weight_errors", made.weight_errors},
                   {"sha256", made.sha256}};
  if (made.files) json["files"] = *made.files;
  json[kDigest] = sha256(io::dump_json(json));
  return json;
}

bool is_whole(const io::Json& made) {
  if (!made.contains(kDigest)) return true;
  io::Json bare = made;
  bare.erase(kDigest);
  return made[kDigest] == sha256(io::dump_json(bare));
}

Made made_from_json(const io::Json& json, const std::string& what) {
  const io::Fields fields(json, what);
  check_keys(fields,
             {"nibble", "command", "tensor_bytes", "plan", "weight_errors", "sha256", "files", kDigest});
  Made out{.version = fields.string("nibble"),
           .command = fields.string("command"),
           .tensor_bytes = count(fields, "tensor_bytes"),
           .plan = plan_from_json(fields.object("plan").json(), what + ": plan")};
  for (const auto& [name, error] : fields.object("weight_errors").json().items()) {
    if (!error.is_number()) fail("{}: weight_errors: the entry of {} is no number", what, printable(name));
    out.weight_errors[name] = error.get<double>();
  }
  out.sha256 = digests_field(fields, "sha256");
  if (fields.has("files")) out.files = files_field(fields);
  return out;
}

Plan read_any_plan(const std::filesystem::path& path) {
  const io::Json json = io::read_json(path, io::DuplicateKeys::refuse);
  if (json.is_object() && json.contains("plan")) return made_from_json(json, path.string()).plan;
  return plan_from_json(json, path.string());
}

}  // namespace nibble::records
