#include "records/made.h"

#include "base/error.h"
#include "base/text.h"
#include "records/fields.h"

namespace nibble::records {

io::Json to_json(const Made& made) {
  return {{"nibble", made.version},
          {"command", writable(made.command)},
          {"tensor_bytes", made.tensor_bytes},
          {"plan", to_json(made.plan)},
          {"weight_errors", made.weight_errors},
          {"sha256", made.sha256}};
}

Made made_from_json(const io::Json& json, const std::string& what) {
  const io::Fields fields(json, what);
  check_keys(fields, {"nibble", "command", "tensor_bytes", "plan", "weight_errors", "sha256"});
  Made out{.version = fields.string("nibble"),
           .command = fields.string("command"),
           .tensor_bytes = count(fields, "tensor_bytes"),
           .plan = plan_from_json(fields.object("plan").json(), what + ": plan")};
  for (const auto& [name, error] : fields.object("weight_errors").json().items()) {
    if (!error.is_number()) fail("{}: weight_errors: the entry of {} is no number", what, printable(name));
    out.weight_errors[name] = error.get<double>();
  }
  for (const auto& [name, digest] : fields.object("sha256").json().items()) {
    if (!digest.is_string()) fail("{}: sha256: the entry of {} is no string", what, printable(name));
    out.sha256[name] = digest.get<std::string>();
  }
  return out;
}

Plan read_any_plan(const std::filesystem::path& path) {
  const io::Json json = io::read_json(path, io::DuplicateKeys::refuse);
  if (json.is_object() && json.contains("plan")) return made_from_json(json, path.string()).plan;
  return plan_from_json(json, path.string());
}

}  // namespace nibble::records
