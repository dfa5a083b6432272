// The weights of a bound model, laid out for products when they are first asked for.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "model/binding.h"

namespace nibble::run {

/// Loads at first use and keeps until released; the file's bytes of a loaded weight leave the memory. Not
/// thread-safe: one thread drives a forward pass. The binding must outlive it.
class Weights {
 public:
  Weights(const model::Binding& binding, kernels::Compute compute) : binding_(binding), compute_(compute) {}

  const model::Binding& binding() const { return binding_; }
  kernels::Compute compute() const { return compute_; }

  /// The weight of a linear that can be quantized (its codes if it is stored in 4 bits), or what replace()
  /// gave.
  const kernels::Weight& linear(const model::Linear& linear);
  /// The weight of a linear that is stored in 8 bits and not replaced, or null.
  const kernels::Int8Weight* linear8(const model::Linear& linear);
  /// Any other matrix or convolution as a (rows, rest) weight, by the name of its module.
  const kernels::Weight& matrix(const std::string& module);
  /// A vector (norm weight, bias) as fp32 by its full tensor name.
  std::span<const float> vector(const std::string& tensor);

  /// Uses another weight for a linear from now on; an empty weight goes back to the file's.
  void replace(const std::string& linear, kernels::Weight weight);
  /// Forgets the loaded weight of a linear; a replacement stays.
  void release(const model::Linear& linear);

 private:
  const model::Binding& binding_;
  kernels::Compute compute_;
  std::map<std::string, kernels::Weight> linears_, replaced_, matrices_;
  std::map<std::string, kernels::Int8Weight> linears8_;
  std::map<std::string, std::vector<float>> vectors_;
};

}  // namespace nibble::run
