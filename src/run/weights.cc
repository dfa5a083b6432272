#include "run/weights.h"

namespace nibble::run {

const kernels::Weight& Weights::linear(const model::Linear& linear) {
  if (const auto it = replaced_.find(linear.name); it != replaced_.end()) return it->second;
  kernels::Weight& weight = linears_[linear.name];
  if (!weight) {
    const model::Storage storage = binding_.linear(linear).storage;
    if (storage == model::Storage::nf4 || storage == model::Storage::fp4) {
      weight = kernels::Weight::pack(binding_.packed(linear), compute_);
    } else {
      Tensor buffer;
      weight = kernels::Weight::pack(binding_.weight(linear, buffer), compute_);
    }
    binding_.drop(linear);
  }
  return weight;
}

const kernels::Int8Weight* Weights::linear8(const model::Linear& linear) {
  if (binding_.linear(linear).storage != model::Storage::int8 || replaced_.contains(linear.name))
    return nullptr;
  kernels::Int8Weight& weight = linears8_[linear.name];
  if (!weight) {
    weight = kernels::Int8Weight::pack(binding_.packed8(linear));
    binding_.drop(linear);
  }
  return &weight;
}

const kernels::Weight& Weights::matrix(const std::string& module) {
  kernels::Weight& weight = matrices_[module];
  if (!weight) {
    TensorView view = binding_.tensor(module + ".weight");
    view.shape = {view.shape[0], view.count() / view.shape[0]};
    weight = kernels::Weight::pack(view, compute_,
                                   [&](const TensorView& rows) { binding_.checkpoint().drop(rows); });
  }
  return weight;
}

std::span<const float> Weights::vector(const std::string& tensor) {
  const auto [it, fresh] = vectors_.try_emplace(tensor);
  if (fresh) it->second = to_float(binding_.tensor(tensor));
  return it->second;
}

void Weights::replace(const std::string& linear, kernels::Weight weight) {
  if (weight)
    replaced_[linear] = std::move(weight);
  else
    replaced_.erase(linear);
}

void Weights::release(const model::Linear& linear) {
  linears_.erase(linear.name);
  linears8_.erase(linear.name);
}

}  // namespace nibble::run
