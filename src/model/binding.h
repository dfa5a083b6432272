// Where the tensors of a model lie in a checkpoint, checked once.
#pragma once

#include <map>
#include <string>

#include "io/checkpoint.h"
#include "model/family.h"
#include "model/sizes.h"
#include "model/spec.h"
#include "quant/int8.h"
#include "quant/state.h"

namespace nibble::model {

/// How a linear's weight is stored.
enum class Storage { plain, nf4, fp4, int8 };

struct BoundLinear {
  std::string stored;  // name in the files, without ".weight"
  Storage storage = Storage::plain;
  DType dtype = DType::bf16;  // of the weight, once decoded
  int64_t bytes = 0;          // tensor data of the weight with its side tensors
};

/// "bf16", "f16", "f32" for plain weights, "nf4", "fp4", "int8" for others.
std::string storage_text(const BoundLinear& linear);

/// A checkpoint opened as a model of a known family. Immutable and thread-safe after construction.
class Binding {
 public:
  /// Reads config.json and generation_config.json, finds the family, and checks that every tensor is there
  /// under the published name or that of the module tree, with its shape, a float dtype or a readable 4-bit
  /// layout. Throws Error naming file and tensor.
  explicit Binding(const std::filesystem::path& folder);

  const io::Checkpoint& checkpoint() const { return checkpoint_; }
  const Family& family() const { return *family_; }
  const Spec& spec() const { return spec_; }

  /// A tensor that is no quantized weight, by its published name.
  TensorView tensor(const std::string& published) const;
  /// The name under which the files hold a published name.
  const std::string& stored(const std::string& published) const;
  /// Where a linear lies.
  const BoundLinear& linear(const Linear& linear) const;
  /// A 4-bit linear, as stored.
  quant::Packed4 packed(const Linear& linear) const;
  /// An 8-bit linear, as stored.
  quant::Packed8 packed8(const Linear& linear) const;
  /// The weight as the readers compute with it: a view of the file for a plain one, else decoded into
  /// `buffer`.
  TensorView weight(const Linear& linear, Tensor& buffer) const;
  /// Gives back the memory of a linear's tensors that were read from the files; reading them again is
  /// allowed.
  void drop(const Linear& linear) const;
  /// Throws Error naming file, tensor, element and byte offset when a tensor of the files holds NaN or
  /// infinity.
  void check_finite(const std::string& stored) const;
  /// Throws that Error for element `at`.
  [[noreturn]] void refuse_nonfinite(const std::string& stored, int64_t at) const;
  /// True when any linear is stored in 4 or 8 bits.
  bool quantized() const;
  /// Bytes of all tensor data in the files.
  int64_t tensor_bytes() const;

  /// The tensors of the files that are no part of the model as config.json describes it, by name.
  std::vector<std::string> unused_tensors() const;
  /// SHA-256 over the names, dtypes and shapes of all tensors and the first and last bytes (4 KiB) of each:
  /// tells models of one shape apart without reading all of them.
  std::string fingerprint() const;
  /// The linears with their sizes. bytes4 is exact but for the digits of one number in each quant_state (a
  /// few bytes); measuring makes it exact. `model` is the name that the user gave.
  records::Inventory inventory(const std::string& model) const;

 private:
  void bind_linear(const Linear& linear, const Shape& shape);
  Shape bind_packed(const Linear& linear, const std::string& weight, BoundLinear& bound);
  std::string find(const std::string& published) const;

  io::Checkpoint checkpoint_;
  const Family* family_;
  Spec spec_;
  std::map<std::string, std::string> stored_;
  std::map<std::string, BoundLinear> linears_;
};

}  // namespace nibble::model
