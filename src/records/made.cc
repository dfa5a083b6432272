#include "records/made.h"

#include "records/fields.h"

namespace nibble::records {

io::Json to_json(const Made& made) {
  return {{"nibble", made.version},
          {"command", writable(made.command)},
          {"tensor_bytes", made.tensor_bytes},
          {"plan", to_json(made.plan)}};
}

Made made_from_json(const io::Json& json, const std::string& what) {
  const io::Fields fields(json, what);
  check_keys(fields, {"nibble", "command", "tensor_bytes", "plan"});
  return {.version = fields.string("nibble"),
          .command = fields.string("command"),
          .tensor_bytes = count(fields, "tensor_bytes"),
          .plan = plan_from_json(fields.object("plan").json(), what + ": plan")};
}

}  // namespace nibble::records
