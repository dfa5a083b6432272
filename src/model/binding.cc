#include "model/binding.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "base/error.h"
#include "base/sha256.h"
#include "model/config.h"

namespace nibble::model {
namespace {

/// The float types that models are stored and computed in.
bool readable(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

const io::Fields config_fields(const io::Checkpoint& checkpoint) {
  return io::Fields(checkpoint.config(), checkpoint.config_path());
}

constexpr std::array<std::pair<std::string_view, Storage>, 2> kStateKeys = {{
    {".quant_state.bitsandbytes__nf4", Storage::nf4},
    {".quant_state.bitsandbytes__fp4", Storage::fp4},
}};

}  // namespace

std::string storage_text(const BoundLinear& linear) {
  switch (linear.storage) {
    case Storage::nf4:
      return "nf4";
    case Storage::fp4:
      return "fp4";
    case Storage::int8:
      return "int8";
    case Storage::plain:
      break;
  }
  std::string name(dtype_name(linear.dtype));
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  return name;
}

Binding::Binding(const std::filesystem::path& folder)
    : checkpoint_(folder),
      family_(&find_family(config_fields(checkpoint_))),
      spec_(describe(*family_, config_fields(checkpoint_))) {
  if (const auto generation = checkpoint_.json("generation_config.json")) {
    const auto end = end_tokens(io::Fields(*generation, (folder / "generation_config.json").string()));
    if (!end.empty()) spec_.tokens.end = end;
  }
  for (const TensorSpec& tensor : tensor_table(spec_)) {
    stored_[tensor.name] = find(tensor.name);
    if (tensor.linear) {
      bind_linear(*tensor.linear, tensor.shape);
      continue;
    }
    const TensorView view = this->tensor(tensor.name);
    const std::string& file = checkpoint_.file_of(stored_[tensor.name]).string();
    if (!readable(view.dtype))
      fail("{}: tensor {} is {}, not a float type; is this a quantized layout that nibble does not read?",
           file, stored_[tensor.name], dtype_name(view.dtype));
    if (view.shape != tensor.shape)
      fail("{}: tensor {} has shape {}, but config.json asks for {}", file, stored_[tensor.name],
           shape_text(view.shape), shape_text(tensor.shape));
  }
}

std::string Binding::find(const std::string& published) const {
  if (checkpoint_.has(published)) return published;
  const std::string in_tree = respell(published, family_->module_tree);
  if (checkpoint_.has(in_tree)) return in_tree;
  fail(
      "{}: tensor {} is missing; the files do not belong to this config.json, or the download is not "
      "complete",
      checkpoint_.folder().string(), published);
}

void Binding::bind_linear(const Linear& linear, const Shape& shape) {
  const std::string weight = stored_.at(linear.name + ".weight");
  const TensorView view = checkpoint_.tensor(weight);
  BoundLinear bound{.stored = weight.substr(0, weight.size() - 7),
                    .storage = Storage::plain,
                    .dtype = view.dtype,
                    .bytes = view.bytes()};
  for (const auto& [key, storage] : kStateKeys)
    if (checkpoint_.has(weight + std::string(key))) bound.storage = storage;
  if (checkpoint_.has(bound.stored + ".SCB")) bound.storage = Storage::int8;
  const std::string file = checkpoint_.file_of(weight).string();
  if (bound.storage == Storage::plain && !readable(view.dtype))
    fail(
        "{}: tensor {} is {} without a quant_state; nibble reads bitsandbytes NF4, FP4 and LLM.int8, and 16- "
        "or "
        "32-bit floats",
        file, weight, dtype_name(view.dtype));
  const Shape found = bound.storage == Storage::plain ? view.shape : bind_packed(linear, weight, bound);
  if (found != shape)
    fail("{}: tensor {} has shape {}, but config.json asks for {}", file, weight, shape_text(found),
         shape_text(shape));
  linears_[linear.name] = bound;
}

/// Reads a quantized linear for its shape and dtype; its bytes are those of all its tensors.
Shape Binding::bind_packed(const Linear& linear, const std::string& weight, BoundLinear& bound) {
  linears_[linear.name] = bound;
  const auto add = [&](const std::string& name) {
    const auto it = checkpoint_.tensors().find(name);
    if (it != checkpoint_.tensors().end()) bound.bytes += it->second.end - it->second.begin;
  };
  bound.bytes = 0;
  if (bound.storage == Storage::int8) {
    const quant::Packed8 packed = packed8(linear);
    drop(linear);
    bound.dtype = packed.dtype;
    for (const char* suffix : {".weight", ".SCB", ".weight_format"}) add(bound.stored + suffix);
    return packed.shape;
  }
  const quant::Packed4 packed = this->packed(linear);
  drop(linear);
  bound.dtype = packed.dtype;
  for (auto it = checkpoint_.tensors().lower_bound(weight); it != checkpoint_.tensors().end(); ++it) {
    if (it->first != weight && !it->first.starts_with(weight + ".")) break;
    bound.bytes += it->second.end - it->second.begin;
  }
  return packed.shape;
}

TensorView Binding::tensor(const std::string& published) const {
  return checkpoint_.tensor(stored(published));
}

const std::string& Binding::stored(const std::string& published) const {
  const auto it = stored_.find(published);
  NIBBLE_CHECK(it != stored_.end(), "tensor {}", published);
  return it->second;
}

const BoundLinear& Binding::linear(const Linear& linear) const {
  const auto it = linears_.find(linear.name);
  NIBBLE_CHECK(it != linears_.end(), "linear {}", linear.name);
  return it->second;
}

quant::Packed4 Binding::packed(const Linear& linear) const {
  const std::string weight = this->linear(linear).stored + ".weight";
  const auto lookup = [&](const std::string& suffix) -> std::optional<TensorView> {
    if (!checkpoint_.has(weight + suffix)) return std::nullopt;
    return checkpoint_.tensor(weight + suffix);
  };
  return quant::from_tensors(lookup,
                             fmt::format("{}: tensor {}", checkpoint_.file_of(weight).string(), weight));
}

quant::Packed8 Binding::packed8(const Linear& linear) const {
  const std::string& stored = this->linear(linear).stored;
  const auto lookup = [&](const std::string& suffix) -> std::optional<TensorView> {
    if (!checkpoint_.has(stored + suffix)) return std::nullopt;
    return checkpoint_.tensor(stored + suffix);
  };
  return quant::from_tensors8(
      lookup, fmt::format("{}: linear {}", checkpoint_.file_of(stored + ".weight").string(), stored));
}

TensorView Binding::weight(const Linear& linear, Tensor& buffer) const {
  const BoundLinear& bound = this->linear(linear);
  if (bound.storage == Storage::plain) return checkpoint_.tensor(bound.stored + ".weight");
  buffer = bound.storage == Storage::int8 ? quant::decode8(packed8(linear)) : quant::decode4(packed(linear));
  return buffer.view();
}

void Binding::drop(const Linear& linear) const {
  const std::string& stored = this->linear(linear).stored;
  const auto& tensors = checkpoint_.tensors();
  for (auto it = tensors.lower_bound(stored + ".");
       it != tensors.end() && it->first.starts_with(stored + "."); ++it)
    checkpoint_.drop(checkpoint_.tensor(it->first));
}

void Binding::check_finite(const std::string& stored) const {
  const TensorView view = checkpoint_.tensor(stored);
  if (!is_float(view.dtype)) return;
  if (const auto at = quant::find_nonfinite(view)) refuse_nonfinite(stored, *at);
}

void Binding::refuse_nonfinite(const std::string& stored, int64_t at) const {
  const io::TensorInfo& info = checkpoint_.tensors().at(stored);
  fail(
      "{}: tensor {} holds NaN or infinity at element {} (byte {}); repair the checkpoint, or say "
      "--allow-nonfinite",
      checkpoint_.file_of(stored).string(), stored, at, info.begin + at * dtype_size(info.dtype));
}

bool Binding::quantized() const {
  for (const auto& [name, bound] : linears_)
    if (bound.storage != Storage::plain) return true;
  return false;
}

int64_t Binding::tensor_bytes() const {
  int64_t sum = 0;
  for (const auto& [name, info] : checkpoint_.tensors()) sum += info.end - info.begin;
  return sum;
}

std::vector<std::string> Binding::unused_tensors() const {
  std::set<std::string> used;
  for (const auto& [published, stored] : stored_) used.insert(stored);
  std::set<std::string> parents;  // of the tensors of linears: the weight, its side tensors
  for (const auto& [name, bound] : linears_) parents.insert(bound.stored);
  std::vector<std::string> out;
  for (const auto& [name, info] : checkpoint_.tensors()) {
    if (used.contains(name)) continue;
    bool of_linear = false;
    for (size_t dot = name.find('.'); dot != std::string::npos && !of_linear; dot = name.find('.', dot + 1))
      of_linear = parents.contains(name.substr(0, dot));
    if (!of_linear) out.push_back(name);
  }
  return out;
}

std::string Binding::fingerprint() const {
  constexpr int64_t kEnds = 4096;
  Sha256 digest;
  std::vector<std::byte> buffer;
  for (const auto& [name, info] : checkpoint_.tensors()) {
    const std::string header =
        fmt::format("{} {} {};", name, dtype_name(info.dtype), fmt::join(info.shape, "x"));
    digest.update(std::as_bytes(std::span(header)));
    // Read and not mapped: a file that shrank meanwhile is an Error.
    const io::TensorBytes bytes = checkpoint_.bytes(name);
    buffer.resize(static_cast<size_t>(std::min(kEnds, bytes.size())));
    for (const int64_t at : {int64_t{0}, bytes.size() - std::ssize(buffer)}) {
      bytes.read(at, buffer);
      digest.update(buffer);
    }
  }
  return digest.hex();
}

records::Inventory Binding::inventory(const std::string& model) const {
  records::Inventory out = inventory_of(spec_, DType::bf16, model);
  out.other_bytes = tensor_bytes();
  size_t i = 0;
  for (const Linear* l : linears(spec_)) {
    const BoundLinear& bound = linear(*l);
    out.other_bytes -= bound.bytes;
    set_dtype(out.linears[i++], bound.dtype);
  }
  return out;
}

}  // namespace nibble::model
