#include "records/rounding.h"

#include "base/error.h"
#include "base/text.h"
#include "records/fields.h"

namespace nibble::records {

io::Json to_json(const Rounding& rounding) {
  io::Json json = {{"kind", rounding.kind},
                   {"damping", by_modality(rounding.damping, "rounding")},
                   {"guard", rounding.guard},
                   {"mix", writable(rounding.mix, "rounding", "mix")}};
  if (rounding.widest > 0) json["widest"] = rounding.widest;
  if (rounding.in_order) json["in_order"] = true;
  return json;
}

std::string rounding_kind(const io::Fields& fields, std::string_view key) {
  std::string kind = fields.string(key);
  if (kind != "plain" && kind != "search" && kind != "feedback")
    fail("{}: \"{}\" is \"{}\"; \"plain\", \"search\" and \"feedback\" are known", fields.what(), key,
         printable(kind));
  return kind;
}

Rounding rounding_field(const io::Fields& fields, std::string_view key) {
  const io::Fields object = fields.object(key);
  check_keys(object, {"kind", "damping", "guard", "in_order", "mix", "widest"});
  Rounding out{.kind = rounding_kind(object, "kind"),
               .damping = by_modality_field(object, "damping"),
               .guard = count(object, "guard"),
               .mix = share(object, "mix"),
               .widest = object.has("widest") ? count(object, "widest") : 0,
               .in_order = object.boolean("in_order", false)};
  for (const double damping : out.damping)
    if (!(damping >= 0 && damping <= kMostDamping))
      fail("{}: \"damping\" has {:g}, which is not from 0 to {:g}", object.what(), damping, kMostDamping);
  if (out.in_order && out.kind != "feedback")
    fail("{}: \"in_order\" is true, which goes with \"feedback\" alone", object.what());
  return out;
}

}  // namespace nibble::records
