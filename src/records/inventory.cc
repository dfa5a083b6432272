#include "records/inventory.h"

#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "base/text.h"
#include "records/fields.h"

namespace nibble::records {
namespace {

constexpr std::array<std::string_view, 2> kModalityNames = {"vision", "text"};
constexpr std::array<std::string_view, 3> kPartNames = {"vision", "projector", "text"};
constexpr std::array<std::string_view, 12> kRoleNames = {
    "qkv", "q", "k", "v", "attention_out", "gate", "up", "gate_up", "down", "fc1", "fc2", "projector"};

/// The largest total of tensor data: two of them can be added without overflow.
constexpr int64_t kLargestTotal = int64_t{1} << 61;

template <typename Enum, size_t N>
std::string_view name_of(Enum value, const std::array<std::string_view, N>& names) {
  const auto index = static_cast<size_t>(value);
  NIBBLE_CHECK(index < N, "enumerator {}", index);
  return names[index];
}

template <typename Enum, size_t N>
Enum parse_enum(const io::Fields& fields, std::string_view key,
                const std::array<std::string_view, N>& names) {
  const std::string text = fields.string(key);
  for (size_t i = 0; i < N; ++i)
    if (names[i] == text) return static_cast<Enum>(i);
  fail("{}: \"{}\" is \"{}\"; expected one of {}", fields.what(), key, printable(text),
       fmt::join(names, ", "));
}

int64_t total(const Inventory& inventory, int64_t LinearRecord::*bytes) {
  int64_t sum = inventory.other_bytes;
  for (const auto& linear : inventory.linears) {
    const auto next = checked_add(sum, linear.*bytes);
    NIBBLE_CHECK(next, "bytes of {}", linear.name);
    sum = *next;
  }
  return sum;
}

io::Json linear_to_json(const LinearRecord& linear) {
  io::Json json = io::Json::object();
  json["name"] = linear.name;
  json["group"] = linear.group;
  json["tap"] = linear.tap;
  json["part"] = std::string(part_name(linear.part));
  json["role"] = std::string(role_name(linear.role));
  json["depth"] = linear.depth;
  json["shape"] = {linear.out, linear.in};
  json["dtype"] = std::string(dtype_name(linear.dtype));
  json["bytes16"] = linear.bytes16;
  json["bytes4"] = linear.bytes4;
  if (!linear.fits8) json["fits8"] = false;
  return json;
}

void read_shape(const io::Fields& fields, LinearRecord& linear) {
  const io::Json& shape = fields.array("shape");
  const auto valid = [](const io::Json& dim) {
    return dim.is_number_integer() && dim >= 1 && dim <= int64_t{1} << 40;
  };
  if (shape.size() != 2 || !valid(shape[0]) || !valid(shape[1]))
    fail("{}: \"shape\" is not [outputs, inputs]: two positive integers", fields.what());
  linear.out = shape[0].get<int64_t>();
  linear.in = shape[1].get<int64_t>();
}

LinearRecord linear_from_json(const io::Fields& fields) {
  check_keys(fields, {"name", "group", "tap", "part", "role", "depth", "shape", "dtype", "bytes16", "bytes4",
                      "fits8"});
  LinearRecord linear;
  linear.name = non_empty(fields, "name");
  linear.group = non_empty(fields, "group");
  linear.tap = non_empty(fields, "tap");
  linear.part = parse_enum<Part>(fields, "part", kPartNames);
  linear.role = parse_enum<Role>(fields, "role", kRoleNames);
  linear.depth = count(fields, "depth");
  linear.fits8 = fields.boolean("fits8", true);
  read_shape(fields, linear);
  const std::string dtype = fields.string("dtype");
  const auto type = parse_dtype(dtype);
  if (!type || !is_float(*type))
    fail("{}: \"dtype\" is \"{}\"; expected a float type such as BF16", fields.what(), printable(dtype));
  linear.dtype = *type;
  linear.bytes16 = count(fields, "bytes16");
  const auto size = checked_product(std::array{linear.out, linear.in, dtype_size(linear.dtype)});
  if (!size || *size != linear.bytes16)
    fail("{}: \"bytes16\" is {}, but the shape [{}, {}] in {} takes {} bytes", fields.what(), linear.bytes16,
         linear.out, linear.in, dtype, size ? fmt::format("{}", *size) : "too many");
  linear.bytes4 = bytes4_field(fields, "bytes4", linear.bytes16);
  return linear;
}

}  // namespace

Modality modality_field(const io::Fields& fields, std::string_view key) {
  return parse_enum<Modality>(fields, key, kModalityNames);
}

std::string_view modality_name(Modality modality) {
  return name_of(modality, kModalityNames);
}

std::string_view part_name(Part part) {
  return name_of(part, kPartNames);
}

Role role_field(const io::Fields& fields, std::string_view key) {
  return parse_enum<Role>(fields, key, kRoleNames);
}

std::string_view role_name(Role role) {
  return name_of(role, kRoleNames);
}

int64_t Inventory::bytes_all4() const {
  return total(*this, &LinearRecord::bytes4);
}

int64_t Inventory::bytes_all8() const {
  return std::accumulate(linears.begin(), linears.end(), other_bytes,
                         [](int64_t sum, const LinearRecord& linear) { return sum + linear.bytes8(); });
}

int64_t Inventory::bytes_all16() const {
  return total(*this, &LinearRecord::bytes16);
}

io::Json to_json(const Inventory& inventory) {
  io::Json json = make_header("inventory", Inventory::kVersion);
  json["family"] = inventory.family;
  json["model"] = writable(inventory.model);
  if (!inventory.weights.empty()) json["weights"] = inventory.weights;
  json["parameters"] = inventory.parameters;
  json["other_bytes"] = inventory.other_bytes;
  json["linears"] = io::Json::array();
  for (const auto& linear : inventory.linears) json["linears"].push_back(linear_to_json(linear));
  return json;
}

Inventory inventory_from_json(const io::Json& json, const std::string& what) {
  const io::Fields fields(json, what);
  check_record(fields, "inventory", Inventory::kVersion,
               {"family", "model", "weights", "parameters", "other_bytes", "linears"});
  Inventory inventory;
  inventory.family = non_empty(fields, "family");
  inventory.model = fields.string("model");
  if (fields.has("weights")) inventory.weights = digest_field(fields, "weights");
  inventory.parameters = positive(fields, "parameters");
  inventory.other_bytes = count(fields, "other_bytes");
  if (inventory.other_bytes > kLargestTotal)
    fail("{}: \"other_bytes\" is {}: too many", what, inventory.other_bytes);
  std::set<std::string> names;
  int64_t sum16 = inventory.other_bytes, sum4 = inventory.other_bytes;
  for (const auto& item : fields.array("linears")) {
    const io::Fields element(item, fmt::format("{}: linears[{}]", what, inventory.linears.size()));
    LinearRecord linear = linear_from_json(element);
    if (!names.insert(linear.name).second)
      fail("{}: the name \"{}\" occurs twice", element.what(), printable(linear.name));
    sum16 = checked_add(sum16, linear.bytes16).value_or(kLargestTotal + 1);
    sum4 = checked_add(sum4, linear.bytes4).value_or(kLargestTotal + 1);
    if (sum16 > kLargestTotal || sum4 > kLargestTotal)
      fail("{}: the bytes up to here are too many", element.what());
    inventory.linears.push_back(std::move(linear));
  }
  return inventory;
}

}  // namespace nibble::records
